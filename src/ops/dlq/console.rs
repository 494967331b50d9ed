//! Where a command writes, and whether there is a person to ask.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::scan::lock;
use super::text::json_line;

/// Reads a line from the person at the terminal.
type ReadLine = fn() -> io::Result<String>;

/// Standard output for results, standard error for everything else, and the terminal.
pub(super) struct Console {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// `None` if there is no terminal to ask at.
    ask: Option<ReadLine>,
    /// Whether standard error is a terminal, where a line can be replaced.
    can_replace: bool,
    is_json: bool,
    /// Whether the reader of standard output is gone.
    is_closed: AtomicBool,
    /// Whether an unfinished line of progress is shown.
    has_open_line: AtomicBool,
}

impl Console {
    /// The console of this process.
    #[must_use]
    pub(super) fn of_process(is_json: bool) -> Self {
        let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
        let read_line: ReadLine = || {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map(|_| line)
        };
        Self {
            ask: can_ask.then_some(read_line),
            can_replace: io::stderr().is_terminal(),
            ..Self::new(Box::new(io::stdout()), Box::new(io::stderr()), is_json)
        }
    }

    /// A console without a terminal.
    pub(super) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        is_json: bool,
    ) -> Self {
        Self {
            out: Mutex::new(out),
            err: Mutex::new(err),
            ask: None,
            can_replace: false,
            is_json,
            is_closed: AtomicBool::new(false),
            has_open_line: AtomicBool::new(false),
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
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Writes a result.
    pub(super) fn print(&self, text: &str) {
        self.end_progress();
        let mut out = lock(&self.out);
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.is_closed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes a result as one line of JSON.
    pub(super) fn print_json(&self, value: &Value) {
        self.print(&json_line(value));
    }

    /// Writes a line that is no result.
    pub(super) fn tell(&self, line: &str) {
        self.end_progress();
        self.write_err(&format!("{line}\n"));
    }

    /// Replaces the line of progress, or adds one where a line cannot be replaced.
    pub(super) fn progress(&self, line: &str) {
        if self.can_replace {
            self.has_open_line.store(true, Ordering::Relaxed);
            self.write_err(&format!("\r\u{1b}[K{line}"));
        } else {
            self.write_err(&format!("{line}\n"));
        }
    }

    /// Removes the line of progress, so that another one can begin.
    fn end_progress(&self) {
        if self.has_open_line.swap(false, Ordering::Relaxed) {
            self.write_err("\r\u{1b}[K");
        }
    }

    fn write_err(&self, text: &str) {
        let mut err = lock(&self.err);
        // Nobody may be there to read it.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }

    /// Asks for a line. `None` if there is nobody to ask, or if `stop` is cancelled first.
    pub(super) async fn ask(&self, question: &str, stop: &CancellationToken) -> Option<String> {
        let read_line = self.ask?;
        self.end_progress();
        self.write_err(question);
        // The thread goes on reading after `stop`; the process then ends without it.
        let answer = spawn_blocking(read_line);
        tokio::select! {
            answer = answer => answer.ok()?.ok(),
            () = stop.cancelled() => None,
        }
    }
}
