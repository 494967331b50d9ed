//! What the table holds: jobs, the messages that they came from, and their receipts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::InFlight;
use super::room::RoomPermit;
use super::state::Lane;
use crate::client::Reservation;
use crate::clock;
use crate::event::{ContentHash, Event, StepSet};
use crate::idempotency::Token;
use crate::metrics::{HeldGuard, SuspectGuard};
use crate::outage::attribution::ServiceCharges;
use crate::queue::{Attribute, Message, MessageGroup, MessageId, ReceiptHandle};
use crate::sabotage::{Sabotage, on};
use crate::telemetry::{EventSpan, SpanLink};

/// Names a job in the table; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u64);

/// Names a receipt in the table; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiptKey(pub(super) u64);

/// One event on its way from receipt to settlement. Not `Clone`: it is in one place at a time, and
/// settling it consumes it.
#[derive(Debug)]
pub struct Job {
    /// Its name in the table; set when it is admitted.
    pub key: Key,
    /// What is to take effect.
    pub event: Event,
    /// What the Reservation API was found to know of its reservation, where the event does not say what a step needs.
    pub reservation: Option<Arc<Reservation>>,
    /// By which a true duplicate is told from an id that was used twice.
    pub hash: ContentHash,
    /// Attempts begun in this delivery, the present one included.
    pub attempt: u32,
    /// Attempts that failed, of whatever kind: the backoff grows with it.
    pub failures: u32,
    /// Retries used up: pacing, waiting for a service, and failures that may be the service's cost
    /// none.
    pub retries: u32,
    /// For each service, what its failures have cost this event.
    pub charges: ServiceCharges,
    /// It fails while others do well: counts it among the suspects.
    pub suspect: Option<SuspectGuard>,
    /// Steps that have succeeded, in this delivery or, where the store knows, an earlier one.
    pub done: StepSet,
    /// Those of them that the store knows.
    pub recorded: StepSet,
    /// The status that the reservation was found in, where that is past the event: no call is made
    /// for it any more, and all that is left is to have it known as handled.
    pub superseded: Option<&'static str>,
    /// How often its retries were used up in this delivery, and it waited in place of going back to the queue: each
    /// counts as a receive.
    pub rounds: u32,
    /// How often the event was found to be claimed by somebody else.
    pub waits: u32,
    /// When the message came in.
    pub received_at: Instant,
    /// When its sender handed it to SQS.
    pub sent_at: Option<SystemTime>,
    /// How often SQS has handed it out, this time included.
    pub receive_count: u32,
    /// Whether it is still ours.
    pub lease: Lease,
    /// The consumer span.
    pub span: EventSpan,
    /// Counts it among the messages held, by state.
    pub held: HeldGuard,
}

impl Job {
    /// A job for a message received at `received_at`.
    #[must_use]
    pub fn new(
        event: Event,
        message: &Message,
        received_at: Instant,
        span: EventSpan,
        held: HeldGuard,
    ) -> Self {
        Self {
            key: Key(0),
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
            received_at,
            sent_at: message.sent_at,
            receive_count: message.receive_count,
            lease: Lease::new(clock::now()),
            span,
            held,
        }
    }

    /// The memory that the seats take which the Reservation API named.
    #[must_use]
    pub fn bytes_learnt(&self) -> usize {
        let seats = self.reservation.as_ref().and_then(|known| known.seats.as_ref());
        seats.map_or(0, |seats| seats.seat_ids.bytes())
    }
}

/// Whether a job is still ours: until when the last of its receipts stands, and until when its event
/// is claimed.
///
/// Read before each step. It needs nobody to notice that the time is up: a process that was
/// suspended sees it too, alone or with its machine ([`clock`]).
#[derive(Clone, Debug)]
pub struct Lease(Arc<LeaseInner>);

#[derive(Debug)]
struct LeaseInner {
    /// The clock's origin for `until_us`.
    origin: Instant,
    /// Microseconds after `origin`; 0 when no receipt is left.
    until_us: AtomicU64,
    /// What the event is claimed with.
    token: Token,
    claim: Mutex<ClaimState>,
}

/// What is known of a claim.
#[derive(Clone, Copy, Debug, Default)]
struct ClaimState {
    until: Option<Instant>,
    /// How often it was asked for: a renewal belongs to one of them.
    asked: u64,
    may_stand: bool,
}

impl ClaimState {
    fn stands(&self) -> bool {
        self.until.is_some_and(|until| clock::now() < until)
    }
}

impl Lease {
    fn new(origin: Instant) -> Self {
        Self(Arc::new(LeaseInner {
            origin,
            until_us: AtomicU64::new(0),
            token: Token::unique(),
            claim: Mutex::default(),
        }))
    }

    /// Whether at least one receipt of the job is still ours.
    #[must_use]
    pub fn is_held(&self) -> bool {
        on(Sabotage::LeaseLossIgnored) || !self.remaining().is_zero()
    }

    /// How long the last receipt stands from now on.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let until = Duration::from_micros(self.0.until_us.load(Ordering::Acquire));
        until.saturating_sub(clock::now().saturating_duration_since(self.0.origin))
    }

    /// What the event is claimed with.
    #[must_use]
    pub fn token(&self) -> Token {
        self.0.token
    }

    /// Whether the event is claimed by us, for all that we know.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        let claim = self.claim();
        // A worker that never claims would claim nothing: only the end of a claim is ignored.
        on(Sabotage::LeaseLossIgnored) && claim.may_stand || claim.stands()
    }

    /// Whether the store may hold a claim of ours: it was asked for, and not found to be lost. It may
    /// have run out, or its answer may have been lost.
    #[must_use]
    pub fn may_be_claimed(&self) -> bool {
        self.claim().may_stand
    }

    /// Whether a claim was asked for, and its answer is not known.
    #[must_use]
    pub fn is_claim_asked(&self) -> bool {
        let claim = self.claim();
        claim.may_stand && claim.until.is_none()
    }

    /// The claim is asked for anew. Until it is granted it does not stand, whatever becomes of a
    /// renewal that was sent before: somebody else may have had the event meanwhile, and only the
    /// answer to this says what was done.
    pub fn claim_asked(&self) {
        let mut claim = self.claim();
        *claim = ClaimState { until: None, asked: claim.asked + 1, may_stand: true };
    }

    /// The claim stands until then, or longer: answers may overtake each other.
    pub fn claimed(&self, until: Instant) {
        let mut claim = self.claim();
        claim.until = claim.until.max(Some(until));
    }

    /// The claim is somebody else's, or gone.
    pub fn claim_lost(&self) {
        let mut claim = self.claim();
        *claim = ClaimState { until: None, may_stand: false, ..*claim };
    }

    /// That claim was found lost when it was to be renewed. It may have been asked for anew meanwhile: of that, this says
    /// nothing.
    pub fn renewal_refused(&self, asked: u64) {
        let mut claim = self.claim();
        if claim.asked == asked {
            *claim = ClaimState { until: None, may_stand: false, ..*claim };
        }
    }

    /// Which claim is to be renewed, if one stands.
    #[must_use]
    pub fn renewable(&self) -> Option<u64> {
        let claim = self.claim();
        claim.stands().then_some(claim.asked)
    }

    /// That claim stands until then, or longer.
    pub fn renewed(&self, asked: u64, until: Instant) {
        let mut claim = self.claim();
        if claim.asked == asked && claim.until.is_some() {
            claim.until = claim.until.max(Some(until));
        }
    }

    fn claim(&self) -> MutexGuard<'_, ClaimState> {
        self.0.claim.lock().expect("no panic happens under this lock")
    }

    pub(super) fn set(&self, until: Option<Instant>) {
        let after = until.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.0.origin));
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.0.until_us.store(us, Ordering::Release);
    }
}

/// What a copy in the dead-letter queue needs of the message.
#[derive(Debug)]
pub struct Original {
    /// The body, untouched.
    pub body: String,
    /// SQS's id.
    pub message_id: MessageId,
    /// SQS's id of the message that this is a copy of, or its own.
    pub original_id: MessageId,
    /// What it belongs to.
    pub group: Option<MessageGroup>,
    /// The sender's attributes.
    pub attributes: Vec<Attribute>,
    /// How often it had been received.
    pub receive_count: u32,
}

/// One receipt of one message: what settles it, how long it lasts, and the room that it takes.
#[derive(Debug)]
pub struct Receipt {
    /// SQS's id of the message.
    pub message_id: MessageId,
    /// What settles it.
    pub handle: ReceiptHandle,
    /// How often SQS had handed the message out, this time included: the newest receipt has the most.
    pub receive_count: u32,
    /// Since when it counts: SQS did not hand it out before, by [`clock`].
    pub leased_at: Instant,
    /// When its visibility timeout ends, as far as we know: never later than SQS thinks.
    pub deadline: Instant,
    /// How many seconds before `leased_at` the message was sent, about; `None` where SQS does not say.
    pub age_s: Option<u32>,
    /// The room that it takes until it is settled.
    pub room: RoomPermit,
    /// The span of its event, where that is recorded.
    pub span: Option<SpanLink>,
}

impl Original {
    /// The FIFO group.
    #[must_use]
    pub fn ordered_group(&self) -> Option<&str> {
        self.group.as_ref().and_then(MessageGroup::ordered)
    }
}

impl Receipt {
    /// Splits a message whose lease counts from `leased_at` into what settles it and what it said.
    #[must_use]
    pub fn split(
        message: Message,
        leased_at: Instant,
        deadline: Instant,
        room: RoomPermit,
    ) -> (Self, Original) {
        let original_id = MessageId(message.original_id().into());
        let receipt = Self {
            message_id: message.id.clone(),
            handle: message.handle,
            receive_count: message.receive_count,
            leased_at,
            deadline,
            age_s: message.sent_at.map(age_s),
            room,
            span: None,
        };
        let original = Original {
            original_id,
            body: message.body,
            message_id: message.id,
            group: message.group,
            attributes: message.attributes,
            receive_count: message.receive_count,
        };
        (receipt, original)
    }
}

/// A clock that is behind SQS's makes a message no younger than just sent.
fn age_s(sent_at: SystemTime) -> u32 {
    let age = SystemTime::now().duration_since(sent_at).unwrap_or(Duration::ZERO);
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

/// A job's messages, taken out of the table to be settled together.
#[derive(Debug)]
pub struct Taken {
    /// The message that the job was made of.
    pub original: Original,
    /// Its receipts, and those of the copies that joined it.
    pub receipts: Vec<Receipt>,
    /// Its turn in its group: dropped when it is settled.
    pub turn: Option<GroupTurn>,
}

/// The turn of a message in its FIFO group. While it lasts no later message of the group is started;
/// dropping it says that the message is settled.
#[derive(Debug)]
pub struct GroupTurn {
    pub(super) inflight: Arc<InFlight>,
    pub(super) lane: Lane,
    pub(super) key: Key,
    /// How often the message was received.
    pub(super) receives: u32,
}

impl GroupTurn {
    /// The message is not settled but goes back to the queue: what is later in its group goes too, if it comes again.
    pub fn abandon(self) {
        self.inflight.leave_group_unsettled(&self.lane, self.key, self.receives);
    }
}

impl Drop for GroupTurn {
    fn drop(&mut self) {
        self.inflight.leave_group(&self.lane, self.key);
    }
}
