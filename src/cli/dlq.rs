//! Arguments of `dlq` and its commands.

mod request;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

pub(crate) use self::request::UNKNOWN_TYPE;
pub use self::request::{Consent, Copies, DlqCommand, Filter, Origin, Selection};
use crate::event::EventType;
use crate::settle::DeadLetterReason;

/// Redrives a second, unless another rate is given.
const RATE_DEFAULT: u32 = 20;

const AFTER_HELP: &str = "\
Only the variables of the queue, its dead-letter queue and AWS are needed: reservation-worker help
variables. The permissions are those of deploy/iam/operator-policy.json.

While a command runs, the messages that it looks at are hidden from others; at its end, those that
are left are shown again. Whatever ends it, nothing is lost: run it again, and it goes on.

Exit codes: 0 done; 1 some failed, or nothing was changed, or redrive, discard or export could not
look at every message; 2 the arguments or the configuration are wrong; 130 interrupted.";

/// Arguments of `dlq`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = AFTER_HELP)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqGiven,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum DlqGiven {
    /// Shows one line for each dead letter, and how many there are by reason and type.
    List(ListArgs),
    /// Shows dead letters whole: reason, attributes, body.
    Show(ShowArgs),
    /// Sends dead letters back to the queue, and deletes each once its copy is stored.
    Redrive(RedriveArgs),
    /// Deletes dead letters for good, with a copy in a file or without.
    Discard(DiscardArgs),
    /// Saves dead letters to a file as JSON lines, and leaves them in the queue.
    Export(ExportArgs),
}

/// The conditions, which must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Conditions, which must all hold")]
struct FilterArgs {
    /// The worker's reason (dlq_reason), or several with commas.
    #[arg(long, value_name = "R,...", value_delimiter = ',', value_parser = reasons(), hide_possible_values = true)]
    reason: Vec<String>,
    /// The type of the event, or `unknown`.
    #[arg(long = "type", value_name = "T,...", value_delimiter = ',', value_parser = event_type)]
    event_type: Vec<String>,
    /// The reservation of the event.
    #[arg(long, value_name = "ID")]
    reservation: Vec<String>,
    /// The event's own id; of an event without one, the original message's.
    #[arg(long, value_name = "ID")]
    event: Vec<String>,
    /// The message's id, or that of the original message.
    #[arg(long, value_name = "ID")]
    message_id: Vec<String>,
    /// Dead-lettered (or sent, where SQS moved it) so long ago: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    older_than: Option<Duration>,
    /// Dead-lettered less long ago.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    newer_than: Option<Duration>,
    /// Who put it there: `worker`, with a reason, or `sqs`, by its redrive policy.
    #[arg(long, value_name = "WHO", hide_possible_values = true)]
    origin: Option<OriginArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OriginArg {
    Worker,
    Sqs,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct OutputArgs {
    /// Stops after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Writes one JSON object a line, and at the end one with the summary.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct ConsentArgs {
    /// Every message; needed where there is no condition.
    #[arg(long)]
    all: bool,
    /// Shows what would be done, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask; needed where there is no terminal.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// Also those of other queues that share the dead-letter queue.
    #[arg(long)]
    from_any_source: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct ShowArgs {
    /// Message ids, as `list` shows them. Without any, up to ten messages.
    #[arg(value_name = "MESSAGE_ID")]
    ids: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    /// Also those of other queues that share the dead-letter queue.
    #[arg(long)]
    from_any_source: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "money_without_seat is left alone unless --reason names it.")]
struct RedriveArgs {
    #[command(flatten)]
    consent: ConsentArgs,
    /// Messages a second, 1 to 500.
    #[arg(long, value_name = "N", default_value_t = RATE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=500))]
    rate: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct DiscardArgs {
    #[command(flatten)]
    consent: ConsentArgs,
    #[command(flatten)]
    copies: CopiesArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What becomes of the messages that are deleted; one of the two must be given.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(multiple = false)]
struct CopiesArgs {
    /// Appends each message to this file before it is deleted.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Keeps no copy.
    #[arg(long)]
    without_copy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct ExportArgs {
    /// The new file; `-` is standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Stops after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Also those of other queues that share the dead-letter queue.
    #[arg(long)]
    from_any_source: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// A command on the dead-letter queue, with all that it needs.
#[derive(Clone, Debug)]
pub struct DlqRequest {
    /// The command.
    pub command: DlqCommand,
    /// The letters that it is about.
    pub selection: Selection,
    /// Whether it writes JSON.
    pub is_json: bool,
}

impl DlqArgs {
    /// Returns what is asked for.
    #[must_use]
    pub fn request(&self) -> DlqRequest {
        match self.command.clone() {
            DlqGiven::List(ListArgs { filter, output, from_any_source }) => {
                request(DlqCommand::List, filter, Reach { from_any_source, ..NONE }, &output)
            }
            DlqGiven::Show(ShowArgs { ids, mut filter, output, from_any_source }) => {
                filter.message_id.extend(ids);
                request(DlqCommand::Show, filter, Reach { from_any_source, ..NONE }, &output)
            }
            DlqGiven::Redrive(RedriveArgs { filter, consent, rate, output }) => {
                let all = consent.all;
                let command = DlqCommand::Redrive { rate, consent: consent.into() };
                request(command, filter, Reach { all, ..NONE }, &output)
            }
            DlqGiven::Discard(arguments) => {
                let DiscardArgs { filter, consent, copies, output } = arguments;
                let all = consent.all;
                let unnamed = if copies.without_copy { Copies::None } else { Copies::Unsaid };
                let copies = copies.export.map_or(unnamed, Copies::File);
                let command = DlqCommand::Discard { copies, consent: consent.into() };
                request(command, filter, Reach { all, ..NONE }, &output)
            }
            DlqGiven::Export(ExportArgs { file, filter, limit, from_any_source }) => {
                let output = OutputArgs { limit, json: false };
                let reach = Reach { from_any_source, ..NONE };
                request(DlqCommand::Export(file), filter, reach, &output)
            }
        }
    }
}

/// What a command takes along beyond its conditions.
struct Reach {
    all: bool,
    from_any_source: bool,
}

const NONE: Reach = Reach { all: false, from_any_source: false };

fn request(
    command: DlqCommand,
    filter: FilterArgs,
    reach: Reach,
    output: &OutputArgs,
) -> DlqRequest {
    let Reach { all, from_any_source } = reach;
    let filter = filter.into();
    let selection = Selection { filter, all, from_any_source, limit: output.limit };
    DlqRequest { command, selection, is_json: output.json }
}

impl From<FilterArgs> for Filter {
    fn from(given: FilterArgs) -> Self {
        Self {
            reasons: given.reason,
            event_types: given.event_type,
            reservations: given.reservation,
            events: given.event,
            message_ids: given.message_id,
            older_than: given.older_than,
            newer_than: given.newer_than,
            origin: given.origin.map(|origin| match origin {
                OriginArg::Worker => Origin::Worker,
                OriginArg::Sqs => Origin::Sqs,
            }),
        }
    }
}

impl From<ConsentArgs> for Consent {
    fn from(given: ConsentArgs) -> Self {
        Self { dry_run: given.dry_run, yes: given.yes }
    }
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(DeadLetterReason::all().map(DeadLetterReason::as_str))
}

fn event_type(text: &str) -> Result<String, String> {
    let known = EventType::from_name(text).map(EventType::as_str);
    let known = known.or((text == UNKNOWN_TYPE).then_some(UNKNOWN_TYPE));
    known.map(str::to_owned).ok_or_else(|| {
        let names = EventType::ALL.map(EventType::as_str).join(", ");
        format!("one of {names}, {UNKNOWN_TYPE}")
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = || digits.parse::<u64>().ok()?.checked_mul(unit?);
    seconds()
        .map(Duration::from_secs)
        .ok_or_else(|| "a whole number and a unit: 90s, 15m, 2h, 3d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("3d", 259_200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for wrong in ["", "h", "2", "-2h", "2 h", "1.5h", "2hours", "99999999999999999999d", "٣h"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_type_may_be_given_by_its_other_names() {
        assert_eq!(event_type("reservation.hold.expired"), Ok("reservation.expired".to_owned()));
        assert_eq!(event_type("unknown"), Ok("unknown".to_owned()));
        assert!(event_type("payment").is_err_and(|why| why.contains("payment.approved")));
    }
}
