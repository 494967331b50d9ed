//! Each event type, with and without seats, in each envelope: the calls, their order, their keys
//! and their trace context.

use std::sync::Arc;

use reservation_worker::config::Propagators;
use reservation_worker::event::Step;
use reservation_worker::handler::ServiceEndpoints;
use sandbox::ledger::{Call, Request};
use sandbox::sqs::NewMessage;
use serde_json::{Value, json};

use crate::support::{World, approved, event, expired, failed, key};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Each type with its payloads and the calls that follow; `{r}` stands for the reservation.
fn cases() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let seats = json!(["A-12", "A-13"]);

    let expire = r#"PATCH /internal/reservations/{r} {"status":"EXPIRED"}"#;
    let confirm =
        r#"PATCH /internal/reservations/{r} {"payment_intent_id":"pay_1","status":"CONFIRMED"}"#;
    let cancel =
        r#"PATCH /internal/reservations/{r} {"payment_intent_id":"pay_1","status":"CANCELLED"}"#;
    let released = r#"ReleaseHold {r} evt_2025_1001 ["A-12", "A-13"] 2 EXPIRED"#;
    let admission = r"ReleaseHold {r} evt_2025_1001 [] 3 EXPIRED";
    let failed = r#"ReleaseHold {r} evt_2025_1001 ["A-12", "A-13"] 2 FAILED_PAYMENT"#;
    let failed_admission = r"ReleaseHold {r} evt_2025_1001 [] 3 FAILED_PAYMENT";
    let sold = r#"CommitReservation {r} evt_2025_1001 ["A-12", "A-13"] 2 "pay_1" "usr_1""#;
    let sold_admission = r#"CommitReservation {r} evt_2025_1001 [] 3 "pay_1" """#;
    let pay = |mut more: Value| {
        more["payment_intent_id"] = json!("pay_1");
        more["amount"] = json!(120_000);
        more
    };
    vec![
        ("reservation.expired", json!({"qty": 2, "seat_ids": seats}), vec![expire, released]),
        ("reservation.expired", json!({"seat_ids": seats}), vec![expire, released]),
        ("reservation.expired", json!({"qty": 3, "seat_ids": []}), vec![expire, admission]),
        ("reservation.expired", json!({"qty": 3}), vec![expire, admission]),
        ("reservation.hold.expired", json!({"qty": 2, "seat_ids": seats}), vec![expire, released]),
        ("payment.approved", pay(json!({"currency": "KRW"})), vec![confirm]),
        ("payment.approved", pay(json!({"seat_ids": []})), vec![confirm]),
        (
            "payment.approved",
            pay(json!({"seat_ids": seats, "user_id": "usr_1"})),
            vec![confirm, sold],
        ),
        ("payment.approved", pay(json!({"qty": 3})), vec![confirm, sold_admission]),
        (
            "payment.failed",
            pay(json!({"error_code": "card_declined", "error_message": "no"})),
            vec![cancel],
        ),
        ("payment.failed", pay(json!({"qty": 2, "seat_ids": seats})), vec![cancel, failed]),
        ("payment.failed", pay(json!({"qty": 3})), vec![cancel, failed_admission]),
    ]
}

/// Returns the payload's fields with the reservation and the show.
fn inner(flat: &Value) -> Value {
    let mut detail = flat["payload"].clone();
    detail["reservation_id"] = flat["reservation_id"].clone();
    detail["event_id"] = flat["event_id"].clone();
    detail
}

fn event_bridge(flat: &Value, id: &str, detail: Value) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": flat["type"], "source": "payments", "account": "1",
        "time": "2024-01-01T12:00:00Z", "region": "us-east-1", "resources": [], "detail": detail,
    })
}

fn typed(flat: &Value, detail: Value) -> Value {
    json!({
        "id": flat["id"], "type": flat["type"], "source": "payments", "detail": detail,
        "time": "2024-01-01T12:00:00Z", "trace_id": TRACE,
    })
}

fn sns(message: &Value) -> Value {
    json!({"Type": "Notification", "MessageId": "sns-1", "Message": message.to_string()})
}

fn cloud_event(flat: &Value, data: Value) -> Value {
    json!({
        "specversion": "1.0", "id": flat["id"], "type": flat["type"], "source": "/payments",
        "time": "2024-01-01T12:00:00Z", "data": data,
    })
}

/// Renames the fields to camel case, as producers on the JVM do.
fn camel(mut detail: Value) -> Value {
    for (name, other) in [
        ("reservation_id", "reservationId"),
        ("event_id", "eventId"),
        ("seat_ids", "seatIds"),
        ("qty", "quantity"),
        ("payment_intent_id", "paymentIntentId"),
        ("user_id", "userId"),
    ] {
        if let Some(value) = detail.as_object_mut().unwrap().remove(name) {
            detail[other] = value;
        }
    }
    detail
}

/// Returns one event in every envelope; each keeps the event's own id.
fn envelopes(flat: &Value) -> Vec<(&'static str, Value)> {
    let id = flat["id"].as_str().unwrap();
    vec![
        ("flat", flat.clone()),
        ("bridge-whole", event_bridge(flat, "eb-1", flat.clone())),
        ("bridge-inner", event_bridge(flat, id, inner(flat))),
        ("typed-inner", typed(flat, inner(flat))),
        ("typed-whole", typed(flat, flat.clone())),
        ("cloud-event", cloud_event(flat, inner(flat))),
        ("camel", event_bridge(flat, id, camel(inner(flat)))),
        ("sns", sns(flat)),
        ("sns-bridge", sns(&event_bridge(flat, id, inner(flat)))),
        ("sns-typed", sns(&typed(flat, inner(flat)))),
    ]
}

fn keys(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.key.as_deref().unwrap_or("none")).collect()
}

#[tokio::test]
async fn each_type_in_each_envelope_makes_exactly_its_calls() {
    let world = World::start().await;
    let worker = world.worker().await;
    let mut expected = Vec::new();
    for (number, (event_type, payload, lines)) in cases().into_iter().enumerate() {
        let names = envelopes(&event("x", event_type, "x", payload.clone()));
        for (envelope, _) in names {
            let reservation = format!("rsv-{number}-{envelope}");
            let id = format!("evt-{number}-{envelope}");
            let flat = event(&id, event_type, &reservation, payload.clone());
            let (_, body) =
                envelopes(&flat).into_iter().find(|(name, _)| *name == envelope).unwrap();
            world.send(&body);
            let lines: Vec<_> =
                lines.iter().map(|line| line.replace("{r}", &reservation)).collect();
            expected.push((id, reservation, lines));
        }
    }
    world.emptied().await;
    for (id, reservation, lines) in &expected {
        assert_eq!(&world.calls(reservation), lines, "{reservation}");
        let calls = world.ledger.calls_for(reservation);
        assert!(calls.iter().all(Call::applied), "{reservation}: {calls:?}");
        for call in calls {
            let step = match call.request {
                Request::PatchReservation(_) => Step::ReservationStatus,
                Request::ReleaseHold(_) => Step::InventoryRelease,
                Request::CommitReservation(_) => Step::InventoryCommit,
                Request::GetReservation | Request::Unknown(_) => panic!("{call:?}"),
            };
            assert_eq!(call.key, Some(key(id, step)), "{reservation}");
        }
    }
    assert_eq!(world.dead_letters(), []);
    assert_eq!(world.ledger.totals().repeated_keys, 0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn idempotency_keys_are_the_golden_values() {
    let world = World::start().await;
    let worker = world.worker().await;
    world.send(&expired("evt_123456", "rsv_abc123"));
    world.emptied().await;
    let calls = world.ledger.calls_for("rsv_abc123");
    let golden = ["17f16bd2-d941-53dc-8b73-fff0816074c2", "43e622ac-f4c7-5c4b-8456-802403703e17"];
    assert_eq!(keys(&calls), golden);
    worker.finish(&world).await;

    // Another process without any state: the same id gives the same keys.
    let world = World::start().await;
    let worker = world.worker().await;
    world.send(&approved("evt_123456", "rsv_abc123"));
    world.emptied().await;
    let calls = world.ledger.calls_for("rsv_abc123");
    let golden = ["17f16bd2-d941-53dc-8b73-fff0816074c2", "f03cccc4-9f0d-5e82-b2b1-1a604e6e4d8c"];
    assert_eq!(keys(&calls), golden);
    worker.finish(&world).await;
}

#[tokio::test]
async fn the_reservation_id_is_always_one_path_segment() {
    let world = World::start().await;
    let worker = world.worker().await;
    let ids = ["a/b", "a b", "a%2Fb", "a?b=c#d", "예약", "..a", "a+b&c;d", "a\\b"];
    for (number, reservation) in ids.iter().enumerate() {
        world.send(&expired(&format!("evt-{number}"), reservation));
    }
    world.emptied().await;
    for reservation in ids {
        let calls = world.ledger.calls_for(reservation);
        assert_eq!(world.methods(reservation), ["PATCH", "ReleaseHold"], "{reservation}");
        let segment = calls[0].raw_path.strip_prefix("/internal/reservations/").unwrap();
        assert!(
            segment.bytes().all(|b| b.is_ascii_graphic() && !b"/?#\\".contains(&b)),
            "{segment}"
        );
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn the_trace_context_comes_from_the_attribute_then_the_header_then_the_body() {
    let world = World::start().await;
    let worker = world.worker().await;
    let parent = |trace: &str| format!("00-{trace}-{PARENT}-01");
    let (second, third) = ("5759e988bd862e3fe1be46a994272793", "11111111111111111111111111111111");
    let xray = format!("Root=1-{}-{};Parent={PARENT};Sampled=1", &second[..8], &second[8..]);
    let mut body = failed("evt-a", "a");
    body["traceparent"] = json!(parent(third));

    let mut message = NewMessage::new(body.to_string())
        .attribute("traceparent", parent(TRACE))
        .attribute("tracestate", "vendor=1");
    message.trace_header = Some(xray.clone());
    world.send_message(message);
    body["id"] = json!("evt-b");
    body["reservation_id"] = json!("b");
    let mut message = NewMessage::new(body.to_string());
    message.trace_header = Some(xray);
    world.send_message(message);
    body["id"] = json!("evt-c");
    body["reservation_id"] = json!("c");
    world.send(&body);
    world.send(&failed("evt-d", "d"));
    world.emptied().await;

    for (reservation, trace, state) in
        [("a", TRACE, Some("vendor=1")), ("b", second, None), ("c", third, None)]
    {
        let calls = world.ledger.calls_for(reservation);
        assert_eq!(calls.len(), 2, "{reservation}");
        for call in &calls {
            let sent = call.traceparent.as_deref().unwrap();
            assert!(sent.starts_with(&format!("00-{trace}-")), "{reservation}: {sent}");
            assert_eq!(call.tracestate.as_deref(), state, "{reservation}");
        }
    }
    // Without a parent the event has a trace of its own, the same in both calls.
    let calls = world.ledger.calls_for("d");
    let traces: Vec<_> =
        calls.iter().map(|c| c.traceparent.as_deref().unwrap()[..35].to_owned()).collect();
    assert_eq!(traces[0], traces[1]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn baggage_and_the_xray_header_are_passed_on_when_configured() {
    let world = World::start().await;
    let mut services = world.services();
    let propagators = Propagators { xray: true, ..Propagators::default() };
    services.endpoints = Arc::new(ServiceEndpoints { propagators, ..ServiceEndpoints::default() });
    let worker = world.worker_of(services, |_| {}).await;
    let message = NewMessage::new(expired("evt-1", "a").to_string());
    world.send_message(message.attribute("baggage", "tenant=t1,user=u;p=1"));
    // The attributes of the SQS message come before those of an SNS notification.
    for (id, own, passed_on) in [("b", None, "tenant=sns"), ("c", Some("tenant=own"), "tenant=own")]
    {
        let note = json!({
            "Type": "Notification", "MessageId": "m", "Message": expired(&format!("evt-{id}"), id).to_string(),
            "MessageAttributes": {"baggage": {"Type": "String", "Value": "tenant=sns"}},
        });
        let message = NewMessage::new(note.to_string());
        world.send_message(match own {
            Some(own) => message.attribute("baggage", own),
            None => message,
        });
        world.emptied().await;
        let passed: Vec<_> = world.ledger.calls_for(id).into_iter().map(|c| c.baggage).collect();
        assert_eq!(passed, [Some(passed_on.to_owned()), Some(passed_on.to_owned())], "{id}");
    }
    world.emptied().await;
    let calls = world.ledger.calls_for("a");
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(call.baggage.as_deref(), Some("tenant=t1,user=u;p=1"));
        let traceparent = call.traceparent.unwrap();
        let (epoch, rest, span) = (&traceparent[3..11], &traceparent[11..35], &traceparent[36..52]);
        let xray = format!("Root=1-{epoch}-{rest};Parent={span};Sampled=0");
        assert_eq!(call.xray, Some(xray));
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn without_propagators_no_trace_context_is_passed_on() {
    let world = World::start().await;
    let mut services = world.services();
    services.endpoints = Arc::new(ServiceEndpoints {
        propagators: Propagators::NONE,
        ..ServiceEndpoints::default()
    });
    let worker = world.worker_of(services, |_| {}).await;
    world.send(&expired("evt-1", "a"));
    world.emptied().await;
    let calls = world.ledger.calls_for("a");
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|c| c.traceparent.is_none() && c.tracestate.is_none()), "{calls:?}");
    worker.finish(&world).await;
}
