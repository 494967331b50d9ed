//! The lease of a held message is extended. A message whose lease is lost is left alone.

use std::time::Duration;

use reservation_worker::settle::account::Disposition;
use sandbox::sqs::{Action, ErrorCode, Fault};

use crate::support::{World, eventually, expired};

const EXTENDED: &str = "worker_lease_extensions_total";
const FAILED: &str = "worker_lease_extension_failures_total";
const LOST: &str = "worker_leases_lost_total";
const RUNNING: &str = "worker_messages_in_flight{state=\"running\"}";

#[tokio::test]
async fn a_slow_event_keeps_its_lease_beyond_the_visibility_timeout() {
    let world = World::start().await;
    let visibility = Duration::from_secs(6);
    let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
    let id = world.send(&expired("evt-1", "a"));
    let copy = world.send(&expired("evt-1", "a"));
    // Extensions are half a timeout apart: the third comes after the end of the first timeout.
    eventually("each is extended three times", || worker.metric(EXTENDED) >= 6.0).await;
    gate.open();
    world.emptied().await;
    assert_eq!((world.deliveries(&id), world.deliveries(&copy)), (1, 1));
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(worker.metric(LOST), 0.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_failed_extension_is_retried_while_the_lease_lasts() {
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
        eventually("the lease is extended", || worker.metric(EXTENDED) >= 1.0).await;
        assert_eq!(worker.metric(FAILED), 2.0);
        gate.open();
        world.emptied().await;
        assert_eq!(world.deliveries(&id), 1);
        worker.finish(&world).await;
    }
}

/// Each answer takes a fifth of the timeout. An extension is sent at half of the timeout and may
/// take two thirds of the rest.
#[tokio::test]
async fn a_slow_extension_is_awaited() {
    let world = World::start().await;
    let visibility = Duration::from_secs(5);
    let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
    let faults = world.sqs.faults(&world.queue);
    let slow = Duration::from_secs(1);
    faults.latency(Action::ChangeMessageVisibilityBatch, slow, Duration::ZERO);
    let id = world.send(&expired("evt-1", "a"));
    eventually("the lease is extended three times", || worker.metric(EXTENDED) >= 3.0).await;
    gate.open();
    world.emptied().await;
    assert_eq!(world.deliveries(&id), 1);
    assert_eq!((worker.metric(LOST), worker.metric(FAILED)), (0.0, 0.0));
    worker.finish(&world).await;
}

/// Receives fail meanwhile, so that no newer receipt renews the lease.
#[tokio::test]
async fn after_a_lost_lease_no_step_is_made_and_no_message_is_deleted() {
    let world = World::start().await;
    let visibility = Duration::from_secs(6);
    let (worker, gate) = world.gated(&["a"], |settings| settings.visibility = visibility).await;
    let id = world.send(&expired("evt-1", "a"));
    eventually("the event is being handled", || gate.entered() == ["a"]).await;
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
    assert_eq!(worker.app.account().left_total(Disposition::LeaseLost), 1);
    // The next receiver continues with the step that is missing.
    faults.clear();
    world.emptied().await;
    assert!(world.deliveries(&id) >= 2);
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_that_waits_for_a_retry_keeps_its_lease() {
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
