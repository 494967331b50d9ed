//! From a message to a job: decodes it, begins its span, and puts it into the table, or sets it
//! aside where it is no event.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{debug, info};

use crate::event::{ContentHash, Poison, decode};
use crate::inflight::room::RoomPermit;
use crate::inflight::{Admitted, InFlight, Job, Original, Receipt, Taken};
use crate::metrics::{DuplicateReason, HeldState, Metrics, Outcome};
use crate::queue::{Message, QueueError};
use crate::settle::Settler;
use crate::settle::ledger::{Ledger, Left};
use crate::telemetry::{
    EventSpan, EventStart, Failure, QueueSpans, SpanLink, TraceParent, Tracing,
};

/// The name of the attributes that carry W3C trace context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// How much earlier than SQS we take a receipt's visibility timeout to end: SQS began to count when
/// it handed the message out, and the answer was on its way for a while.
const TRANSIT_MAX: Duration = Duration::from_secs(1);

/// Takes messages in.
pub struct Intake {
    /// Where they are held.
    pub inflight: Arc<InFlight>,
    /// What becomes of those that are no events.
    pub settler: Settler,
    /// Where their spans begin.
    pub tracing: Tracing,
    /// Where the receives' own spans begin.
    pub spans: QueueSpans,
    /// What counts them.
    pub metrics: Arc<Metrics>,
    /// What accounts for them.
    pub ledger: Arc<Ledger>,
    /// The queue's name, for spans.
    pub queue_name: String,
    /// How long each receipt lasts.
    pub visibility: Duration,
}

/// A message that was looked into.
enum Opened {
    Event(Box<Job>, Original, Receipt),
    Poison(Poison, EventSpan, Original, Receipt),
}

impl Opened {
    fn origin(&self) -> Option<SpanLink> {
        match self {
            Self::Event(job, ..) => job.span.origin(),
            Self::Poison(_, span, ..) => span.origin(),
        }
    }
}

/// A message that is not to be held, and why.
enum Refused {
    Poison(Taken, Poison, EventSpan),
    IdReused(Taken, Box<Job>, ContentHash),
}

impl Intake {
    /// Takes in the messages of the reply to a receive that began then.
    pub async fn take_in(
        &self,
        messages: Vec<(Message, RoomPermit)>,
        began_at: Instant,
        received_at: Instant,
    ) {
        let opened: Vec<_> = messages
            .into_iter()
            .map(|(message, room)| self.open(message, room, received_at))
            .collect();
        let origins: Vec<_> = opened.iter().filter_map(Opened::origin).collect();
        self.spans.received(wall_clock(began_at), opened.len(), &origins);
        for refused in self.admit(opened) {
            match refused {
                Refused::Poison(taken, poison, span) => {
                    self.settler.reject_poison(taken, poison, span).await;
                }
                Refused::IdReused(taken, job, held) => {
                    self.settler.reject_reused_id(job, taken, held).await;
                }
            }
        }
    }

    /// A receive that began then failed.
    pub fn note_failed(&self, began_at: Instant, error: &QueueError) {
        let message = error.to_string();
        let failure = Failure { error_type: error.kind.word(), message: &message };
        self.spans.receive_failed(wall_clock(began_at), failure);
    }

    /// Hands a message back unopened: the worker is leaving.
    pub async fn hand_back(&self, message: Message, room: RoomPermit, received_at: Instant) {
        let (receipt, _) = self.split(message, room, received_at);
        // A message that is still being worked on must not become visible: it stays with its job.
        match self.inflight.rejoin(receipt) {
            Ok(replaced) => self.ledger.left(Left::Replaced, usize::from(replaced)),
            Err(receipt) => self.settler.hand_back_unopened(receipt).await,
        }
    }

    fn open(&self, message: Message, room: RoomPermit, received_at: Instant) -> Opened {
        self.note_lag(&message);
        let event = match decode(&message.body) {
            Ok(event) => event,
            Err(poison) => {
                let span = self.start_span(&message, None);
                let (mut receipt, original) = self.split(message, room, received_at);
                receipt.span = span.link();
                return Opened::Poison(poison, span, original, receipt);
            }
        };
        let mut span =
            self.start_span(&message, event.trace_parent.as_deref().and_then(TraceParent::parse));
        span.set_event(
            event.event_type().as_str(),
            Some(event.reservation_id.as_str()),
            Some(event.id.as_str()),
        );
        debug!(
            event_type = event.event_type().as_str(),
            reservation_id = event.reservation_id.as_str(),
            trace_id = span.trace_id(),
            message_id = %message.id,
            event_id = event.id.as_str(),
            receive_count = message.receive_count,
            "Event received"
        );
        let held = self.metrics.held(HeldState::Buffered);
        let link = span.link();
        let job = Box::new(Job::new(event, &message, received_at, span, held));
        let (mut receipt, original) = self.split(message, room, received_at);
        receipt.span = link;
        Opened::Event(job, original, receipt)
    }

    /// What was received before waited here or elsewhere, not in the queue.
    fn note_lag(&self, message: &Message) {
        if let Some(sent_at) = message.sent_at.filter(|_| message.receive_count == 1) {
            let lag = SystemTime::now().duration_since(sent_at).unwrap_or(Duration::ZERO);
            self.metrics.queue_lag(lag);
        }
    }

    /// Into the table, all at once; gives what is not to be held.
    fn admit(&self, opened: Vec<Opened>) -> Vec<Refused> {
        let (mut refused, mut copies) = (Vec::new(), Vec::new());
        let mut admission = self.inflight.admission();
        for opened in opened {
            match opened {
                Opened::Poison(poison, span, original, receipt) => {
                    let taken = admission.aside(original, receipt);
                    refused.push(Refused::Poison(taken, poison, span));
                }
                Opened::Event(job, original, receipt) => {
                    match admission.event(job, original, receipt) {
                        Admitted::Ready | Admitted::InLane => {}
                        Admitted::Joined { job, replaced } => copies.push((job, replaced)),
                        Admitted::IdReused(job, taken, held) => {
                            refused.push(Refused::IdReused(taken, job, held));
                        }
                    }
                }
            }
        }
        drop(admission);
        for (job, replaced) in copies {
            self.joined(*job, replaced);
        }
        refused
    }

    /// A copy shares the settlement of the one that is held; its own fate is told here.
    fn joined(&self, job: Job, replaced: bool) {
        if replaced {
            self.ledger.left(Left::Replaced, 1);
            debug!(
                reservation_id = job.event.reservation_id.as_str(),
                "Message received again while it is held: its newer receipt is used"
            );
            let Job { span, .. } = job;
            return span.end("replaced", 1, None);
        }
        self.metrics.duplicate(DuplicateReason::Joined);
        self.metrics.event_settled(Some(job.event.event_type()), Outcome::Dropped);
        info!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            trace_id = job.span.trace_id(),
            outcome = Outcome::Dropped.as_str(),
            "Duplicate of an event in flight, settled with it"
        );
        let Job { span, .. } = job;
        span.end(Outcome::Dropped.as_str(), 1, None);
    }

    fn start_span(&self, message: &Message, in_body: Option<TraceParent>) -> EventSpan {
        let parent = parent(message, in_body);
        self.tracing.start_event(EventStart {
            queue_name: &self.queue_name,
            message_id: &message.id.0,
            parent: parent.as_ref(),
            received_at: SystemTime::now(),
        })
    }

    fn split(
        &self,
        message: Message,
        room: RoomPermit,
        received_at: Instant,
    ) -> (Receipt, Original) {
        let deadline = received_at + self.visibility - TRANSIT_MAX.min(self.visibility / 10);
        Receipt::split(message, received_at, deadline, room)
    }
}

/// The span that sent the message: as its `traceparent` says, else its X-Ray header, else its body.
#[must_use]
pub fn parent(message: &Message, in_body: Option<TraceParent>) -> Option<TraceParent> {
    let attribute = message.text_attribute(TRACEPARENT).and_then(TraceParent::parse);
    attribute
        .map(|parent| match message.text_attribute(TRACESTATE) {
            Some(state) => parent.with_tracestate(state),
            None => parent,
        })
        .or_else(|| message.trace_header.as_deref().and_then(TraceParent::from_xray))
        .or(in_body)
}

/// The time of day at an instant that has passed.
fn wall_clock(instant: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(instant.elapsed()).unwrap_or(now)
}
