//! The steps of an event and their calls, without making any: what the handlers of its type do
//! where every call succeeds.

use crate::client::{ReleaseReason, TargetStatus};
use crate::event::{Event, Payload, Payment, Seats, ShowId, Step};

/// The call of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedCall<'e> {
    /// Sets the reservation's status.
    SetStatus {
        /// The status.
        target: TargetStatus,
        /// The payment, if the event has one.
        payment_intent_id: Option<&'e str>,
    },
    /// Releases the held seats. What is `None` is asked of the Reservation API first.
    ReleaseHold {
        /// The show.
        show_id: Option<&'e ShowId>,
        /// The seats.
        seats: Option<&'e Seats>,
        /// Why they are released.
        reason: ReleaseReason,
    },
    /// Commits the held seats as sold.
    Commit {
        /// The show.
        show_id: &'e ShowId,
        /// The seats.
        seats: &'e Seats,
        /// The payment that paid for them.
        payment: &'e Payment,
    },
}

impl PlannedCall<'_> {
    /// Returns the step that the call is.
    #[must_use]
    pub const fn step(&self) -> Step {
        match self {
            Self::SetStatus { .. } => Step::ReservationStatus,
            Self::ReleaseHold { .. } => Step::InventoryRelease,
            Self::Commit { .. } => Step::InventoryCommit,
        }
    }
}

/// Returns the calls of an event's steps, in order.
#[must_use]
pub fn plan(event: &Event) -> Vec<PlannedCall<'_>> {
    let show_id = event.show_id.as_ref();
    match &event.payload {
        Payload::ReservationExpired(seats) => {
            let (seats, reason) = (seats.as_ref(), ReleaseReason::Expired);
            vec![
                set_status(TargetStatus::Expired, None),
                PlannedCall::ReleaseHold { show_id, seats, reason },
            ]
        }
        Payload::PaymentApproved(payment) => {
            let first = set_status(TargetStatus::Confirmed, Some(payment));
            let commit = show_id.zip(payment.seats.as_ref());
            let commit =
                commit.map(|(show_id, seats)| PlannedCall::Commit { show_id, seats, payment });
            std::iter::once(first).chain(commit).collect()
        }
        Payload::PaymentFailed(payment) => {
            let first = set_status(TargetStatus::Cancelled, Some(payment));
            let release = payment.seats.as_ref().map(|seats| PlannedCall::ReleaseHold {
                show_id,
                seats: Some(seats),
                reason: ReleaseReason::FailedPayment,
            });
            std::iter::once(first).chain(release).collect()
        }
    }
}

fn set_status(target: TargetStatus, payment: Option<&Payment>) -> PlannedCall<'_> {
    let payment_intent_id = payment.and_then(|payment| payment.payment_intent_id.as_deref());
    PlannedCall::SetStatus { target, payment_intent_id }
}
