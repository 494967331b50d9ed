//! One consumer span per event, and one client span per call to a service.
//!
//! The attributes are those of OpenTelemetry's semantic conventions 1.44:
//! <https://opentelemetry.io/docs/specs/semconv/messaging/sqs/>,
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>. Attributes of this worker start with
//! `reservation_worker.`.
//!
//! A span that is dropped before its end (a panic, a cancelled call) is exported with the error
//! type `abandoned`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};

use super::super::context::{Ascii, TraceParent, trace_id_text, traceparent_text, xray_text};
use super::recording::{Begin, Recording, SpanFailure};
use super::{EventStart, SpanLink, Tracing, new_span_id};

/// Maximum number of span events per span: the SDK's default limit.
const EVENTS_MAX: usize = 128;

/// Data of an outgoing call at its start.
#[derive(Clone, Copy, Debug)]
pub enum CallStart<'a> {
    /// An HTTP request.
    Http {
        /// The request's method.
        method: &'static str,
        /// The path with placeholders for ids: `/internal/reservations/{reservation_id}`.
        url_template: &'static str,
        /// The full URL. It must not contain credentials.
        url: &'a str,
        /// The server's host.
        server_address: &'a str,
        /// The server's port.
        server_port: u16,
    },
    /// A gRPC call.
    Rpc {
        /// The method with its service: `reservation.v1.InventoryService/ReleaseHold`.
        method: &'static str,
        /// The server's host.
        server_address: &'a str,
        /// The server's port.
        server_port: u16,
    },
}

/// Response status of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStatus {
    /// The HTTP status code.
    Http(u16),
    /// The gRPC code by name: `OK`, `UNAVAILABLE`.
    Rpc(&'static str),
    /// No response.
    None,
}

/// Result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEnd<'a> {
    /// The response status.
    pub status: CallStatus,
    /// The failure, if any.
    pub failure: Option<SpanFailure<'a>>,
}

/// Span of an event from receive to settlement, and the ids for its log lines and its calls.
#[derive(Debug)]
#[must_use = "a span that is dropped ends as abandoned"]
pub struct EventSpan {
    trace_id: TraceId,
    span_id: SpanId,
    sampled: bool,
    trace_id_text: Ascii<32>,
    state: TraceState,
    state_text: Option<Box<str>>,
    baggage: Option<Arc<str>>,
    recording: Option<Box<Recording>>,
}

impl EventSpan {
    /// Creates a span for disabled tracing: the parent's context is propagated unchanged.
    pub(super) fn pass_on(
        trace_id: TraceId,
        parent: Option<&TraceParent>,
        baggage: Option<&str>,
    ) -> Self {
        let span_id = parent.and_then(|parent| parent.span_id).unwrap_or_else(new_span_id);
        let sampled = parent.and_then(|parent| parent.sampled).unwrap_or(false);
        let baggage = baggage.map(Arc::from);
        Self { baggage, ..Self::ids(trace_id, span_id, sampled, parent) }
    }

    pub(super) fn start(
        tracing: &Tracing,
        start: EventStart<'_>,
        parent: Option<&TraceParent>,
        trace_id: TraceId,
        sampled: bool,
    ) -> Self {
        let mut span = Self::ids(trace_id, new_span_id(), sampled, parent);
        span.baggage = start.baggage.map(Arc::from);
        if sampled {
            let begin = Begin {
                context: span.context(span.span_id),
                parent: parent.and_then(|parent| parent.span_id),
                parent_is_remote: true,
                kind: SpanKind::Consumer,
                name: format!("process {}", start.queue_name).into(),
                at: start.received_at,
                attributes: vec![
                    KeyValue::new("messaging.system", "aws_sqs"),
                    KeyValue::new("messaging.operation.name", "process"),
                    KeyValue::new("messaging.operation.type", "process"),
                    KeyValue::new("messaging.destination.name", start.queue_name.to_owned()),
                    KeyValue::new("messaging.message.id", start.message_id.to_owned()),
                ],
            };
            span.recording = Some(Recording::begin(tracing, begin));
        }
        span
    }

    fn ids(
        trace_id: TraceId,
        span_id: SpanId,
        sampled: bool,
        parent: Option<&TraceParent>,
    ) -> Self {
        let state = parent.map_or(TraceState::NONE, |parent| parent.state.clone());
        Self {
            trace_id,
            span_id,
            sampled,
            trace_id_text: trace_id_text(trace_id),
            state_text: (state != TraceState::NONE).then(|| state.header().into()),
            state,
            baggage: None,
            recording: None,
        }
    }

    fn context(&self, span_id: SpanId) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.trace_id, span_id, flags, false, self.state.clone())
    }

    /// Returns the trace id as 32 lower-case hexadecimal digits. Every event has one.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.trace_id_text.as_str()
    }

    /// Returns whether this event is recorded.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Returns a link to this span, or `None` if it is not recorded.
    #[must_use]
    pub fn link(&self) -> Option<SpanLink> {
        self.is_recording().then(|| SpanLink::new(self.context(self.span_id)))
    }

    /// Returns a link to the sender's span, or to this span if the sender is unknown. `None` if
    /// this span is not recorded.
    #[must_use]
    pub fn origin(&self) -> Option<SpanLink> {
        let data = self.recording.as_ref()?.data.as_ref()?;
        let known = Some(data.parent_span_id).filter(|parent| *parent != SpanId::INVALID);
        Some(SpanLink::new(self.context(known.unwrap_or(self.span_id))))
    }

    /// Sets the attributes of the parsed event.
    pub fn set_event(
        &mut self,
        event_type: &'static str,
        reservation_id: Option<&str>,
        event_id: Option<&str>,
    ) {
        if let Some(recording) = &mut self.recording {
            recording.set("reservation_worker.event_type", event_type);
            if let Some(id) = reservation_id {
                recording.set("reservation_worker.reservation_id", id.to_owned());
            }
            if let Some(id) = event_id {
                recording.set("reservation_worker.event_id", id.to_owned());
            }
        }
    }

    /// Adds a span event, for example a scheduled retry. At most 128 are kept.
    pub fn add_event(
        &mut self,
        name: &'static str,
        attributes: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let Some(data) = self.recording.as_mut().and_then(|r| r.data.as_mut()) else {
            return;
        };
        if data.events.len() == EVENTS_MAX {
            data.events.dropped_count += 1;
            return;
        }
        let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
        let event = Event::new(name, SystemTime::now(), attributes.collect(), 0);
        data.events.events.push(event);
    }

    /// Starts the client span of a call for this event.
    pub fn start_call(&self, start: CallStart<'_>) -> CallSpan {
        let (state_text, baggage) = (self.state_text.clone(), self.baggage.clone());
        let Some(tracing) = self.recording.as_ref().map(|recording| &recording.tracing) else {
            return CallSpan {
                traceparent: traceparent_text(self.trace_id, self.span_id, self.sampled),
                tracestate: state_text,
                baggage,
                recording: None,
            };
        };
        let span_id = new_span_id();
        let begin = Begin {
            context: self.context(span_id),
            parent: Some(self.span_id),
            parent_is_remote: false,
            kind: SpanKind::Client,
            name: start.span_name(),
            at: SystemTime::now(),
            attributes: start.attributes(),
        };
        CallSpan {
            traceparent: traceparent_text(self.trace_id, span_id, self.sampled),
            tracestate: state_text,
            baggage,
            recording: Some(Recording::begin(tracing, begin)),
        }
    }

    /// Ends the span with the outcome, the attempt number (from 1), and the failure if any.
    pub fn end(mut self, outcome: &'static str, attempt: u32, failure: Option<SpanFailure<'_>>) {
        if let Some(mut recording) = self.recording.take() {
            recording.set("reservation_worker.outcome", outcome);
            recording.set("reservation_worker.attempt", i64::from(attempt));
            recording.finish(failure);
        }
    }
}

/// Span of one outgoing call.
#[derive(Debug)]
#[must_use = "a span that is dropped ends as abandoned"]
pub struct CallSpan {
    traceparent: Ascii<55>,
    tracestate: Option<Box<str>>,
    baggage: Option<Arc<str>>,
    recording: Option<Box<Recording>>,
}

impl CallSpan {
    /// Returns the W3C `traceparent` to send.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        self.traceparent.as_str()
    }

    /// Returns the W3C `tracestate` to send, if any.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Returns the W3C `baggage` to send, if it is propagated.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_deref()
    }

    /// Returns the `X-Amzn-Trace-Id` to send if X-Ray's propagator is configured.
    #[must_use]
    pub fn xray(&self) -> String {
        xray_text(&self.traceparent)
    }

    /// Ends the span with the result of the call.
    pub fn end(mut self, end: CallEnd<'_>) {
        let Some(mut recording) = self.recording.take() else {
            return;
        };
        match end.status {
            CallStatus::Http(status) => {
                recording.set("http.response.status_code", i64::from(status));
            }
            CallStatus::Rpc(code) => recording.set("rpc.response.status_code", code),
            CallStatus::None => {}
        }
        recording.finish(end.failure);
    }
}

impl CallStart<'_> {
    fn span_name(&self) -> Cow<'static, str> {
        match *self {
            Self::Http { method, url_template, .. } => format!("{method} {url_template}").into(),
            Self::Rpc { method, .. } => method.into(),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        match *self {
            Self::Http { method, url_template, url, server_address, server_port } => vec![
                KeyValue::new("http.request.method", method),
                KeyValue::new("url.template", url_template),
                KeyValue::new("url.full", url.to_owned()),
                KeyValue::new("server.address", server_address.to_owned()),
                KeyValue::new("server.port", i64::from(server_port)),
            ],
            Self::Rpc { method, server_address, server_port } => vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("server.address", server_address.to_owned()),
                KeyValue::new("server.port", i64::from(server_port)),
            ],
        }
    }
}
