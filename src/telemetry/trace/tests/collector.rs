//! End-to-end tests over a socket, with a collector from OTLP's service definition.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue as WireKeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span as WireSpan, span::SpanKind as WireKind};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;

use super::*;

/// An export request with its metadata.
type Exported = (MetadataMap, ExportTraceServiceRequest);

struct Collector(mpsc::UnboundedSender<Exported>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (metadata, _, request) = request.into_parts();
        self.0.send((metadata, request)).unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector on `listener` and returns the requests that it receives.
pub(super) fn collect_with_metadata(listener: TcpListener) -> mpsc::UnboundedReceiver<Exported> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let service =
        TraceServiceServer::new(Collector(sender)).accept_compressed(CompressionEncoding::Gzip);
    let server = tonic::transport::Server::builder()
        .serve_with_incoming(service, TcpIncoming::from(listener));
    tokio::spawn(server);
    receiver
}

/// As [`collect_with_metadata`], without the metadata.
fn collect(listener: TcpListener) -> mpsc::UnboundedReceiver<ExportTraceServiceRequest> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut exported = collect_with_metadata(listener);
    tokio::spawn(async move {
        while let Some((_, request)) = exported.recv().await {
            // The receiver is closed when the test has ended.
            let _ = sender.send(request);
        }
    });
    receiver
}

fn text(attributes: &[WireKeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|kv| kv.key == key)?.value.clone()?.value?;
    if let any_value::Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    let any_value::Value::StringValue(text) = value else { panic!("{key}: {value:?}") };
    Some(text)
}

pub(super) fn one_event(tracing: &Tracing) {
    let sender = parent(PARENT);
    let mut event = tracing.start_event(start(Some(&sender)));
    event.set_event("reservation.expired", Some("rsv_1"), Some("evt_1"));
    let ok = |status| CallEnd { status, failure: None };
    event.start_call(http_call()).end(ok(CallStatus::Http(200)));
    let call = event.start_call(CallStart::Rpc {
        method: "reservation.v1.InventoryService/ReleaseHold",
        server_address: "inventory",
        server_port: 50051,
    });
    call.end(ok(CallStatus::Rpc("OK")));
    event.end("success", 1, None);
}

pub(super) fn check_spans(spans: &[WireSpan]) {
    let [http, rpc, event] = spans else { panic!("{spans:?}") };
    let trace_id = parent(PARENT).trace_id.to_bytes();
    assert!(spans.iter().all(|span| span.trace_id == trace_id));
    assert_eq!(event.parent_span_id, parent(PARENT).span_id.unwrap().to_bytes());
    assert_eq!(http.parent_span_id, event.span_id);
    assert_eq!(rpc.parent_span_id, event.span_id);
    assert_eq!(event.kind, i32::from(WireKind::Consumer));
    assert_eq!([http.kind, rpc.kind], [i32::from(WireKind::Client); 2]);
    let names = [&*event.name, &http.name, &rpc.name];
    let expected = [
        "process events",
        "PATCH /internal/reservations/{reservation_id}",
        "reservation.v1.InventoryService/ReleaseHold",
    ];
    assert_eq!(names, expected);
    for (span, key, value) in [
        (event, "messaging.system", "aws_sqs"),
        (event, "messaging.operation.name", "process"),
        (event, "messaging.operation.type", "process"),
        (event, "messaging.destination.name", "events"),
        (event, "messaging.message.id", "m-1"),
        (event, "reservation_worker.event_type", "reservation.expired"),
        (event, "reservation_worker.reservation_id", "rsv_1"),
        (event, "reservation_worker.event_id", "evt_1"),
        (event, "reservation_worker.outcome", "success"),
        (event, "reservation_worker.attempt", "1"),
        (http, "http.request.method", "PATCH"),
        (http, "url.full", "http://api:80/internal/reservations/rsv_1"),
        (http, "http.response.status_code", "200"),
        (http, "server.port", "80"),
        (rpc, "rpc.system.name", "grpc"),
        (rpc, "rpc.method", "reservation.v1.InventoryService/ReleaseHold"),
        (rpc, "rpc.response.status_code", "OK"),
        (rpc, "server.address", "inventory"),
    ] {
        assert_eq!(text(&span.attributes, key).as_deref(), Some(value), "{key}");
    }
}

#[tokio::test]
async fn all_spans_of_an_event_arrive() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut requests = collect(listener);
    let tracing = Tracing::new(&settings(address), metrics()).unwrap();
    one_event(&tracing);
    tracing.shutdown(Duration::from_secs(10)).await;

    let request = requests.recv().await.unwrap();
    let [of_resource] = request.resource_spans.as_slice() else { panic!("{request:?}") };
    let resource = of_resource.resource.as_ref().unwrap();
    for (key, value) in [
        ("service.name", "reservation-worker"),
        ("deployment.environment.name", "test"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(text(&resource.attributes, key).as_deref(), Some(value), "{key}");
    }
    let [of_scope] = of_resource.scope_spans.as_slice() else { panic!("{request:?}") };
    check_spans(&of_scope.spans);
}

#[tokio::test]
async fn a_probe_fails_without_a_collector() {
    let deadline = Duration::from_secs(5);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut requests = collect(listener);
    Tracing::probe(&settings(address), deadline).await.unwrap();
    let asked = requests.recv().await.unwrap().resource_spans;
    assert!(asked.iter().all(|of_resource| of_resource.scope_spans.is_empty()), "{asked:?}");

    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap().to_string();
    let error = Tracing::probe(&settings(address), deadline).await.unwrap_err();
    assert!(matches!(error, TraceError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("Unavailable"), "{error}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let error = Tracing::probe(&settings(address), Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, TraceError::NoAnswer(_)), "{error:?}");
}

#[tokio::test]
async fn a_collector_that_starts_late_gets_later_spans() {
    // Bound but not listening: the port is reserved, and connections are refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let metrics = metrics();
    let tracing = Tracing::new(&settings(address), Arc::clone(&metrics)).unwrap();
    // A full batch is exported at once: OpenTelemetry's default is 512 spans.
    for _ in 0..512 {
        tracing.start_event(start(Some(&parent(PARENT)))).end("success", 1, None);
    }
    let lost = "worker_spans_dropped_total{reason=\"export_failed\"} 512";
    let shown = || {
        let mut text = Vec::new();
        metrics.render(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    while !shown().contains(lost) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let mut requests = collect(socket.listen(16).unwrap());
    one_event(&tracing);
    tracing.shutdown(Duration::from_secs(10)).await;
    let request = requests.recv().await.unwrap();
    check_spans(&request.resource_spans[0].scope_spans[0].spans);
}
