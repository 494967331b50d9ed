//! SIGTERM, SIGINT and SIGHUP: the first starts the shutdown, the second ends the process at once.

use std::io;
use std::process;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::flush_logs;

/// The handlers of the signals that end a process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` if the parent ignores SIGHUP, as `nohup` does: the worker then outlives its terminal.
    hang_up: Option<Signal>,
}

/// The maximum wait of a second signal for unwritten log lines.
const LOG_FLUSH_MAX: Duration = Duration::from_millis(100);

/// Exit codes as in a shell after a signal: 128 plus the signal's number.
const EXIT_HUNG_UP: i32 = 129;
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;

impl Signals {
    /// Installs the handlers; from now on the signals do not end the process by default.
    ///
    /// A signal that the parent left blocked is unblocked. Otherwise it would never arrive, and
    /// only SIGKILL could end the process.
    ///
    /// # Errors
    /// Fails if the operating system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        let is_hang_up_ignored = is_ignored(Number::SIGHUP);
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: (!is_hang_up_ignored).then(|| signal(SignalKind::hangup())).transpose()?,
        };
        // One thread is enough: a process signal goes to any thread that has not blocked it.
        let all = SigSet::from_iter([Number::SIGTERM, Number::SIGINT, Number::SIGHUP]);
        all.thread_unblock()?;
        Ok(signals)
    }

    /// Waits for one of the signals and returns its name. Cancel-safe.
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

    /// Ends the process on the next signal; never returns.
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

/// Returns whether the parent ignored a signal; `false` without `/proc`.
fn is_ignored(signal: Number) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(signal as i32 - 1).unwrap_or(u32::MAX);
    mask.checked_shr(bit).unwrap_or(0) & 1 == 1
}
