//! Arguments of `ctl`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::UsageError;
use crate::admin::control::ControlRequest;
use crate::config::LogLevel;
use crate::controls::HOLDS_MAX;

/// How long a change holds, if nothing else is said.
const HOLDS: &str = "1h";

/// The same of a log level: debug lines fill disks.
const LOG_LEVEL_HOLDS: &str = "15m";

/// Arguments of `ctl`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
It reaches the worker of this machine or container that has the same SERVER_PORT, over a Unix
socket that only the worker's user and root may use:
  kubectl exec POD -- /reservation-worker ctl pause --for 1h --reason \"a release of the API\"

Exit codes: 0 done; 1 refused, or no worker answers; 2 the arguments are wrong.")]
pub struct CtlArgs {
    /// What the worker is asked for.
    #[command(subcommand)]
    pub action: CtlAction,
    /// Tells every worker that shares the store; for pause, resume and concurrency.
    #[arg(long, global = true)]
    pub all: bool,
    /// Prints the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What the worker is asked for. Every change goes back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum CtlAction {
    /// Shows what the worker does, as /status does.
    Status,
    /// Stops receiving; what is held goes on, and the worker stays ready.
    Pause(PauseArgs),
    /// Ends a pause.
    Resume,
    /// Sets the number of workers: new ones start at once, others end after their event.
    Concurrency(ConcurrencyArgs),
    /// Sets the least severe log lines that are written.
    LogLevel(LogLevelArgs),
    /// Shows what a held event does or waits for.
    Event(HeldEventArgs),
}

/// Arguments of `ctl pause`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PauseArgs {
    /// For how long, at most 12h.
    #[arg(long = "for", value_name = "TIME", default_value = HOLDS, value_parser = holds)]
    pub lasts: NonZeroU64,
    /// Why, for those who look at the log or the status.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Arguments of `ctl concurrency`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ConcurrencyArgs {
    /// The number of workers, 1 to 1000.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub workers: u16,
    /// For how long, at most 12h.
    #[arg(long = "for", value_name = "TIME", default_value = HOLDS, value_parser = holds)]
    pub lasts: NonZeroU64,
}

/// Arguments of `ctl log-level`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct LogLevelArgs {
    /// debug, info, warn or error.
    #[arg(value_name = "LEVEL", value_parser = level)]
    pub level: LogLevel,
    /// For how long, at most 12h.
    #[arg(long = "for", value_name = "TIME", default_value = LOG_LEVEL_HOLDS, value_parser = holds)]
    pub lasts: NonZeroU64,
}

/// Arguments of `ctl event`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct HeldEventArgs {
    /// The event's id.
    #[arg(value_name = "ID")]
    pub id: String,
}

impl CtlArgs {
    /// Returns what the worker is asked.
    ///
    /// # Errors
    /// If `--all` is given for what one worker alone can do.
    pub fn request(self) -> Result<ControlRequest, UsageError> {
        let Self { action, all, .. } = self;
        let request = match action {
            CtlAction::Pause(pause) => {
                return Ok(ControlRequest::Pause { for_s: pause.lasts, reason: pause.reason, all });
            }
            CtlAction::Resume => return Ok(ControlRequest::Resume { all }),
            CtlAction::Concurrency(concurrency) => {
                let workers = usize::from(concurrency.workers);
                return Ok(ControlRequest::Concurrency { workers, for_s: concurrency.lasts, all });
            }
            CtlAction::Status => ControlRequest::Status,
            CtlAction::LogLevel(level) => {
                let for_s = level.lasts;
                ControlRequest::LogLevel { level: level.level.as_str().to_owned(), for_s }
            }
            CtlAction::Event(event) => ControlRequest::Event { id: event.id },
        };
        if all {
            let fault = "--all is given: must be with pause, resume or concurrency";
            return Err(UsageError::of(fault, "ctl"));
        }
        Ok(request)
    }
}

fn level(text: &str) -> Result<LogLevel, String> {
    LogLevel::parse(text).ok_or_else(|| "one of debug, info, warn, error".to_owned())
}

/// Parses a time as seconds.
fn holds(text: &str) -> Result<NonZeroU64, String> {
    let lasts = duration(text).ok_or("a number with s, m or h, as in 90s, 15m or 2h")?;
    if lasts > HOLDS_MAX {
        return Err("at most 12h".to_owned());
    }
    NonZeroU64::new(lasts.as_secs()).ok_or_else(|| "at least 1s".to_owned())
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_maximum() {
        let seconds = |text| holds(text).map(NonZeroU64::get);
        assert_eq!((seconds("90s"), seconds("15m"), seconds("12h")), (Ok(90), Ok(900), Ok(43_200)));
        for wrong in ["", "1", "h", "1d", "1.5h", "-1h", "0s", "13h", "99999999999999999999h", "1µ"]
        {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
