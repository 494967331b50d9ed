//! The trace of one event, from its producer to both services, as the collector and the services
//! see it.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use sandbox::reservation_api::Reply;
use sandbox::script::Scripted;
use sandbox::sqs::{Action, Fault, NewMessage};
use serde_json::{Value, json};

use crate::collector::{Collector, attribute, events, hex};
use crate::support::{World, approved, eventually, expired};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00f067aa0ba902b7";
const PATCH: &str = "PATCH /internal/reservations/{reservation_id}";
const COMMIT: &str = "reservation.v1.InventoryService/CommitReservation";

fn parent(sampled: bool) -> String {
    format!("00-{TRACE}-{PRODUCER}-{:02}", u8::from(sampled))
}

fn traced(event: &Value, sampled: bool) -> NewMessage {
    NewMessage::new(event.to_string()).attribute("traceparent", parent(sampled))
}

fn expect(span: &Span, attributes: &[(&str, &str)]) {
    for (key, value) in attributes {
        assert_eq!(attribute(span, key).as_deref(), Some(*value), "{key} of {span:#?}");
    }
}

#[tokio::test]
async fn an_event_is_one_trace_from_the_producer_to_both_services() {
    let world = World::start().await;
    let collector = Collector::start().await;
    let worker = world.traced(collector.tracing.clone()).await;
    world.api.script_for("a", [Scripted::<Reply>::status(500)]);
    let message_id = world.send_message(traced(&approved("evt-1", "a"), true));
    world.emptied().await;
    worker.finish(&world).await;

    let spans = collector.spans().await;
    let process = spans.only("process events");
    assert_eq!(
        (hex(&process.trace_id), hex(&process.parent_span_id)),
        (TRACE.into(), PRODUCER.into())
    );
    assert_eq!(process.kind, i32::from(SpanKind::Consumer));
    expect(
        process,
        &[
            ("messaging.system", "aws_sqs"),
            ("messaging.destination.name", "events"),
            ("messaging.message.id", &message_id),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("reservation_worker.event_type", "payment.approved"),
            ("reservation_worker.reservation_id", "a"),
            ("reservation_worker.event_id", "evt-1"),
            ("reservation_worker.attempt", "2"),
            ("reservation_worker.outcome", "success"),
        ],
    );
    assert_eq!(attribute(process, "error.type"), None);
    assert_eq!(events(process), ["retry scheduled"]);

    let (patches, commit) = (spans.named(PATCH), spans.only(COMMIT));
    assert_eq!(patches.len(), 2);
    for call in patches.iter().chain([&commit]) {
        assert_eq!(hex(&call.trace_id), TRACE);
        assert_eq!(call.parent_span_id, process.span_id);
        assert_eq!(call.kind, i32::from(SpanKind::Client));
    }
    expect(patches[0], &[("http.response.status_code", "500"), ("error.type", "http_500")]);
    expect(patches[1], &[("http.response.status_code", "200"), ("http.request.method", "PATCH")]);
    expect(commit, &[("rpc.system.name", "grpc"), ("rpc.response.status_code", "OK")]);

    // Each call passed on the span of that very call.
    let received: Vec<_> =
        world.ledger.calls_for("a").into_iter().map(|call| call.traceparent.unwrap()).collect();
    let sent: Vec<_> = [patches[0], patches[1], commit]
        .iter()
        .map(|span| format!("00-{TRACE}-{}-01", hex(&span.span_id)))
        .collect();
    assert_eq!(received, sent);

    let receive = spans.only("receive events");
    assert_ne!(hex(&receive.trace_id), TRACE);
    let link = &receive.links[0];
    assert_eq!((hex(&link.trace_id), hex(&link.span_id)), (TRACE.into(), PRODUCER.into()));
    expect(
        receive,
        &[("messaging.operation.type", "receive"), ("messaging.batch.message_count", "1")],
    );
    let settle = spans.only("settle events");
    assert_eq!((&settle.trace_id, &settle.parent_span_id), (&process.trace_id, &process.span_id));
    assert_eq!(settle.links[0].span_id, process.span_id);
    expect(
        settle,
        &[("messaging.operation.type", "settle"), ("messaging.operation.name", "delete")],
    );
}

/// Returns messages that carry the producer's span in each supported place.
fn carriers() -> Vec<(&'static str, NewMessage)> {
    let inner = |id: &str| {
        let mut event = expired(&format!("evt-{id}"), id);
        event["traceparent"] = json!(parent(true));
        event
    };
    let bridge = |id: &str| {
        json!({
            "version": "0", "id": format!("evt-{id}"), "detail-type": "reservation.expired",
            "source": "holds", "account": "1", "time": "2024-01-01T12:00:00Z", "region": "r",
            "resources": [], "detail": inner(id),
        })
    };
    let mut xray = NewMessage::new(expired("evt-xray", "xray").to_string());
    let (epoch, rest) = TRACE.split_at(8);
    xray.trace_header = Some(format!("Root=1-{epoch}-{rest};Parent={PRODUCER};Sampled=1"));
    let sns = |id: &str| {
        let body = bridge(id).to_string();
        json!({"Type": "Notification", "MessageId": "m", "Message": body}).to_string()
    };
    vec![
        ("attribute", traced(&expired("evt-attribute", "attribute"), true)),
        ("xray", xray),
        ("body", NewMessage::new(inner("body").to_string())),
        ("bridge", NewMessage::new(bridge("bridge").to_string())),
        ("sns", NewMessage::new(sns("sns"))),
    ]
}

#[tokio::test]
async fn the_producers_span_is_the_parent_in_every_supported_place() {
    let world = World::start().await;
    let collector = Collector::start().await;
    let worker = world.traced(collector.tracing.clone()).await;
    for (_, message) in carriers() {
        world.send_message(message);
    }
    world.emptied().await;
    worker.finish(&world).await;
    let spans = collector.spans().await;
    for (id, _) in carriers() {
        let of_it = |span: &&&Span| {
            attribute(span, "reservation_worker.reservation_id").as_deref() == Some(id)
        };
        let processes = spans.named("process events");
        let process = processes.iter().find(of_it).unwrap_or_else(|| panic!("no span for {id}"));
        assert_eq!(hex(&process.trace_id), TRACE, "{id}");
        assert_eq!(hex(&process.parent_span_id), PRODUCER, "{id}");
        for call in world.ledger.calls_for(id) {
            assert!(call.traceparent.unwrap().starts_with(&format!("00-{TRACE}-")), "{id}");
        }
    }
}

#[tokio::test]
async fn an_unsampled_event_has_no_span_and_its_trace_is_passed_on() {
    let world = World::start().await;
    let collector = Collector::start().await;
    let worker = world.traced(collector.tracing.clone()).await;
    world.send_message(traced(&expired("evt-1", "a"), false));
    world.emptied().await;
    worker.finish(&world).await;
    for call in world.ledger.calls_for("a") {
        let sent = call.traceparent.unwrap();
        assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    }
    let spans = collector.spans().await;
    assert!(spans.0.is_empty(), "{spans:#?}");
}

#[tokio::test]
async fn spans_show_parked_events_and_the_errors_of_dead_lettered_ones() {
    let world = World::start().await;
    let collector = Collector::start().await;
    let worker = world.traced(collector.tracing.clone()).await;
    world.api.go_down().await.unwrap();
    for n in 0..10 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    eventually("all are parked", || worker.parked() == 10.0).await;
    world.api.come_back().await.unwrap();
    world.emptied().await;
    world.api.script_for("refused", [Scripted::<Reply>::status(422)]);
    world.send(&expired("evt-refused", "refused"));
    world.sqs.send(&world.queue, "no event");
    eventually("both are dead-lettered", || world.dead_letters().len() == 2).await;
    world.emptied().await;
    worker.finish(&world).await;

    let spans = collector.spans().await;
    let processes = spans.named("process events");
    assert_eq!(processes.len(), 12);
    let waited = processes.iter().filter(|span| {
        let (mut parked, mut resumed) = (0, 0);
        for event in events(span) {
            parked += usize::from(event == "parked");
            resumed += usize::from(event == "resumed");
        }
        parked > 0 && parked == resumed
    });
    assert!(waited.count() >= 9, "{processes:#?}");
    let error_types: Vec<_> =
        processes.iter().filter_map(|span| attribute(span, "error.type")).collect();
    assert_eq!(error_types.len(), 2, "{error_types:?}");
    let sends = spans.named("send");
    assert_eq!(sends.len(), 2);
    for send in sends {
        assert!(processes.iter().any(|process| process.span_id == send.parent_span_id));
    }
}

#[tokio::test]
async fn the_span_of_an_event_shows_a_lost_lease() {
    let world = World::start().await;
    let collector = Collector::start().await;
    let mut services = world.services();
    let gate = crate::seams::Gate::closed(services.reservations, &["a"]);
    services.reservations = gate.clone();
    let short = |settings: &mut reservation_worker::app::AppSettings| {
        settings.visibility = Duration::from_secs(5);
    };
    let worker = world.worker_traced(services, collector.tracing.clone(), short).await;
    world.send(&expired("evt-1", "a"));
    eventually("the call is at the gate", || gate.entered().iter().any(|id| id == "a")).await;
    let faults = world.sqs.faults(&world.queue);
    for action in [Action::ReceiveMessage, Action::ChangeMessageVisibilityBatch] {
        faults.fail_sometimes(action, 1.0, Fault::Http(503));
    }
    eventually("the lease is lost", || worker.metric("worker_leases_lost_total") >= 1.0).await;
    gate.open();
    let lost = || worker.metric("worker_messages_in_flight{state=\"running\"}") == 0.0;
    eventually("no event is running", lost).await;
    worker.drain().await;
    let spans = collector.spans().await;
    // The failed receives have spans too.
    let failed = |span: &&Span| attribute(span, "error.type").as_deref() == Some("other");
    assert!(spans.named("receive events").iter().any(failed), "{spans:#?}");
    let process = spans.only("process events");
    assert_eq!(events(process), ["lease lost"]);
    expect(process, &[("error.type", "lease_lost"), ("reservation_worker.outcome", "lease_lost")]);
}
