//! Events whose retries are used up, or that make room for others.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::{Engine, LEASE};
use super::verdicts::{charged, failed, suspect};
use crate::client::{Class, Load};
use crate::handler::AttemptOutcome;
use crate::idempotency::StoreError;
use crate::inflight::Job;
use crate::outage::{BreakerSnapshot, CallOutcome, Dependency, Shard};
use crate::queue::QueueLimits;
use crate::settle::account::Disposition;

const SECOND: Duration = Duration::from_secs(1);

impl Engine {
    /// Begins the first of two events of a message group, with its retries used up.
    async fn head(&mut self, receives_max: u32) -> Box<Job> {
        let receives_max = Some(receives_max);
        self.table.set_limits(QueueLimits { receives_max, retention: None });
        self.group = Some("g");
        let mut job = self.begun("head").await;
        self.admit("tail", "another").await;
        (job.retries, job.failures) = (2, 7);
        job.charges[0].add(BreakerSnapshot::default());
        job
    }

    /// Makes a call to that part of the store, with this outcome.
    fn call(&self, shard: Shard, subject: u32, outcome: CallOutcome) {
        let outages = &self.settler.outages;
        if let Ok(permit) = outages.enter(Dependency::Store(shard), &subject) {
            permit.report(outcome, Load::Unknown, Duration::ZERO);
        }
    }
}

fn at_last() -> AttemptOutcome {
    failed(Class::Transient, None, charged(true))
}

#[tokio::test(start_paused = true)]
async fn a_released_event_gives_its_claim_back() {
    let mut engine = Engine::new();
    engine.receive_count = 2;
    let mut job = engine.begun("e1").await;
    job.retries = 2;
    engine.settler.settle(job, at_last()).await;
    assert_eq!(engine.store.calls(), ["release"]);
    engine.settled().await;
    assert_eq!(engine.queue.asked("hand_back")[0].hidden, 60 * SECOND);
    assert_eq!(engine.left(Disposition::HandedBack), 1);
    assert_eq!(engine.table.held(), 0);
    assert!(engine.shows(r#"worker_events_total{outcome="failed",type="payment.approved"} 1"#));
}

/// SQS drops it at the end of its retention: it comes again before that.
#[tokio::test(start_paused = true)]
async fn a_released_event_is_hidden_for_a_share_of_what_its_message_has_left() {
    let mut engine = Engine::new();
    let limits = QueueLimits { receives_max: Some(3), retention: Some(600 * SECOND) };
    engine.table.set_limits(limits);
    (engine.age, engine.receive_count) = (Some(520 * SECOND), 3);
    let mut job = engine.begun("e1").await;
    job.retries = 2;
    engine.settler.settle(job, at_last()).await;
    engine.settled().await;
    let hidden = engine.queue.asked("hand_back")[0].hidden;
    assert!((39 * SECOND..=40 * SECOND).contains(&hidden), "{hidden:?}");
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_group_waits_with_all_retries_again() {
    let mut engine = Engine::new();
    let job = engine.head(3).await;
    engine.settler.settle(job, at_last()).await;
    assert!(engine.start().is_none(), "its group waits with it");
    let until = engine.table.wake_due(Instant::now()).expect("it waits");
    assert_eq!(until - Instant::now(), 30 * SECOND);
    sleep(30 * SECOND).await;
    engine.table.wake_due(Instant::now());
    let mut job = engine.start().expect("the head");
    assert_eq!(job.charges[0].refund(1), 0, "an outage from now on refunds no retry of before");
    assert_eq!((job.event.id.as_str(), job.retries, job.failures, job.rounds), ("head", 0, 0, 1));
    assert!(engine.queue.asked("hand_back").is_empty() && engine.store.calls().is_empty());
    assert!(engine.shows(r#"worker_events_total{outcome="retried",type="payment.approved"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_group_is_dead_lettered_at_its_last_receive() {
    let mut engine = Engine::new();
    let job = engine.head(1).await;
    engine.settler.settle(job, at_last()).await;
    engine.settled().await;
    assert!(engine.queue.asked("dead_letter")[0].says.starts_with("retries_used_up"));
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
    assert_eq!(engine.start().map(|job| job.event.id.as_str().to_owned()).as_deref(), Some("tail"));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_too_many_suspects_is_handed_back() {
    let mut engine = Engine::new();
    for id in ["e1", "e2", "e3"] {
        assert!(engine.store.calls().is_empty());
        let job = engine.begun(id).await;
        engine.settler.settle(job, failed(Class::Outage, None, suspect())).await;
    }
    assert_eq!(engine.store.calls(), ["release"]);
    engine.settled().await;
    let handed_back = engine.queue.asked("hand_back");
    assert_eq!(handed_back[0].hidden, 900 * SECOND);
    assert!(handed_back[0].entries[0].starts_with("e1#"));
    assert_eq!((engine.table.held(), engine.left(Disposition::HandedBack)), (2, 1));
    assert!(engine.shows(r#"worker_events_total{outcome="failed",type="payment.approved"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_in_excess_is_dead_lettered_at_the_last_receive_of_its_group() {
    let mut engine = Engine::new();
    engine.table.set_limits(QueueLimits { receives_max: Some(1), retention: None });
    for id in ["e1", "e2", "e3"] {
        engine.group = (id == "e1").then_some("g");
        let job = engine.begun(id).await;
        engine.settler.settle(job, failed(Class::Outage, None, suspect())).await;
    }
    engine.settled().await;
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
    assert!(engine.queue.asked("hand_back").is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_part_of_the_store_only_while_there_is_room_beside_them() {
    let mut engine = Engine::new();
    let (away, other) = (Shard::new(0, 16), Shard::new(9, 16));
    engine.call(other, 0, CallOutcome::Done);
    for subject in 0..20 {
        engine.call(away, subject, CallOutcome::Outage);
    }
    for (n, after) in [(0, 0), (1, 0), (2, 0), (3, 4)] {
        sleep(after * SECOND).await;
        let job = engine.begun(&format!("e{n}")).await;
        let error = StoreError::Away { shard: away, is_fresh: true };
        engine.settler.settle(job, error.into()).await;
        assert_eq!(engine.settler.batches.outstanding().count() > 0, n == 3, "after {n}");
    }
    engine.settled().await;
    let handed_back = engine.queue.asked("hand_back");
    assert!(handed_back[0].entries[0].starts_with("e0#") && handed_back.len() == 1);
    assert_eq!(engine.table.held(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_deferred_message_is_hidden_until_its_turn() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    let receipt = engine.table.take(&job).receipts.pop().unwrap();
    engine.settler.defer(job, receipt, LEASE, true).await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("hand_back")[0].hidden, LEASE);
    assert!(engine.shows("worker_events_deferred_total 1"));
    assert!(engine.store.calls().is_empty());
}
