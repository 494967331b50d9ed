//! Turns messages into jobs: decodes each message, starts its span, and adds it to the in-flight
//! table, or rejects it if it is not an event.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::debug;

use crate::event::{BodyTrace, ContentHash, Event, NoChange, NoEvent, Poison, decode};
use crate::inflight::capacity::Permit;
use crate::inflight::{Admitted, InFlight, Job, OriginalMessage, Receipt, RemovedJob, log_job};
use crate::metrics::{DuplicateReason, HeldState, Metrics, Outcome};
use crate::queue::{Message, QueueError};
use crate::settle::Settler;
use crate::settle::account::{Disposition, MessageAccount};
use crate::telemetry::{
    EventSpan, EventStart, QueueSpans, SpanFailure, SpanLink, TraceParent, Tracing,
};

/// Message attributes that carry W3C trace context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// Safety margin at the end of a receipt's visibility timeout, at most. SQS starts to count when it
/// hands the message out; the response is then in transit for some time.
const TRANSIT_MAX: Duration = Duration::from_secs(1);

/// Takes messages in.
pub struct Intake {
    /// The table of held jobs.
    pub inflight: Arc<InFlight>,
    /// Settles messages that are not held.
    pub settler: Settler,
    /// Starts event spans.
    pub tracing: Tracing,
    /// Starts spans of receives.
    pub spans: QueueSpans,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Accounting of all messages.
    pub account: Arc<MessageAccount>,
    /// The queue's name, for spans.
    pub queue_name: String,
}

/// Timing of a receive, and the visibility timeout that it requested.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Start of the receive.
    pub began_at: Instant,
    /// Time at which the response was read.
    pub received_at: Instant,
    /// Start of the leases: SQS did not hand the messages out before. Measured by the lease clock.
    pub leased_at: Instant,
    /// The visibility timeout of each receipt.
    pub visibility: Duration,
}

/// A decoded message.
enum DecodedMessage {
    Event(Box<Job>, OriginalMessage, Receipt),
    NoEvent(NoEvent, EventSpan, OriginalMessage, Receipt),
}

impl DecodedMessage {
    fn origin(&self) -> Option<SpanLink> {
        match self {
            Self::Event(job, ..) => job.span.origin(),
            Self::NoEvent(_, span, ..) => span.origin(),
        }
    }
}

/// A message that is not held, with the reason.
enum Refused {
    Poison(RemovedJob, Poison, EventSpan),
    NoChange(RemovedJob, NoChange, EventSpan),
    IdReused(RemovedJob, Box<Job>, ContentHash),
    Deferred(Box<Job>, Receipt, Duration, bool),
}

impl Intake {
    /// Takes in the messages of one receive.
    pub async fn take_in(&self, messages: Vec<(Message, Permit)>, received: Received) {
        let opened: Vec<_> = messages
            .into_iter()
            .map(|(message, permit)| self.open(message, permit, received))
            .collect();
        let origins: Vec<_> = opened.iter().filter_map(DecodedMessage::origin).collect();
        self.spans.received(wall_clock(received.began_at), opened.len(), &origins);
        for refused in self.admit(opened) {
            match refused {
                Refused::Poison(removed, poison, span) => {
                    self.settler.reject_poison(removed, poison, span).await;
                }
                Refused::NoChange(removed, no_change, span) => {
                    self.settler.drop_unchanging(removed, no_change, span).await;
                }
                Refused::IdReused(removed, job, held) => {
                    self.settler.reject_reused_id(job, removed, held).await;
                }
                Refused::Deferred(job, receipt, after, is_first) => {
                    self.settler.defer(job, receipt, after, is_first).await;
                }
            }
        }
    }

    /// Records the span of a failed receive.
    pub fn note_failed(&self, began_at: Instant, error: &QueueError) {
        let message = error.to_string();
        let failure = SpanFailure { error_type: error.kind.as_str(), message: &message };
        self.spans.receive_failed(wall_clock(began_at), failure);
    }

    /// Returns a message to the queue without decoding it, during shutdown.
    pub async fn hand_back(&self, message: Message, permit: Permit, received: Received) {
        let (receipt, _) = split(message, permit, received);
        // A message whose job is in progress must not become visible: its receipt joins that job.
        match self.inflight.rejoin(receipt) {
            Ok(replaced) => self.account.left(Disposition::Replaced, usize::from(replaced)),
            Err(receipt) => self.settler.hand_back_unopened(receipt).await,
        }
    }

    fn open(&self, message: Message, mut permit: Permit, received: Received) -> DecodedMessage {
        self.note_lag(&message);
        let event = match decode(&message.body, message.original_id()) {
            Ok(event) => event,
            Err(no_event) => {
                let span = self.start_span(&message, None);
                let (mut receipt, original) = split(message, permit, received);
                receipt.span = span.link();
                return DecodedMessage::NoEvent(no_event, span, original, receipt);
            }
        };
        permit.grow(event.bytes());
        if event.is_id_of_message {
            self.metrics.event_without_id(event.event_type());
        }
        let mut span = self.start_span(&message, Some(&event));
        span.set_event(
            event.event_type().as_str(),
            Some(event.reservation_id.as_str()),
            Some(event.id.as_str()),
        );
        let held = self.metrics.held(HeldState::Buffered);
        let link = span.link();
        let mut job = Box::new(Job::new(event, &message, received.received_at, span, held));
        log_job!(
            debug,
            job,
            message_id = %message.id,
            event_id = job.event.id.as_str(),
            receive_count = message.receive_count,
            "Event received"
        );
        let (mut receipt, original) = split(message, permit, received);
        receipt.span = link;
        job.order = job.sent_at.filter(|_| self.settler.idempotency.is_ordered);
        DecodedMessage::Event(job, original, receipt)
    }

    /// Records the queue lag at the first receive only: later ones include time in a consumer.
    fn note_lag(&self, message: &Message) {
        if let Some(sent_at) = message.sent_at.filter(|_| message.receive_count == 1) {
            let lag = SystemTime::now().duration_since(sent_at).unwrap_or(Duration::ZERO);
            self.metrics.queue_lag(lag);
        }
    }

    /// Adds the messages to the table under one lock; returns those that are not held.
    fn admit(&self, opened: Vec<DecodedMessage>) -> Vec<Refused> {
        let (mut refused, mut copies) = (Vec::new(), Vec::new());
        let mut admission = self.inflight.admission();
        for opened in opened {
            match opened {
                DecodedMessage::NoEvent(no_event, span, original, receipt) => {
                    let removed = admission.aside(original, receipt);
                    refused.push(match no_event {
                        NoEvent::Poison(poison) => Refused::Poison(removed, poison, span),
                        NoEvent::NoChange(no_change) => Refused::NoChange(removed, no_change, span),
                    });
                }
                DecodedMessage::Event(job, original, receipt) => {
                    match admission.event(job, original, receipt) {
                        Admitted::Ready | Admitted::InLane => {}
                        Admitted::Joined { job, replaced } => copies.push((job, replaced)),
                        Admitted::Deferred { job, receipt, after, is_first } => {
                            refused.push(Refused::Deferred(job, receipt, after, is_first));
                        }
                        Admitted::IdReused(job, removed, held) => {
                            refused.push(Refused::IdReused(removed, job, held));
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

    /// Logs and counts a copy of a held event. The copy is settled together with that event.
    fn joined(&self, job: Job, replaced: bool) {
        if replaced {
            self.account.left(Disposition::Replaced, 1);
            debug!(
                reservation_id = job.event.reservation_id.as_str(),
                "Message received again while it is held: its newer receipt is used"
            );
            let Job { span, .. } = job;
            return span.end("replaced", 1, None);
        }
        self.metrics.duplicate(DuplicateReason::Joined);
        self.metrics.event_settled(Some(job.event.event_type()), Outcome::Dropped);
        log_job!(
            info,
            job,
            outcome = Outcome::Dropped.as_str(),
            "Duplicate of an event in flight, settled with it"
        );
        let Job { span, .. } = job;
        span.end(Outcome::Dropped.as_str(), 1, None);
    }

    fn start_span(&self, message: &Message, event: Option<&Event>) -> EventSpan {
        let parent = if self.tracing.reads_trace_context() {
            parent(message, event.and_then(|event| event.trace.as_ref()))
        } else {
            xray_parent(message)
        };
        self.tracing.start_event(EventStart {
            queue_name: &self.queue_name,
            message_id: &message.id.0,
            parent: parent.as_ref(),
            baggage: message
                .text_attribute(BAGGAGE)
                .or_else(|| event.and_then(|event| event.baggage.as_deref())),
            received_at: SystemTime::now(),
        })
    }
}

fn split(message: Message, permit: Permit, received: Received) -> (Receipt, OriginalMessage) {
    let Received { leased_at, visibility, .. } = received;
    let deadline = leased_at + visibility - TRANSIT_MAX.min(visibility / 10);
    Receipt::split(message, leased_at, deadline, permit)
}

/// Returns the span that sent the message. Sources in order: the `traceparent` attribute of the
/// message, the attributes of an SNS notification, the X-Ray header, the body.
#[must_use]
pub fn parent(message: &Message, in_body: Option<&BodyTrace>) -> Option<TraceParent> {
    let attribute = || {
        let state = message.text_attribute(TRACESTATE);
        let parent = TraceParent::parse(message.text_attribute(TRACEPARENT)?)?;
        Some(with_state(parent, state))
    };
    let body = |is_attribute: bool| {
        let trace = in_body.filter(|trace| trace.is_attribute == is_attribute)?;
        Some(with_state(trace.parent.into(), trace.state.as_deref()))
    };
    attribute().or_else(|| body(true)).or_else(|| xray_parent(message)).or_else(|| body(false))
}

fn with_state(parent: TraceParent, state: Option<&str>) -> TraceParent {
    match state {
        Some(state) => parent.with_tracestate(state),
        None => parent,
    }
}

fn xray_parent(message: &Message) -> Option<TraceParent> {
    message.trace_header.as_deref().and_then(TraceParent::from_xray)
}

/// Converts a past instant to wall-clock time.
fn wall_clock(instant: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(instant.elapsed()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::capacity::InFlightLimiter;
    use crate::queue::{MessageId, ReceiptHandle};

    /// SQS starts to count when it hands the message out; the response arrives later.
    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_before_the_visibility_timeout() {
        for (visibility_s, margin_ms) in [(5, 500), (10, 1_000), (30, 1_000), (3_600, 1_000)] {
            let message = Message {
                id: MessageId("m".into()),
                handle: ReceiptHandle("h".into()),
                body: String::new(),
                receive_count: 1,
                sent_at: None,
                group: None,
                trace_header: None,
                source_arn: None,
                attributes: Vec::new(),
            };
            let now = Instant::now();
            let visibility = Duration::from_secs(visibility_s);
            let leased_at = now - Duration::from_millis(100);
            let received = Received { began_at: now, received_at: now, leased_at, visibility };
            let permit = InFlightLimiter::new(10, 64 << 20).reserve().await.take(1).expect("room");
            let (receipt, _) = split(message, permit, received);
            let margin = leased_at + visibility - receipt.deadline;
            assert_eq!(margin, Duration::from_millis(margin_ms), "{visibility:?}");
        }
    }
}
