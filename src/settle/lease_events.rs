//! Reacts to extended, lost and ending leases.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::Settler;
use super::account::Disposition;
use super::batch::Settlement;
use super::decide::DeadLetterReason;
use super::report::attempt_begun;
use crate::clock;
use crate::idempotency::{RecordKey, StoreError};
use crate::inflight::lease_keeper::LeaseEvents;
use crate::inflight::{HeldClaim, Job, LostJob, Receipt, log_job};
use crate::retry::Backoff;
use crate::telemetry::SpanFailure;

/// Backoff between the attempts of a claim renewal. Half of the claim's time is left then; another
/// process may claim the event as soon as the claim expires.
const RENEW_AGAIN: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

impl Settler {
    /// Renews a claim while its lease lasts. Returns whether no retry is needed.
    async fn renew_claim(&self, HeldClaim { id, reservation_id, lease }: &HeldClaim) -> bool {
        let Some(claim) = lease.renewable() else {
            // A claim request is in progress, perhaps with the lease's duration before its
            // extension.
            return !lease.is_claim_asked();
        };
        let (asked_at, lasts) = (clock::now(), lease.remaining());
        let key = RecordKey { id, lane: Some(reservation_id) };
        match self.idempotency.renew(key, lease.token(), lasts).await {
            Ok(()) => lease.renewed(claim, asked_at + lasts),
            Err(StoreError::NotOwner(_)) => lease.renewal_refused(claim),
            Err(StoreError::Unreadable(_)) => {}
            // If the claim expires, the event is claimed again before its next step.
            Err(StoreError::Away { .. } | StoreError::Unavailable { .. }) => return false,
        }
        true
    }
}

#[async_trait]
impl LeaseEvents for Settler {
    fn extended(&self, ok: usize, failed: usize, lost: usize) {
        self.metrics.leases_extended(u64::try_from(ok).unwrap_or(u64::MAX));
        (0..failed).for_each(|_| self.metrics.lease_extension_failed());
        (0..lost).for_each(|_| self.metrics.lease_lost());
        self.account.left(Disposition::LeaseLost, lost);
    }

    async fn release(&self, receipt: Receipt, after: Duration) {
        self.batches.send(Settlement::Release(receipt, after)).await;
    }

    async fn lost(&self, forgotten: LostJob) {
        let LostJob { job, receipts_lost } = forgotten;
        (0..receipts_lost).for_each(|_| self.metrics.lease_lost());
        self.account.left(Disposition::LeaseLost, receipts_lost);
        self.release_claim(&job).await;
        log_job!(
            warn,
            job,
            attempt = attempt_begun(&job),
            "Lease lost: the event is left to whoever receives it next"
        );
        let Job { mut span, attempt, .. } = *job;
        span.add_event("lease lost", []);
        let failure = SpanFailure { error_type: "lease_lost", message: "the lease was lost" };
        span.end("lease_lost", attempt, Some(failure));
    }

    async fn overdue(&self, job: Box<Job>) {
        self.release_claim(&job).await;
        log_job!(
            warn,
            job,
            attempt = attempt_begun(&job),
            "Event was held for 11 h 50 min, SQS allows 12 h: handed back"
        );
        let Job { span, attempt, .. } = *job;
        span.end("handed_back", attempt, None);
    }

    async fn ending(&self, job: Box<Job>) {
        let error = "the message's retention ends".to_owned();
        self.dead_letter(job, DeadLetterReason::RetentionEnds, error).await;
    }

    async fn renew_claims(&self, claims: Vec<HeldClaim>) {
        let renewals = claims.iter().map(|claim| async move {
            // At this time the lease and its claim are due for the next extension.
            let next = Instant::now() + claim.lease.remaining() / 2;
            let mut failures = 0;
            while !self.renew_claim(claim).await && Instant::now() < next {
                sleep(RENEW_AGAIN.delay(failures, &mut fastrand::Rng::new())).await;
                failures += 1;
            }
        });
        join_all(renewals).await;
    }

    async fn hand_back(&self, job: Box<Job>) {
        Self::hand_back(self, job, Duration::ZERO).await;
    }
}
