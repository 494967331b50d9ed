//! Sends recorded spans to the collector: OTLP over gRPC, in batches, from the SDK's own thread. A collector that is
//! down or slow costs spans and nothing else, and is logged when it begins and when it ends, not at every batch.
//!
//! The exporter owns the retries of its batches, within [`EXPORT_TIMEOUT`]. It also reads
//! `OTEL_EXPORTER_OTLP_HEADERS` by itself: secrets for a hosted collector, which nobody else needs to see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{RetryPolicy, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::{TraceError, TraceSettings};

/// Spans waiting at most: a few seconds of them in a burst, some 2 MB. Beyond it spans are dropped, events never wait.
const QUEUE_SPANS_MAX: usize = 2048;
/// Spans sent together: OpenTelemetry's default.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for a batch to fill: OpenTelemetry's default.
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// The whole time of one batch, retries included: OpenTelemetry's default.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// A collector is near; one that takes longer to accept a connection is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// When an idle connection is probed, so that one that went half-open is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Makes the batch processor and its exporter, with a connection that is opened at the first batch.
pub(super) fn processor(settings: &TraceSettings) -> Result<BatchSpanProcessor, TraceError> {
    let exporter = exporter(settings, RetryPolicy::recommended())?;
    Ok(batching(Watched::new(exporter), settings))
}

/// Sends a batch without spans, once.
pub(super) async fn probe(settings: &TraceSettings) -> Result<(), TraceError> {
    let exporter = exporter(settings, RetryPolicy::disabled())?;
    Ok(exporter.export(Vec::new()).await?)
}

fn exporter(
    settings: &TraceSettings,
    retries: RetryPolicy,
) -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    let channel = channel(&settings.endpoint).map_err(TraceError::Endpoint)?;
    let builder = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_timeout(EXPORT_TIMEOUT)
        .with_channel(channel)
        .with_retry_policy(retries);
    Ok(builder.build()?)
}

fn batching(exporter: impl SpanExporter + 'static, settings: &TraceSettings) -> BatchSpanProcessor {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let mut processor = BatchSpanProcessor::new(exporter, config);
    processor.set_resource(&resource(settings));
    processor
}

fn channel(endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let url =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let tls = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let mut endpoint = Endpoint::from_shared(url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(EXPORT_TIMEOUT)
        .tcp_keepalive(Some(TCP_KEEPALIVE));
    if tls {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(endpoint.connect_lazy())
}

fn resource(settings: &TraceSettings) -> Resource {
    let attributes = settings.resource_attributes.iter();
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .with_service_name(settings.service_name.clone())
        .build()
}

/// An exporter that says when its collector goes away and when it is back.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    /// Spans lost since the collector was last reached; 0 while it is.
    lost_spans: AtomicU64,
}

impl<E> Watched<E> {
    fn new(exporter: E) -> Self {
        Self { exporter, lost_spans: AtomicU64::new(0) }
    }

    fn note(&self, spans: u64, result: &OTelSdkResult) {
        match result {
            Err(error) => {
                if self.lost_spans.fetch_add(spans, Ordering::Relaxed) == 0 {
                    tracing::warn!(error = %error, "Traces cannot be exported: events are not affected");
                }
            }
            Ok(()) => {
                let lost_spans = self.lost_spans.swap(0, Ordering::Relaxed);
                if lost_spans > 0 {
                    tracing::info!(lost_spans, "Traces are exported again");
                }
            }
        }
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let result = self.exporter.export(batch).await;
        self.note(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::config::{LogFormat, LogLevel};
    use crate::telemetry::log::{self, LogSettings};

    #[derive(Debug)]
    struct Never;

    impl SpanExporter for Never {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_is_away_is_logged_when_it_begins_and_when_it_ends() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let settings = LogSettings { level: LogLevel::Info, format: LogFormat::Json, color: false };
        let subscriber = log::subscriber(settings, move |line| {
            sink.lock().unwrap().push(line.to_owned());
        });
        let down = || Err(OTelSdkError::InternalFailure("connection refused".into()));
        tracing::subscriber::with_default(subscriber, || {
            let watched = Watched::new(Never);
            for _ in 0..2 {
                watched.note(5, &Ok(()));
                watched.note(7, &down());
                watched.note(3, &down());
                watched.note(0, &down());
                watched.note(1, &Ok(()));
                watched.note(1, &Ok(()));
            }
        });
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("connection refused") && lines[0].contains("\"warn\""));
        assert!(lines[1].contains("\"lost_spans\":10"), "{}", lines[1]);
    }

    #[tokio::test]
    async fn an_endpoint_needs_no_scheme_and_may_ask_for_tls() {
        for good in [
            "otel-collector:4317",
            "http://[::1]:4317",
            "https://collector.example:4317",
            "HTTPS://c:1",
        ] {
            assert!(channel(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "http://", "http:// x"] {
            assert!(channel(bad).is_err(), "{bad:?}");
        }
    }
}
