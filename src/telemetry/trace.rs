//! Traces: the sampling decision, and setup and shutdown of the export.
//!
//! Spans are in `trace/span.rs` and `trace/queue_span.rs`, the OTLP exporter is in
//! `trace/export.rs`, and [`super::context`] parses the parents.
//!
//! Spans are created as the SDK's `SpanData` and passed to its batch processor (a bounded queue and
//! one thread). The sampling decision is made before attributes are collected: an event that is
//! not recorded costs two random numbers.

mod export;
mod otlp_http;
mod queue_span;
mod recording;
mod span;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample, SpanData};

use self::export::Exporting;
pub use self::queue_span::{QueueSpan, QueueSpans, SpanLink};
pub use self::recording::SpanFailure;
pub use self::span::{CallEnd, CallSpan, CallStart, CallStatus, EventSpan};
use super::context::{TraceParent, baggage};
use crate::config::{OtlpTransport, Propagators};
use crate::metrics::Metrics;

/// Settings of the trace export.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// `false` disables the export (`OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER=none`).
    pub enabled: bool,
    /// Collector endpoint: a URL, or `host:port` for gRPC without TLS. For an https URL the
    /// certificate is verified with the system's root certificates.
    pub endpoint: String,
    /// Protocol, headers, timeout and compression.
    pub transport: OtlpTransport,
    /// The resource attribute `service.name`.
    pub service_name: String,
    /// Decoded `OTEL_RESOURCE_ATTRIBUTES`. `service_name` overrides a `service.name` in them.
    pub resource_attributes: Vec<(String, String)>,
    /// Sampling rules.
    pub sampling: Sampling,
    /// Propagators to read (`OTEL_PROPAGATORS`). Without any, each event starts a new trace.
    pub propagators: Propagators,
}

/// Sampling rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Ratio of traces to record, 0 to 1, if no parent decides.
    pub ratio: f64,
    /// Whether the sampling decision of a parent is kept.
    pub parent_based: bool,
}

impl Sampling {
    /// OpenTelemetry's default: the parent's decision, otherwise record all traces.
    pub const DEFAULT: Self = Self { ratio: 1.0, parent_based: true };

    /// Returns whether any trace can be recorded.
    fn records_any(self) -> bool {
        self.ratio > 0.0 || self.parent_based
    }

    fn decide(self, trace_id: TraceId, parent: Option<bool>) -> bool {
        if let Some(sampled) = parent.filter(|_| self.parent_based) {
            return sampled;
        }
        // The SDK's algorithm: every service of a trace selects the same trace ids.
        let sampler = Sampler::TraceIdRatioBased(self.ratio);
        let result = sampler.should_sample(None, trace_id, "", &SpanKind::Consumer, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

/// Error of tracing setup or of [`Tracing::probe`].
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint is not a URL or `host:port`, or TLS cannot be set up for it.
    #[error("the OTLP endpoint cannot be used: {0}")]
    Endpoint(#[source] tonic::transport::Error),
    /// The HTTP client cannot be built.
    #[error("the collector cannot be spoken to over HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// The exporter rejected its settings.
    #[error("the OTLP exporter cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The collector rejected the request or is not reachable. Only [`Tracing::probe`] returns it.
    #[error("{0}")]
    Refused(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The collector did not respond to [`Tracing::probe`] within this time.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
}

/// Factory of spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracing(Arc<TracingParts>);

#[derive(Debug)]
struct TracingParts {
    sampling: Sampling,
    propagators: Propagators,
    /// `None`: tracing is disabled; events have ids and no spans.
    exporting: Option<Exporting>,
    scope: InstrumentationScope,
}

/// Data of an event when its message is received.
#[derive(Clone, Copy, Debug)]
pub struct EventStart<'a> {
    /// The queue's name: the last segment of its URL.
    pub queue_name: &'a str,
    /// The SQS message id.
    pub message_id: &'a str,
    /// The sender's span.
    pub parent: Option<&'a TraceParent>,
    /// W3C `baggage` of the message.
    pub baggage: Option<&'a str>,
    /// Receive time; the start time of the span.
    pub received_at: SystemTime,
}

impl Tracing {
    /// Sets up tracing without connecting: an unavailable collector is not an error. Exported and
    /// dropped spans are counted in `metrics`.
    ///
    /// # Errors
    /// If the endpoint is invalid, or the client or exporter cannot be built.
    ///
    /// # Panics
    /// If enabled and called outside a Tokio runtime.
    pub fn new(settings: &TraceSettings, metrics: Arc<Metrics>) -> Result<Self, TraceError> {
        let exporting = settings.enabled.then(|| Exporting::new(settings, metrics)).transpose()?;
        Ok(Self::with(exporting, settings.sampling, settings.propagators))
    }

    /// Tests the collector once, with an export request that contains no spans.
    ///
    /// # Errors
    /// If the collector is not reachable, rejects the request, or does not answer within `limit`.
    pub async fn probe(settings: &TraceSettings, limit: Duration) -> Result<(), TraceError> {
        let asked = tokio::time::timeout(limit, export::probe(settings)).await;
        asked.map_err(|_| TraceError::NoAnswer(limit))?
    }

    /// Creates disabled tracing: no spans, but events still have trace ids to log and propagate.
    #[must_use]
    pub fn disabled() -> Self {
        Self::with(None, Sampling::DEFAULT, Propagators::default())
    }

    fn with(exporting: Option<Exporting>, sampling: Sampling, propagators: Propagators) -> Self {
        Self(Arc::new(TracingParts {
            sampling,
            propagators,
            exporting,
            scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }))
    }

    /// Starts the consumer span of an event, and creates the ids for its log lines.
    pub fn start_event(&self, start: EventStart<'_>) -> EventSpan {
        let read = self.0.propagators;
        let parent = start.parent.filter(|_| read.trace_context || read.xray);
        let baggage = start.baggage.filter(|_| read.baggage).and_then(baggage);
        let trace_id = parent.map_or_else(new_trace_id, |parent| parent.trace_id);
        if self.0.exporting.is_none() {
            return EventSpan::pass_on(trace_id, parent, baggage);
        }
        let sampled = parent.and_then(|parent| match parent.sampled {
            Some(false) if parent.is_xray && !read.xray => None,
            sampled => sampled,
        });
        let sampled = self.0.sampling.decide(trace_id, sampled);
        EventSpan::start(self, EventStart { baggage, ..start }, parent, trace_id, sampled)
    }

    /// Returns whether a W3C `traceparent` is used. The worker uses X-Ray's header in any case.
    #[must_use]
    pub fn reads_trace_context(&self) -> bool {
        self.0.propagators.trace_context
    }

    /// Exports the remaining spans and stops the export, within `limit`. Spans that end later
    /// are lost. A second call does nothing.
    ///
    /// If the future is dropped, the flush continues in the background, until `limit` is over.
    pub async fn shutdown(&self, limit: Duration) {
        if self.0.exporting.is_none() {
            return;
        }
        let inner = Arc::clone(&self.0);
        let flush = tokio::task::spawn_blocking(move || {
            inner.exporting.as_ref().map(|exporting| exporting.shutdown(limit))
        });
        if let Ok(Some(Err(error))) = flush.await {
            tracing::warn!(error = %error, "Spans were left unsent");
        }
    }

    fn export(&self, span: SpanData) {
        if let Some(exporting) = &self.0.exporting {
            exporting.export(span);
        }
    }

    /// Returns the id of a new trace, or `None` if that trace is not sampled.
    fn sampled_root(&self) -> Option<TraceId> {
        let trace_id = new_trace_id();
        let is_sampled = self.0.exporting.is_some() && self.0.sampling.decide(trace_id, None);
        is_sampled.then_some(trace_id)
    }

    fn scope(&self) -> InstrumentationScope {
        self.0.scope.clone()
    }
}

/// Returns a random trace id. Zero is excluded: it means "no id" in the protocol.
fn new_trace_id() -> TraceId {
    TraceId::from(fastrand::u128(1..))
}

fn new_span_id() -> SpanId {
    SpanId::from(fastrand::u64(1..))
}
