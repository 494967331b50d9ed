//! One of N: takes a job, claims its event, makes one attempt, settles it. Nothing else.
//!
//! A worker that waits for its next job may be stopped; a worker that has one finishes it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::clock;
use crate::event::StepSet;
use crate::handler::{self, End, Services};
use crate::health::Health;
use crate::idempotency::{Claim, StoreError};
use crate::inflight::{InFlight, Job, Key, log_job};
use crate::metrics::Metrics;
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, on};
use crate::settle::Settler;

/// How long to wait before asking again for an event that somebody else has claimed: not for as long
/// as that claim lasts, as it mostly ends well before, and the reservation's next event waits too.
const CLAIMED_ELSEWHERE: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// A claim that runs out at this moment is asked for a moment later.
const CLAIM_RUNS_OUT: Duration = Duration::from_millis(10);

/// A worker. Cheap to clone: the pool is N clones of one.
#[derive(Clone)]
pub struct Worker {
    /// The keys of the jobs that are ready, shared by all workers.
    pub ready: Arc<Mutex<mpsc::Receiver<Key>>>,
    /// Where the jobs are.
    pub inflight: Arc<InFlight>,
    /// What the handlers work with.
    pub services: Services,
    /// What becomes of them.
    pub settler: Settler,
    /// What counts busy workers.
    pub metrics: Arc<Metrics>,
    /// Where each worker shows that it makes progress.
    pub health: Arc<Health>,
    /// How long an attempt may take before its worker counts as stuck.
    pub attempt_max: Duration,
    /// How many of them there are.
    pub pool: usize,
}

impl Worker {
    /// Works until told to stop; the job in hand is finished first.
    pub async fn run(self, stop: CancellationToken) {
        let beat = self.health.register("worker", self.attempt_max);
        beat.idle();
        while let Some(key) = self.next(&stop).await {
            if let Some(job) = self.inflight.start(key) {
                let _active = self.metrics.pool_active();
                beat.beat();
                self.work(job).await;
                beat.idle();
            }
        }
    }

    async fn next(&self, stop: &CancellationToken) -> Option<Key> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            key = async { self.ready.lock().await.recv().await } => key,
        }
    }

    async fn work(&self, mut job: Box<Job>) {
        if !job.lease.is_held() {
            return self.settler.settle(job, End::LeaseLost).await;
        }
        let asked_at = Instant::now();
        match self.claim(&mut job).await {
            Ok(Claim::Ours(_)) => {}
            Ok(Claim::Handled(handled)) => return self.settler.drop_duplicate(job, handled).await,
            Ok(Claim::IdReused(known)) => return self.settler.reject_claimed_id(job, known).await,
            Ok(Claim::Elsewhere(rest)) => {
                return self.wait_for_other(job, rest, asked_at.elapsed());
            }
            Err(error) => return self.settler.settle(job, error.into()).await,
        }
        job.attempt += 1;
        let known = job.bytes_learnt();
        let attempt = AssertUnwindSafe(handler::handle(&mut job, &self.services));
        let end = attempt.catch_unwind().await.unwrap_or_else(|_panic| {
            // The panic itself was logged where it happened, by the hook.
            error!(reservation_id = job.event.reservation_id.as_str(), "The handler panicked");
            End::Panicked
        });
        // What the Reservation API has said is kept with the job until that is settled.
        let learnt = job.bytes_learnt().saturating_sub(known);
        if learnt > 0 {
            self.inflight.grow(&job, learnt);
        }
        if let End::Parked { error: None, .. } = end {
            // It stopped before a call: the attempt goes on where the event is let go.
            job.attempt -= 1;
        }
        self.settler.settle(job, end).await;
    }

    /// Makes sure that the event is ours to handle, for as long as its message is.
    async fn claim(&self, job: &mut Job) -> Result<Claim, StoreError> {
        if job.lease.is_claimed() {
            return Ok(Claim::Ours(job.recorded));
        }
        let (asked_at, lasts) = (clock::now(), job.lease.remaining());
        let records = &self.services.records;
        job.lease.claim_asked();
        let claim = records.claim(&job.event.id, job.hash, job.lease.token(), lasts).await;
        let claim = believe(claim);
        match claim {
            Ok(Claim::Ours(done)) => {
                job.lease.claimed(asked_at + lasts);
                job.recorded = done;
                job.done = job.done.union(done);
            }
            Ok(Claim::Handled(_) | Claim::IdReused(_) | Claim::Elsewhere(_))
            | Err(StoreError::NotOwner | StoreError::Unreadable(_)) => job.lease.claim_lost(),
            // It may have been made, and its answer lost.
            Err(StoreError::Away { .. } | StoreError::Unavailable(_)) => {}
        }
        claim
    }

    /// Puts a job aside whose event somebody else has, for `rest` unless that claim is renewed. To be
    /// told so took as long as `asking`: were all that are held asked for that often, half of the
    /// workers would be busy with it, and no more.
    fn wait_for_other(&self, mut job: Box<Job>, rest: Duration, asking: Duration) {
        if job.waits == 0 {
            log_job!(
                info,
                job,
                claimed_for_ms = clock::millis(rest),
                "Another worker has this event: waiting for what becomes of it"
            );
        }
        let shares = u32::try_from(2 * self.inflight.held() / self.pool).unwrap_or(u32::MAX);
        let pause = CLAIMED_ELSEWHERE.bound(job.waits).max(asking.saturating_mul(shares));
        let after = pause.min(rest + CLAIM_RUNS_OUT);
        job.waits = job.waits.saturating_add(1);
        self.inflight.wait(job, Instant::now() + after);
    }
}

/// The answer as it is, unless the engine is broken on purpose.
fn believe(claim: Result<Claim, StoreError>) -> Result<Claim, StoreError> {
    let is_ignored = match &claim {
        Err(_) => on(Sabotage::UnclaimedHandled),
        Ok(Claim::Elsewhere(_)) => on(Sabotage::ElsewhereIgnored),
        Ok(Claim::Ours(_) | Claim::Handled(_) | Claim::IdReused(_)) => false,
    };
    if is_ignored { Ok(Claim::Ours(StepSet::EMPTY)) } else { claim }
}
