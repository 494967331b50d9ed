//! Effects happen once: copies in flight are joined, later ones dropped, an id that is used twice is set aside.

use std::time::Duration;

use reservation_worker::settle::account::Disposition;
use serde_json::json;

use crate::support::{World, approved, eventually, expired, failed};

const JOINED: &str = "worker_duplicates_total{reason=\"joined\"}";
const HANDLED: &str = "worker_duplicates_total{reason=\"handled\"}";

#[tokio::test]
async fn copies_in_flight_share_one_handling_and_one_settlement() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |_| {}).await;
    for _ in 0..3 {
        world.send(&expired("evt-1", "a"));
    }
    eventually("both copies have joined", || worker.metric(JOINED) == 2.0).await;
    // Nothing is deleted before the effects, the copies' own messages included.
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    gate.open();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(worker.outcomes("reservation.expired"), [1.0, 0.0, 2.0, 0.0]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), 3);
}

#[tokio::test]
async fn copies_share_a_release_too() {
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
async fn a_copy_of_what_was_handled_is_deleted_and_does_nothing_else() {
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
async fn one_message_that_comes_in_twice_is_settled_by_its_newest_receipt() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |_| {}).await;
    // SQS hands the message out and shows it again at once.
    world.sqs.faults(&world.queue).duplicate_next(1);
    let id = world.send(&expired("evt-1", "a"));
    eventually("it has come in twice", || {
        world.deliveries(&id) == 2 && worker.app.ledger().left_total(Disposition::Replaced) == 1
    })
    .await;
    gate.open();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), 1);
}

#[tokio::test]
async fn a_delete_that_did_not_take_brings_a_duplicate_and_no_second_effect() {
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
async fn an_id_that_is_used_for_another_event_is_set_aside_and_does_not_touch_the_first() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |_| {}).await;
    world.send(&expired("evt-1", "a"));
    eventually("the first is in hand", || gate.entered() == ["a"]).await;
    // In flight, with another reservation; and with another quantity.
    world.send(&expired("evt-1", "b"));
    let mut other = expired("evt-1", "a");
    other["payload"] = json!({"qty": 3});
    world.send(&other);
    eventually("both are set aside", || world.dead_letters().len() == 2).await;
    gate.open();
    world.emptied().await;
    // And after the first was handled.
    world.send(&approved("evt-1", "a"));
    world.emptied().await;
    let letters = world.dead_letters();
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        assert_eq!(letter.attributes["dlq_reason"].string_value.as_deref(), Some("id_reused"));
    }
    assert_eq!(letters[2].body, approved("evt-1", "a").to_string());
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(world.methods("b"), [""; 0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn fields_that_decide_nothing_do_not_make_another_event() {
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
