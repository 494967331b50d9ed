//! An OTLP collector over gRPC, built from the protocol's own service definition. It keeps every
//! span.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use reservation_worker::config::{OtlpTransport, Propagators};
use reservation_worker::metrics::Metrics;
use reservation_worker::telemetry::{Sampling, TraceSettings, Tracing};
use tokio::net::TcpListener;
use tonic::transport::server::{Server, TcpIncoming};

use crate::support::LIMIT;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A running collector, and the tracing of a worker that exports to it.
pub(crate) struct Collector {
    kept: Kept,
    pub(crate) tracing: Tracing,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        tokio::spawn(Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)));
        let settings = TraceSettings {
            enabled: true,
            endpoint,
            transport: OtlpTransport::default(),
            service_name: "reservation-worker".to_owned(),
            resource_attributes: Vec::new(),
            sampling: Sampling::DEFAULT,
            propagators: Propagators::default(),
        };
        let tracing = Tracing::new(&settings, Arc::new(Metrics::new(&[]))).unwrap();
        Self { kept, tracing }
    }

    /// Returns all spans, after the worker has ended.
    pub(crate) async fn spans(self) -> Spans {
        self.tracing.shutdown(LIMIT).await;
        Spans(self.kept.0.lock().unwrap().clone())
    }
}

/// The collected spans.
#[derive(Debug)]
pub(crate) struct Spans(pub(crate) Vec<Span>);

impl Spans {
    /// Returns the spans of that name, ordered by start time.
    pub(crate) fn named(&self, name: &str) -> Vec<&Span> {
        let mut found: Vec<_> = self.0.iter().filter(|span| span.name == name).collect();
        found.sort_by_key(|span| span.start_time_unix_nano);
        found
    }

    /// Returns the only span of that name.
    pub(crate) fn only(&self, name: &str) -> &Span {
        let found = self.named(name);
        assert_eq!(found.len(), 1, "{name}: {self:#?}");
        found[0]
    }
}

/// Returns an attribute as text.
pub(crate) fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|kv| kv.key == key)?.value.clone()?.value?;
    if let Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    let Value::StringValue(text) = value else { panic!("{key}: {value:?}") };
    Some(text)
}

/// Returns the names of a span's events.
pub(crate) fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name.as_str()).collect()
}

/// Returns an id in hexadecimal digits.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
