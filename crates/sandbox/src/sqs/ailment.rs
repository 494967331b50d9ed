//! Partial failures of a queue: one action fails or is slow while the others work, optionally for a
//! limited time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::action::Action;
use super::error::ErrorCode;
use super::faults::{Fault, Faults};

/// The kinds of actions on a queue, single or in batches. IAM has one permission for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Receiving messages.
    Receive,
    /// Changing the visibility timeout of a message.
    ChangeVisibility,
    /// Deleting a message.
    Delete,
    /// Sending a message.
    Send,
    /// Reading the queue's attributes.
    ReadAttributes,
}

impl Right {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Receive, Self::ChangeVisibility, Self::Delete, Self::Send, Self::ReadAttributes];

    /// Returns the permission's name without `sqs:`.
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

/// The kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// `AccessDenied` with the wording of SQS.
    Denied,
    /// `InternalError` with status 500.
    Failing,
    /// `RequestThrottled`.
    Throttled,
    /// Success after this delay.
    Slow(Duration),
}

/// The active failures with their ends.
#[derive(Debug, Default)]
pub(crate) struct Ailments(HashMap<Right, (Ailment, Option<Instant>)>);

impl Ailments {
    /// Returns the delay and the fault of a call.
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
    /// Sets the failure of this permission until [`Faults::heal`]. Overrides all other faults of
    /// calls.
    pub fn ail(&self, right: Right, ailment: Ailment) {
        self.turn(|plan| {
            plan.ailments.0.insert(right, (ailment, None));
        });
    }

    /// Sets the failure of this permission for this time.
    pub fn ail_for(&self, right: Right, ailment: Ailment, time: Duration) {
        let until = Some(Instant::now() + time);
        self.turn(|plan| {
            plan.ailments.0.insert(right, (ailment, until));
        });
    }

    /// Ends the failure of this permission.
    pub fn heal(&self, right: Right) {
        self.turn(|plan| {
            plan.ailments.0.remove(&right);
        });
    }
}
