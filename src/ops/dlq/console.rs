//! Where a command writes, and whether there is a person to ask.
//!
//! Writes are made in threads of their own. A reader that does not read (a pager, a full pipe)
//! blocks only the caller of the write, not the extensions of held messages or a signal.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::text::json_line;

/// Reads a line from the person at the terminal.
type ReadLine = fn() -> io::Result<String>;

/// How long a write is waited for once the run is to end.
const GRACE: Duration = Duration::from_secs(1);

/// An output.
struct OutputStream {
    sink: Arc<Mutex<Box<dyn Write + Send>>>,
    /// Whether its reader is gone, or does not read while the run is to end.
    is_closed: AtomicBool,
}

impl OutputStream {
    fn new(sink: Box<dyn Write + Send>) -> Self {
        Self { sink: Arc::new(Mutex::new(sink)), is_closed: AtomicBool::new(false) }
    }

    /// Writes a text, until it is given up.
    async fn write(&self, text: String, given_up: impl Future<Output = ()>) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let writing = async {
            let mut sink = Arc::clone(&self.sink).lock_owned().await;
            let write = move || sink.write_all(text.as_bytes()).and_then(|()| sink.flush());
            spawn_blocking(write).await.is_ok_and(|written| written.is_ok())
        };
        let is_written = tokio::select! {
            biased;
            is_written = writing => is_written,
            () = given_up => false,
        };
        if !is_written {
            self.is_closed.store(true, Ordering::Relaxed);
        }
    }
}

/// Standard output for results, standard error for everything else, and the terminal.
pub(super) struct Console {
    out: OutputStream,
    err: OutputStream,
    /// `None` if there is no terminal to ask at.
    ask: Option<ReadLine>,
    /// Whether standard error is a terminal, where a line can be replaced.
    can_replace: bool,
    is_json: bool,
    /// Whether an unfinished line of progress is shown.
    has_open_line: AtomicBool,
    /// Cancelled when the run is to end.
    stop: CancellationToken,
}

impl Console {
    /// The console of this process, for a run that ends early if `stop` is cancelled.
    #[must_use]
    pub(super) fn of_process(is_json: bool, stop: CancellationToken) -> Self {
        let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
        let read_line: ReadLine = || {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map(|_| line)
        };
        Self {
            ask: can_ask.then_some(read_line),
            can_replace: io::stderr().is_terminal(),
            ..Self::new(Box::new(io::stdout()), Box::new(io::stderr()), is_json, stop)
        }
    }

    /// A console without a terminal.
    pub(super) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        is_json: bool,
        stop: CancellationToken,
    ) -> Self {
        Self {
            out: OutputStream::new(out),
            err: OutputStream::new(err),
            ask: None,
            can_replace: false,
            is_json,
            has_open_line: AtomicBool::new(false),
            stop,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    pub(super) fn can_ask(&self) -> bool {
        self.ask.is_some()
    }

    pub(super) fn can_replace(&self) -> bool {
        self.can_replace
    }

    /// Whether the reader of standard output is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.out.is_closed.load(Ordering::Relaxed)
    }

    /// Waits until a write is not worth waiting for any more.
    pub(super) async fn given_up(&self) {
        self.stop.cancelled().await;
        sleep(GRACE).await;
    }

    /// Writes a result.
    pub(super) async fn print(&self, text: &str) {
        self.end_progress().await;
        self.out.write(text.to_owned(), self.given_up()).await;
    }

    /// Writes a result as one line of JSON.
    pub(super) async fn print_json(&self, value: &Value) {
        self.print(&json_line(value)).await;
    }

    /// Writes a line that is no result.
    pub(super) async fn tell(&self, line: &str) {
        self.end_progress().await;
        self.write_err(format!("{line}\n")).await;
    }

    /// Replaces the line of progress, or adds one where a line cannot be replaced.
    pub(super) async fn progress(&self, line: &str) {
        if self.can_replace {
            self.has_open_line.store(true, Ordering::Relaxed);
            self.write_err(format!("\r\u{1b}[K{line}")).await;
        } else {
            self.write_err(format!("{line}\n")).await;
        }
    }

    /// Removes the line of progress, so that another one can begin.
    pub(super) async fn end_progress(&self) {
        if self.has_open_line.swap(false, Ordering::Relaxed) {
            self.write_err("\r\u{1b}[K".to_owned()).await;
        }
    }

    async fn write_err(&self, text: String) {
        self.err.write(text, self.given_up()).await;
    }

    /// Asks for a line. `None` if there is nobody to ask, or if the run is to end first.
    pub(super) async fn ask(&self, question: &str) -> Option<String> {
        let read_line = self.ask?;
        self.end_progress().await;
        self.write_err(question.to_owned()).await;
        // The thread goes on reading after `stop`; the process then ends without it.
        let answer = spawn_blocking(read_line);
        tokio::select! {
            answer = answer => answer.ok()?.ok(),
            () = self.stop.cancelled() => None,
        }
    }
}
