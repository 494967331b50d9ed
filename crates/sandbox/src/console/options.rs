//! The sandbox's command line.

use crate::servers::Ports;

/// Options of `sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ports of the servers.
    pub ports: Ports,
}

/// The command that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run until Ctrl-C.
    Run(Options),
    /// Print [`HELP`].
    Help,
}

/// The text of `--help`.
pub const HELP: &str = "\
sandbox: an SQS queue, a Reservation API and an Inventory service on 127.0.0.1, until Ctrl-C

  --sqs-port PORT          [4566]
  --reservation-port PORT  [8081]
  --inventory-port PORT    [50051]

0 takes any free port.
";

impl Default for Options {
    fn default() -> Self {
        Self { ports: Ports { sqs: 4566, reservation_api: 8081, inventory: 50051 } }
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
        let port = match name.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--sqs-port" => &mut options.ports.sqs,
            "--reservation-port" => &mut options.ports.reservation_api,
            "--inventory-port" => &mut options.ports.inventory,
            _ => {
                let allowed = "--sqs-port, --reservation-port, --inventory-port, --help";
                return Err(format!("unknown argument `{name}`; allowed: {allowed}"));
            }
        };
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        *port = value
            .parse()
            .map_err(|_| format!("{name} must be a port from 0 to 65535, not `{value}`"))?;
    }
    Ok(Command::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn ports_are_parsed_and_have_defaults() {
        assert_eq!(parsed(""), Ok(Command::Run(Options::default())));
        let ports = Ports { sqs: 1, reservation_api: 2, inventory: 3 };
        let line = "--sqs-port 1 --reservation-port 2 --inventory-port 3";
        assert_eq!(parsed(line), Ok(Command::Run(Options { ports })));
        assert_eq!(parsed("-h"), Ok(Command::Help));
    }

    #[test]
    fn error_messages_name_the_invalid_argument() {
        for (line, named) in [
            ("--port 3", "--port"),
            ("--sqs-port", "needs a value"),
            ("--sqs-port 70000", "`70000`"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(named), "{message}");
        }
    }
}
