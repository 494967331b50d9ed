//! A queue that is half well: one thing that it is asked for ails while the others work, for a time or for ever.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::action::Action;
use super::error::ErrorCode;
use super::faults::{Fault, Faults};

/// What a queue is asked for, one by one or in batches: as IAM has it, one permission each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Messages.
    Receive,
    /// That a message stays hidden for longer, or is visible again.
    ChangeVisibility,
    /// That a message is gone.
    Delete,
    /// That it takes a message.
    Send,
    /// Its settings.
    ReadAttributes,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Receive, Self::ChangeVisibility, Self::Delete, Self::Send, Self::ReadAttributes];

    /// The permission's name, without `sqs:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "ReceiveMessage",
            Self::ChangeVisibility => "ChangeMessageVisibility",
            Self::Delete => "DeleteMessage",
            Self::Send => "SendMessage",
            Self::ReadAttributes => "GetQueueAttributes",
        }
    }

    fn of(action: Action) -> Option<Self> {
        // Batches have no permissions of their own.
        let name = action.name().trim_end_matches("Batch");
        Self::ALL.into_iter().find(|right| right.name() == name)
    }
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// `AccessDenied`, worded as SQS does it.
    Denied,
    /// `InternalError`, with status 500.
    Failing,
    /// `RequestThrottled`.
    Throttled,
    /// It is done, so much later.
    Slow(Duration),
}

/// What ails, and until when.
#[derive(Debug, Default)]
pub(crate) struct Ailments(HashMap<Right, (Ailment, Option<Instant>)>);

impl Ailments {
    /// How long a call is held back, and how it fails, if it does.
    pub(crate) fn call(&self, action: Action) -> (Duration, Option<Fault>) {
        let found = Right::of(action).and_then(|right| self.0.get(&right));
        let Some((ailment, _)) =
            found.filter(|(_, until)| until.is_none_or(|until| Instant::now() < until))
        else {
            return (Duration::ZERO, None);
        };
        match *ailment {
            Ailment::Denied => (Duration::ZERO, Some(Fault::Error(ErrorCode::AccessDenied))),
            Ailment::Failing => (Duration::ZERO, Some(Fault::Error(ErrorCode::InternalError))),
            Ailment::Throttled => (Duration::ZERO, Some(Fault::Error(ErrorCode::RequestThrottled))),
            Ailment::Slow(time) => (time, None),
        }
    }
}

impl Faults {
    /// All calls that need this right ail so, until [`Faults::heal`]. Comes before all other faults of calls.
    pub fn ail(&self, right: Right, ailment: Ailment) {
        self.turn(|plan| {
            plan.ailments.0.insert(right, (ailment, None));
        });
    }

    /// The same, for so long and no longer.
    pub fn ail_for(&self, right: Right, ailment: Ailment, time: Duration) {
        let until = Some(Instant::now() + time);
        self.turn(|plan| {
            plan.ailments.0.insert(right, (ailment, until));
        });
    }

    /// They do not any more.
    pub fn heal(&self, right: Right) {
        self.turn(|plan| {
            plan.ailments.0.remove(&right);
        });
    }
}
