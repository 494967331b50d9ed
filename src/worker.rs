//! A worker of the pool: takes a job, claims its event, makes one attempt, settles it.
//!
//! On stop, a worker without a job ends at once; a worker with a job finishes it first.

#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::clock;
use crate::handler::{self, AttemptOutcome, Services};
use crate::health::Health;
use crate::idempotency::{Claim, ClaimRequest, StoreError};
use crate::inflight::{InFlight, Job, JobKey, TurnWait, log_job};
use crate::metrics::Metrics;
use crate::retry::Backoff;
use crate::settle::Settler;

/// Backoff while another process has claimed the event. Shorter than the claim: the claim mostly
/// ends well before it expires, and the next event of the reservation waits too.
const CLAIMED_ELSEWHERE: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// Backoff while another event of the reservation comes first. The cap is shorter than a ticket
/// lasts in the store (1.25 s): a waiting event that asks in time keeps its place. A slow store or
/// busy workers may make it ask later.
const TURN_ASKED: Backoff =
    Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(1) };

/// Margin after the expiry of another claim, so that the next request finds it expired.
const CLAIM_RUNS_OUT: Duration = Duration::from_millis(10);

/// A worker. Cheap to clone: the pool consists of clones of one worker.
#[derive(Clone)]
pub struct Worker {
    /// Keys of the ready jobs, shared by all workers.
    pub ready: Arc<Mutex<mpsc::Receiver<JobKey>>>,
    /// The table of held jobs.
    pub inflight: Arc<InFlight>,
    /// Dependencies of the handlers.
    pub services: Services,
    /// Settles jobs.
    pub settler: Settler,
    /// Metrics of busy workers.
    pub metrics: Arc<Metrics>,
    /// Health state; each worker registers a heartbeat.
    pub health: Arc<Health>,
    /// Longest time of an attempt before its worker counts as stuck.
    pub attempt_max: Duration,
    /// Number of workers in the pool.
    pub pool: Arc<AtomicUsize>,
}

impl Worker {
    /// Works until `stop`; a job in progress is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let heartbeat = self.health.register("worker", self.attempt_max);
        heartbeat.idle();
        while let Some(key) = self.next(&stop).await {
            if let Some(job) = self.inflight.start(key) {
                let _active = self.metrics.pool_active();
                heartbeat.beat();
                self.work(job).await;
                heartbeat.idle();
            }
        }
    }

    async fn next(&self, stop: &CancellationToken) -> Option<JobKey> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            key = async { self.ready.lock().await.recv().await } => key,
        }
    }

    async fn work(&self, mut job: Box<Job>) {
        if !job.lease.is_held() {
            return self.settler.settle(job, AttemptOutcome::LeaseLost).await;
        }
        let asked_at = Instant::now();
        match self.claim(&mut job).await {
            Ok(Claim::Ours(_)) => {}
            Ok(Claim::Handled(handled)) => return self.settler.drop_duplicate(job, handled).await,
            Ok(Claim::IdReused(known)) => return self.settler.reject_claimed_id(job, known).await,
            Ok(Claim::Elsewhere(rest)) => {
                return self.wait_for_other(job, rest, asked_at.elapsed());
            }
            Ok(Claim::Behind(rest)) => {
                return self.wait_for_turn(job, rest, asked_at.elapsed());
            }
            Err(error) => return self.settler.settle(job, error.into()).await,
        }
        if let Some(TurnWait { since, .. }) = job.turn.take() {
            self.metrics.order_waited(since.elapsed());
        }
        job.attempt += 1;
        let known = job.bytes_learnt();
        let attempt = AssertUnwindSafe(handler::handle(&mut job, &self.services));
        let attempt_outcome = attempt.catch_unwind().await.unwrap_or_else(|_panic| {
            // The panic hook has already logged the panic.
            error!(reservation_id = job.event.reservation_id.as_str(), "The handler panicked");
            AttemptOutcome::Panicked
        });
        // Data from the Reservation API stays with the job until the job is settled.
        let learnt = job.bytes_learnt().saturating_sub(known);
        if learnt > 0 {
            self.inflight.grow(&job, learnt);
        }
        if let AttemptOutcome::Parked { error: None, .. } = attempt_outcome {
            // It stopped before a call: the same attempt continues when the event is unparked.
            job.attempt -= 1;
        }
        self.settler.settle(job, attempt_outcome).await;
    }

    /// Claims the event, unless already claimed, for the rest of its message's lease.
    async fn claim(&self, job: &mut Job) -> Result<Claim, StoreError> {
        if job.lease.is_claimed() {
            return Ok(Claim::Ours(job.recorded));
        }
        let (asked_at, lasts) = (clock::now(), job.lease.remaining());
        let idempotency = &self.services.idempotency;
        let was_claimed = job.lease.may_be_claimed();
        job.lease.claim_asked();
        let request = ClaimRequest {
            hash: job.hash,
            token: job.lease.token(),
            lasts,
            // An event without a send time counts as the oldest: it waits for none that has one.
            sent_at: job.sent_at.unwrap_or(SystemTime::UNIX_EPOCH),
        };
        let claim = idempotency.claim((&job.event).into(), request).await;
        match claim {
            Ok(Claim::Ours(done)) => {
                job.lease.claimed(asked_at + lasts);
                job.recorded = done;
                job.done = job.done.union(done);
            }
            // An earlier claim of this delivery may stand: a release ends it, with the steps done.
            Ok(Claim::Behind(_)) if was_claimed => {}
            Ok(Claim::Handled(_) | Claim::IdReused(_) | Claim::Elsewhere(_) | Claim::Behind(_))
            | Err(StoreError::NotOwner(_) | StoreError::Unreadable(_)) => job.lease.claim_lost(),
            // The claim may have been made, with its response lost.
            Err(StoreError::Away { .. } | StoreError::Unavailable { .. }) => {}
        }
        claim
    }

    /// Delays a job whose event another process has claimed.
    ///
    /// `rest` is the time until that claim expires unless renewed; `asking` is the duration of the
    /// claim call.
    fn wait_for_other(&self, mut job: Box<Job>, rest: Duration, asking: Duration) {
        if job.waits == 0 {
            log_job!(
                info,
                job,
                claimed_for_ms = clock::millis(rest),
                "Another worker has this event: waiting for what becomes of it"
            );
        }
        let pause = self.affordable(CLAIMED_ELSEWHERE.bound(job.waits), asking);
        let after = pause.min(rest + CLAIM_RUNS_OUT);
        job.waits = job.waits.saturating_add(1);
        self.inflight.wait(job, Instant::now() + after);
    }

    /// Delays a job whose reservation another process works on.
    ///
    /// `rest` is the time until its turn or its ticket expires unless renewed; `asking` is the
    /// duration of the claim call.
    fn wait_for_turn(&self, mut job: Box<Job>, rest: Duration, asking: Duration) {
        if job.turn.is_none() {
            self.metrics.order_wait_began();
        }
        let wait = job.turn.get_or_insert(TurnWait { since: Instant::now(), asked: 0 });
        let pause = TURN_ASKED.bound(wait.asked);
        wait.asked = wait.asked.saturating_add(1);
        let after = self.affordable(pause, asking).min(rest + CLAIM_RUNS_OUT);
        self.inflight.wait(job, Instant::now() + after);
    }

    /// Returns a pause before the store is asked again.
    ///
    /// If every held job waited like this, the calls would occupy at most half of the workers.
    fn affordable(&self, pause: Duration, asking: Duration) -> Duration {
        let pool = self.pool.load(Ordering::Relaxed).max(1);
        let shares = u32::try_from(2 * self.inflight.held() / pool).unwrap_or(u32::MAX);
        pause.max(asking.saturating_mul(shares))
    }
}
