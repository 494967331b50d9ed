//! Parses the command line, and builds the texts of `--help` and `--version`.
//!
//! This module runs nothing and prints nothing.

use std::fmt::Write as _;

use crate::config::{Fallback, VARIABLES, Variable};
use crate::escaped::Escaped;

/// The command of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Handles events until a signal; the default without an argument.
    Run,
    /// Shows the effective configuration and tries every dependency.
    Check,
    /// Checks whether the worker in this container is alive.
    Health,
    /// Shows the help text.
    Help,
    /// Shows the version.
    Version,
}

/// An unknown argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown argument {argument}: give none to run, or one of check, health, --help, --version"
)]
pub struct UnknownArgument {
    /// The argument, escaped and truncated.
    pub argument: String,
}

impl Command {
    /// Parses the arguments after the program's name.
    ///
    /// `--help` and `--version` have priority at any position.
    ///
    /// # Errors
    /// Returns the first unknown or surplus argument.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, UnknownArgument> {
        let mut command = None;
        let mut unknown = None;
        for argument in arguments {
            let meant = match argument.as_str() {
                "check" => Self::Check,
                "health" => Self::Health,
                "-h" | "--help" | "help" => return Ok(Self::Help),
                "-V" | "--version" | "version" => return Ok(Self::Version),
                _ => {
                    unknown.get_or_insert(argument);
                    continue;
                }
            };
            if command.replace(meant).is_some() {
                unknown.get_or_insert(argument);
            }
        }
        match unknown {
            None => Ok(command.unwrap_or(Self::Run)),
            Some(argument) => Err(UnknownArgument { argument: Escaped(&argument).to_string() }),
        }
    }
}

/// Returns the text of `--version`: name, version, and whether the build used a PGO profile.
#[must_use]
pub fn version_text() -> String {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    format!("{name} {version}{}\n", env!("BUILD_NOTE"))
}

const HELP_HEAD: &str = "\
Consumes reservation and payment events from Amazon SQS, and makes the Reservation API and the
Inventory service agree about each seat.

Usage: reservation-worker [COMMAND]

Commands:
  (none)     run until SIGTERM, SIGINT or SIGHUP; a second one exits at once
  check      show the effective configuration and try everything that is needed
  health     ask the worker on SERVER_PORT whether it is alive
  --help     this text
  --version  the version

Exit codes: 0 done; 1 failed; 2 the arguments or the configuration are wrong; 129, 130 or 143 a
second SIGHUP, SIGINT or SIGTERM.

Environment (empty counts as not set):
";

const HELP_AWS: &str = "
AWS region, endpoint and credentials are found by the AWS SDK's own rules: AWS_REGION, AWS_PROFILE,
AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SQS, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
profiles (SSO too), web identity (IRSA), EKS Pod Identity. Where no endpoint or region is set,
SQS_QUEUE_URL's host is the endpoint, and names the region. HTTPS_PROXY, HTTP_PROXY and NO_PROXY
count for AWS.
";

/// The maximum width of the help text, in columns.
const COLUMNS: usize = 100;

/// The indentation of the text about a variable, in columns.
const INDENT: usize = 40;

/// Returns the text of `--help`: all commands, and all variables with meaning, range and default.
#[must_use]
pub fn help_text() -> String {
    let mut text = String::from(HELP_HEAD);
    for variable in VARIABLES {
        describe(&mut text, variable);
    }
    text.push_str(HELP_AWS);
    text
}

fn describe(text: &mut String, variable: &Variable) {
    let rest = match variable.fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => format!("default {value}"),
        Fallback::Told(told) => format!("default: {told}"),
    };
    let allowed = variable.allowed.brief();
    let mut lines = wrapped(variable.meaning);
    lines.extend(wrapped(&format!("[{allowed}; {rest}]")));
    let mut label = variable.name;
    for line in lines {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {label:<width$}{line}", width = INDENT - 2);
        label = "";
    }
}

/// Wraps a text at spaces so that it fits next to the names.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && INDENT + line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allowed;

    fn parse(line: &str) -> Result<Command, UnknownArgument> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_command_is_parsed() {
        for (line, command) in [
            ("", Command::Run),
            ("check", Command::Check),
            ("health", Command::Health),
            ("--help", Command::Help),
            ("-h", Command::Help),
            ("help", Command::Help),
            ("check --help", Command::Help),
            ("nonsense --help", Command::Help),
            ("--version", Command::Version),
            ("-V", Command::Version),
            ("version", Command::Version),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn unknown_arguments_are_reported_with_the_allowed_ones() {
        for (line, named) in [
            ("run\u{1b}", r#""run\u{1b}""#),
            ("--check", "\"--check\""),
            ("check health", "\"health\""),
            ("check check", "\"check\""),
            ("check extra", "\"extra\""),
        ] {
            let said = parse(line).map_err(|error| error.to_string());
            let expected = format!(
                "unknown argument {named}: give none to run, or one of check, health, --help, --version"
            );
            assert_eq!(said, Err(expected), "{line}");
        }
    }

    #[test]
    fn the_help_lists_every_variable_within_100_columns() {
        let help = help_text();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for variable in VARIABLES {
            assert!(help.contains(&format!("\n  {} ", variable.name)), "{}", variable.name);
            if let Fallback::Value(value) = variable.fallback {
                assert!(words.contains(&format!("; default {value}] ")), "{}", variable.name);
            }
            if let Allowed::Whole { min, max, .. } = variable.allowed {
                assert!(help.contains(&format!(" [{min}-{max}")), "{}", variable.name);
            }
        }
        for line in help.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn the_version_text_is_one_line() {
        let expected =
            concat!("reservation-worker ", env!("CARGO_PKG_VERSION"), env!("BUILD_NOTE"), "\n");
        assert_eq!(version_text(), expected);
    }
}
