//! The errors of the command line: the argument, what was given, and what is allowed.
//!
//! They are worded as those of the configuration are. Of clap's errors only the facts are used: its
//! own texts show a value as it was given, control characters too.

use std::error::Error as _;
use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::PROGRAM;
use crate::escaped::Escaped;

/// Why the command line cannot be understood, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}; see {help}")]
pub struct UsageError {
    /// The argument, what was given (escaped and truncated), and what is allowed.
    fault: String,
    /// The call that shows more.
    help: String,
}

impl UsageError {
    /// Describes an error in the `arguments` of the program whose commands are below `root`.
    pub(super) fn new(error: &clap::Error, root: &Command, arguments: &[OsString]) -> Self {
        let command = named(root, arguments);
        let help = format!("{} --help", called(command));
        Self { fault: fault(error, command), help }
    }

    /// Describes options of a command that do not go together.
    pub(super) fn of(fault: &str, command: &str) -> Self {
        Self { fault: fault.to_owned(), help: format!("{PROGRAM} {command} --help") }
    }

    /// Describes the name of a command that does not exist below `command`; of the program's own,
    /// `also` are allowed too.
    pub(super) fn no_command(name: &str, command: &Command, also: &[&str]) -> Self {
        let mut allowed = commands(command);
        if command.get_name() == PROGRAM {
            allowed.extend(also);
        }
        let fault = format!("unknown command {}: must be {}", Escaped(name), any_of(&allowed));
        Self { fault, help: format!("{} --help", called(command)) }
    }
}

/// Returns the command that the arguments name: the error is in its own arguments.
fn named<'c>(root: &'c Command, arguments: &[OsString]) -> &'c Command {
    let mut command = root;
    for argument in arguments {
        match command.find_subcommand(argument) {
            Some(below) => command = below,
            None if command.has_subcommands() => break,
            None => {}
        }
    }
    command
}

/// Returns what is typed to call a command.
fn called(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(PROGRAM)
}

fn commands(command: &Command) -> Vec<&str> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(Command::get_name).collect()
}

/// Returns the options, as `--long` if they have a long name.
fn options(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let name = |argument: &clap::Arg| match (argument.get_long(), argument.get_short()) {
        (Some(long), _) => Some(format!("--{long}")),
        (None, Some(short)) => Some(format!("-{short}")),
        (None, None) => None,
    };
    shown.filter_map(name).collect()
}

fn any_of(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        [word] => (*word).to_owned(),
        words => format!("one of {}", words.join(", ")),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add kinds")]
fn fault(error: &clap::Error, command: &Command) -> String {
    let given = |kind| text(error, kind);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = given(ContextKind::InvalidSubcommand);
            format!("unknown command {}: must be {}", Escaped(&name), any_of(&commands(command)))
        }
        ErrorKind::UnknownArgument => unknown(&given(ContextKind::InvalidArg), command),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => wrong_value(error),
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(error, ContextKind::InvalidArg);
            let names: Vec<String> = missing.iter().map(|name| bare(name)).collect();
            format!("{} is missing", names.join(", "))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("a command is missing: must be {}", any_of(&commands(command)))
        }
        ErrorKind::ArgumentConflict => conflict(error),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8 text".to_owned(),
        kind => {
            let name = bare(&given(ContextKind::InvalidArg));
            let why = kind.as_str().unwrap_or("the arguments are wrong");
            if name.is_empty() { why.to_owned() } else { format!("{name}: {why}") }
        }
    }
}

fn unknown(name: &str, command: &Command) -> String {
    let mut allowed = commands(command).iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    allowed.extend(options(command));
    format!("unknown argument {}: must be {}", Escaped(name), any_of(&allowed))
}

fn wrong_value(error: &clap::Error) -> String {
    let name = bare(&text(error, ContextKind::InvalidArg));
    let value = text(error, ContextKind::InvalidValue);
    let allowed = match error.source() {
        Some(allowed) => allowed.to_string(),
        None => match texts(error, ContextKind::ValidValue).as_slice() {
            [] => "a value".to_owned(),
            words => any_of(words),
        },
    };
    if value.is_empty() {
        format!("{name} has no value: must be {allowed}")
    } else {
        format!("{name} is {}: must be {allowed}", Escaped(&value))
    }
}

fn conflict(error: &clap::Error) -> String {
    let name = bare(&text(error, ContextKind::InvalidArg));
    let others = texts(error, ContextKind::PriorArg);
    let others: Vec<String> = others.iter().map(|other| bare(other)).collect();
    if others.is_empty() || others == [name.clone()] {
        format!("{name} is given twice: must be given once")
    } else {
        format!("{name} is given with {}: must be one or the other", others.join(", "))
    }
}

/// Returns the name in an argument as clap shows it: `--limit <N>`, `<ID>`, `[FILE]`.
fn bare(shown: &str) -> String {
    let name = shown.split([' ', '=']).next().unwrap_or_default();
    name.trim_matches(['<', '>', '[', ']', '.']).to_owned()
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    texts(error, kind).into_iter().next().unwrap_or_default()
}

fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        Some(_) | None => Vec::new(),
    }
}
