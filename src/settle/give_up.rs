//! Handles events whose retries are used up, or that must make room for others.

use std::time::Duration;

use tokio::time::Instant;

use super::Settler;
use super::batch::Settlement;
use super::decide::DeadLetterReason;
use super::report::{attempt_begun, describe, end_span};
use crate::clock::{self, millis};
use crate::handler::AttemptOutcome;
use crate::inflight::{GroupFate, Job, Receipt, log_job};
use crate::metrics::Outcome;
use crate::outage::attribution::ServiceCharges;

impl Settler {
    /// Gives up a job whose retries are used up in this delivery, with regard to its FIFO group.
    pub(super) async fn give_up(
        &self,
        job: Box<Job>,
        after: Duration,
        attempt_outcome: &AttemptOutcome,
    ) {
        match self.inflight.group_fate(&job) {
            GroupFate::Release => self.release(job, after, attempt_outcome).await,
            GroupFate::LastReceive => {
                let reason = DeadLetterReason::RetriesUsedUp;
                self.dead_letter(job, reason, describe(attempt_outcome).1).await;
            }
            GroupFate::Wait => self.wait_with_group(job, after, attempt_outcome),
        }
    }

    /// Holds the job as long as a release would hide it, then gives it all retries again.
    /// A release would also make the later messages of its group come again, and use up a receive
    /// of each.
    fn wait_with_group(
        &self,
        mut job: Box<Job>,
        after: Duration,
        attempt_outcome: &AttemptOutcome,
    ) {
        let (code, error) = describe(attempt_outcome);
        self.metrics.event_retried(job.event.event_type(), attempt_outcome.retry_reason());
        log_job!(
            warn,
            job,
            attempt = attempt_begun(&job),
            outcome = "retried",
            error,
            receive_count = job.receive_count,
            retry_in_ms = millis(after),
            "Retries used up: the event is held for its message group, and tried again later"
        );
        let retry_in_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        job.span.add_event(
            "retry scheduled",
            [("error.type", code.into()), ("retry_in_ms", retry_in_ms.into())],
        );
        job.rounds = job.rounds.saturating_add(1);
        (job.retries, job.failures) = (0, 0);
        job.charges = ServiceCharges::default();
        self.inflight.wait(job, Instant::now() + after);
    }

    async fn release(&self, job: Box<Job>, after: Duration, attempt_outcome: &AttemptOutcome) {
        let after = self.inflight.hidden_job(&job, after, clock::now());
        self.release_claim(&job).await;
        self.count(&job, Outcome::Failed);
        let (code, error) = describe(attempt_outcome);
        log_job!(
            error,
            job,
            attempt = attempt_begun(&job),
            latency_ms = millis(job.received_at.elapsed()),
            outcome = Outcome::Failed.as_str(),
            error,
            receive_count = job.receive_count,
            visible_after_ms = millis(after),
            "Retries used up: the message is released, the queue's redrive policy decides"
        );
        self.release_messages(&job, after).await;
        end_span(job, Outcome::Failed, Some((&code, &error)));
    }

    /// Hands back a message that was not held, so that its reservation leaves room for others.
    pub async fn defer(&self, job: Box<Job>, receipt: Receipt, after: Duration, is_first: bool) {
        self.metrics.event_deferred();
        if is_first {
            log_job!(
                warn,
                job,
                visible_after_ms = millis(after),
                "One reservation has more events than its share of the room: the later ones are handed back until their turn is near"
            );
        }
        log_job!(
            debug,
            job,
            event_id = job.event.id.as_str(),
            visible_after_ms = millis(after),
            "Event handed back so that its reservation leaves room for others"
        );
        self.batches.send(Settlement::Release(receipt, after)).await;
        let Job { span, .. } = *job;
        span.end("deferred", 0, None);
    }
}
