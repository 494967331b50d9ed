//! The demo's command line.

use std::path::PathBuf;
use std::time::Duration;

/// Options of `demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The worker's binary.
    pub worker: PathBuf,
    /// Events to send, 1-100000.
    pub events: usize,
    /// The seed of all random choices.
    pub seed: u64,
    /// The worker's `WORKER_CONCURRENCY`, 1-1000.
    pub concurrency: usize,
    /// The maximum duration of the whole run.
    pub time_limit: Duration,
}

/// The command that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the demo.
    Run(Options),
    /// Print [`HELP`].
    Help,
}

/// The text of `--help`.
pub const HELP: &str = "\
demo: the real worker against stand-ins that fail now and then; exits 0 only if the ledger balances

  --worker PATH       the worker's binary            [./reservation-worker]
  --events N          events to send, 1-100000       [400]
  --seed N            start of all random choices    [1]
  --concurrency N     WORKER_CONCURRENCY, 1-1000     [20]
  --time-limit SECS   the run ends by then, 10-3600  [60]
";

impl Default for Options {
    fn default() -> Self {
        Self {
            worker: PathBuf::from("./reservation-worker"),
            events: 400,
            seed: 1,
            concurrency: 20,
            time_limit: Duration::from_secs(60),
        }
    }
}

/// Parses the arguments, without the program name.
///
/// # Errors
///
/// A sentence that names the argument and what is allowed.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        if name == "--help" || name == "-h" {
            return Ok(Command::Help);
        }
        let known = ["--worker", "--events", "--seed", "--concurrency", "--time-limit"];
        if !known.contains(&name.as_str()) {
            return Err(format!(
                "unknown argument `{name}`; allowed: {}, --help",
                known.join(", ")
            ));
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--worker" => options.worker = value.into(),
            "--events" => options.events = number(&name, &value, 1, 100_000)?,
            "--seed" => options.seed = number(&name, &value, 0, u64::MAX)?,
            "--concurrency" => options.concurrency = number(&name, &value, 1, 1000)?,
            _ => options.time_limit = Duration::from_secs(number(&name, &value, 10, 3600)?),
        }
    }
    Ok(Command::Run(options))
}

fn number<N>(name: &str, value: &str, min: N, max: N) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let parsed = value.parse::<N>().ok().filter(|number| *number >= min && *number <= max);
    parsed
        .ok_or_else(|| format!("{name} must be a whole number from {min} to {max}, not `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_options_are_parsed() {
        let line = "--worker /bin/w --events 10 --seed 7 --concurrency 3 --time-limit 30";
        let options = Options {
            worker: "/bin/w".into(),
            events: 10,
            seed: 7,
            concurrency: 3,
            time_limit: Duration::from_secs(30),
        };
        assert_eq!(parsed(line), Ok(Command::Run(options)));
        assert_eq!(parsed(""), Ok(Command::Run(Options::default())));
        assert_eq!(parsed("--help"), Ok(Command::Help));
    }

    #[test]
    fn error_messages_name_the_invalid_argument() {
        for (line, named) in [
            ("--event 3", "--event"),
            ("--events", "--events needs a value"),
            ("--events 0", "1 to 100000"),
            ("--concurrency many", "`many`"),
            ("--seed -1", "`-1`"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(named), "{message}");
        }
    }
}
