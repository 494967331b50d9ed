//! The sandbox's command line.

use std::net::Ipv4Addr;

use crate::servers::Ports;

/// Options of `sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address that all servers listen on.
    pub listen: Ipv4Addr,
    /// Ports of the servers.
    pub ports: Ports,
    /// The control port; `None` without one.
    pub control_port: Option<u16>,
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
sandbox: an SQS queue, a Reservation API and an Inventory service, until Ctrl-C

  --listen ADDRESS         [127.0.0.1] an IPv4 address; 0.0.0.0 is all of this machine's
  --sqs-port PORT          [4566]
  --reservation-port PORT  [8081]
  --inventory-port PORT    [50051]
  --control-port PORT      [none] HTTP that sends events, makes the servers fail, and returns their
                           ledger. It asks nobody who they are

0 takes any free port.
";

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Ipv4Addr::LOCALHOST,
            ports: Ports { sqs: 4566, reservation_api: 8081, inventory: 50051 },
            control_port: None,
        }
    }
}

/// The arguments that have a value.
const NAMES: [&str; 5] =
    ["--listen", "--sqs-port", "--reservation-port", "--inventory-port", "--control-port"];

/// Parses the arguments, without the program name.
///
/// # Errors
///
/// A sentence that names the argument and what is allowed.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        if matches!(name.as_str(), "--help" | "-h") {
            return Ok(Command::Help);
        }
        if !NAMES.contains(&name.as_str()) {
            return Err(format!(
                "unknown argument `{name}`; allowed: {}, --help",
                NAMES.join(", ")
            ));
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        if name == "--listen" {
            options.listen = value
                .parse()
                .map_err(|_| format!("{name} must be an IPv4 address, not `{value}`"))?;
            continue;
        }
        let port = value
            .parse()
            .map_err(|_| format!("{name} must be a port from 0 to 65535, not `{value}`"))?;
        match name.as_str() {
            "--sqs-port" => options.ports.sqs = port,
            "--reservation-port" => options.ports.reservation_api = port,
            "--inventory-port" => options.ports.inventory = port,
            _ => options.control_port = Some(port),
        }
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
        assert_eq!(parsed(line), Ok(Command::Run(Options { ports, ..Options::default() })));
        let listen = Ipv4Addr::UNSPECIFIED;
        let options = Options { listen, control_port: Some(4), ..Options::default() };
        assert_eq!(parsed("--listen 0.0.0.0 --control-port 4"), Ok(Command::Run(options)));
        assert_eq!(parsed("-h"), Ok(Command::Help));
    }

    #[test]
    fn error_messages_name_the_invalid_argument() {
        for (line, named) in [
            ("--port 3", "--port"),
            ("--sqs-port", "needs a value"),
            ("--sqs-port 70000", "`70000`"),
            ("--listen here", "`here`"),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(message.contains(named), "{message}");
        }
    }
}
