//! Arguments of `decode`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `decode`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
The body is one event, in its envelopes if it has any; or it is what `aws sqs receive-message`
prints. Nothing is called and nothing is configured: the services need not be there.

Exit codes: 0 the worker accepts every body; 1 it refuses one; 2 there is nothing to decode.

  reservation-worker decode event.json
  aws sqs receive-message --queue-url URL --message-attribute-names All | reservation-worker decode")]
pub struct DecodeArgs {
    /// The file to read; `-`, or none, for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Takes each line, of 8 MiB at most, for a body.
    #[arg(long)]
    pub(crate) lines: bool,
    /// Writes one JSON object for each body.
    #[arg(long)]
    pub(crate) json: bool,
}
