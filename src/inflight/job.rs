//! What the table holds: jobs, the messages that they came from, and their receipts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::InFlight;
use super::room::RoomPermit;
use super::state::Lane;
use crate::event::{ContentHash, Event, StepSet};
use crate::idempotency::Token;
use crate::metrics::HeldGuard;
use crate::outage::{Answer, Dependency, Mark};
use crate::queue::{Attribute, Message, MessageId, ReceiptHandle};
use crate::sabotage::{Sabotage, on};
use crate::telemetry::EventSpan;

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
    pub blame: [Blame; Dependency::ALL.len()],
    /// Steps that have succeeded, in this delivery or, where the store knows, an earlier one.
    pub done: StepSet,
    /// Those of them that the store knows.
    pub recorded: StepSet,
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
            attempt: 0,
            failures: 0,
            retries: 0,
            blame: Default::default(),
            done: StepSet::default(),
            recorded: StepSet::default(),
            waits: 0,
            received_at,
            sent_at: message.sent_at,
            receive_count: message.receive_count,
            lease: Lease::new(received_at),
            span,
            held,
        }
    }
}

/// What one service's failures have cost an event, for as long as it is open whose fault they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blame {
    /// How the service fared when this event last found it away, if it was alone with that.
    mark: Option<Mark>,
    /// It found the service away again after others had not.
    is_suspect: bool,
    /// Retries charged with no call between that went well from its beginning.
    charged: u32,
    /// When the last was charged: calls begun, and how often the service had been away.
    since: (u64, u64),
}

impl Blame {
    /// Whether a failure of the outage class is the event's own: the second that looks like it.
    /// The first may be the beginning of another outage, which somebody has to be the first to find.
    pub fn is_own(&mut self, answer: Answer) -> bool {
        let looks_own = answer.blames(self.mark);
        let is_own = looks_own && self.is_suspect;
        self.is_suspect |= looks_own;
        self.mark = answer.mark();
        is_own
    }

    /// What fared well before an outage says nothing about the next one.
    pub fn acquit(&mut self) {
        self.mark = None;
        self.is_suspect = false;
    }

    /// A retry is charged for a failure that may be the event's own.
    pub fn charge(&mut self, answer: Answer) {
        if answer.well > self.since.0 {
            self.charged = 0;
        }
        self.charged += 1;
        self.since = (answer.begun, answer.openings);
    }

    /// Gives back what was charged, if those failures turned out to be the beginning of an outage.
    pub fn settle(&mut self, answer: Answer, retries: &mut u32) {
        if self.charged > 0 && answer.openings > self.since.1 {
            *retries = retries.saturating_sub(self.charged);
            self.charged = 0;
        }
    }
}

/// Whether a job is still ours: until when the last of its receipts stands, and until when its event
/// is claimed.
///
/// Read before each step. It needs nobody to notice that the time is up: a process that was
/// suspended sees it too.
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
    /// As `until_us`; 0 while there is no claim.
    claimed_until_us: AtomicU64,
    /// A claim was asked for, and no answer said that it is not ours.
    is_asked: AtomicBool,
}

impl Lease {
    fn new(origin: Instant) -> Self {
        Self(Arc::new(LeaseInner {
            origin,
            until_us: AtomicU64::new(0),
            token: Token::unique(),
            claimed_until_us: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
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
        self.left_of(&self.0.until_us)
    }

    /// What the event is claimed with.
    #[must_use]
    pub fn token(&self) -> Token {
        self.0.token
    }

    /// Whether the event is claimed by us, for all that we know.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        // A worker that never claims would claim nothing: only the end of a claim is ignored.
        on(Sabotage::LeaseLossIgnored) && self.was_claimed()
            || !self.left_of(&self.0.claimed_until_us).is_zero()
    }

    /// Whether the event has been claimed by us, and that claim was not lost to anybody: it may have
    /// run out.
    #[must_use]
    pub fn was_claimed(&self) -> bool {
        self.0.claimed_until_us.load(Ordering::Acquire) > 0
    }

    /// A claim is about to be asked for: until its answer is known it may be ours.
    pub fn claim_asked(&self) {
        self.0.is_asked.store(true, Ordering::Release);
    }

    /// Whether the store may know of a claim of ours, though its answer was never read.
    #[must_use]
    pub fn may_be_claimed(&self) -> bool {
        self.was_claimed() || self.0.is_asked.load(Ordering::Acquire)
    }

    /// The claim stands until then.
    pub fn claimed(&self, until: Instant) {
        self.0.claimed_until_us.store(self.us(until), Ordering::Release);
    }

    /// The claim is somebody else's, or gone.
    pub fn claim_lost(&self) {
        self.0.is_asked.store(false, Ordering::Release);
        self.0.claimed_until_us.store(0, Ordering::Release);
    }

    pub(super) fn set(&self, until: Option<Instant>) {
        self.0.until_us.store(until.map_or(0, |at| self.us(at)), Ordering::Release);
    }

    fn us(&self, at: Instant) -> u64 {
        let after = at.saturating_duration_since(self.0.origin);
        u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
    }

    fn left_of(&self, until_us: &AtomicU64) -> Duration {
        let until = Duration::from_micros(until_us.load(Ordering::Acquire));
        until.saturating_sub(self.0.origin.elapsed())
    }
}

/// What a copy in the dead-letter queue needs of the message.
#[derive(Debug)]
pub struct Original {
    /// The body, untouched.
    pub body: String,
    /// SQS's id.
    pub message_id: MessageId,
    /// The FIFO group.
    pub group_id: Option<Box<str>>,
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
    /// When the message came in.
    pub received_at: Instant,
    /// When its visibility timeout ends, as far as we know: never later than SQS thinks.
    pub deadline: Instant,
    /// The room that it takes until it is settled.
    pub room: RoomPermit,
}

impl Receipt {
    /// Splits a message that came in at `received_at` into what settles it and what it said.
    #[must_use]
    pub fn split(
        message: Message,
        received_at: Instant,
        deadline: Instant,
        room: RoomPermit,
    ) -> (Self, Original) {
        let receipt = Self {
            message_id: message.id.clone(),
            handle: message.handle,
            receive_count: message.receive_count,
            received_at,
            deadline,
            room,
        };
        let original = Original {
            body: message.body,
            message_id: message.id,
            group_id: message.group_id,
            attributes: message.attributes,
            receive_count: message.receive_count,
        };
        (receipt, original)
    }
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
}

impl GroupTurn {
    /// The message is not settled but goes back to the queue: what is later in its group goes too.
    pub fn abandon(self) {
        self.inflight.leave_group(&self.lane, self.key, true);
    }
}

impl Drop for GroupTurn {
    fn drop(&mut self) {
        self.inflight.leave_group(&self.lane, self.key, false);
    }
}
