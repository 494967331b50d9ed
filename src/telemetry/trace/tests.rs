//! Tests of exported spans, and of ids without spans.
#![allow(clippy::unwrap_used)]

mod collector;
mod otlp;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry::trace::Status;
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanExporter;

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn parent(text: &str) -> TraceParent {
    TraceParent::parse(text).unwrap()
}

fn start<'a>(parent: Option<&'a TraceParent>) -> EventStart<'a> {
    EventStart {
        queue_name: "events",
        message_id: "m-1",
        parent,
        baggage: None,
        received_at: SystemTime::now(),
    }
}

fn http_call() -> CallStart<'static> {
    CallStart::Http {
        method: "PATCH",
        url_template: "/internal/reservations/{reservation_id}",
        url: "http://api:80/internal/reservations/rsv_1",
        server_address: "api",
        server_port: 80,
    }
}

fn settings(endpoint: String) -> TraceSettings {
    TraceSettings {
        enabled: true,
        endpoint,
        transport: OtlpTransport::default(),
        service_name: "reservation-worker".into(),
        resource_attributes: vec![("deployment.environment.name".into(), "test".into())],
        sampling: Sampling::DEFAULT,
        propagators: Propagators::default(),
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&[]))
}

/// Exporter that stores the spans.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Kept {
    fn tracing(sampling: Sampling) -> (Self, Tracing) {
        let kept = Self::default();
        let settings = TraceSettings { sampling, ..settings(String::new()) };
        let exporting = Exporting::through(kept.clone(), &settings, metrics());
        (kept, Tracing::with(Some(exporting), sampling, Propagators::default()))
    }

    async fn spans(&self, tracing: &Tracing) -> Vec<SpanData> {
        tracing.shutdown(Duration::from_secs(10)).await;
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_call_is_a_child_of_its_event_and_the_event_of_its_producer() {
    let (kept, tracing) = Kept::tracing(Sampling::DEFAULT);
    let sender = parent(PARENT).with_tracestate("vendor=1");
    let mut event = tracing.start_event(start(Some(&sender)));
    assert!(event.is_recording());
    assert_eq!(event.trace_id(), &PARENT[3..35]);
    event.set_event("payment.approved", Some("rsv_1"), Some("evt_1"));
    event.add_event("retry scheduled", [("delay_ms", Value::from(250))]);
    let call = event.start_call(http_call());
    let sent = parent(call.traceparent());
    assert_eq!(call.tracestate(), Some("vendor=1"));
    call.end(CallEnd {
        status: CallStatus::Http(503),
        failure: Some(SpanFailure { error_type: "http_503", message: "unavailable" }),
    });
    event.end("success", 2, None);

    let spans = kept.spans(&tracing).await;
    let [call, event] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(Some(event.parent_span_id), sender.span_id);
    assert!(event.parent_span_is_remote && !call.parent_span_is_remote);
    assert_eq!(call.parent_span_id, event.span_context.span_id());
    assert_eq!(Some(call.span_context.span_id()), sent.span_id);
    assert_eq!(call.span_context.trace_id(), event.span_context.trace_id());
    assert_eq!((sent.trace_id, sent.sampled), (sender.trace_id, Some(true)));
    assert_eq!(event.name, "process events");
    assert_eq!(event.events.events[0].name, "retry scheduled");
    assert_eq!(event.status, Status::Unset);
    assert_eq!(call.status, Status::error("unavailable"));
    assert!(call.attributes.contains(&KeyValue::new("error.type", "http_503")));
    assert!(call.attributes.contains(&KeyValue::new("http.response.status_code", 503)));
}

#[tokio::test]
async fn without_a_parent_a_new_trace_starts() {
    let (kept, tracing) = Kept::tracing(Sampling::DEFAULT);
    let first = tracing.start_event(start(None));
    let second = tracing.start_event(start(None));
    assert_ne!(first.trace_id(), second.trace_id());
    first.end("success", 1, None);
    second.end(
        "failed",
        6,
        Some(SpanFailure { error_type: "retries", message: &"é".repeat(1000) }),
    );
    let spans = kept.spans(&tracing).await;
    assert_eq!(spans[0].parent_span_id, SpanId::INVALID);
    assert!(!spans[0].parent_span_is_remote);
    assert_eq!(spans[1].status, Status::error("é".repeat(256)));
}

#[tokio::test]
async fn an_unfinished_span_is_exported_as_abandoned() {
    let (kept, tracing) = Kept::tracing(Sampling::DEFAULT);
    let event = tracing.start_event(start(None));
    let call = event.start_call(http_call());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _held = (call, event);
        std::panic::resume_unwind(Box::new("a handler's panic"));
    }));
    assert!(caught.is_err());
    let spans = kept.spans(&tracing).await;
    assert_eq!(spans.len(), 2);
    for span in spans {
        assert_eq!(span.status, Status::error("abandoned"));
        assert!(span.attributes.contains(&KeyValue::new("error.type", "abandoned")));
    }
}

#[tokio::test]
async fn a_clock_step_back_makes_no_span_of_negative_length() {
    let (kept, tracing) = Kept::tracing(Sampling::DEFAULT);
    let received_at = SystemTime::now() + Duration::from_secs(3600);
    tracing.start_event(EventStart { received_at, ..start(None) }).end("success", 1, None);
    let spans = kept.spans(&tracing).await;
    assert_eq!((spans[0].start_time, spans[0].end_time), (received_at, received_at));
}

#[tokio::test]
async fn an_unsampled_event_has_ids_and_no_span() {
    let (kept, tracing) = Kept::tracing(Sampling::DEFAULT);
    let sender = parent(UNSAMPLED);
    let event = tracing.start_event(start(Some(&sender)));
    assert!(!event.is_recording());
    assert_eq!(event.trace_id(), &UNSAMPLED[3..35]);
    let call = event.start_call(http_call());
    assert_eq!(&call.traceparent()[..36], &UNSAMPLED[..36]);
    assert!(call.traceparent().ends_with("-00"));
    call.end(CallEnd { status: CallStatus::None, failure: None });
    event.end("success", 1, None);
    assert!(kept.spans(&tracing).await.is_empty());
}

#[test]
fn disabled_tracing_passes_a_context_on_or_makes_a_new_one() {
    let tracing = Tracing::disabled();
    let sender = parent(PARENT).with_tracestate("vendor=1");
    let event = tracing.start_event(start(Some(&sender)));
    let call = event.start_call(http_call());
    assert_eq!(call.traceparent(), PARENT);
    assert_eq!(call.tracestate(), Some("vendor=1"));

    let event = tracing.start_event(start(None));
    assert_eq!(event.trace_id().len(), 32);
    let sent = event.start_call(http_call()).traceparent().to_owned();
    let read = parent(&sent);
    assert_eq!(read.sampled, Some(false));
    assert_eq!(&sent[3..35], event.trace_id());
}

#[tokio::test]
async fn without_propagators_parents_are_ignored() {
    let off =
        TraceSettings { enabled: false, propagators: Propagators::NONE, ..settings(String::new()) };
    let tracing = Tracing::new(&off, metrics()).unwrap();
    let sender = parent(PARENT);
    let event = tracing.start_event(start(Some(&sender)));
    assert_ne!(event.trace_id(), &PARENT[3..35]);
}

const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";

#[tokio::test]
async fn the_xray_sampling_decision_counts_with_the_xray_propagator() {
    for (xray, sampled, is_recorded) in [
        (false, "Sampled=0", true),
        (false, "Sampled=1", true),
        (true, "Sampled=0", false),
        (true, "Sampled=?", true),
    ] {
        let (_, tracing) = Kept::tracing(Sampling::DEFAULT);
        let mut inner = Arc::into_inner(tracing.0).unwrap();
        inner.propagators.xray = xray;
        let tracing = Tracing(Arc::new(inner));
        let text = format!("{ROOT};Parent=53995c3f42cd8ad8;{sampled}");
        let sender = TraceParent::from_xray(&text).unwrap();
        let event = tracing.start_event(start(Some(&sender)));
        assert_eq!(event.is_recording(), is_recorded, "{sampled} {xray}");
        assert_eq!(event.trace_id(), "5759e988bd862e3fe1be46a994272793");
    }
}

#[tokio::test]
async fn an_xray_trace_without_a_parent_is_joined_at_its_root() {
    let (kept, tracing) = Kept::tracing(Sampling::DEFAULT);
    let sender = TraceParent::from_xray(ROOT).unwrap();
    let event = tracing.start_event(start(Some(&sender)));
    let call = event.start_call(http_call());
    assert!(call.xray().starts_with(&format!("{ROOT};Parent=")), "{}", call.xray());
    assert!(call.xray().ends_with(";Sampled=1"));
    call.end(CallEnd { status: CallStatus::None, failure: None });
    event.end("success", 1, None);
    let spans = kept.spans(&tracing).await;
    assert_eq!(spans[1].parent_span_id, SpanId::INVALID);
    assert!(!spans[1].parent_span_is_remote);

    let event = Tracing::disabled().start_event(start(Some(&sender)));
    let sent = parent(event.start_call(http_call()).traceparent());
    assert_eq!((sent.trace_id, sent.sampled), (sender.trace_id, Some(false)));
}

#[test]
fn baggage_is_passed_on_with_the_baggage_propagator() {
    let begin = |baggage, propagators| {
        let tracing = Tracing::with(None, Sampling::DEFAULT, propagators);
        let event = tracing.start_event(EventStart { baggage: Some(baggage), ..start(None) });
        event.start_call(http_call()).baggage().map(str::to_owned)
    };
    assert_eq!(begin("tenant=t1", Propagators::default()), Some("tenant=t1".to_owned()));
    assert_eq!(begin("not baggage", Propagators::default()), None);
    assert_eq!(begin("tenant=t1", Propagators::NONE), None);
}

#[test]
fn the_parent_decides_only_with_a_parent_based_sampler() {
    let low = TraceId::from(1_u128);
    let high = TraceId::from(u128::MAX);
    let half = |parent_based| Sampling { ratio: 0.5, parent_based };
    for (sampling, id, parent, sampled) in [
        (half(false), low, Some(false), true),
        (half(false), high, Some(true), false),
        (half(true), low, Some(false), false),
        (half(true), high, Some(true), true),
        (half(true), low, None, true),
        (half(true), high, None, false),
        (Sampling { ratio: 0.0, parent_based: false }, low, Some(true), false),
        (Sampling { ratio: 1.0, parent_based: false }, high, Some(false), true),
    ] {
        assert_eq!(sampling.decide(id, parent), sampled, "{sampling:?} {id} {parent:?}");
        assert!(!sampled || sampling.records_any(), "{sampling:?}");
    }
    assert!(!Sampling { ratio: 0.0, parent_based: false }.records_any());
    assert!(
        Sampling { ratio: 0.0, parent_based: true }.records_any(),
        "a sampled parent may exist"
    );
}

#[tokio::test]
async fn a_shutdown_with_a_silent_collector_ends_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tracing =
        Tracing::new(&settings(listener.local_addr().unwrap().to_string()), metrics()).unwrap();
    for _ in 0..3000 {
        tracing.start_event(start(None)).end("success", 1, None);
    }
    let began = Instant::now();
    tracing.shutdown(Duration::from_millis(200)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    tracing.shutdown(Duration::from_millis(200)).await;
    tracing.start_event(start(None)).end("success", 1, None);
}
