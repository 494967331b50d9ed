//! SIGTERM and SIGINT: the first asks the worker to leave, the second ends the process at once.

use std::io;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::flush_logs;

/// The signals that end a process, being listened to.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// How long a second signal waits for the lines that are not written yet.
const LOG_FLUSH_MAX: Duration = Duration::from_millis(100);

/// What a shell shows for a process that was ended by a signal: 128 and the signal's number.
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

impl Signals {
    /// Begins to listen; from here on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them and names it. Cancel-safe.
    pub(crate) async fn first(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process when another one comes. Never returns otherwise.
    pub(crate) async fn exit_on_second(mut self) -> ! {
        let code = match self.first().await {
            "SIGINT" => EXIT_INTERRUPTED,
            _ => EXIT_TERMINATED,
        };
        flush_logs(LOG_FLUSH_MAX);
        process::exit(code)
    }
}
