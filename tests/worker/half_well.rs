//! One SQS action is denied while the others work. The worker's calls are bounded, no event is
//! lost, SQS dead-letters no good event at `maxReceiveCount` 3, and work continues within ten
//! seconds of the repair.

use std::time::Duration;

use reservation_worker::app::AppSettings;
use reservation_worker::health::Problem;
use reservation_worker::metrics::QueueAction;
use sandbox::inventory::Reply;
use sandbox::script::{Faults, Scripted};
use sandbox::sqs::{Action, ErrorCode, Fault};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::support::{Worker, World, eventually, expired};

const DENIED: Fault = Fault::Error(ErrorCode::AccessDenied);

/// The time within which a repaired action is used again.
const RECOVERY: Duration = Duration::from_secs(10);

/// Short leases, as all these tests use them.
fn short_leases(settings: &mut AppSettings) {
    settings.visibility = Duration::from_secs(5);
}

fn deny(world: &World, action: Action) {
    world.sqs.faults(&world.queue).fail_sometimes(action, 1.0, DENIED);
}

fn cure(world: &World) {
    world.sqs.faults(&world.queue).clear();
    world.sqs.faults(&world.dlq).clear();
}

fn send_many(world: &World, count: usize) -> Vec<String> {
    (0..count).map(|n| world.send(&expired(&format!("evt-{n}"), &format!("r{n}")))).collect()
}

/// Two effects for each event, and no event in the dead-letter queue.
fn all_went_well(world: &World, events: usize) {
    assert_eq!(world.dead_letters().len(), 0, "good events in the dead-letter queue");
    assert_eq!(world.ledger.totals().effects, 2 * u64::try_from(events).unwrap());
}

#[tokio::test]
async fn without_extensions_an_outage_of_a_service_dead_letters_no_event() {
    let world = World::redriving(3).await;
    deny(&world, Action::ChangeMessageVisibilityBatch);
    let away = Faults::none().with(1.0, Scripted::<Reply>::code(Code::Unavailable));
    world.inventory.set_faults(away);
    let ids = send_many(&world, 60);
    let worker = world.worker_with(short_leases).await;
    sleep(Duration::from_secs(15)).await;
    world.inventory.set_faults(Faults::none());
    world.emptied().await;
    all_went_well(&world, 60);
    let most = ids.iter().map(|id| world.deliveries(id)).max();
    assert!(most <= Some(3), "a message was received {most:?} times");
    worker.finish(&world).await;
}

#[tokio::test]
async fn without_deletes_handled_messages_are_held_and_deleted_later() {
    let world = World::redriving(3).await;
    deny(&world, Action::DeleteMessageBatch);
    let ids = send_many(&world, 100);
    let worker = world.worker_with(short_leases).await;
    sleep(Duration::from_secs(25)).await;
    let received = world.sqs.ledger(&world.queue).delivered;
    assert_eq!(world.sqs.counts(&world.queue).total(), 100, "all messages are still in the queue");
    cure(&world);
    let cured_at = Instant::now();
    world.emptied().await;
    assert!(cured_at.elapsed() < RECOVERY, "{:?}", cured_at.elapsed());
    all_went_well(&world, 100);
    assert!(ids.iter().all(|id| world.deliveries(id) == 1), "{received} deliveries of 100");
    eventually("all deletes are acknowledged", || {
        worker.metric("worker_settlements_total{kind=\"delete\"}") == 100.0
    })
    .await;
    worker.finish(&world).await;
}

/// Whether `/readyz` and the metric report the action as failing.
fn says(worker: &Worker, action: QueueAction, fails: bool) -> bool {
    let problem = Problem::QueueAction { action, why: "denied" };
    let series = format!("worker_queue_action_failing{{action=\"{}\"}}", action.as_str());
    (worker.health.ready() == Err(problem)) == fails
        && worker.metric(&series) == f64::from(u8::from(fails))
}

#[tokio::test]
async fn a_denied_action_is_reported_before_it_is_needed() {
    for (action, queue_action) in [
        (Action::ChangeMessageVisibilityBatch, QueueAction::Extend),
        (Action::DeleteMessageBatch, QueueAction::Delete),
        (Action::GetQueueAttributes, QueueAction::Attributes),
    ] {
        let world = World::start().await;
        deny(&world, action);
        let worker = world.worker().await;
        eventually("the action is reported", || says(&worker, queue_action, true)).await;
        cure(&world);
        let cured_at = Instant::now();
        eventually("the worker is ready again", || worker.health.ready() == Ok(())).await;
        assert!(cured_at.elapsed() < RECOVERY, "{action:?}: {:?}", cured_at.elapsed());
        assert!(says(&worker, queue_action, false));
        worker.finish(&world).await;
    }
}

#[tokio::test]
async fn poison_that_cannot_be_copied_does_not_hold_up_good_events() {
    let world = World::redriving(3).await;
    world.sqs.faults(&world.dlq).fail_sometimes(Action::SendMessage, 1.0, DENIED);
    let worker = world.worker_with(short_leases).await;
    for n in 0..5 {
        world.sqs.send(&world.queue, format!("poison {n}"));
    }
    eventually("the action is reported", || says(&worker, QueueAction::DeadLetter, true)).await;
    send_many(&world, 50);
    let done = || world.sqs.counts(&world.queue).total() == 5;
    eventually("the good events are handled", done).await;
    all_went_well(&world, 50);
    cure(&world);
    let cured_at = Instant::now();
    eventually("the worker is ready again", || worker.health.ready() == Ok(())).await;
    assert!(cured_at.elapsed() < RECOVERY, "{:?}", cured_at.elapsed());
    assert_eq!(world.dead_letters().len(), 1, "one copy, of the held message");
    worker.finish(&world).await;
}

#[tokio::test]
async fn only_lasting_failures_of_deletes_are_reported() {
    let world = World::start().await;
    let worker = world.worker_with(short_leases).await;
    let faults = world.sqs.faults(&world.queue);
    faults.fail_next_delete_entries(30);
    send_many(&world, 30);
    world.emptied().await;
    assert!(says(&worker, QueueAction::Delete, false));
    // Each entry fails, but the call succeeds: a probe would find the action working.
    faults.fail_delete_entries(1.0);
    world.send(&expired("evt-last", "last"));
    let series = "worker_queue_action_failing{action=\"delete\"}";
    eventually("the action is reported", || worker.metric(series) == 1.0).await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(worker.metric(series), 1.0);
    faults.clear();
    let cured_at = Instant::now();
    world.emptied().await;
    assert!(cured_at.elapsed() < RECOVERY, "{:?}", cured_at.elapsed());
    eventually("the worker is ready again", || worker.health.ready() == Ok(())).await;
    worker.finish(&world).await;
}
