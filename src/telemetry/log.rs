//! Log lines on stdout: which events of the `tracing` macros become one, and the layer that makes it. What a line looks
//! like is in `log/format.rs`, how a hostile value is made harmless in `log/fields.rs`, how lines leave without anybody
//! waiting for it in `log/writer.rs`.
//!
//! Spans of the `tracing` crate are not looked at: what a line should say is among its own fields.

mod fields;
mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use self::format::Buffers;
use self::writer::Writer;
use crate::config::{LogFormat, LogLevel};
use crate::metrics::Metrics;

/// The crate whose events are logged at `LOG_LEVEL`; others are noise below a warning.
const OWN_TARGET: &str = "reservation_worker";
/// Characters kept of a panic's message: it may quote a value.
const PANIC_CHARS_MAX: usize = 256;

/// How long a panic waits for its line to be written.
const PANIC_FLUSH_MAX: Duration = Duration::from_millis(100);

/// What logging needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least level of our own events.
    pub level: LogLevel,
    /// What a line looks like.
    pub format: LogFormat,
    /// Colours in [`LogFormat::Pretty`].
    pub color: bool,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It was set up before.
    #[error("logging is set up already")]
    AlreadySetUp,
    /// Standard output cannot be had.
    #[error("standard output cannot be used: {0}")]
    Stdout(#[from] io::Error),
}

/// This process's lines, once [`init_logging`] was called.
static STDOUT: OnceLock<Writer> = OnceLock::new();

/// Sends this process's events to stdout, from now to [`flush_logs`]. Lines that it does not take are counted in
/// `metrics`.
///
/// # Errors
/// When it was called before, or stdout cannot be had.
///
/// # Panics
/// When no thread can be had.
pub fn init_logging(settings: LogSettings, metrics: Arc<Metrics>) -> Result<(), LogError> {
    // Not `io::stdout()`: its buffer would hold what a broken pipe did not take.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let writer = Writer::start(stdout, metrics);
    STDOUT.set(writer.clone()).map_err(|_| LogError::AlreadySetUp)?;
    let sink = move |line: &str| writer.put(line);
    tracing::subscriber::set_global_default(subscriber(settings, sink))
        .map_err(|_| LogError::AlreadySetUp)
}

/// Waits until all lines so far are written, for `patience` at most. To be called before the process ends.
pub fn flush_logs(patience: Duration) {
    if let Some(writer) = STDOUT.get() {
        writer.flush(patience);
    }
}

/// Logs a panic as one line at error, in place of Rust's text on stderr.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or("not a text");
    let error: String = said.chars().take(PANIC_CHARS_MAX).collect();
    match panic.location() {
        Some(location) => tracing::error!(error, location = %location, "Panic"),
        None => tracing::error!(error, "Panic"),
    }
    // A panic may be the process's last word.
    flush_logs(PANIC_FLUSH_MAX);
}

/// The whole pipeline, with a sink that gets one whole line, newline included, at a time.
pub(super) fn subscriber(
    settings: LogSettings,
    sink: impl Fn(&str) + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let level = settings.level.filter();
    let filter =
        Targets::new().with_target(OWN_TARGET, level).with_default(level.min(LevelFilter::WARN));
    tracing_subscriber::registry().with(filter).with(Lines { settings, sink })
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

/// Makes each event a line.
struct Lines<S> {
    settings: LogSettings,
    sink: S,
}

thread_local! {
    /// Each thread writes its lines into the same memory.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl<C: Subscriber, S: Fn(&str) + 'static> Layer<C> for Lines<S> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, C>) {
        let at = SystemTime::now();
        let write = |buffers: &mut Buffers| (self.sink)(self.line(event, at, buffers));
        BUFFERS.with(|shared| match shared.try_borrow_mut() {
            Ok(mut buffers) => write(&mut buffers),
            // A value that logs while it is being logged.
            Err(_) => write(&mut Buffers::default()),
        });
    }
}

impl<S> Lines<S> {
    fn line<'b>(&self, event: &Event<'_>, at: SystemTime, buffers: &'b mut Buffers) -> &'b str {
        let shown_target = *event.metadata().level() >= Level::DEBUG;
        buffers.collect(event, shown_target);
        match self.settings.format {
            LogFormat::Json => buffers.json(*event.metadata().level(), at),
            LogFormat::Pretty => buffers.pretty(*event.metadata().level(), at, self.settings.color),
        }
    }
}
