//! What follows when leases are extended, or lost.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::Settler;
use super::batch::Settlement;
use super::ledger::Left;
use super::tell::attempt_begun;
use crate::event::EventId;
use crate::idempotency::Refusal;
use crate::inflight::lease::LeaseEvents;
use crate::inflight::{Forgotten, Job, Lease, Receipt};
use crate::sabotage::{Sabotage, on};
use crate::telemetry::Failure;

#[async_trait]
impl LeaseEvents for Settler {
    fn extended(&self, ok: usize, failed: usize, lost: usize) {
        self.metrics.leases_extended(u64::try_from(ok).unwrap_or(u64::MAX));
        (0..failed).for_each(|_| self.metrics.lease_extension_failed());
        (0..lost).for_each(|_| self.metrics.lease_lost());
        self.ledger.left(Left::LeaseLost, lost);
    }

    async fn release(&self, receipt: Receipt, after: Duration) {
        self.batches.send(Settlement::Release(receipt, after)).await;
    }

    async fn lost(&self, forgotten: Forgotten) {
        let Forgotten { job, receipts_lost } = forgotten;
        (0..receipts_lost).for_each(|_| self.metrics.lease_lost());
        self.ledger.left(Left::LeaseLost, receipts_lost);
        self.release_claim(&job).await;
        warn!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            attempt = attempt_begun(&job),
            trace_id = job.span.trace_id(),
            "Lease lost: the event is left to whoever receives it next"
        );
        let Job { mut span, attempt, .. } = *job;
        span.add_event("lease lost", []);
        let failure = Failure { error_type: "lease_lost", message: "the lease was lost" };
        span.end("lease_lost", attempt, Some(failure));
    }

    async fn overdue(&self, job: Box<Job>) {
        self.release_claim(&job).await;
        warn!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            attempt = attempt_begun(&job),
            trace_id = job.span.trace_id(),
            "Event was held for 11 h 50 min, SQS allows 12 h: handed back"
        );
        let Job { span, attempt, .. } = *job;
        span.end("handed_back", attempt, None);
    }

    async fn renew_claims(&self, claims: Vec<(EventId, Lease)>) {
        let renewals = claims.iter().map(|(id, lease)| async move {
            let Some(claim) = lease.renewable() else { return };
            let (asked_at, lasts) = (Instant::now(), lease.remaining());
            if on(Sabotage::ClaimNotRenewed) {
                return lease.renewed(claim, asked_at + lasts);
            }
            match self.records.renew(id, lease.token(), lasts).await {
                Ok(()) => lease.renewed(claim, asked_at + lasts),
                Err(Refusal::ClaimLost) => lease.claim_lost(),
                // It may run out: then it is asked for anew before the next step.
                Err(Refusal::Away | Refusal::Unavailable(_) | Refusal::Unreadable(_)) => {}
            }
        });
        join_all(renewals).await;
    }

    async fn hand_back(&self, job: Box<Job>) {
        Self::hand_back(self, job, Duration::ZERO).await;
    }
}
