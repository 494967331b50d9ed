//! Effects happen once: copies in flight join the first, later copies are dropped, and an event
//! with the id of another one is dead-lettered.

use std::time::Duration;

use reservation_worker::settle::account::Disposition;
use serde_json::json;

use crate::support::{World, approved, eventually, expired, failed};

const JOINED: &str = "worker_duplicates_total{reason=\"joined\"}";
const HANDLED: &str = "worker_duplicates_total{reason=\"handled\"}";

#[tokio::test]
async fn copies_in_flight_are_handled_and_settled_together() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |_| {}).await;
    for _ in 0..3 {
        world.send(&expired("evt-1", "a"));
    }
    eventually("both copies have joined", || worker.metric(JOINED) == 2.0).await;
    // No message is deleted before the effects, not even the copies' messages.
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    gate.open();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(worker.outcomes("reservation.expired"), [1.0, 0.0, 2.0, 0.0]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), 3);
}

#[tokio::test]
async fn copies_in_flight_are_released_together() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |settings| settings.policy.retries_max = 0).await;
    world.api.script_for(
        "a",
        [sandbox::script::Scripted::<sandbox::reservation_api::Reply>::status(500)],
    );
    let first = world.send(&expired("evt-1", "a"));
    let second = world.send(&expired("evt-1", "a"));
    eventually("the copy has joined", || worker.metric(JOINED) == 1.0).await;
    gate.open();
    assert_eq!(world.released(&first).await, 30);
    assert_eq!(world.released(&second).await, 30);
    assert_eq!(world.methods("a"), ["PATCH"]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::HandedBack), 2);
}

#[tokio::test]
async fn a_copy_of_a_handled_event_is_deleted_without_calls() {
    let world = World::start().await;
    let worker = world.worker().await;
    for event in [expired("evt-1", "a"), approved("evt-2", "b"), failed("evt-3", "c")] {
        world.send(&event);
        world.emptied().await;
        let calls = world.ledger.totals().calls;
        world.send(&event);
        world.emptied().await;
        assert_eq!(world.ledger.totals().calls, calls, "{event}");
    }
    assert_eq!(worker.metric(HANDLED), 3.0);
    for event_type in ["reservation.expired", "payment.approved", "payment.failed"] {
        assert_eq!(worker.outcomes(event_type), [1.0, 0.0, 1.0, 0.0], "{event_type}");
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_message_that_is_received_twice_is_settled_with_its_newest_receipt() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |_| {}).await;
    // SQS delivers the message and makes it visible again at once.
    world.sqs.faults(&world.queue).duplicate_next(1);
    let id = world.send(&expired("evt-1", "a"));
    eventually("the message was received twice", || {
        world.deliveries(&id) == 2 && worker.app.account().left_total(Disposition::Replaced) == 1
    })
    .await;
    gate.open();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), 1);
}

#[tokio::test]
async fn a_delete_without_effect_leads_to_a_duplicate_and_no_second_effect() {
    let world = World::start().await;
    let short = Duration::from_secs(3);
    let worker = world.worker_with(|settings| settings.visibility = short).await;
    world.sqs.faults(&world.queue).delete_next_silently(1);
    let id = world.send(&expired("evt-1", "a"));
    world.emptied().await;
    assert!(world.deliveries(&id) >= 2);
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert!(worker.metric(HANDLED) >= 1.0);
    worker.drain().await;
}

#[tokio::test]
async fn an_event_with_the_id_of_another_one_is_dead_lettered() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |_| {}).await;
    world.send(&expired("evt-1", "a"));
    eventually("the first event is being handled", || gate.entered() == ["a"]).await;
    // While the first is in flight: with another reservation, then with another quantity.
    world.send(&expired("evt-1", "b"));
    let mut other = expired("evt-1", "a");
    other["payload"] = json!({"qty": 3});
    world.send(&other);
    eventually("both are dead-lettered", || world.dead_letters().len() == 2).await;
    gate.open();
    world.emptied().await;
    // The same after the first was handled.
    world.send(&approved("evt-1", "a"));
    world.emptied().await;
    let dead_letters = world.dead_letters();
    assert_eq!(dead_letters.len(), 3);
    for dead_letter in &dead_letters {
        assert_eq!(dead_letter.attributes["dlq_reason"].string_value.as_deref(), Some("id_reused"));
    }
    assert_eq!(dead_letters[2].body, approved("evt-1", "a").to_string());
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(world.methods("b"), [""; 0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn fields_without_effect_do_not_make_a_different_event() {
    let world = World::start().await;
    let worker = world.worker().await;
    world.send(&expired("evt-1", "a"));
    world.emptied().await;
    let mut copy = expired("evt-1", "a");
    copy["ts"] = json!("2024-01-01T13:00:00Z");
    copy["unknown"] = json!({"more": [1, 2]});
    world.send(&copy);
    world.emptied().await;
    assert_eq!(worker.metric(HANDLED), 1.0);
    assert_eq!(world.dead_letters(), []);
    worker.finish(&world).await;
}
