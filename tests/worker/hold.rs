//! A held message does not slip away; one that slipped away all the same is left alone.

use std::time::Duration;

use reservation_worker::settle::account::Disposition;
use sandbox::sqs::{Action, ErrorCode, Fault};

use crate::support::{World, eventually, expired};

const EXTENDED: &str = "worker_lease_extensions_total";
const FAILED: &str = "worker_lease_extension_failures_total";
const LOST: &str = "worker_leases_lost_total";
const RUNNING: &str = "worker_messages_in_flight{state=\"running\"}";

#[tokio::test]
async fn a_slow_event_keeps_its_message_beyond_the_visibility_timeout() {
    let world = World::start().await;
    let visibility = Duration::from_secs(6);
    let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
    let id = world.send(&expired("evt-1", "a"));
    let copy = world.send(&expired("evt-1", "a"));
    // Half of a timeout apart: by the time of the third the first timeout is over.
    eventually("each is extended three times", || worker.metric(EXTENDED) >= 6.0).await;
    gate.open();
    world.emptied().await;
    assert_eq!((world.deliveries(&id), world.deliveries(&copy)), (1, 1));
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(worker.metric(LOST), 0.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_extension_that_fails_is_tried_again_while_there_is_time() {
    for whole_call in [true, false] {
        let world = World::start().await;
        let visibility = Duration::from_secs(10);
        let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
        let faults = world.sqs.faults(&world.queue);
        if whole_call {
            let throttled = Fault::Error(ErrorCode::RequestThrottled);
            faults.fail_next(Action::ChangeMessageVisibilityBatch, 2, throttled);
        } else {
            faults.fail_next_visibility_entries(2);
        }
        let id = world.send(&expired("evt-1", "a"));
        eventually("it is extended", || worker.metric(EXTENDED) >= 1.0).await;
        assert_eq!(worker.metric(FAILED), 2.0);
        gate.open();
        world.emptied().await;
        assert_eq!(world.deliveries(&id), 1);
        worker.finish(&world).await;
    }
}

/// A fifth of the timeout for each answer: half is left when it is asked for, two thirds of which are waited.
#[tokio::test]
async fn an_extension_that_is_slow_is_not_given_up() {
    let world = World::start().await;
    let visibility = Duration::from_secs(5);
    let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
    let faults = world.sqs.faults(&world.queue);
    let slow = Duration::from_secs(1);
    faults.latency(Action::ChangeMessageVisibilityBatch, slow, Duration::ZERO);
    let id = world.send(&expired("evt-1", "a"));
    eventually("it is extended three times", || worker.metric(EXTENDED) >= 3.0).await;
    gate.open();
    world.emptied().await;
    assert_eq!(world.deliveries(&id), 1);
    assert_eq!((worker.metric(LOST), worker.metric(FAILED)), (0.0, 0.0));
    worker.finish(&world).await;
}

/// Nothing is received meanwhile, so that no newer receipt revives the event.
#[tokio::test]
async fn a_lost_lease_stops_the_event_before_its_next_step_and_deletes_nothing() {
    let world = World::start().await;
    let visibility = Duration::from_secs(6);
    let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
    let id = world.send(&expired("evt-1", "a"));
    eventually("it is in hand", || gate.entered() == ["a"]).await;
    let faults = world.sqs.faults(&world.queue);
    let broken = Fault::Http(503);
    for action in [Action::ReceiveMessage, Action::ChangeMessageVisibilityBatch] {
        faults.fail_sometimes(action, 1.0, broken);
    }
    eventually("the lease is lost", || worker.metric(LOST) == 1.0).await;
    gate.open();
    eventually("the attempt is over", || {
        world.methods("a") == ["PATCH"] && worker.metric(RUNNING) == 0.0
    })
    .await;
    assert_eq!(world.methods("a"), ["PATCH"]);
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    assert_eq!(worker.app.ledger().left_total(Disposition::LeaseLost), 1);
    // Whoever has it next goes on where it stopped.
    faults.clear();
    world.emptied().await;
    assert!(world.deliveries(&id) >= 2);
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn what_waits_for_a_retry_is_held_too() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(6)).await;
    let later = sandbox::script::Scripted::<sandbox::reservation_api::Reply>::status(503);
    world.api.script_for("a", [later.header("Retry-After", "8")]);
    let id = world.send(&expired("evt-1", "a"));
    world.emptied().await;
    assert_eq!(world.deliveries(&id), 1);
    assert_eq!(world.methods("a"), ["PATCH", "PATCH", "ReleaseHold"]);
    assert!(worker.metric(EXTENDED) >= 2.0);
    worker.finish(&world).await;
}
