//! Carries verdicts out, and says each message's fate in one log line.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::batch::{Batches, Grounds, Settlement};
use super::decide::{DeadLetterReason, Record, RetryPolicy, Verdict, decide};
use super::ledger::{Ledger, Left};
use super::tell::{attempt_begun, describe, end_span, log_dead_letter, log_fate, millis};
use crate::event::{ContentHash, Poison};
use crate::handler::End;
use crate::idempotency::{Handled, HandledAs, Records, Refusal};
use crate::inflight::lease::LeaseEvents;
use crate::inflight::{InFlight, Job, Receipt, Taken};
use crate::metrics::{DuplicateReason, Metrics, Outcome};
use crate::outage::{Dependency, Outages};
use crate::sabotage::{Sabotage, on};
use crate::telemetry::{EventSpan, Failure};

/// Carries out what was decided. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    /// Where the job comes from.
    pub inflight: Arc<InFlight>,
    /// Where its claim is.
    pub records: Records,
    /// Where its message goes.
    pub batches: Batches,
    /// How often it is tried.
    pub policy: RetryPolicy,
    /// What counts it.
    pub metrics: Arc<Metrics>,
    /// Who says when a parked job goes on.
    pub outages: Arc<Outages>,
    /// What accounts for it.
    pub ledger: Arc<Ledger>,
}

impl Settler {
    /// Settles a job, or puts it aside, by the way its attempt ended.
    pub async fn settle(&self, mut job: Box<Job>, mut end: End) {
        let mut verdict = self.decide(&job, &end);
        // The store first: a crash before the message is deleted brings a duplicate, not a repeat. A
        // message whose event the store does not know as handled is not deleted.
        if let Verdict::Delete(outcome) = verdict
            && !on(Sabotage::CompletedAfterDelete)
            && let Err(refusal) = self.complete(&job, outcome).await
        {
            end = refusal.into();
            verdict = self.decide(&job, &end);
        }
        match verdict {
            Verdict::Delete(outcome) => self.delete(job, outcome, &end).await,
            Verdict::Retry { after, counted } => {
                job.failures += 1;
                job.retries += u32::from(counted);
                self.retry(job, after, &end);
            }
            Verdict::Park(dependency) => self.park(job, dependency, &end),
            Verdict::Release(after) => self.give_up(job, after, &end).await,
            Verdict::DeadLetter(reason) => self.dead_letter(job, reason, &end).await,
            Verdict::Forget => self.forget(job).await,
        }
    }

    fn decide(&self, job: &Job, end: &End) -> Verdict {
        let Job { retries, failures, receive_count, .. } = *job;
        let record = Record { retries, failures, receive_count };
        decide(end, record, &self.policy, &mut fastrand::Rng::new())
    }

    async fn complete(&self, job: &Job, outcome: Outcome) -> Result<(), Refusal> {
        let how = match outcome {
            Outcome::Success | Outcome::Failed => HandledAs::Applied,
            Outcome::Dropped => HandledAs::Superseded,
        };
        let completed = self.records.complete(&job.event.id, job.lease.token(), how).await;
        if completed == Err(Refusal::ClaimLost) {
            job.lease.claim_lost();
        }
        completed
    }

    /// Deletes the message of an event that was handled before.
    pub async fn drop_duplicate(&self, job: Box<Job>, handled: Handled) {
        let ago = SystemTime::now().duration_since(handled.at).unwrap_or(Duration::ZERO);
        debug!(
            event_id = job.event.id.as_str(),
            trace_id = job.span.trace_id(),
            handled_as = handled.how.as_str(),
            handled_ms_ago = millis(ago),
            "The event was handled before"
        );
        self.metrics.duplicate(DuplicateReason::Handled);
        self.count(&job, Outcome::Dropped);
        log_fate(&job, Outcome::Dropped, "Duplicate of an event that was handled before");
        self.delete_messages(&job).await;
        end_span(job, Outcome::Dropped, None);
    }

    /// Sets aside an event whose id belongs to another one; its claim is the other one's.
    pub async fn reject_reused_id(&self, job: Box<Job>, taken: Taken, known: ContentHash) {
        let error = "another event has this id".to_owned();
        let reason = DeadLetterReason::IdReused;
        self.count(&job, Outcome::Failed);
        warn!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            trace_id = job.span.trace_id(),
            outcome = Outcome::Failed.as_str(),
            error,
            event_id = job.event.id.as_str(),
            content_hash = %job.hash,
            known_content_hash = %known,
            reason = reason.as_str(),
            "Another event has this id: it goes to the dead-letter queue"
        );
        let event_type = job.event.event_type().as_str();
        end_span(job, Outcome::Failed, Some((reason.as_str(), &error)));
        self.send_dead_letter(taken, Grounds { reason, error, event_type }).await;
    }

    /// Sets aside a job that is in the table and whose id belongs to another event.
    pub async fn reject_claimed_id(&self, job: Box<Job>, known: ContentHash) {
        let taken = self.inflight.take(&job);
        self.reject_reused_id(job, taken, known).await;
    }

    /// Sets a body aside that is no event.
    pub async fn reject_poison(&self, taken: Taken, poison: Poison, mut span: EventSpan) {
        let Poison { reason, event_type, id, reservation_id, detail } = poison;
        let id = id.as_ref().map(|id| id.as_str());
        let reservation_id = reservation_id.as_ref().map(|id| id.as_str());
        let reason = DeadLetterReason::Poison(reason);
        self.metrics.event_settled(event_type, Outcome::Failed);
        let event_type = event_type.map_or("unknown", |known| known.as_str());
        warn!(
            event_type,
            reservation_id,
            trace_id = span.trace_id(),
            outcome = Outcome::Failed.as_str(),
            error = detail,
            event_id = id,
            message_id = %taken.original.message_id,
            reason = reason.as_str(),
            "Message is no event: it goes to the dead-letter queue"
        );
        span.set_event(event_type, reservation_id, id);
        let failure = Failure { error_type: reason.as_str(), message: &detail };
        span.end(Outcome::Failed.as_str(), 1, Some(failure));
        self.send_dead_letter(taken, Grounds { reason, error: detail, event_type }).await;
    }

    /// Hands a message back that was not even looked at, to be seen at once.
    pub async fn hand_back_unopened(&self, receipt: Receipt) {
        self.batches.send(Settlement::Release(receipt, Duration::ZERO)).await;
    }

    /// Hands a job back that is not settled, to be seen again after `after`.
    pub async fn hand_back(&self, job: Box<Job>, after: Duration) {
        self.release_claim(&job).await;
        self.put_back(job, after).await;
    }

    /// The same, with its claim or without: the store is waited for until `limit`. Says whether it
    /// answered.
    pub async fn hand_back_by(&self, job: Box<Job>, after: Duration, limit: Instant) -> bool {
        let is_answered = timeout_at(limit, self.release_claim(&job)).await.is_ok();
        self.put_back(job, after).await;
        is_answered
    }

    async fn put_back(&self, job: Box<Job>, after: Duration) {
        info!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            trace_id = job.span.trace_id(),
            visible_after_ms = millis(after),
            "Event handed back to the queue"
        );
        self.release_messages(&job, after).await;
        let Job { span, attempt, .. } = *job;
        span.end("handed_back", attempt, None);
    }

    async fn delete(&self, job: Box<Job>, outcome: Outcome, end: &End) {
        self.count(&job, outcome);
        if let End::Superseded { found } = end {
            self.metrics.superseded();
            log_fate(&job, outcome, &format!("Event superseded: the reservation is {found}"));
        } else {
            self.metrics.latency(Some(job.event.event_type()), job.received_at.elapsed());
            log_fate(&job, outcome, "Event processed successfully");
        }
        self.delete_messages(&job).await;
        if on(Sabotage::CompletedAfterDelete) {
            drop(self.complete(&job, outcome).await);
        }
        end_span(job, outcome, None);
    }

    fn retry(&self, mut job: Box<Job>, after: Duration, end: &End) {
        let (code, error) = describe(end);
        self.metrics.event_retried(job.event.event_type(), end.retry_reason());
        warn!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            attempt = attempt_begun(&job),
            trace_id = job.span.trace_id(),
            outcome = "retried",
            error,
            retry_in_ms = millis(after),
            "Attempt failed, will be retried"
        );
        let retry_in_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        job.span.add_event(
            "retry scheduled",
            [("error.type", code.into()), ("retry_in_ms", retry_in_ms.into())],
        );
        self.inflight.wait(job, Instant::now() + after);
    }

    /// Puts a job aside until its service is called again. One that was sent back by the service
    /// will call it again, which is a retry that costs none; one that did not even call is nothing
    /// to talk of: a thousand may wait, and the breaker tells it once.
    fn park(&self, mut job: Box<Job>, dependency: Dependency, end: &End) {
        let service = dependency.service().as_str();
        if let End::Parked { error: Some(error), .. } = end {
            self.metrics.event_retried(job.event.event_type(), end.retry_reason());
            warn!(
                event_type = job.event.event_type().as_str(),
                reservation_id = job.event.reservation_id.as_str(),
                attempt = attempt_begun(&job),
                trace_id = job.span.trace_id(),
                outcome = "retried",
                error = %error,
                service,
                "Attempt failed, will be retried when the service is called again"
            );
        } else {
            debug!(
                event_type = job.event.event_type().as_str(),
                reservation_id = job.event.reservation_id.as_str(),
                trace_id = job.span.trace_id(),
                service,
                "Event parked until the service is called again"
            );
        }
        job.blame[dependency.index()].acquit();
        job.span.add_event("parked", [("service", service.into())]);
        self.inflight.park(job, dependency);
        // The service may have come back while the job was on its way here.
        self.outages.notify();
    }

    async fn give_up(&self, job: Box<Job>, after: Duration, end: &End) {
        self.release_claim(&job).await;
        self.count(&job, Outcome::Failed);
        let (code, error) = describe(end);
        error!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            attempt = attempt_begun(&job),
            latency_ms = millis(job.received_at.elapsed()),
            trace_id = job.span.trace_id(),
            outcome = Outcome::Failed.as_str(),
            error,
            receive_count = job.receive_count,
            visible_after_ms = millis(after),
            "Retries used up: the message is released, the queue's redrive policy decides"
        );
        self.release_messages(&job, after).await;
        end_span(job, Outcome::Failed, Some((&code, &error)));
    }

    async fn dead_letter(&self, job: Box<Job>, reason: DeadLetterReason, end: &End) {
        self.release_claim(&job).await;
        self.count(&job, Outcome::Failed);
        if reason == DeadLetterReason::MoneyWithoutSeat {
            self.metrics.money_without_seat();
        }
        let (_, error) = describe(end);
        log_dead_letter(&job, reason, &error);
        let taken = self.inflight.take(&job);
        let event_type = job.event.event_type().as_str();
        end_span(job, Outcome::Failed, Some((reason.as_str(), &error)));
        self.send_dead_letter(taken, Grounds { reason, error, event_type }).await;
    }

    async fn forget(&self, job: Box<Job>) {
        // `None`: a newer receipt has come, and the job goes on with it.
        if let Some(forgotten) = self.inflight.forget_lost(job) {
            self.lost(forgotten).await;
        }
    }

    pub(super) async fn release_claim(&self, job: &Job) {
        if !job.lease.may_be_claimed() || on(Sabotage::ClaimNotReleased) {
            return;
        }
        match self.records.release(&job.event.id, job.lease.token(), job.done).await {
            // Somebody else has taken it meanwhile, or the store is known to be away.
            Ok(()) | Err(Refusal::ClaimLost | Refusal::Away) => {}
            Err(why @ (Refusal::Unavailable(_) | Refusal::Unreadable(_))) => {
                warn!(error = %why, reservation_id = job.event.reservation_id.as_str(), "The event's claim could not be released: it runs out with the lease");
            }
        }
    }

    async fn delete_messages(&self, job: &Job) {
        for receipt in self.inflight.take(job).receipts {
            self.batches.send(Settlement::Delete(receipt, Left::Deleted)).await;
        }
    }

    async fn release_messages(&self, job: &Job, after: Duration) {
        for receipt in self.inflight.release(job, after) {
            self.batches.send(Settlement::Release(receipt, after)).await;
        }
    }

    async fn send_dead_letter(&self, taken: Taken, grounds: Grounds) {
        let settlement = Settlement::DeadLetter(Box::new(taken), Box::new(grounds));
        self.batches.send(settlement).await;
    }

    fn count(&self, job: &Job, outcome: Outcome) {
        self.metrics.event_settled(Some(job.event.event_type()), outcome);
        if let Some(sent_at) = job.sent_at {
            let age = SystemTime::now().duration_since(sent_at).unwrap_or(Duration::ZERO);
            self.metrics.event_age(age);
        }
    }
}
