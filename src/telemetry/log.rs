//! Log lines on stdout: the filter for `tracing` events, and the layer that formats them.
//!
//! `log/format.rs` formats a line, `log/fields.rs` escapes values, and `log/writer.rs` writes lines
//! without blocking the caller. Spans of the `tracing` crate are ignored: a line contains only the
//! fields of its own event.

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
use tracing_subscriber::{Registry, reload};

use self::format::Buffers;
use self::writer::Writer;
use crate::config::{LogFormat, LogLevel};
use crate::metrics::Metrics;

/// The crate whose events are logged at `LOG_LEVEL`. Other crates are logged from `warn` up.
const OWN_TARGET: &str = "reservation_worker";
/// The target of warnings that are logged at every level: what operators change while the worker
/// runs. Who lets it log errors only must still see that a pause has ended.
pub const CHANGES_TARGET: &str = "operator_changes";
/// Maximum length of a panic message in characters: it may contain a value.
const PANIC_CHARS_MAX: usize = 256;

/// Timeout for writing the log line of a panic.
const PANIC_FLUSH_MAX: Duration = Duration::from_millis(100);

/// Settings of the log output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Minimum level of this crate's events.
    pub level: LogLevel,
    /// Line format.
    pub format: LogFormat,
    /// Whether [`LogFormat::Pretty`] uses colours.
    pub color: bool,
}

/// Error of [`init_logging`].
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Logging is already set up.
    #[error("logging is set up already")]
    AlreadySetUp,
    /// Standard output is not available.
    #[error("standard output cannot be used: {0}")]
    Stdout(#[from] io::Error),
}

/// The filter of this process's lines, set by [`init_logging`].
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// The writer of this process, set by [`init_logging`].
static STDOUT: OnceLock<Writer> = OnceLock::new();

/// Sends this process's `tracing` events to stdout. Lines that cannot be written are counted in
/// `metrics`.
///
/// # Errors
/// If it was called before, or stdout is not available.
///
/// # Panics
/// If the writer thread cannot be started.
pub fn init_logging(settings: LogSettings, metrics: Arc<Metrics>) -> Result<(), LogError> {
    // Not `io::stdout()`: its buffer would keep the bytes that a broken pipe rejected.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let writer = Writer::start(stdout, metrics);
    STDOUT.set(writer.clone()).map_err(|_| LogError::AlreadySetUp)?;
    let sink = move |line: &str| writer.put(line);
    let (subscriber, filter) = subscriber(settings, sink);
    FILTER.set(filter).map_err(|_| LogError::AlreadySetUp)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySetUp)
}

/// Sets the least severe log lines of this process. A line that is not written costs nothing:
/// `tracing` asks each place once, and again only after a change.
pub fn set_log_level(level: LogLevel) {
    if let Some(Err(error)) = FILTER.get().map(|filter| filter.reload(targets(level))) {
        tracing::error!(error = %error, "The log level cannot be changed");
    }
}

/// Waits until all lines so far are written or dropped, for at most `limit`. Call it before
/// the process exits.
pub fn flush_logs(limit: Duration) {
    if let Some(writer) = STDOUT.get() {
        writer.flush(limit);
    }
}

/// Installs a hook that logs a panic as one `error` line, instead of Rust's output on stderr.
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
    // The process may abort after this hook.
    flush_logs(PANIC_FLUSH_MAX);
}

/// Builds the subscriber. `sink` receives one whole line at a time, newline included.
pub(super) fn subscriber(
    settings: LogSettings,
    sink: impl Fn(&str) + Send + Sync + 'static,
) -> (impl Subscriber + Send + Sync, reload::Handle<Targets, Registry>) {
    let (filter, handle) = reload::Layer::new(targets(settings.level));
    (tracing_subscriber::registry().with(filter).with(LineLayer { settings, sink }), handle)
}

fn targets(level: LogLevel) -> Targets {
    let level = level.filter();
    Targets::new()
        .with_target(OWN_TARGET, level)
        .with_target(CHANGES_TARGET, level.max(LevelFilter::WARN))
        .with_default(level.min(LevelFilter::WARN))
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

/// Layer that formats each event as one line.
struct LineLayer<S> {
    settings: LogSettings,
    sink: S,
}

thread_local! {
    /// Buffers that a thread reuses for all its lines.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl<C: Subscriber, S: Fn(&str) + 'static> Layer<C> for LineLayer<S> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, C>) {
        let at = SystemTime::now();
        let write = |buffers: &mut Buffers| (self.sink)(self.line(event, at, buffers));
        BUFFERS.with(|shared| match shared.try_borrow_mut() {
            Ok(mut buffers) => write(&mut buffers),
            // A field's `Debug` or `Display` logs while it is formatted.
            Err(_) => write(&mut Buffers::default()),
        });
    }
}

impl<S> LineLayer<S> {
    fn line<'b>(&self, event: &Event<'_>, at: SystemTime, buffers: &'b mut Buffers) -> &'b str {
        let shown_target = *event.metadata().level() >= Level::DEBUG;
        buffers.collect(event, shown_target);
        match self.settings.format {
            LogFormat::Json => buffers.json(*event.metadata().level(), at),
            LogFormat::Pretty => buffers.pretty(*event.metadata().level(), at, self.settings.color),
        }
    }
}
