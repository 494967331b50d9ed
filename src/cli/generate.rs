//! What is generated from the commands and their options: shell completions and manual pages.

use clap::{Args, ValueEnum};

use super::{PROGRAM, UsageError, below, built, variables};
use crate::config::VARIABLES;

/// Arguments of `completions`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Load them in the shell's own start file:
  bash  source <(reservation-worker completions bash)
  zsh   source <(reservation-worker completions zsh)     after compinit
  fish  reservation-worker completions fish | source")]
pub struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// A shell that completions are generated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Arguments of `man`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Read it:     reservation-worker man | man -l -
Install it:  reservation-worker man > /usr/local/share/man/man1/reservation-worker.1")]
pub struct ManArgs {
    /// The command that the page is about; without one, the program.
    command: Vec<String>,
}

/// Returns the completions of a shell.
#[must_use]
pub fn completions(arguments: &CompletionsArgs) -> Vec<u8> {
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut built(), PROGRAM, &mut text);
    text
}

/// Returns the manual page of a command, in roff.
///
/// # Errors
/// Names the command that does not exist.
pub fn man(arguments: &ManArgs) -> Result<Vec<u8>, UsageError> {
    let root = built();
    let command = below(&root, &arguments.command, &[])?;
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.clone());
    page.render(&mut text).expect("writing to memory does not fail");
    if arguments.command.is_empty() {
        text.extend(environment().into_bytes());
    }
    Ok(text)
}

/// Returns the section about the environment, in roff.
fn environment() -> String {
    let mut text = String::from(".SH ENVIRONMENT\nEmpty counts as not set.\n");
    for variable in VARIABLES {
        let [meaning, rest] = variables::about(variable).map(|about| roff(&about));
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{meaning} {rest}\n", variable.name));
    }
    text
}

/// Escapes a text that begins with no dot.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
