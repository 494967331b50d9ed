//! SIGTERM, SIGINT and SIGHUP: the first asks the worker to leave, the second ends the process at once.

use std::io;
use std::process;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::flush_logs;

/// The signals that end a process, being listened to.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where the parent has it ignored, as `nohup` does: the worker then outlives its terminal.
    hang_up: Option<Signal>,
}

/// How long a second signal waits for the lines that are not written yet.
const LOG_FLUSH_MAX: Duration = Duration::from_millis(100);

/// What a shell shows for a process that was ended by a signal: 128 and the signal's number.
const EXIT_HUNG_UP: i32 = 129;
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

impl Signals {
    /// Begins to listen; from here on the signals no longer end the process by themselves. One that the parent left
    /// blocked is unblocked: it would never be heard, and the process would have to be killed.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        let is_hang_up_ignored = is_ignored(Number::SIGHUP);
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: (!is_hang_up_ignored).then(|| signal(SignalKind::hangup())).transpose()?,
        };
        // This thread is enough: a signal to a process goes to any of its threads that has it unblocked.
        let all = SigSet::from_iter([Number::SIGTERM, Number::SIGINT, Number::SIGHUP]);
        all.thread_unblock()?;
        Ok(signals)
    }

    /// Waits for one of them and names it. Cancel-safe.
    pub(crate) async fn first(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => None,
            }
        };
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            Some(()) = hang_up => "SIGHUP",
        }
    }

    /// Ends the process when another one comes. Never returns otherwise.
    pub(crate) async fn exit_on_second(mut self) -> ! {
        let code = match self.first().await {
            "SIGINT" => EXIT_INTERRUPTED,
            "SIGHUP" => EXIT_HUNG_UP,
            _ => EXIT_TERMINATED,
        };
        flush_logs(LOG_FLUSH_MAX);
        process::exit(code)
    }
}

/// Whether the parent left a signal ignored. `false` where the system does not tell (it has no `/proc`).
fn is_ignored(signal: Number) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(signal as i32 - 1).unwrap_or(u32::MAX);
    mask.checked_shr(bit).unwrap_or(0) & 1 == 1
}
