//! Client spans of SQS calls: `receive <queue>`, `settle <queue>`, and `send` of a dead letter,
//! according to OpenTelemetry's semantic conventions for messaging
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>). The spans of events
//! are in [`super::span`].
//!
//! One call contains up to ten messages, so its span has a link for each message that is recorded.
//! Without such a message there is no span: otherwise most spans would be empty receives, and an
//! event that is not sampled would have a cost. A receive starts its own trace, with links to the
//! senders of its messages. A settlement is in the trace of its first recorded event.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceFlags, TraceState};
use opentelemetry_sdk::trace::SpanLinks;

use super::recording::SpanFailure;
use super::recording::{Begin, Recording};
use super::{Tracing, new_span_id, new_trace_id};

/// Link to a recorded span.
#[derive(Clone, Debug)]
pub struct SpanLink(Box<SpanContext>);

impl SpanLink {
    pub(super) fn new(context: SpanContext) -> Self {
        Self(Box::new(context))
    }

    fn link(&self) -> Link {
        Link::with_context((*self.0).clone())
    }
}

/// Operation of a queue call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Receive,
    /// Settlement, with its operation name: `delete`, `release`.
    Settle(&'static str),
    /// Send of a copy to the dead-letter queue.
    Send,
}

impl Operation {
    /// `messaging.operation.type`.
    fn kind(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Settle(_) => "settle",
            Self::Send => "send",
        }
    }

    /// `messaging.operation.name`.
    fn name(self) -> &'static str {
        match self {
            Self::Receive | Self::Send => self.kind(),
            Self::Settle(name) => name,
        }
    }
}

/// Factory of spans for queue calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueueSpans {
    tracing: Tracing,
    queue_name: Arc<str>,
}

impl QueueSpans {
    /// Creates a factory for calls to the queue `queue_name`.
    #[must_use]
    pub fn new(tracing: Tracing, queue_name: &str) -> Self {
        Self { tracing, queue_name: queue_name.into() }
    }

    /// Records a receive of `messages` messages. `links` are the origins of the recorded ones.
    pub fn received(&self, began_at: SystemTime, messages: usize, links: &[SpanLink]) {
        if links.is_empty() {
            return;
        }
        self.begin(Operation::Receive, None, began_at, links.iter(), messages).end(None);
    }

    /// Records a failed receive, subject to sampling.
    pub fn receive_failed(&self, began_at: SystemTime, failure: SpanFailure<'_>) {
        let Some(trace_id) = self.tracing.sampled_root() else { return };
        let root = Some(SpanContext::new(
            trace_id,
            new_span_id(),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ));
        self.begin(Operation::Receive, root, began_at, std::iter::empty(), 0).end(Some(failure));
    }

    /// Starts the span of a settlement of `messages` messages; `links` are the recorded ones.
    pub fn settle<'a>(
        &self,
        operation: &'static str,
        messages: usize,
        links: impl Iterator<Item = &'a SpanLink>,
    ) -> QueueSpan {
        self.begin_beside(Operation::Settle(operation), messages, links)
    }

    /// Starts the span of a send to the dead-letter queue.
    pub fn send_dead_letter(&self, link: Option<&SpanLink>) -> QueueSpan {
        self.begin_beside(Operation::Send, 1, link.into_iter())
    }

    /// Starts a span in the trace of the first link. Without links there is no span.
    fn begin_beside<'a>(
        &self,
        operation: Operation,
        messages: usize,
        links: impl Iterator<Item = &'a SpanLink>,
    ) -> QueueSpan {
        let mut links = links.peekable();
        match links.peek() {
            Some(first) => {
                let beside = Some((*first.0).clone());
                self.begin(operation, beside, SystemTime::now(), links, messages)
            }
            None => QueueSpan(None),
        }
    }

    /// Starts a span in the trace of `parent`, or in a new trace if it is `None`.
    fn begin<'a>(
        &self,
        operation: Operation,
        parent: Option<SpanContext>,
        at: SystemTime,
        links: impl Iterator<Item = &'a SpanLink>,
        messages: usize,
    ) -> QueueSpan {
        let trace_id = parent.as_ref().map_or_else(new_trace_id, SpanContext::trace_id);
        let is_child = operation != Operation::Receive;
        let state = parent.as_ref().map_or(TraceState::NONE, |parent| parent.trace_state().clone());
        let mut attributes = vec![
            KeyValue::new("messaging.system", "aws_sqs"),
            KeyValue::new("messaging.operation.name", operation.name()),
            KeyValue::new("messaging.operation.type", operation.kind()),
            KeyValue::new(
                "messaging.batch.message_count",
                i64::try_from(messages).unwrap_or(i64::MAX),
            ),
        ];
        let mut name = operation.kind().to_owned();
        // The name of the dead-letter queue is not available here and may not be known yet.
        if operation != Operation::Send {
            name = format!("{name} {}", self.queue_name);
            let destination = self.queue_name.to_string();
            attributes.push(KeyValue::new("messaging.destination.name", destination));
        }
        let mut recording = Recording::begin(
            &self.tracing,
            Begin {
                context: SpanContext::new(
                    trace_id,
                    new_span_id(),
                    TraceFlags::SAMPLED,
                    false,
                    state,
                ),
                parent: parent.filter(|_| is_child).map(|parent| parent.span_id()),
                parent_is_remote: false,
                kind: SpanKind::Client,
                name: name.into(),
                at,
                attributes,
            },
        );
        let mut linked = SpanLinks::default();
        linked.links = links.map(SpanLink::link).collect();
        recording.link(linked);
        QueueSpan(Some(recording))
    }
}

/// Span of one queue call.
#[derive(Debug)]
#[must_use = "a span that is dropped ends as abandoned"]
pub struct QueueSpan(Option<Box<Recording>>);

impl QueueSpan {
    /// Ends the span, with its failure if any.
    pub fn end(mut self, failure: Option<SpanFailure<'_>>) {
        if let Some(mut recording) = self.0.take() {
            recording.finish(failure);
        }
    }
}
