//! Parses the command line, and builds the texts of `--help`, `--version` and the help topics.
//!
//! This module runs nothing and prints nothing. Each command with arguments of its own has a file
//! with them; the doc comments are the help.

mod ctl;
mod decode;
mod dlq;
mod error;
mod event;
mod generate;
mod variables;

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

pub use self::ctl::{CtlAction, CtlArgs};
pub use self::decode::DecodeArgs;
pub(crate) use self::dlq::UNKNOWN_TYPE;
pub use self::dlq::{Consent, Copies, DlqArgs, DlqCommand, DlqRequest, Filter, Origin, Selection};
pub use self::error::UsageError;
pub use self::event::{EventArgs, ForgetArgs};
pub use self::generate::{CompletionsArgs, ManArgs, completions, man};

/// The name of the program.
pub(crate) const PROGRAM: &str = env!("CARGO_PKG_NAME");

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("BUILD_NOTE"));

/// The topic of `help` that is no command.
const VARIABLES_TOPIC: &str = "variables";

// Lines are broken by hand: the library's wrapping would bring another crate along.
const ABOUT: &str = "\
Consumes reservation and payment events from Amazon SQS, and makes the Reservation API and the
Inventory service agree about each seat.";

const AFTER_HELP: &str = "\
Without a command, the worker runs until SIGTERM, SIGINT or SIGHUP; a second one exits at once.
It is configured by environment variables: reservation-worker help variables

Exit codes: 0 done; 1 failed; 2 the arguments or the configuration are wrong; 129, 130 or 143 a
second SIGHUP, SIGINT or SIGTERM.";

#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version = VERSION,
    about = ABOUT,
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<FirstWord>,
}

/// What follows the program's name.
#[derive(Debug, Subcommand)]
enum FirstWord {
    #[command(flatten)]
    Command(Command),
    /// Shows the help of a command, or all environment variables: help variables.
    Help(HelpArgs),
    /// Prints the version.
    Version,
}

/// A command other than the worker itself.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Shows the effective configuration and tries everything that is needed.
    Check,
    /// Asks the worker on SERVER_PORT whether it is alive.
    Health,
    /// Shows, redrives, saves or discards the messages of the dead-letter queue.
    Dlq(DlqArgs),
    /// Shows what the shared store knows of an event.
    Event(EventArgs),
    /// Removes an event's record from the shared store, so that it is handled anew.
    Forget(ForgetArgs),
    /// Shows what the worker would do with a body, without doing it.
    Decode(DecodeArgs),
    /// Looks at a running worker, pauses it, or changes its workers or log level for a time.
    Ctl(CtlArgs),
    /// Prints the script with which a shell completes commands and options.
    Completions(CompletionsArgs),
    /// Prints the manual page, in roff.
    Man(ManArgs),
}

/// Arguments of `help`.
#[derive(Debug, Args)]
struct HelpArgs {
    /// A command, or `variables`.
    #[arg(value_name = "TOPIC")]
    topic: Vec<String>,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// No command: the worker runs.
    Run,
    /// This command.
    Command(Command),
    /// This text on standard output.
    Print(String),
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// Returns the first argument that is wrong, with what is allowed.
pub fn parse<I>(arguments: I) -> Result<Invocation, UsageError>
where
    I: IntoIterator<Item = OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let with_name = std::iter::once(OsStr::new(PROGRAM).to_owned()).chain(arguments.clone());
    match Arguments::try_parse_from(with_name) {
        Ok(Arguments { command: None }) => Ok(Invocation::Run),
        Ok(Arguments { command: Some(FirstWord::Command(command)) }) => {
            Ok(Invocation::Command(command))
        }
        Ok(Arguments { command: Some(FirstWord::Help(HelpArgs { topic })) }) => {
            help(&topic).map(Invocation::Print)
        }
        Ok(Arguments { command: Some(FirstWord::Version) }) => {
            Ok(Invocation::Print(version_text()))
        }
        Err(error) => {
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                return Ok(Invocation::Print(error.render().to_string()));
            }
            Err(UsageError::new(&error, &built(), &arguments))
        }
    }
}

/// Returns the text of `--version`: name, version, and whether the build used a PGO profile.
#[must_use]
pub fn version_text() -> String {
    format!("{PROGRAM} {VERSION}\n")
}

/// Returns the help of a command, or of the topic that is none.
fn help(topic: &[String]) -> Result<String, UsageError> {
    if topic == [VARIABLES_TOPIC] {
        return Ok(variables::text());
    }
    let root = built();
    let command = below(&root, topic, &[VARIABLES_TOPIC])?;
    Ok(command.clone().render_help().to_string())
}

/// Returns the command that the names lead to; `also` are topics that the error lists too.
fn below<'c>(
    root: &'c clap::Command,
    names: &[String],
    also: &[&str],
) -> Result<&'c clap::Command, UsageError> {
    let mut command = root;
    for name in names {
        command = command
            .find_subcommand(name)
            .ok_or_else(|| UsageError::no_command(name, command, also))?;
    }
    Ok(command)
}

/// Returns all commands, each with its full name for its usage line.
fn built() -> clap::Command {
    let mut root = Arguments::command();
    root.build();
    root
}

#[cfg(test)]
mod tests;
