//! Traces: whether an event is recorded, and how recorded spans leave. The spans themselves are in
//! `trace/span.rs` and `trace/queue_span.rs`, the way to the collector in `trace/export.rs`; [`super::context`] reads the parents.
//!
//! Spans are made as the SDK's own `SpanData` and handed to its batch processor (a bounded queue and one thread). The
//! sampling decision is made here, before anything is gathered: an event that is not recorded costs two random numbers.

mod export;
mod over_http;
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
pub use self::span::{CallEnd, CallSpan, CallStart, CallStatus, EventSpan, Failure};
use super::context::{TraceParent, baggage};
use crate::config::{OtlpTransport, Propagators};
use crate::metrics::Metrics;

/// What tracing needs to know. Where each comes from is the configuration's business.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// `false`: nothing is exported (`OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER=none`).
    pub enabled: bool,
    /// The collector: a URL, or for gRPC in plain text `host:port`. An https URL is checked against the system's roots.
    pub endpoint: String,
    /// How it is spoken to.
    pub transport: OtlpTransport,
    /// `service.name`.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded. A `service.name` among them gives way to the field above.
    pub resource_attributes: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampling: Sampling,
    /// Which parents are read (`OTEL_PROPAGATORS`); where none is, each event begins a trace.
    pub propagators: Propagators,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The share of traces, 0 to 1, that are recorded where the decision is ours.
    pub ratio: f64,
    /// A parent's decision stands.
    pub parent_based: bool,
}

impl Sampling {
    /// The decision of the parent, else everything: OpenTelemetry's default.
    pub const DEFAULT: Self = Self { ratio: 1.0, parent_based: true };

    /// Whether there can be a trace that is recorded.
    fn records_any(self) -> bool {
        self.ratio > 0.0 || self.parent_based
    }

    fn decide(self, trace_id: TraceId, parent: Option<bool>) -> bool {
        if let Some(sampled) = parent.filter(|_| self.parent_based) {
            return sampled;
        }
        // The SDK's own arithmetic, so that every service of a trace draws the line at the same ids.
        let sampler = Sampler::TraceIdRatioBased(self.ratio);
        let result = sampler.should_sample(None, trace_id, "", &SpanKind::Consumer, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint is not a URL or `host:port`, or its TLS could not be set up.
    #[error("the OTLP endpoint cannot be used: {0}")]
    Endpoint(#[source] tonic::transport::Error),
    /// No HTTP client can be had.
    #[error("the collector cannot be spoken to over HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// The exporter refused its settings.
    #[error("the OTLP exporter cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The collector refused, or could not be reached: only [`Tracing::probe`] finds that out.
    #[error("{0}")]
    Refused(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The collector did not answer [`Tracing::probe`] in time.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
}

/// Where spans begin. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sampling: Sampling,
    propagators: Propagators,
    /// `None`: tracing is disabled, and events have ids only.
    exporting: Option<Exporting>,
    scope: InstrumentationScope,
}

/// What is known of an event when its message arrives.
#[derive(Clone, Copy, Debug)]
pub struct EventStart<'a> {
    /// The queue's name: the last segment of its URL.
    pub queue_name: &'a str,
    /// The SQS message id.
    pub message_id: &'a str,
    /// The span that sent it.
    pub parent: Option<&'a TraceParent>,
    /// W3C `baggage` that came with it.
    pub baggage: Option<&'a str>,
    /// When it was received: the span begins here.
    pub received_at: SystemTime,
}

impl Tracing {
    /// Sets tracing up and connects to nothing yet: a collector that is down is no error. Spans sent and lost are
    /// counted in `metrics`.
    ///
    /// # Errors
    /// When the endpoint cannot be one.
    ///
    /// # Panics
    /// When enabled and called outside a Tokio runtime.
    pub fn new(settings: &TraceSettings, metrics: Arc<Metrics>) -> Result<Self, TraceError> {
        let exporting = settings.enabled.then(|| Exporting::new(settings, metrics)).transpose()?;
        Ok(Self::with(exporting, settings.sampling, settings.propagators))
    }

    /// Asks the collector once whether it takes spans, by sending it none.
    ///
    /// # Errors
    /// When it cannot be asked, refuses, or has not answered within the deadline.
    pub async fn probe(settings: &TraceSettings, deadline: Duration) -> Result<(), TraceError> {
        let asked = tokio::time::timeout(deadline, export::probe(settings)).await;
        asked.map_err(|_| TraceError::NoAnswer(deadline))?
    }

    /// Nothing is recorded; events still have trace ids to log and to pass on.
    #[must_use]
    pub fn disabled() -> Self {
        Self::with(None, Sampling::DEFAULT, Propagators::default())
    }

    fn with(exporting: Option<Exporting>, sampling: Sampling, propagators: Propagators) -> Self {
        Self(Arc::new(Inner {
            sampling,
            propagators,
            exporting,
            scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }))
    }

    /// Begins an event's consumer span, and makes the ids that the event is logged under.
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

    /// Whether a W3C `traceparent` counts; X-Ray's header does in any case.
    #[must_use]
    pub fn reads_trace_context(&self) -> bool {
        self.0.propagators.trace_context
    }

    /// Sends what is left and stops exporting, within the deadline, however long the collector takes. Spans that end
    /// later are lost. Calling it again does nothing.
    ///
    /// Dropping the future leaves the flush to go on in the background, to its deadline.
    pub async fn shutdown(&self, deadline: Duration) {
        if self.0.exporting.is_none() {
            return;
        }
        let inner = Arc::clone(&self.0);
        let flush = tokio::task::spawn_blocking(move || {
            inner.exporting.as_ref().map(|exporting| exporting.shutdown(deadline))
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

    /// The id of a trace that begins here and is to be recorded; `None` where it is not.
    fn sampled_root(&self) -> Option<TraceId> {
        let trace_id = new_trace_id();
        let is_sampled = self.0.exporting.is_some() && self.0.sampling.decide(trace_id, None);
        is_sampled.then_some(trace_id)
    }

    fn scope(&self) -> InstrumentationScope {
        self.0.scope.clone()
    }
}

/// Zero means "no id" on the wire, so it is never drawn.
fn new_trace_id() -> TraceId {
    TraceId::from(fastrand::u128(1..))
}

fn new_span_id() -> SpanId {
    SpanId::from(fastrand::u64(1..))
}
