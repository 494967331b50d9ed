//! Messages are deleted after their effects, in batches, and failed deletes are retried.

use std::time::Duration;

use reservation_worker::settle::account::Disposition;
use sandbox::sqs::{Action, ErrorCode, Fault};

use crate::support::{World, eventually, expired};

fn send_many(world: &World, count: usize) -> Vec<String> {
    (0..count).map(|n| world.send(&expired(&format!("evt-{n}"), &format!("r{n}")))).collect()
}

#[tokio::test]
async fn deletes_go_out_in_batches_of_up_to_ten() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["*"], |settings| settings.concurrency = 200).await;
    send_many(&world, 200);
    eventually("all are being handled", || gate.entered().len() == 200).await;
    assert_eq!(worker.spy.delete_sizes(), [0; 0], "a delete before the effects");
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    gate.open();
    world.emptied().await;
    let sizes = worker.spy.delete_sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 200);
    assert!(sizes.iter().all(|size| (1..=10).contains(size)), "{sizes:?}");
    // All effects come nearly at once. On a busy machine some batches are sent before they are
    // full.
    assert!(sizes.len() <= 60, "{} calls for 200 messages: {sizes:?}", sizes.len());
    worker.finish(&world).await;
}

#[tokio::test]
async fn messages_are_deleted_only_after_their_effects() {
    let world = World::start().await;
    let worker = world.worker().await;
    send_many(&world, 50);
    let mut deleted_max = 0;
    while world.sqs.counts(&world.queue).total() > 0 {
        // Deletes are read first: every message deleted by now had its effects before.
        let deleted = world.sqs.ledger(&world.queue).deletes_effective;
        let released = world.ledger.totals().effects / 2;
        assert!(deleted <= released, "{deleted} deleted, {released} done");
        deleted_max = deleted_max.max(deleted);
        tokio::task::yield_now().await;
    }
    assert!(deleted_max > 0 || world.sqs.ledger(&world.queue).deletes_effective == 50);
    worker.finish(&world).await;
}

#[tokio::test]
async fn failed_deletes_are_retried_entry_by_entry() {
    let world = World::start().await;
    let worker = world.worker().await;
    let faults = world.sqs.faults(&world.queue);
    faults.fail_next_delete_entries(7);
    let first = send_many(&world, 30);
    world.emptied().await;
    faults.fail_next(Action::DeleteMessageBatch, 3, Fault::Error(ErrorCode::RequestThrottled));
    let second = world.send(&expired("evt-x", "x"));
    world.emptied().await;
    faults.fail_next(Action::DeleteMessageBatch, 1, Fault::Reset);
    let third = world.send(&expired("evt-y", "y"));
    world.emptied().await;
    // Deleted, but the answer is lost: the retry deletes nothing and succeeds.
    faults.fail_next(Action::DeleteMessageBatch, 1, Fault::ReplyLost);
    let fourth = world.send(&expired("evt-z", "z"));
    world.emptied().await;
    for id in first.iter().chain([&second, &third, &fourth]) {
        assert_eq!(world.deliveries(id), 1);
    }
    assert_eq!(world.ledger.totals().effects, 66);
    let failures = "worker_settlement_failures_total{kind=\"delete\"}";
    eventually("each failure is counted", || worker.metric(failures) == 12.0).await;
    let account = worker.drain().await;
    assert!(account.balances(), "{account:?}");
    assert_eq!(account.left_total(Disposition::Deleted), 33);
}

#[tokio::test]
async fn a_delete_that_fails_for_longer_than_a_lease_succeeds_later() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(3)).await;
    let faults = world.sqs.faults(&world.queue);
    let throttled = Fault::Error(ErrorCode::RequestThrottled);
    faults.fail_sometimes(Action::DeleteMessageBatch, 1.0, throttled);
    let id = world.send(&expired("evt-1", "a"));
    let extended = || worker.metric("worker_lease_extensions_total") >= 3.0;
    eventually("the lease is extended", extended).await;
    assert_eq!(worker.metric("worker_messages_in_flight{state=\"settling\"}"), 1.0);
    faults.clear();
    world.emptied().await;
    assert_eq!(world.deliveries(&id), 1);
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), 1);
}

#[tokio::test]
async fn a_failed_release_is_retried() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.policy.retries_max = 0).await;
    world.api.script_for(
        "a",
        [sandbox::script::Scripted::<sandbox::reservation_api::Reply>::status(500)],
    );
    world.sqs.faults(&world.queue).fail_next_visibility_entries(2);
    let id = world.send(&expired("evt-1", "a"));
    assert_eq!(world.released(&id).await, 30);
    assert_eq!(worker.metric("worker_settlement_failures_total{kind=\"release\"}"), 2.0);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::HandedBack), 1);
}

#[tokio::test]
async fn a_delete_that_takes_nearly_half_of_a_short_lease_succeeds() {
    let world = World::start().await;
    let slow = Duration::from_secs(2);
    world.sqs.faults(&world.queue).latency(Action::DeleteMessageBatch, slow, Duration::ZERO);
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(5)).await;
    let id = world.send(&expired("evt-1", "r1"));
    world.emptied().await;
    assert_eq!(world.deliveries(&id), 1);
    worker.finish(&world).await;
}
