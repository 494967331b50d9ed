//! One of N: takes a job, claims its event, makes one attempt, settles it. Nothing else.
//!
//! A worker that waits for its next job may be stopped; a worker that has one finishes it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::handler::{self, End, Services};
use crate::health::Health;
use crate::idempotency::{Claim, Token};
use crate::inflight::{InFlight, Job, Key};
use crate::metrics::Metrics;
use crate::settle::Settler;

/// How long to wait before asking again for an event that somebody else has claimed.
const CLAIMED_ELSEWHERE: Duration = Duration::from_secs(1);

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
        job.attempt += 1;
        let token = match self.claim(&mut job).await {
            Ok(token) => token,
            Err(Unclaimed::Handled) => return self.settler.drop_duplicate(job).await,
            Err(Unclaimed::IdReused) => return self.settler.reject_claimed_id(job).await,
            Err(Unclaimed::Elsewhere) => {
                return self.inflight.wait(job, Instant::now() + CLAIMED_ELSEWHERE);
            }
            Err(Unclaimed::Failed(end)) => return self.settler.settle(job, end).await,
        };
        let attempt = AssertUnwindSafe(handler::handle(&mut job, token, &self.services));
        let end = attempt.catch_unwind().await.unwrap_or_else(|_panic| {
            // The panic itself was logged where it happened, by the hook.
            error!(reservation_id = job.event.reservation_id.as_str(), "The handler panicked");
            End::Panicked
        });
        if let End::Parked { error: None, .. } = end {
            // It stopped before a call: the attempt goes on where the event is let go.
            job.attempt -= 1;
        }
        self.settler.settle(job, end).await;
    }

    /// Makes sure that the event is ours to handle.
    async fn claim(&self, job: &mut Job) -> Result<Token, Unclaimed> {
        if job.is_claimed {
            return Ok(job.token);
        }
        let lasts = Duration::from_secs(3600);
        match self.services.store.claim(&job.event.id, job.hash, job.token, lasts).await {
            Ok(Claim::Ours(done)) => {
                job.is_claimed = true;
                job.done = done;
                Ok(job.token)
            }
            Ok(Claim::Handled(_)) => Err(Unclaimed::Handled),
            Ok(Claim::IdReused(_)) => Err(Unclaimed::IdReused),
            Ok(Claim::Elsewhere(_)) => {
                warn!(
                    reservation_id = job.event.reservation_id.as_str(),
                    trace_id = job.span.trace_id(),
                    "The event is claimed by somebody else: asking again"
                );
                Err(Unclaimed::Elsewhere)
            }
            Err(why) => Err(Unclaimed::Failed(End::Store(why))),
        }
    }
}

/// Why an event is not ours to handle.
enum Unclaimed {
    Handled,
    IdReused,
    Elsewhere,
    Failed(End),
}
