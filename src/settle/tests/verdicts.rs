//! What the settler does with the end of an attempt.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use super::engine::{Engine, LEASE};
use crate::client::{CallError, Class};
use crate::handler::{AttemptOutcome, EventWait};
use crate::idempotency::{Handled, HandledAs, Lost, StoreError};
use crate::inflight::{Job, ParkedAs};
use crate::metrics::Service;
use crate::outage::Dependency;
use crate::queue::QueueLimits;
use crate::settle::account::Disposition;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the end of an attempt that failed.
pub(super) fn failed(
    class: Class,
    retry_after: Option<Duration>,
    wait: EventWait,
) -> AttemptOutcome {
    let (code, detail) = ("code".into(), "detail".to_owned());
    let error = CallError { class, code, detail, retry_after, load: class.into() };
    AttemptOutcome::Failed { error, wait }
}

pub(super) fn charged(is_charged: bool) -> EventWait {
    EventWait { is_charged, suspect: None, unless_suspect: SECOND }
}

pub(super) fn suspect() -> EventWait {
    EventWait { suspect: Some(Service::Inventory), ..charged(false) }
}

fn parked(how: ParkedAs) -> AttemptOutcome {
    AttemptOutcome::Parked { dependency: Dependency::Inventory, error: None, how }
}

impl Engine {
    /// Waits until the job whose timer ends next is ready, and starts it.
    async fn woken(&mut self) -> Box<Job> {
        let next = self.table.wake_due(Instant::now());
        tokio::time::sleep_until(next.unwrap_or_else(Instant::now)).await;
        self.table.wake_due(Instant::now());
        self.start().expect("its wait is over")
    }

    /// Returns whether a job that waits counts as buffered.
    fn is_buffered(&self) -> bool {
        self.table.set_rationed(true);
        self.table.set_buffer_max(1);
        self.table.buffer_capacity(0).now_or_never().is_none()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_counted_and_a_retry_only_if_it_is_charged() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    engine.settler.settle(job, failed(Class::Transient, None, charged(true))).await;
    let job = engine.woken().await;
    assert_eq!((job.failures, job.retries), (1, 1));
    engine.settler.settle(job, failed(Class::Transient, None, charged(false))).await;
    let job = engine.woken().await;
    assert_eq!((job.failures, job.retries), (2, 1));
    engine.settler.settle(job, failed(Class::Transient, None, charged(true))).await;
    let job = engine.woken().await;
    assert_eq!((job.failures, job.retries), (3, 2));
    assert!(engine.queue.asked("hand_back").is_empty());
    engine.settler.settle(job, failed(Class::Transient, None, charged(true))).await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("hand_back")[0].hidden, 30 * SECOND);
    assert!(engine.shows(r#"worker_events_total{outcome="failed",type="payment.approved"} 1"#));
    assert!(engine.shows(r#"worker_events_total{outcome="retried",type="payment.approved"} 3"#));
}

#[tokio::test(start_paused = true)]
async fn an_applied_event_is_recorded_then_deleted() {
    let mut engine = Engine::new();
    engine.age = Some(5 * SECOND);
    let job = engine.begun("e1").await;
    engine.settler.settle(job, AttemptOutcome::Applied).await;
    assert_eq!(engine.store.calls(), ["complete"]);
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
    assert!(engine.shows(r#"worker_events_total{outcome="success",type="payment.approved"} 1"#));
    assert!(engine.shows(r#"worker_latency_seconds_count{type="payment.approved"} 1"#));
    assert!(engine.shows("worker_event_age_seconds_count 1"));
    assert!(engine.settler.account.balances());
}

#[tokio::test(start_paused = true)]
async fn a_superseded_event_is_deleted_and_has_no_latency() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    engine.settler.settle(job, AttemptOutcome::Superseded { found: "CONFIRMED" }).await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
    assert!(engine.shows("worker_superseded_total 1"));
    assert!(engine.shows(r#"worker_events_total{outcome="dropped",type="payment.approved"} 1"#));
    assert!(engine.shows(r#"worker_latency_seconds_count{type="payment.approved"} 0"#));
}

/// Another process may have the event: its claim is asked for again before anything else.
#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_recorded_is_not_deleted() {
    for (error, may_be_claimed) in
        [(StoreError::NotOwner(Lost::Claim), false), (StoreError::unavailable(""), true)]
    {
        let mut engine = Engine::new();
        engine.store.others.lock().unwrap().push_back(Err(error));
        let job = engine.begun("e1").await;
        engine.settler.settle(job, AttemptOutcome::Applied).await;
        let job = engine.woken().await;
        assert_eq!(job.lease.may_be_claimed(), may_be_claimed);
        assert_eq!((job.failures, job.retries), (1, 0));
        sleep(SECOND).await;
        assert!(engine.queue.asked("delete").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_handled_or_handed_back_leaves_as_it_is_counted() {
    let mut engine = Engine::new();
    let job = engine.begun("handled").await;
    let handled = Handled { how: HandledAs::Applied, at: SystemTime::now() };
    engine.settler.drop_duplicate(job, handled).await;
    assert!(engine.store.calls().is_empty());
    assert!(engine.shows(r#"worker_duplicates_total{reason="handled"} 1"#));
    assert!(engine.shows(r#"worker_events_total{outcome="dropped",type="payment.approved"} 1"#));

    let job = engine.begun("back").await;
    engine.settler.hand_back(job, 7 * SECOND).await;
    assert_eq!(engine.store.calls(), ["release"]);
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
    assert_eq!(engine.left(Disposition::HandedBack), 1);
    assert_eq!(engine.queue.asked("hand_back")[0].hidden, 7 * SECOND);
    assert!(engine.settler.account.balances());
    assert_eq!(engine.table.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_without_a_claim_releases_none() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    job.lease.claim_lost();
    let limit = Instant::now() + SECOND;
    assert!(engine.settler.hand_back_by(job, Duration::ZERO, limit).await);
    assert!(engine.store.calls().is_empty());
    engine.settled().await;
    assert_eq!(engine.left(Disposition::HandedBack), 1);
}

/// The claim belongs to the other event.
#[tokio::test(start_paused = true)]
async fn an_event_with_the_id_of_another_is_dead_lettered_without_a_release() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    let known = job.hash;
    engine.settler.reject_claimed_id(job, known).await;
    engine.settled().await;
    assert!(engine.store.calls().is_empty());
    assert!(engine.queue.asked("dead_letter")[0].says.starts_with("id_reused"));
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
    assert!(engine.shows(r#"worker_events_total{outcome="failed",type="payment.approved"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_releases_its_claim_before_its_copy_is_sent() {
    let mut engine = Engine::new();
    for (n, end) in [
        failed(Class::Permanent, None, charged(true)),
        AttemptOutcome::MoneyWithoutSeat { detail: String::new() },
    ]
    .into_iter()
    .enumerate()
    {
        let job = engine.begun(&format!("e{n}")).await;
        engine.settler.settle(job, end).await;
        assert_eq!(engine.store.calls().len(), n + 1);
        assert!(engine.shows(&format!("worker_money_without_seat_total {n}")));
    }
    engine.settled().await;
    assert_eq!(engine.store.calls(), ["release"; 2]);
    assert_eq!(engine.left(Disposition::DeadLettered), 2);
    assert!(engine.shows(r#"worker_events_total{outcome="failed",type="payment.approved"} 2"#));
}

#[tokio::test(start_paused = true)]
async fn a_job_without_a_lease_is_forgotten_and_its_claim_released() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    sleep(LEASE).await;
    engine.settler.settle(job, AttemptOutcome::LeaseLost).await;
    assert_eq!(engine.table.held(), 0);
    assert_eq!(engine.left(Disposition::LeaseLost), 1);
    assert_eq!(engine.store.calls(), ["release"]);
    assert!(engine.shows("worker_leases_lost_total 1"));
}

/// It is still called at a rate: what waits for it shortly counts among the buffered jobs.
#[tokio::test(start_paused = true)]
async fn only_a_short_wait_that_a_service_asked_for_is_a_wait_in_turn() {
    let table = [
        (Class::Paced, 5 * SECOND, true),
        (Class::Paced, 6 * SECOND, false),
        (Class::Transient, SECOND, false),
    ];
    for (class, after, is_in_turn) in table {
        let mut engine = Engine::new();
        let job = engine.begun("e1").await;
        engine.settler.settle(job, failed(class, Some(after), charged(false))).await;
        assert_eq!(engine.is_buffered(), is_in_turn, "{class:?} {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_waits_on_a_timer_and_counts_as_one() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    engine.settler.settle(job, failed(Class::Outage, None, suspect())).await;
    assert!(engine.shows(r#"worker_suspects{service="inventory"} 1"#));
    assert!(engine.woken().await.suspect.is_some());
}

/// The service may have recovered before the job was parked.
#[tokio::test(start_paused = true)]
async fn the_scheduler_is_told_of_a_job_that_was_parked() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    let outages = engine.settler.outages.clone();
    assert!(outages.changed().now_or_never().is_none());
    let how = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
    engine.settler.settle(job, parked(how)).await;
    assert!(timeout(SECOND, outages.changed()).await.is_ok());
    assert_eq!(engine.table.parked(Dependency::Inventory).fresh, 1);
    assert!(engine.shows(r#"worker_suspects{service="inventory"} 0"#));

    let job = engine.begun("e2").await;
    let how = ParkedAs { is_fresh: false, is_full: true, is_suspect: true };
    engine.settler.settle(job, parked(how)).await;
    assert_eq!(engine.table.parked(Dependency::Inventory).suspects, 1);
    assert!(engine.shows(r#"worker_suspects{service="inventory"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_message_ends_is_dead_lettered_instead_of_waiting() {
    let ends: [fn() -> AttemptOutcome; 3] = [
        || failed(Class::Transient, None, charged(true)),
        || parked(ParkedAs { is_fresh: true, is_full: false, is_suspect: false }),
        || AttemptOutcome::Panicked,
    ];
    for end in ends {
        for (age_s, is_ending) in [(3_600 - 30, true), (1_800, false)] {
            let mut engine = Engine::new();
            let retention = Some(3_600 * SECOND);
            engine.table.set_limits(QueueLimits { receives_max: None, retention });
            engine.age = Some(age_s * SECOND);
            let job = engine.begun("e1").await;
            engine.settler.settle(job, end()).await;
            engine.settled().await;
            let copies = engine.queue.asked("dead_letter");
            assert_eq!(copies.len(), usize::from(is_ending), "{:?} at {age_s}", end());
            assert!(copies.iter().all(|copy| copy.says.starts_with("retention_ends")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_applied_event_is_deleted_although_its_message_ends() {
    let mut engine = Engine::new();
    let retention = Some(3_600 * SECOND);
    engine.table.set_limits(QueueLimits { receives_max: None, retention });
    engine.age = Some((3_600 - 30) * SECOND);
    let job = engine.begun("e1").await;
    engine.settler.settle(job, AttemptOutcome::Applied).await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
}
