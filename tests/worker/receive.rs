//! Receives wait for the in-flight limit. Failed receives are retried, counted and reported.

use std::time::Duration;

use sandbox::sqs::{Action, ErrorCode, Fault, Outcome};

use crate::support::{World, eventually, expired};

/// Returns the most messages in flight at the same time, by the ledger of SQS.
fn in_flight_peak(world: &World) -> usize {
    let (mut now, mut peak) = (0_usize, 0);
    for entry in world.sqs.ledger(&world.queue).entries {
        now += usize::from(matches!(entry.outcome, Outcome::Delivered { .. }));
        now -= usize::from(entry.outcome == Outcome::Deleted);
        peak = peak.max(now);
    }
    peak
}

#[tokio::test]
async fn the_in_flight_limit_is_kept_and_polling_resumes_below_it() {
    let world = World::start().await;
    let (worker, gate) = world
        .gated(&["*"], |settings| {
            settings.concurrency = 10;
            settings.in_flight_max = 25;
        })
        .await;
    for n in 0..80 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    eventually("the in-flight limit is reached", || world.sqs.counts(&world.queue).in_flight == 25)
        .await;
    eventually("no receive is open", || worker.spy.receives_open() == 0).await;
    eventually("every worker is busy", || worker.metric("worker_pool_active_gauge") == 10.0).await;
    let receives = worker.spy.receive_sizes();
    assert_eq!(receives.last(), Some(&5), "the last receive asked for the rest: {receives:?}");
    assert_eq!(world.sqs.counts(&world.queue).visible, 55);
    gate.open();
    world.emptied().await;
    assert_eq!(in_flight_peak(&world), 25);
    assert!(worker.spy.receive_sizes().iter().all(|size| (1..=10).contains(size)));
    assert_eq!(worker.outcomes("reservation.expired"), [80.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn messages_that_the_workers_cannot_handle_soon_stay_in_the_queue() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["*"], |settings| settings.concurrency = 1).await;
    for n in 0..200 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    eventually("the worker is busy", || gate.entered().len() == 1).await;
    eventually("no receive is open", || worker.spy.receives_open() == 0).await;
    // One running, four ready, and the messages of the receives that were open by then.
    let held = world.sqs.counts(&world.queue).in_flight;
    assert!((5..=100).contains(&held), "{held}");
    gate.open();
    world.emptied().await;
    worker.finish(&world).await;
}

#[tokio::test]
async fn one_receive_is_open_while_the_queue_is_empty() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.wait = Duration::from_secs(20)).await;
    eventually("a receive has succeeded", || worker.health.ready().is_ok()).await;
    eventually("a receive is open", || worker.spy.receives_open() == 1).await;
    for n in 0..3 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
        world.emptied().await;
        eventually("a receive is open", || worker.spy.receives_open() == 1).await;
    }
    // The first without a wait, one for each message, and the open one.
    assert_eq!(worker.spy.receive_sizes().len(), 5);
}

async fn survives(fault: Fault, kind: &str) {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(5)).await;
    eventually("a receive has succeeded", || worker.health.ready().is_ok()).await;
    let faults = world.sqs.faults(&world.queue);
    faults.fail_sometimes(Action::ReceiveMessage, 1.0, fault);
    world.send(&expired("evt-1", "a"));
    eventually("the worker is not ready", || worker.health.ready().is_err()).await;
    eventually("errors are counted", || worker.metric("sqs_poll_errors_total") >= 2.0).await;
    assert!(worker.health.alive().is_ok(), "{kind}");
    faults.clear();
    eventually("the worker is ready again", || worker.health.ready().is_ok()).await;
    world.send(&expired("evt-2", "b"));
    world.emptied().await;
    for reservation in ["a", "b"] {
        assert_eq!(world.methods(reservation), ["PATCH", "ReleaseHold"], "{kind}");
    }
    let series = format!("worker_receive_errors_total{{kind=\"{kind}\"}}");
    assert_eq!(worker.metric(&series), worker.metric("sqs_poll_errors_total"), "{kind}");
    worker.drain().await;
}

#[tokio::test]
async fn receives_resume_after_throttling() {
    survives(Fault::Error(ErrorCode::RequestThrottled), "throttled").await;
}

#[tokio::test]
async fn receives_resume_after_over_limit() {
    survives(Fault::Error(ErrorCode::OverLimit), "throttled").await;
}

#[tokio::test]
async fn receives_resume_after_a_denial() {
    survives(Fault::Error(ErrorCode::AccessDenied), "denied").await;
}

#[tokio::test]
async fn receives_resume_after_a_missing_queue() {
    survives(Fault::Error(ErrorCode::QueueDoesNotExist), "no_such_queue").await;
}

#[tokio::test]
async fn receives_resume_after_a_connection_reset() {
    survives(Fault::Reset, "network").await;
}

#[tokio::test]
async fn receives_resume_after_status_503() {
    survives(Fault::Http(503), "other").await;
}

/// Messages of a lost answer become visible again after their visibility timeout.
#[tokio::test]
async fn receives_resume_after_lost_answers() {
    survives(Fault::ReplyLost, "network").await;
}
