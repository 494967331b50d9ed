//! Exports recorded spans to the collector: OTLP over gRPC or HTTP, in batches, on the SDK's own
//! thread. If the collector is unavailable or slow, spans are lost and events are not affected;
//! [`super::watch`] logs it.
//!
//! The exporter retries a batch itself, within the export timeout.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    Compression, Protocol, RetryPolicy, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::otlp_http::{CONNECT_TIMEOUT, HttpClient};
use super::watch::{Backlog, QUEUE_SPANS_MAX, WatchedExporter};
use super::{TraceError, TraceSettings};
use crate::config::OtlpProtocol;
use crate::metrics::Metrics;

/// Maximum number of spans per batch: OpenTelemetry's default.
const BATCH_SPANS_MAX: usize = 512;
/// Maximum delay before a batch is sent: OpenTelemetry's default.
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// TCP keepalive interval, to detect half-open connections.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The SDK's batch processor, with a count of waiting and lost spans.
#[derive(Debug)]
pub(super) struct Exporting {
    /// `None` if no trace can be recorded. That saves its thread and its queue of almost 1 MB.
    processor: Option<BatchSpanProcessor>,
    backlog: Arc<Backlog>,
}

impl Exporting {
    /// Creates an export over OTLP. The connection is opened with the first batch.
    pub(super) fn new(settings: &TraceSettings, metrics: Arc<Metrics>) -> Result<Self, TraceError> {
        let exporter = exporter(settings, RetryPolicy::recommended())?;
        Ok(Self::through(exporter, settings, metrics))
    }

    pub(super) fn through(
        exporter: impl SpanExporter + 'static,
        settings: &TraceSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let backlog = Arc::new(Backlog::new(metrics));
        let watched = WatchedExporter::new(exporter, Arc::clone(&backlog));
        let processor = settings.sampling.records_any().then(|| {
            let mut processor = BatchSpanProcessor::new(watched, config);
            processor.set_resource(&resource(settings));
            processor
        });
        Self { processor, backlog }
    }

    /// Queues a span, or drops it if the queue is full. Never blocks.
    pub(super) fn export(&self, span: SpanData) {
        if let Some(processor) = &self.processor
            && self.backlog.admit()
        {
            processor.on_end(span);
        }
    }

    /// Exports the remaining spans and stops the thread. Blocks until then, for at most `limit`.
    pub(super) fn shutdown(&self, limit: Duration) -> OTelSdkResult {
        self.processor.as_ref().map_or(Ok(()), |processor| processor.shutdown_with_timeout(limit))
    }
}

/// Sends one batch without spans, with no retry.
pub(super) async fn probe(settings: &TraceSettings) -> Result<(), TraceError> {
    let exporter = exporter(settings, RetryPolicy::disabled())?;
    Ok(exporter.export(Vec::new()).await?)
}

fn exporter(
    settings: &TraceSettings,
    retries: RetryPolicy,
) -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    let TraceSettings { endpoint, transport, .. } = settings;
    let builder = opentelemetry_otlp::SpanExporter::builder();
    Ok(match transport.protocol {
        OtlpProtocol::Grpc => {
            let channel = channel(endpoint, transport.timeout).map_err(TraceError::Endpoint)?;
            let builder = builder
                .with_tonic()
                .with_timeout(transport.timeout)
                .with_channel(channel)
                .with_metadata(MetadataMap::from_headers(transport.headers.clone()))
                .with_retry_policy(retries);
            if transport.gzip { builder.with_compression(Compression::Gzip) } else { builder }
                .build()?
        }
        OtlpProtocol::HttpProtobuf => {
            let builder = builder
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_timeout(transport.timeout)
                .with_endpoint(endpoint)
                .with_http_client(HttpClient::new(endpoint, transport)?)
                .with_retry_policy(retries);
            if transport.gzip { builder.with_compression(Compression::Gzip) } else { builder }
                .build()?
        }
    })
}

fn channel(endpoint: &str, timeout: Duration) -> Result<Channel, tonic::transport::Error> {
    let url =
        if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let tls = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let mut endpoint = Endpoint::from_shared(url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_needs_no_scheme_and_supports_tls() {
        for good in [
            "otel-collector:4317",
            "http://[::1]:4317",
            "https://collector.example:4317",
            "HTTPS://c:1",
        ] {
            assert!(channel(good, BATCH_DELAY).is_ok(), "{good}");
        }
        for bad in ["", "a b", "http://", "http:// x"] {
            assert!(channel(bad, BATCH_DELAY).is_err(), "{bad:?}");
        }
    }
}
