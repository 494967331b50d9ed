//! What `dlq` is asked for, in plain types: the command, and the letters that it is about.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The type shown for a body without a known one.
pub(crate) const UNKNOWN_TYPE: &str = "unknown";

/// Letters that `show` prints, unless another limit is given.
const SHOW_LIMIT: u64 = 10;

/// Who put a message into the dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The worker, with `dlq_reason`.
    Worker,
    /// SQS, by the redrive policy; or somebody else.
    Sqs,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Sqs => "sqs",
        })
    }
}

/// The conditions; an empty list allows everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `dlq_reason` is one of these.
    pub reasons: Vec<String>,
    /// The event's type is one of these; `unknown` is one of them.
    pub event_types: Vec<String>,
    /// The event's reservation is one of these.
    pub reservations: Vec<String>,
    /// The event's identity is one of these.
    pub events: Vec<String>,
    /// The SQS id of the dead letter, or of the original message, is one of these.
    pub message_ids: Vec<String>,
    /// It was dead-lettered at least so long ago. Where SQS moved it: it was sent.
    pub older_than: Option<Duration>,
    /// It was dead-lettered less than so long ago. Where SQS moved it: it was sent.
    pub newer_than: Option<Duration>,
    /// Who put it into the dead-letter queue.
    pub origin: Option<Origin>,
}

impl Filter {
    /// Whether there is no condition at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            reasons,
            event_types,
            reservations,
            events,
            message_ids,
            older_than,
            newer_than,
            origin,
        } = self;
        let lists = [reasons, event_types, reservations, events, message_ids];
        lists.iter().all(|list| list.is_empty())
            && older_than.is_none()
            && newer_than.is_none()
            && origin.is_none()
    }

    /// Whether this reason is named.
    #[must_use]
    pub fn names_reason(&self, reason: &str) -> bool {
        self.reasons.iter().any(|named| named == reason)
    }
}

/// Which letters a command is about.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The conditions.
    pub filter: Filter,
    /// Whether all letters are meant, if there is no condition.
    pub all: bool,
    /// Whether letters of other queues are meant too.
    pub from_any_source: bool,
    /// Letters at most.
    pub limit: Option<u64>,
}

/// How a command that changes something asks before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Changes nothing.
    pub dry_run: bool,
    /// Does not ask.
    pub yes: bool,
}

/// What becomes of the letters that `discard` deletes.
#[derive(Clone, Debug)]
pub enum Copies {
    /// It was not said.
    Unsaid,
    /// They are appended to this file first.
    File(PathBuf),
    /// They are gone.
    None,
}

/// A command on the dead-letter queue.
#[derive(Clone, Debug)]
pub enum DlqCommand {
    /// Shows one line for each letter.
    List,
    /// Shows letters whole.
    Show,
    /// Sends letters back to the queue, so many a second.
    Redrive {
        /// Letters a second, 1 to 500.
        rate: u32,
        /// Whether it asks.
        consent: Consent,
    },
    /// Deletes letters.
    Discard {
        /// Where copies go.
        copies: Copies,
        /// Whether it asks.
        consent: Consent,
    },
    /// Saves letters to a new file; `-` is standard output.
    Export(PathBuf),
}

impl DlqCommand {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Show => "show",
            Self::Redrive { .. } => "redrive",
            Self::Discard { .. } => "discard",
            Self::Export(_) => "export",
        }
    }

    /// Returns what the command has done to a letter; empty if nothing.
    pub(crate) const fn verb(&self) -> &'static str {
        match self {
            Self::List | Self::Show => "",
            Self::Redrive { .. } => "redriven",
            Self::Discard { .. } => "discarded",
            Self::Export(_) => "exported",
        }
    }

    /// Returns how it asks, if it changes the queue.
    pub(crate) const fn consent(&self) -> Option<Consent> {
        match self {
            Self::Redrive { consent, .. } | Self::Discard { consent, .. } => Some(*consent),
            Self::List | Self::Show | Self::Export(_) => None,
        }
    }

    /// Whether the command has failed if it did not reach every letter.
    pub(crate) const fn is_about_all(&self) -> bool {
        match self {
            Self::Redrive { .. } | Self::Discard { .. } | Self::Export(_) => true,
            Self::List | Self::Show => false,
        }
    }

    pub(crate) fn default_limit(&self, filter: &Filter) -> u64 {
        match self {
            Self::Show => {
                let named = u64::try_from(filter.message_ids.len()).unwrap_or(u64::MAX);
                SHOW_LIMIT.max(named)
            }
            Self::List | Self::Redrive { .. } | Self::Discard { .. } | Self::Export(_) => u64::MAX,
        }
    }
}
