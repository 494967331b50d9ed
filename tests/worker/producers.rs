//! Events as producers send them: an expiry without seats, events without an id, a payment's new
//! status. The decoding of bodies is left to tests/corpus.

use reservation_worker::event::Step;
use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::reservation_api::ReservationStatus::Expired;
use sandbox::script::Scripted;
use sandbox::sqs::{NewMessage, StoredMessage};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{World, eventually, key};

type Http = Scripted<HttpReply>;
type Rpc = Scripted<RpcReply>;

/// An event as the reservation service's scheduler publishes it.
fn scheduled(id: &str, reservation: &str) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": "Reservation Expiry", "source": "reservations", "account": "1",
        "time": "2024-01-01T12:00:00Z", "region": "us-east-1", "resources": [],
        "detail": {"eventType": "RESERVATION_EXPIRED", "reservationId": reservation},
    })
}

/// An event as the payment simulator publishes it.
fn status_updated(id: &str, reservation: &str, status: &str) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": "Payment Status Updated", "source": "payments", "account": "1",
        "time": "2024-01-01T12:00:00Z", "region": "us-east-1", "resources": [],
        "detail": {"payment_id": "pay_1", "reservation_id": reservation, "user_id": "usr_1", "status": status,
            "amount": 120_000, "currency": "KRW", "timestamp": "2024-01-01T12:00:00Z", "event_type": "payment.status_updated"},
    })
}

fn seats() -> Value {
    json!({"event_id": "evt_2025_1001", "seat_ids": ["A-12", "A-13"], "quantity": 2})
}

fn attribute<'a>(dead_letter: &'a StoredMessage, name: &str) -> &'a str {
    dead_letter.attributes[name].string_value.as_deref().unwrap()
}

#[tokio::test]
async fn an_expiry_without_seats_looks_them_up_in_the_reservation_api_once() {
    let world = World::start().await;
    let worker = world.worker().await;
    for (reservation, details) in [
        ("all", seats()),
        ("number", json!({"event_id": "evt_2025_1001", "quantity": 3})),
        ("failing", seats()),
        ("refused", seats()),
        ("get-fails", seats()),
    ] {
        world.api.set_details(reservation, details);
    }
    // The answer is kept for retries; the lookup after a 409 is used too.
    world.inventory.script_for("failing", [Rpc::code(Code::Internal), Rpc::code(Code::Unknown)]);
    world.api.script_for("refused", [Http::status(409)]);
    world.api.set_status("refused", Expired);
    world.api.set_details("refused", seats());
    world.api.script_for("get-fails", [Http::normal(), Http::status(500)]);
    for reservation in ["all", "number", "failing", "refused", "get-fails"] {
        world.send(&scheduled(&format!("evt-{reservation}"), reservation));
    }
    // Fields of the event take precedence.
    world.api.set_details("half", seats());
    let half = json!({"id": "evt-half", "type": "reservation.expired", "reservation_id": "half", "payload": {"qty": 1}});
    world.send(&half);
    world.emptied().await;
    let released = r#"ReleaseHold all evt_2025_1001 ["A-12", "A-13"] 2 EXPIRED"#;
    assert_eq!(world.methods("all"), ["PATCH", "GET", "ReleaseHold"]);
    assert_eq!(world.calls("all").last().map(String::as_str), Some(released));
    let released = "ReleaseHold number evt_2025_1001 [] 3 EXPIRED";
    assert_eq!(world.calls("number").last().map(String::as_str), Some(released));
    let released = "ReleaseHold half evt_2025_1001 [] 1 EXPIRED";
    assert_eq!(world.calls("half").last().map(String::as_str), Some(released));
    let thrice = ["PATCH", "GET", "ReleaseHold", "ReleaseHold", "ReleaseHold"];
    assert_eq!(world.methods("failing"), thrice);
    assert_eq!(world.methods("refused"), ["PATCH", "GET", "ReleaseHold"]);
    assert_eq!(world.methods("get-fails"), ["PATCH", "GET", "GET", "ReleaseHold"]);
    assert_eq!(worker.outcomes("reservation.expired"), [6.0, 0.0, 0.0, 3.0]);
    assert_eq!(world.dead_letters(), []);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_expiry_with_unknown_seats_is_invalid_and_sold_seats_are_not_released() {
    let world = World::start().await;
    let worker = world.worker().await;
    for (reservation, details) in [
        ("nothing", json!({})),
        ("no-show", json!({"quantity": 2})),
        ("no-seats", json!({"event_id": "evt_2025_1001", "seat_ids": [], "quantity": null})),
        ("contradicts", json!({"event_id": "e", "seat_ids": ["A"], "quantity": 2})),
        ("unreadable", json!({"event_id": "e", "seat_ids": [1], "quantity": 1})),
    ] {
        world.api.set_details(reservation, details);
        world.send(&scheduled(&format!("evt-{reservation}"), reservation));
    }
    world.api.script_for("gone", [Http::normal(), Http::status(404)]);
    world.send(&scheduled("evt-gone", "gone"));
    world.emptied().await;
    let dead_letters = world.dead_letters();
    for reservation in ["nothing", "no-show", "no-seats", "contradicts", "unreadable"] {
        let dead_letter =
            dead_letters.iter().find(|dead_letter| dead_letter.body.contains(reservation)).unwrap();
        assert_eq!(attribute(dead_letter, "dlq_reason"), "invalid_event", "{reservation}");
        let says = "the Reservation API does not say them either";
        assert!(attribute(dead_letter, "dlq_error").contains(says), "{reservation}");
        assert_eq!(world.methods(reservation), ["PATCH", "GET"], "{reservation}");
        assert_eq!(world.api.status(reservation), Some(Expired));
    }
    let gone = dead_letters.iter().find(|dead_letter| dead_letter.body.contains("gone")).unwrap();
    assert_eq!(attribute(gone, "dlq_reason"), "rejected");
    assert_eq!(dead_letters.len(), 6);

    // The reservation is confirmed after the first step and before the lookup succeeds.
    world.api.script_for(
        "sold",
        [Http::normal(), Http::status(500), Http::status(200).body(r#"{"status":"CONFIRMED"}"#)],
    );
    world.send(&scheduled("evt-sold", "sold"));
    world.emptied().await;
    assert_eq!(world.methods("sold"), ["PATCH", "GET", "GET"]);
    assert_eq!(worker.outcomes("reservation.expired"), [0.0, 6.0, 1.0, 1.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_without_an_id_has_the_id_of_its_original_message() {
    let world = World::start().await;
    let worker = world.worker().await;
    let body = |reservation: &str| {
        json!({"type": "payment.approved", "reservation_id": reservation,
            "payload": {"payment_intent_id": "pay_1"}})
    };
    let id = world.send(&body("first"));
    world.emptied().await;
    let of_step = |id: &str| Some(key(id, Step::ReservationStatus));
    assert_eq!(world.ledger.calls_for("first")[0].key, of_step(&id));
    // Copies name their original message, so a handled event is recognised.
    for name in ["dlq_message_id", "redrive_of"] {
        world.send_message(NewMessage::new(body("first").to_string()).attribute(name, &id));
        world.send_message(NewMessage::new(body(name).to_string()).attribute(name, "original-1"));
        world.emptied().await;
        assert_eq!(world.methods("first"), ["PATCH"]);
    }
    assert_eq!(world.ledger.calls_for("dlq_message_id")[0].key, of_step("original-1"));
    // A value that cannot be an SQS message id is ignored.
    let id = world.send_message(
        NewMessage::new(body("strange").to_string()).attribute("redrive_of", "a b\tc"),
    );
    world.emptied().await;
    assert_eq!(world.ledger.calls_for("strange")[0].key, of_step(&id));
    let counted = r#"worker_events_without_id_total{type="payment.approved"}"#;
    assert_eq!(worker.metric(counted), 6.0);
    worker.finish(&world).await;
}

/// Otherwise an event without an id would get a new id with every redrive.
#[tokio::test]
async fn a_dead_letter_of_a_redriven_copy_names_the_first_original() {
    let world = World::start().await;
    let worker = world.worker().await;
    let message = NewMessage::new("no event").attribute("dlq_message_id", "original-1");
    world.send_message(message);
    world.emptied().await;
    let dead_letters = world.dead_letters();
    assert_eq!(attribute(&dead_letters[0], "dlq_message_id"), "original-1");
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_payment_status_is_handled_as_approved_or_failed_or_is_dropped() {
    let world = World::start().await;
    let worker = world.worker().await;
    for (status, line) in [
        ("PAYMENT_STATUS_COMPLETED", Some("CONFIRMED")),
        ("approved", Some("CONFIRMED")),
        ("PAYMENT_STATUS_FAILED", Some("CANCELLED")),
        ("PAYMENT_STATUS_PENDING", None),
    ] {
        world.send(&status_updated(&format!("evt-{status}"), status, status));
        world.emptied().await;
        let line = line.map(|target| {
            format!(
                r#"PATCH /internal/reservations/{status} {{"payment_intent_id":"pay_1","status":"{target}"}}"#
            )
        });
        assert_eq!(world.calls(status), Vec::from_iter(line), "{status}");
    }
    assert_eq!(worker.outcomes("payment.approved"), [2.0, 0.0, 0.0, 0.0]);
    assert_eq!(worker.outcomes("payment.failed"), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(worker.outcomes("unknown"), [0.0, 0.0, 1.0, 0.0]);
    assert_eq!(world.dead_letters(), []);
    worker.finish(&world).await;
}

/// A token may permit changes and not reads. Successful changes do not count as successful reads.
#[tokio::test]
async fn an_api_that_rejects_all_reads_costs_few_dead_letters_and_holds_up_no_payment() {
    const EVENTS: usize = 40;
    let world = World::redriving(1).await;
    let worker = world.worker().await;
    let names: Vec<_> = (0..EVENTS).map(|n| format!("r{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        world.api.set_details(name, seats());
        let refused = std::iter::repeat_n(Http::status(403), 1_000);
        world.api.script_for(name, std::iter::once(Http::normal()).chain(refused));
        world.send(&scheduled(&format!("evt-{n}"), name));
        let paid = format!("paid{n}");
        world.send(&status_updated(&format!("evt-paid-{n}"), &paid, "PAYMENT_STATUS_COMPLETED"));
        eventually("the payment is handled", || world.methods(&paid) == ["PATCH"]).await;
    }
    let gone = world.dead_letters().len();
    let waiting = f64::from(u32::try_from(EVENTS - gone).unwrap());
    eventually("the others are parked", || worker.parked() == waiting).await;
    assert!((1..=5).contains(&gone), "{gone} dead letters");
    assert_eq!(worker.metric("worker_refusing{service=\"reservation\"}"), 1.0);
    world.api.clear_script();
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), gone);
    let released = |name: &&String| world.methods(name).contains(&"ReleaseHold");
    assert_eq!(names.iter().filter(released).count(), EVENTS - gone);
    worker.finish(&world).await;
}
