//! Tests of decoding: accepted bodies.
//!
//! Refused bodies and identities are in files of their own.
#![allow(clippy::unwrap_used)]

mod hostile;
mod identity;
mod refused;

use serde_json::{Value, json};

use super::*;

/// The SQS id of the message.
const MESSAGE_ID: &str = "m-1";

fn decode(body: &str) -> Result<Event, Poison> {
    super::decode(body, MESSAGE_ID).map_err(|no_event| match no_event {
        NoEvent::Poison(poison) => poison,
        NoEvent::NoChange(no_change) => panic!("{no_change:?}"),
    })
}

const EXPIRED: &str = r#"{"id":"evt_123456","type":"reservation.expired","reservation_id":"rsv_abc123","event_id":"evt_2025_1001",
 "ts":"2024-01-01T12:00:00Z","payload":{"qty":2,"seat_ids":["A-12","A-13"]}}"#;
const APPROVED: &str = r#"{"id":"evt_123457","type":"payment.approved","reservation_id":"rsv_abc123","event_id":"evt_2025_1001",
 "ts":"2024-01-01T12:05:00Z","payload":{"payment_intent_id":"pay_xyz789","amount":120000}}"#;
const FAILED: &str = r#"{"id":"evt_123458","type":"payment.failed","reservation_id":"rsv_abc123","event_id":"evt_2025_1001",
 "ts":"2024-01-01T12:10:00Z","payload":{"payment_intent_id":"pay_xyz789","amount":120000}}"#;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read(body: &Value) -> Event {
    decode(&body.to_string()).unwrap()
}

/// An EventBridge envelope with its own id, type and time.
fn event_bridge(detail: &Value) -> Value {
    json!({"version": "0", "id": "eb-1", "detail-type": "payment.approved", "source": "payments", "account": "123456789012",
        "time": "2024-02-02T00:00:00Z", "region": "eu-west-1", "resources": [], "detail": detail})
}

fn typed(detail: &Value) -> Value {
    json!({"id": "td-1", "type": "payment.approved", "source": "payments", "detail": detail,
        "time": "2024-03-03T00:00:00Z", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
}

fn sns(message: &Value) -> Value {
    json!({"Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:events",
        "Message": message.to_string(), "Timestamp": "2024-04-04T00:00:00.000Z", "SignatureVersion": "1",
        "Signature": "x", "SigningCertURL": "https://example.com", "UnsubscribeURL": "https://example.com"})
}

/// The inner fields alone, as EventBridge rules often forward them.
fn inner() -> Value {
    json!({"reservation_id": "rsv_1", "event_id": "show_1", "payment_intent_id": "pay_1", "amount": 5, "seat_ids": ["A", "B"]})
}

#[test]
fn flat_events_of_all_types_are_decoded() {
    let event = decode(EXPIRED).unwrap();
    assert_eq!(event.event_type(), EventType::ReservationExpired);
    assert_eq!(event.id.as_str(), "evt_123456");
    assert_eq!(event.reservation_id.as_str(), "rsv_abc123");
    assert_eq!(event.show_id.as_ref().unwrap().as_str(), "evt_2025_1001");
    assert_eq!(event.trace, None);
    let seats = Seats { seat_ids: ["A-12", "A-13"].into_iter().collect(), quantity: 2 };
    assert_eq!(event.seats(), Some(&seats));
    assert_eq!(event.payload, Payload::ReservationExpired(Some(seats)));

    let payment = Payment {
        payment_intent_id: Some("pay_xyz789".into()),
        amount: Some(120_000),
        ..Payment::default()
    };
    let event = decode(APPROVED).unwrap();
    assert_eq!(event.event_type(), EventType::PaymentApproved);
    assert_eq!(event.payload, Payload::PaymentApproved(payment.clone()));
    let event = decode(FAILED).unwrap();
    assert_eq!(event.event_type(), EventType::PaymentFailed);
    assert_eq!(event.payload, Payload::PaymentFailed(payment));
}

#[test]
fn the_alias_of_a_type_is_decoded_as_the_type() {
    let mut body = value(EXPIRED);
    body["type"] = json!("reservation.hold.expired");
    assert_eq!(read(&body), decode(EXPIRED).unwrap());
}

#[test]
fn every_type_is_found_by_its_name() {
    for event_type in EventType::ALL {
        assert_eq!(EventType::from_name(event_type.as_str()), Some(event_type));
        assert_eq!(event_type.to_string(), event_type.as_str());
    }
    assert_eq!(EventType::from_name("Payment.Approved"), None);
}

#[test]
fn all_fields_of_a_payment_are_decoded() {
    let mut body = value(FAILED);
    body["payload"] = json!({"payment_intent_id": "p", "amount": -1, "currency": "KRW", "user_id": "u", "error_code": "card_declined",
        "error_message": "no funds", "qty": 3, "seat_ids": [], "more": {"unknown": [1]}});
    let payment = Payment {
        payment_intent_id: Some("p".into()),
        amount: Some(-1),
        currency: Some("KRW".into()),
        user_id: Some("u".into()),
        error_code: Some("card_declined".into()),
        error_message: Some("no funds".into()),
        seats: Some(Seats { seat_ids: SeatIds::default(), quantity: 3 }),
    };
    assert_eq!(read(&body).payload, Payload::PaymentFailed(payment));
}

#[test]
fn seats_are_given_by_name_by_number_or_both() {
    for (payload, quantity, named) in [
        (json!({"qty": 2, "seat_ids": ["A", "B"]}), 2, 2),
        (json!({"seat_ids": ["A", "B", "C"]}), 3, 3),
        (json!({"qty": 4}), 4, 0),
        (json!({"qty": 4, "seat_ids": []}), 4, 0),
        (json!({"qty": 4, "seat_ids": null}), 4, 0),
        (json!({"qty": null, "seat_ids": ["A"]}), 1, 1),
        (json!({"qty": i32::MAX}), i32::MAX, 0),
        (json!({"seat_ids": ["A", "A"]}), 2, 2),
    ] {
        for body in [EXPIRED, APPROVED, FAILED] {
            let mut body = value(body);
            body["payload"] = payload.clone();
            let event = read(&body);
            let seats = event.seats().unwrap();
            assert_eq!((seats.quantity, seats.seat_ids.len()), (quantity, named), "{body}");
        }
    }
}

#[test]
fn a_payment_without_seats_is_decoded() {
    for payload in [json!({}), json!(null), json!({"seat_ids": []}), json!({"qty": null})] {
        let mut body = value(APPROVED);
        body["payload"] = payload;
        assert_eq!(read(&body).seats(), None);
        body.as_object_mut().unwrap().remove("payload");
        assert_eq!(read(&body).seats(), None);
    }
}

#[test]
fn a_complete_flat_event_overrides_its_envelopes() {
    let flat = decode(EXPIRED).unwrap();
    let whole = value(EXPIRED);
    for body in [
        event_bridge(&whole),
        sns(&whole),
        sns(&event_bridge(&whole)),
        event_bridge(&event_bridge(&whole)),
        sns(&sns(&whole)),
        event_bridge(&sns(&whole)),
    ] {
        assert_eq!(read(&body), flat, "{body}");
    }
    for body in [typed(&whole), sns(&typed(&whole))] {
        let event = read(&body);
        assert!(event.trace.is_some());
        assert_eq!(Event { trace: None, ..event }, flat);
    }
}

#[test]
fn inner_fields_take_type_and_id_from_the_nearest_envelope() {
    for (body, id) in [
        (event_bridge(&inner()), "eb-1"),
        (typed(&inner()), "td-1"),
        (sns(&event_bridge(&inner())), "eb-1"),
        (sns(&typed(&inner())), "td-1"),
        (event_bridge(&typed(&inner())), "td-1"),
    ] {
        let event = read(&body);
        assert_eq!(event.event_type(), EventType::PaymentApproved);
        assert_eq!(event.id.as_str(), id);
        let Payload::PaymentApproved(payment) = event.payload else { panic!("{body}") };
        assert_eq!(payment.payment_intent_id.as_deref(), Some("pay_1"));
        assert_eq!(payment.amount, Some(5));
        assert_eq!(payment.seats.unwrap().quantity, 2);
    }
}

#[test]
fn type_and_id_fall_back_to_the_envelope_independently() {
    let mut detail = inner();
    detail["type"] = json!("payment.failed");
    let event = read(&event_bridge(&detail));
    assert_eq!((event.event_type(), event.id.as_str()), (EventType::PaymentFailed, "eb-1"));
    let mut detail = inner();
    detail["id"] = json!("own");
    detail["type"] = json!(null);
    let event = read(&event_bridge(&detail));
    assert_eq!((event.event_type(), event.id.as_str()), (EventType::PaymentApproved, "own"));
}

#[test]
fn the_sns_message_id_is_used_last() {
    let mut whole = value(APPROVED);
    assert_eq!(read(&sns(&whole)).id.as_str(), "evt_123457");
    whole.as_object_mut().unwrap().remove("id");
    let event = read(&sns(&whole));
    assert_eq!(event.id.as_str(), "sns-1");
    assert_eq!(read(&sns(&event_bridge(&whole))).id.as_str(), "eb-1");
    let mut envelope = event_bridge(&whole);
    envelope.as_object_mut().unwrap().remove("id");
    assert_eq!(read(&sns(&envelope)).id.as_str(), "sns-1");
}

#[test]
fn an_event_with_fields_of_an_envelope_stays_an_event() {
    let mut body = value(EXPIRED);
    for (key, extra) in [
        ("Type", json!("Notification")),
        ("Message", json!("{}")),
        ("detail", json!({"reservation_id": "other"})),
        ("detail-type", json!("x")),
        ("version", json!(3)),
        ("source", json!(["anything"])),
    ] {
        body[key] = extra;
    }
    assert_eq!(read(&body), decode(EXPIRED).unwrap());
}

#[test]
fn the_payload_overrides_fields_next_to_it() {
    let mut body = value(EXPIRED);
    body["qty"] = json!(9);
    assert_eq!(read(&body).seats().unwrap().quantity, 2);
    body["payload"] = json!(null);
    assert_eq!(read(&body).seats().unwrap().quantity, 9);
}

#[test]
fn invalid_descriptive_fields_are_ignored() {
    let mut body = value(APPROVED);
    body["ts"] = json!(1_704_067_200);
    body["payload"] = json!({"amount": "120000", "currency": 410, "error_code": false, "error_message": [], "payment_intent_id": "", "user_id": ""});
    body["traceparent"] = json!({"a": 1});
    let event = read(&body);
    assert_eq!(event.payload, Payload::PaymentApproved(Payment::default()));
}

/// Both values are valid JSON (RFC 8259), but cannot be represented.
///
/// Half of a surrogate pair results when a text with an emoji is truncated.
#[test]
fn descriptive_fields_that_cannot_be_represented_are_ignored() {
    let body = r#"{"id":"e","type":"payment.failed","reservation_id":"r","event_id":"s","ts":"\ud83d","\ud83d":1,"detail":"\ud83d",
        "payload":{"amount":1e400,"currency":-1e999,"error_code":"\udc00","error_message":"no funds \ud83d","user_id":"u"}}"#;
    let event = decode(body).unwrap();
    let payment = Payment { user_id: Some("u".into()), ..Payment::default() };
    assert_eq!(event.payload, Payload::PaymentFailed(payment));
    let whole = body.replace(r"funds \ud83d", r"funds \ud83d\ude31");
    let Payload::PaymentFailed(payment) = decode(&whole).unwrap().payload else {
        panic!("{whole}")
    };
    assert_eq!(payment.error_message.as_deref(), Some("no funds 😱"));
}

#[test]
fn ids_are_kept_unchanged() {
    for id in ["a/b?c#d%2e", "예약-1", " spaces stay ", "...", "a\"b\\c", &"x".repeat(ID_BYTES_MAX)]
    {
        let mut body = value(EXPIRED);
        for key in ["id", "reservation_id", "event_id"] {
            body[key] = json!(id);
        }
        let event = read(&body);
        assert_eq!(event.id.as_str(), id);
        assert_eq!(event.reservation_id.as_str(), id);
        assert_eq!(event.show_id.unwrap().as_str(), id);
    }
}

#[test]
fn the_maximum_number_of_seats_is_decoded() {
    let mut body = value(EXPIRED);
    let seats: Vec<String> = (0..SEATS_MAX).map(|seat| format!("{seat:0>128}")).collect();
    body["payload"] = json!({ "seat_ids": seats });
    assert!(read(&body).seats().unwrap().seat_ids.iter().eq(&seats));
}

#[test]
fn unknown_fields_may_nest_to_any_depth() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let body = EXPIRED.replacen('{', &format!("{{\"x\":{deep},\"detail\":{deep},"), 1);
    assert_eq!(decode(&body).unwrap(), decode(EXPIRED).unwrap());
    let objects = format!("{}1{}", "{\"payload\":".repeat(50_000), "}".repeat(50_000));
    let body = EXPIRED.replacen('{', &format!("{{\"detail\":{objects},"), 1);
    assert_eq!(decode(&body).unwrap(), decode(EXPIRED).unwrap());
}

fn trace_parent(body: &Value) -> Option<String> {
    read(body).trace.map(|trace| trace.parent.to_string())
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn the_innermost_traceparent_is_used_and_a_trace_id_only_without_one() {
    let other = PARENT.replace("4bf9", "aaaa");
    let mut detail = inner();
    assert_eq!(read(&event_bridge(&detail)).trace, None);
    let made = "00-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01";
    assert_eq!(trace_parent(&typed(&detail)).as_deref(), Some(made));
    let mut envelope = typed(&detail);
    envelope["traceparent"] = json!(other);
    assert_eq!(trace_parent(&envelope).as_deref(), Some(other.as_str()));
    detail["traceparent"] = json!(PARENT);
    envelope["detail"] = detail;
    assert_eq!(trace_parent(&envelope).as_deref(), Some(PARENT));
}

#[test]
fn only_valid_trace_contexts_are_kept() {
    let from = |key: &str, text: &str| {
        let mut body = value(APPROVED);
        body[key] = json!(text);
        trace_parent(&body)
    };
    assert_eq!(from("traceparent", PARENT).as_deref(), Some(PARENT));
    assert_eq!(from("trace_id", PARENT).as_deref(), Some(PARENT));
    let newer = format!("cc{}-more", PARENT.strip_prefix("00").unwrap());
    assert_eq!(from("traceparent", &newer).as_deref(), Some(PARENT));
    let x_ray = "1-5759e988-bd862e3fe1be46a994272793";
    let made = "00-5759e988bd862e3fe1be46a994272793-e1be46a994272793-01";
    assert_eq!(from("trace_id", x_ray).as_deref(), Some(made));
    let half = "00-5759e988bd862e3f0000000000000000-5759e988bd862e3f-01";
    assert_eq!(from("trace_id", "5759E988BD862E3F0000000000000000").as_deref(), Some(half));
    for bad in [
        "",
        "x",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-011",
    ] {
        assert_eq!(from("traceparent", bad), None, "{bad}");
    }
    for bad in [
        &"0".repeat(32),
        "1-5759e988-bd86",
        "1-5759e98-8bd862e3fe1be46a994272793",
        "é".repeat(16).as_str(),
    ] {
        assert_eq!(from("trace_id", bad), None, "{bad}");
    }
}
