//! Carries verdicts out, and says each message's fate in one log line.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::batch::{Batches, Grounds, Settlement};
use super::decide::{DeadLetterReason, Record, RetryPolicy, Verdict, decide};
use super::ledger::{Ledger, Left};
use crate::event::Poison;
use crate::handler::End;
use crate::idempotency::{HandledAs, Store};
use crate::inflight::lease::LeaseEvents;
use crate::inflight::{Forgotten, InFlight, Job, Receipt, Taken};
use crate::metrics::{DuplicateReason, Metrics, Outcome};
use crate::outage::{Dependency, Outages};
use crate::telemetry::{EventSpan, Failure};

/// Carries out what was decided. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    /// Where the job comes from.
    pub inflight: Arc<InFlight>,
    /// Where its claim is.
    pub store: Arc<dyn Store>,
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
    pub async fn settle(&self, mut job: Box<Job>, end: End) {
        let mut random = fastrand::Rng::new();
        let Job { retries, failures, receive_count, .. } = *job;
        let record = Record { retries, failures, receive_count };
        match decide(&end, record, &self.policy, &mut random) {
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

    /// Deletes the message of an event that was handled before.
    pub async fn drop_duplicate(&self, job: Box<Job>) {
        self.metrics.duplicate(DuplicateReason::Handled);
        self.count(&job, Outcome::Dropped);
        log_fate(&job, Outcome::Dropped, "Duplicate of an event that was handled before");
        self.delete_messages(&job).await;
        end_span(job, Outcome::Dropped, None);
    }

    /// Sets aside an event whose id belongs to another one; its claim is the other one's.
    pub async fn reject_reused_id(&self, job: Box<Job>, taken: Taken) {
        let error = "another event has this id".to_owned();
        let reason = DeadLetterReason::IdReused;
        self.count(&job, Outcome::Failed);
        log_dead_letter(&job, reason, &error);
        let event_type = job.event.event_type().as_str();
        end_span(job, Outcome::Failed, Some((reason.as_str(), &error)));
        self.send_dead_letter(taken, Grounds { reason, error, event_type }).await;
    }

    /// Sets aside a job that is in the table and whose id belongs to another event.
    pub async fn reject_claimed_id(&self, job: Box<Job>) {
        let taken = self.inflight.take(&job);
        self.reject_reused_id(job, taken).await;
    }

    /// Sets a body aside that is no event.
    pub async fn reject_poison(&self, taken: Taken, poison: Poison, span: EventSpan) {
        let Poison { reason, event_type, detail, .. } = poison;
        let reason = DeadLetterReason::Poison(reason);
        self.metrics.event_settled(event_type, Outcome::Failed);
        let event_type = event_type.map_or("unknown", |known| known.as_str());
        warn!(
            event_type,
            trace_id = span.trace_id(),
            outcome = Outcome::Failed.as_str(),
            error = detail,
            message_id = %taken.original.message_id,
            reason = reason.as_str(),
            "Message is no event: it goes to the dead-letter queue"
        );
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
        // The store first: a crash before the message is deleted brings a duplicate, not a repeat.
        let how = match outcome {
            Outcome::Success | Outcome::Failed => HandledAs::Applied,
            Outcome::Dropped => HandledAs::Superseded,
        };
        if job.is_claimed
            && let Err(why) = self.store.complete(&job.event.id, job.token, how).await
        {
            warn!(error = %why, reservation_id = job.event.reservation_id.as_str(), "The event is done, and could not be recorded as such");
        }
        self.count(&job, outcome);
        if let End::Superseded { found } = end {
            self.metrics.superseded();
            log_fate(&job, outcome, &format!("Event superseded: the reservation is {found}"));
        } else {
            self.metrics.latency(Some(job.event.event_type()), job.received_at.elapsed());
            log_fate(&job, outcome, "Event processed successfully");
        }
        self.delete_messages(&job).await;
        end_span(job, outcome, None);
    }

    fn retry(&self, mut job: Box<Job>, after: Duration, end: &End) {
        let (code, error) = describe(end);
        self.metrics.event_retried(job.event.event_type(), end.retry_reason());
        warn!(
            event_type = job.event.event_type().as_str(),
            reservation_id = job.event.reservation_id.as_str(),
            attempt = job.attempt,
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
                attempt = job.attempt,
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
            attempt = job.attempt,
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

    async fn release_claim(&self, job: &Job) {
        if job.is_claimed
            && let Err(why) = self.store.release(&job.event.id, job.token, job.done).await
        {
            warn!(error = %why, reservation_id = job.event.reservation_id.as_str(), "The event's claim could not be released");
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
            attempt = job.attempt,
            trace_id = job.span.trace_id(),
            "Event was held for 11 h 50 min, SQS allows 12 h: handed back"
        );
        let Job { span, attempt, .. } = *job;
        span.end("handed_back", attempt, None);
    }

    async fn hand_back(&self, job: Box<Job>) {
        Self::hand_back(self, job, Duration::ZERO).await;
    }
}

fn log_fate(job: &Job, outcome: Outcome, message: &str) {
    info!(
        event_type = job.event.event_type().as_str(),
        reservation_id = job.event.reservation_id.as_str(),
        attempt = job.attempt,
        latency_ms = millis(job.received_at.elapsed()),
        trace_id = job.span.trace_id(),
        outcome = outcome.as_str(),
        "{message}"
    );
    debug!(event_id = job.event.id.as_str(), trace_id = job.span.trace_id(), "Event settled");
}

fn log_dead_letter(job: &Job, reason: DeadLetterReason, error: &str) {
    error!(
        event_type = job.event.event_type().as_str(),
        reservation_id = job.event.reservation_id.as_str(),
        attempt = attempt_begun(job),
        latency_ms = millis(job.received_at.elapsed()),
        trace_id = job.span.trace_id(),
        outcome = Outcome::Failed.as_str(),
        error,
        reason = reason.as_str(),
        "Event can never succeed: it goes to the dead-letter queue"
    );
}

/// The attempt's number, from 1; none for an event of which none was begun.
fn attempt_begun(job: &Job) -> Option<u32> {
    (job.attempt > 0).then_some(job.attempt)
}

fn end_span(job: Box<Job>, outcome: Outcome, failure: Option<(&str, &str)>) {
    let Job { span, attempt, .. } = *job;
    let failure = failure.map(|(error_type, message)| Failure { error_type, message });
    span.end(outcome.as_str(), attempt, failure);
}

/// A word and a sentence for what went wrong.
fn describe(end: &End) -> (String, String) {
    match end {
        End::Applied | End::Superseded { .. } => (String::new(), String::new()),
        End::Failed { error, .. } | End::Parked { error: Some(error), .. } => {
            (error.code.to_string(), error.to_string())
        }
        End::Parked { dependency, error: None } => {
            ("away".to_owned(), format!("{} is away", dependency.service().as_str()))
        }
        End::Unclear { found } => (
            "unclear_status".to_owned(),
            format!("the reservation is in status {found}, from which nothing can be decided yet"),
        ),
        End::MoneyWithoutSeat { detail } => ("money_without_seat".to_owned(), detail.clone()),
        End::LeaseLost => ("lease_lost".to_owned(), "the lease was lost".to_owned()),
        End::Store(error) => ("store".to_owned(), format!("idempotency store: {error}")),
        End::Panicked => ("panic".to_owned(), "the handler panicked".to_owned()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
