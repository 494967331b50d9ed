//! A worker on a store and services that answer as they are told.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::client::{
    CallContext, CallError, Class, Commit, Inventory, ReleaseHold, Reservation, ReservationApi,
    ReservationStatus, TargetStatus,
};
use crate::event::{ReservationId, StepSet};
use crate::handler::ServiceEndpoints;
use crate::settle::account::Disposition;
use crate::settle::tests::engine::Engine;

const SECOND: Duration = Duration::from_secs(1);

/// Services that do what they are asked, or fail the first calls, or panic.
struct Obliging {
    calls: AtomicU32,
    fail: u32,
    panics: bool,
}

impl Obliging {
    fn call(&self) -> Result<(), CallError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.fail {
            return Ok(());
        }
        assert!(!self.panics, "on purpose");
        let (class, detail) = (Class::Transient, "on purpose".to_owned());
        Err(CallError { class, code: "code".into(), detail, retry_after: None, load: class.into() })
    }
}

#[async_trait]
impl ReservationApi for Obliging {
    async fn set_status(
        &self,
        _: &CallContext<'_>,
        _: &ReservationId,
        _: TargetStatus,
        _: Option<&str>,
    ) -> Result<(), CallError> {
        self.call()
    }

    async fn reservation(
        &self,
        _: &CallContext<'_>,
        _: &ReservationId,
    ) -> Result<Reservation, CallError> {
        Ok(Reservation { status: ReservationStatus::Confirmed, show_id: None, seats: None })
    }
}

#[async_trait]
impl Inventory for Obliging {
    async fn release_hold(&self, _: &CallContext<'_>, _: ReleaseHold<'_>) -> Result<(), CallError> {
        self.call()
    }

    async fn commit(&self, _: &CallContext<'_>, _: Commit<'_>) -> Result<(), CallError> {
        self.call()
    }
}

/// A worker whose services fail the first `fail` calls, or panic at them.
fn worker(engine: &Engine, fail: u32, panics: bool) -> Worker {
    let services = Arc::new(Obliging { calls: AtomicU32::new(0), fail, panics });
    let settler = engine.settler.clone();
    Worker {
        ready: Arc::new(Mutex::new(mpsc::channel(1).1)),
        inflight: Arc::clone(&engine.table),
        services: Services {
            reservations: Arc::clone(&services) as Arc<dyn ReservationApi>,
            inventory: services,
            idempotency: settler.idempotency.clone(),
            outages: Arc::clone(&settler.outages),
            metrics: Arc::clone(&settler.metrics),
            endpoints: Arc::new(ServiceEndpoints::default()),
        },
        metrics: Arc::clone(&settler.metrics),
        settler,
        health: Arc::clone(&engine.health),
        attempt_max: 60 * SECOND,
        pool: Arc::new(AtomicUsize::new(1)),
    }
}

impl Engine {
    /// Tells how the next claims are answered.
    fn tell_claims(&self, claims: impl IntoIterator<Item = Result<Claim, StoreError>>) {
        self.store.claims.lock().unwrap().extend(claims);
    }

    /// Admits an event and starts it, without a claim.
    async fn started(&mut self, id: &str) -> Box<Job> {
        self.admit(id, &format!("reservation-{id}")).await;
        self.start().unwrap()
    }

    /// Lets the worker work on the event, and again after each wait, `times` times.
    /// Returns the waits.
    async fn worked(&mut self, worker: &Worker, id: &str, times: usize) -> Vec<Duration> {
        let (mut job, mut waits) = (self.started(id).await, Vec::new());
        for n in 0..times {
            worker.work(job).await;
            let until = self.table.wake_due(Instant::now()).expect("it waits");
            waits.push(until - Instant::now());
            tokio::time::sleep_until(until).await;
            self.table.wake_due(Instant::now());
            job = self.start().unwrap_or_else(|| panic!("ready after wait {n}"));
        }
        worker.inflight.wait(job, Instant::now());
        self.table.wake_due(Instant::now());
        waits
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_claimed_once_and_each_attempt_is_counted() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 2, false);
    engine.worked(&worker, "e1", 2).await;
    assert_eq!(engine.store.calls(), ["claim"]);
    let job = engine.start().unwrap();
    assert_eq!((job.attempt, job.failures), (2, 2));
    worker.work(job).await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
    assert_eq!(engine.store.calls().last(), Some(&"complete"));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_lease_has_ended_is_not_claimed() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 0, false);
    let job = engine.started("e1").await;
    sleep(engine.lease).await;
    worker.work(job).await;
    assert!(engine.store.calls().is_empty());
    assert_eq!(engine.left(Disposition::LeaseLost), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_asked_for_again_after_it_has_ended() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 9, false);
    engine.lease = 10 * SECOND;
    let job = engine.started("e1").await;
    worker.work(job).await;
    let now = Instant::now();
    let due = engine.table.renewals_due(now + 5 * SECOND).due;
    let extended = crate::inflight::Renewal::Extended { called_at: now, visibility: 60 * SECOND };
    engine.table.renewed(vec![(due[0].key, extended)], now);
    // The claim was not renewed with the lease.
    sleep(11 * SECOND).await;
    engine.table.wake_due(Instant::now());
    let job = engine.start().unwrap();
    assert!(job.lease.is_held() && !job.lease.is_claimed());
    worker.work(job).await;
    assert_eq!(engine.store.calls(), ["claim"; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_steps_that_the_store_knows_are_not_repeated() {
    let mut engine = Engine::new();
    let worker = worker(&engine, u32::MAX, false);
    let mut done = StepSet::default();
    for step in crate::event::Step::ALL {
        done.insert(step);
    }
    engine.tell_claims([Ok(Claim::Ours(done))]);
    let job = engine.started("e1").await;
    worker.work(job).await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1, "no call was made");
    assert_eq!(engine.store.calls(), ["claim", "complete"], "and nothing recorded again");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_costs_an_attempt() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 1, true);
    let job = engine.started("e1").await;
    worker.work(job).await;
    sleep(SECOND).await;
    engine.table.wake_due(Instant::now());
    let job = engine.start().unwrap();
    assert_eq!((job.attempt, job.retries), (1, 1));
    worker.work(job).await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
}

/// It was not an attempt: the next one has the same number.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_stops_before_its_call_is_not_counted() {
    use crate::client::Load;
    use crate::outage::{CallOutcome, Dependency};
    let mut engine = Engine::new();
    let worker = worker(&engine, 0, false);
    for subject in 0..20 {
        if let Ok(permit) = engine.settler.outages.enter(Dependency::ReservationApi, &subject) {
            permit.report(CallOutcome::Outage, Load::Unknown, Duration::ZERO);
        }
    }
    let job = engine.started("e1").await;
    worker.work(job).await;
    assert_eq!(engine.table.parked(Dependency::ReservationApi).total(), 1);
    engine.table.unpark(Dependency::ReservationApi, 1);
    assert_eq!(engine.start().unwrap().attempt, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_another_process_has_is_asked_for_ever_less_often() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 0, false);
    engine.tell_claims((0..8).map(|_| Ok(Claim::Elsewhere(60 * SECOND))));
    let waits = engine.worked(&worker, "e1", 8).await;
    let ms: Vec<_> = waits.iter().map(Duration::as_millis).collect();
    assert_eq!(ms, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert_eq!(engine.store.calls(), ["claim"; 8], "no claim of its own is released");
    let job = engine.start().unwrap();
    assert_eq!((job.attempt, job.waits), (0, 8));
    assert!(!job.lease.may_be_claimed());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ends_soon_is_asked_for_when_it_has_ended() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 0, false);
    let ends = Duration::from_millis(50);
    engine.tell_claims([Ok(Claim::Elsewhere(ends)), Ok(Claim::Behind(Duration::ZERO))]);
    let waits = engine.worked(&worker, "e1", 2).await;
    assert_eq!(waits, [ends + CLAIM_RUNS_OUT, CLAIM_RUNS_OUT]);
}

#[tokio::test(start_paused = true)]
async fn an_event_behind_another_asks_again_before_its_ticket_ends() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 0, false);
    engine.tell_claims((0..8).map(|_| Ok(Claim::Behind(60 * SECOND))));
    let waits = engine.worked(&worker, "e1", 8).await;
    let ms: Vec<_> = waits.iter().map(Duration::as_millis).collect();
    assert_eq!(ms, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    assert_eq!(engine.store.calls(), ["claim"; 8]);
    assert!(engine.shows("worker_order_waits_total 1"), "one wait, however often it asks");
    let job = engine.start().unwrap();
    assert_eq!(job.attempt, 0);
    worker.work(job).await;
    assert!(engine.shows("worker_order_wait_seconds_count 1"));
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Deleted), 1);
}

/// With many events that wait, the calls would take all workers.
#[tokio::test(start_paused = true)]
async fn a_slow_store_is_asked_less_often_the_more_events_wait() {
    let mut engine = Engine::new();
    let worker = worker(&engine, 0, false);
    for n in 0..4 {
        engine.admit(&format!("other-{n}"), "another").await;
    }
    let asking = Duration::from_millis(100);
    assert_eq!(worker.affordable(Duration::from_millis(20), asking), 8 * asking);
    assert_eq!(worker.affordable(SECOND, asking), SECOND);
}

/// The next event of its reservation would wait for the rest of that claim.
#[tokio::test(start_paused = true)]
async fn a_claim_that_an_event_behind_another_may_hold_is_released_with_it() {
    let unanswered = || Err(StoreError::unavailable("no answer"));
    for was_asked in [true, false] {
        let mut engine = Engine::new();
        let worker = worker(&engine, 0, false);
        engine.tell_claims(was_asked.then(unanswered));
        engine.tell_claims([Ok(Claim::Behind(SECOND))]);
        engine.worked(&worker, "e1", 1 + usize::from(was_asked)).await;
        let job = engine.start().unwrap();
        assert_eq!((job.lease.may_be_claimed(), job.lease.is_claimed()), (was_asked, false));
        engine.settler.hand_back(job, Duration::ZERO).await;
        let released = engine.store.calls().contains(&"release");
        assert_eq!(released, was_asked);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_handled_or_is_another_leaves_without_an_attempt() {
    let mut engine = Engine::new();
    let worker = worker(&engine, u32::MAX, false);
    let at = SystemTime::UNIX_EPOCH;
    let handled = crate::idempotency::Handled { how: crate::idempotency::HandledAs::Applied, at };
    engine.tell_claims([Ok(Claim::Handled(handled))]);
    let job = engine.started("e1").await;
    worker.work(job).await;
    let job = engine.started("e2").await;
    engine.tell_claims([Ok(Claim::IdReused(job.hash))]);
    worker.work(job).await;
    engine.settled().await;
    assert_eq!((engine.left(Disposition::Deleted), engine.left(Disposition::DeadLettered)), (1, 1));
    assert_eq!(engine.store.calls(), ["claim"; 2], "no claim of its own is released");
}

/// Runs a worker on the keys of an engine.
fn run(engine: &mut Engine, stop: &CancellationToken) -> JoinHandle<()> {
    let worker = worker(engine, 0, false);
    let ready = std::mem::replace(&mut engine.ready, mpsc::channel(1).1);
    let worker = Worker { ready: Arc::new(Mutex::new(ready)), ..worker };
    tokio::spawn(worker.run(stop.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_no_job_after_the_stop() {
    let (mut engine, stop) = (Engine::new(), CancellationToken::new());
    let running = run(&mut engine, &stop);
    engine.admit("e1", "r1").await;
    timeout(SECOND, async {
        while engine.left(Disposition::Deleted) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it works");
    assert!(engine.shows("worker_pool_active_gauge 0"));
    sleep(600 * SECOND).await;
    assert!(engine.health.alive().is_ok(), "an idle worker is not stuck");
    engine.admit("e2", "r2").await;
    stop.cancel();
    timeout(SECOND, running).await.expect("it ends").unwrap();
    assert_eq!((engine.table.held(), engine.left(Disposition::Deleted)), (1, 1));
}

/// Its call hangs: the process is to be restarted.
#[tokio::test(start_paused = true)]
async fn a_worker_with_a_job_that_does_not_end_counts_as_stuck() {
    let (mut engine, stop) = (Engine::new(), CancellationToken::new());
    let running = run(&mut engine, &stop);
    engine.store.hangs.store(true, Ordering::Relaxed);
    engine.admit("e1", "r1").await;
    sleep(59 * SECOND).await;
    assert!(engine.health.alive().is_ok());
    assert!(engine.shows("worker_pool_active_gauge 1"));
    sleep(2 * SECOND).await;
    assert!(engine.health.alive().is_err());
    running.abort();
}
