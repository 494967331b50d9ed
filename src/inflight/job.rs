//! Contents of the table: jobs, the messages that they came from, and their receipts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::InFlight;
use super::capacity::Permit;
use super::lease::Lease;
use crate::client::Reservation;
use crate::clock;
use crate::event::{ContentHash, Event, ReservationId, StepSet};
use crate::metrics::{HeldGuard, SuspectGuard};
use crate::outage::attribution::ServiceCharges;
use crate::queue::{Attribute, Message, MessageGroup, MessageId, ReceiptHandle};
use crate::telemetry::{EventSpan, SpanLink};

/// Key of a job in the table; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey(pub(super) u64);

/// Key of a receipt in the table; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiptKey(pub(super) u64);

/// One event on its way from receipt to settlement.
/// Not `Clone`: it exists in one place at a time, and settling consumes it.
#[derive(Debug)]
pub struct Job {
    /// The job's key in the table, set on admission.
    pub key: JobKey,
    /// The event to handle.
    pub event: Event,
    /// Reservation data from the Reservation API, if the event lacks what a step needs.
    pub reservation: Option<Arc<Reservation>>,
    /// Hash that distinguishes a true duplicate from an id that was used twice.
    pub hash: ContentHash,
    /// Attempts started in this delivery, including the current one.
    pub attempt: u32,
    /// Failed attempts of any kind. The backoff grows with this number.
    pub failures: u32,
    /// Retries used.
    /// Pacing, waiting for a service, and failures that the service may have caused use none.
    pub retries: u32,
    /// For each service, the retries that its failures have cost this event.
    pub charges: ServiceCharges,
    /// Counts the job among the suspects: it fails while other events succeed.
    pub suspect: Option<SuspectGuard>,
    /// Steps that succeeded in this delivery, or in an earlier one that the store knows.
    pub done: StepSet,
    /// Steps in `done` that the store has recorded.
    pub recorded: StepSet,
    /// The reservation's status, if it is already past this event.
    /// No further call is made for the event; it only remains to be recorded as handled.
    pub superseded: Option<&'static str>,
    /// How often it waited in the table after its retries were used up in this delivery.
    /// It did not go back to the queue, but each time counts as a receive.
    pub rounds: u32,
    /// How often the event was found to be claimed by another process.
    pub waits: u32,
    /// Its wait for another event of its reservation in another process.
    pub turn: Option<TurnWait>,
    /// Its place among the events of its reservation that have not begun: the one sent first is
    /// first. `None`: in order of receipt.
    pub order: Option<SystemTime>,
    /// When the message was received.
    pub received_at: Instant,
    /// When the sender sent the message to SQS.
    pub sent_at: Option<SystemTime>,
    /// How often SQS has delivered the message, including this time.
    pub receive_count: u32,
    /// The lease and the claim of the job.
    pub lease: Lease,
    /// The consumer span.
    pub span: EventSpan,
    /// Counts the job among the held messages, by state.
    pub held: HeldGuard,
}

impl Job {
    /// Creates a job for a message received at `received_at`.
    #[must_use]
    pub fn new(
        event: Event,
        message: &Message,
        received_at: Instant,
        span: EventSpan,
        held: HeldGuard,
    ) -> Self {
        Self {
            key: JobKey(0),
            hash: event.content_hash(),
            event,
            reservation: None,
            attempt: 0,
            failures: 0,
            retries: 0,
            charges: ServiceCharges::default(),
            suspect: None,
            done: StepSet::default(),
            recorded: StepSet::default(),
            superseded: None,
            rounds: 0,
            waits: 0,
            turn: None,
            order: None,
            received_at,
            sent_at: message.sent_at,
            receive_count: message.receive_count,
            lease: Lease::new(clock::now()),
            span,
            held,
        }
    }

    /// Returns whether the event is untouched: no attempt was made, and no claim requested.
    pub(super) fn has_not_begun(&self) -> bool {
        self.attempt == 0 && !self.lease.may_be_claimed()
    }

    /// Returns the memory of the seats that the Reservation API returned, in bytes.
    #[must_use]
    pub fn bytes_learnt(&self) -> usize {
        let seats = self.reservation.as_ref().and_then(|known| known.seats.as_ref());
        seats.map_or(0, |seats| seats.seat_ids.bytes())
    }
}

/// A wait for another event of the reservation that another process has.
#[derive(Clone, Copy, Debug)]
pub struct TurnWait {
    /// When it began.
    pub since: Instant,
    /// How often the store was asked.
    pub asked: u32,
}

/// Parts of the message that a copy in the dead-letter queue needs.
#[derive(Debug)]
pub struct OriginalMessage {
    /// The unchanged body.
    pub body: String,
    /// The message id from SQS.
    pub message_id: MessageId,
    /// The id of the message of which this is a copy, or its own id.
    pub original_id: MessageId,
    /// The message group.
    pub group: Option<MessageGroup>,
    /// The X-Ray header.
    pub trace_header: Option<Box<str>>,
    /// The message attributes set by the sender.
    pub attributes: Vec<Attribute>,
    /// How often the message was received.
    pub receive_count: u32,
}

/// One receipt of one message: its handle, its deadline and the room that it takes.
#[derive(Debug)]
pub struct Receipt {
    /// The message id from SQS.
    pub message_id: MessageId,
    /// The receipt handle.
    pub handle: ReceiptHandle,
    /// How often SQS had delivered the message, including this time.
    /// The newest receipt has the highest.
    pub receive_count: u32,
    /// Start of the lease, by [`clock`]. SQS did not deliver the message earlier.
    pub leased_at: Instant,
    /// End of the visibility timeout as far as is known; never later than in SQS.
    pub deadline: Instant,
    /// Approximate age of the message at `leased_at`, in seconds; `None` if unknown.
    pub age_s: Option<u32>,
    /// The room that it takes until it is settled.
    pub permit: Permit,
    /// The span of its event, if recorded.
    pub span: Option<SpanLink>,
}

impl OriginalMessage {
    /// Returns the FIFO group.
    #[must_use]
    pub fn ordered_group(&self) -> Option<&str> {
        self.group.as_ref().and_then(MessageGroup::ordered)
    }
}

impl Receipt {
    /// Splits a message, leased from `leased_at`, into its receipt and its content.
    #[must_use]
    pub fn split(
        message: Message,
        leased_at: Instant,
        deadline: Instant,
        permit: Permit,
    ) -> (Self, OriginalMessage) {
        let original_id = MessageId(message.original_id().into());
        let receipt = Self {
            message_id: message.id.clone(),
            handle: message.handle,
            receive_count: message.receive_count,
            leased_at,
            deadline,
            age_s: message.sent_at.map(age_s),
            permit,
            span: None,
        };
        let original = OriginalMessage {
            original_id,
            body: message.body,
            message_id: message.id,
            group: message.group,
            trace_header: message.trace_header,
            attributes: message.attributes,
            receive_count: message.receive_count,
        };
        (receipt, original)
    }
}

/// Returns the age in seconds. If this clock is behind the clock of SQS, the age is 0.
fn age_s(sent_at: SystemTime) -> u32 {
    let age = SystemTime::now().duration_since(sent_at).unwrap_or(Duration::ZERO);
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

/// The ordering key: events with the same key are handled one after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Reservation(ReservationId),
    Group(Box<str>),
}

/// The messages of a job, removed from the table to be settled together.
#[derive(Debug)]
pub struct RemovedJob {
    /// The message from which the job was created.
    pub original: OriginalMessage,
    /// Its receipts, including those of joined copies.
    pub receipts: Vec<Receipt>,
    /// Its turn in its group; dropped when the message is settled.
    pub turn: Option<GroupTurn>,
}

/// The turn of a message in its FIFO group.
/// While it exists, no later message of the group starts. Dropping it means that the message is
/// settled.
#[derive(Debug)]
pub struct GroupTurn {
    pub(super) inflight: Arc<InFlight>,
    pub(super) lane: Lane,
    pub(super) key: JobKey,
    /// How often the message was received.
    pub(super) receives: u32,
}

impl GroupTurn {
    /// Ends the turn of a message that goes back to the queue unsettled.
    /// Later messages of its group go back too, if it comes again.
    pub fn abandon(self) {
        self.inflight.leave_group_unsettled(&self.lane, self.key, self.receives);
    }
}

impl Drop for GroupTurn {
    fn drop(&mut self) {
        self.inflight.leave_group(&self.lane, self.key);
    }
}
