//! Carries out verdicts, and logs each message's outcome in one line.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::account::{Disposition, MessageAccount};
use super::batch::{Batches, Grounds, Settlement};
use super::decide::{DeadLetterReason, EventHistory, RetryPolicy, Verdict, decide};
use super::failures::Failures;
use super::report::{attempt_begun, describe, end_span, log_dead_letter, log_fate};
use crate::client::Class;
use crate::clock::{self, millis};
use crate::event::ContentHash;
use crate::handler::AttemptOutcome;
use crate::idempotency::{Handled, HandledAs, IdempotencyClient, StoreError};
use crate::inflight::lease_keeper::LeaseEvents;
use crate::inflight::{InFlight, Job, ParkedAs, Receipt, RemovedJob, log_job};
use crate::metrics::{DuplicateReason, Metrics, Outcome, Service};
use crate::outage::{Dependency, Outages};
use crate::retry::Backoff;

/// Maximum wait in turn after a service refused a call for now. A longer wait uses a timer instead.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Backoff of a message that was handed back before. Where many processes leave together, each has
/// a receive open: if all of them handed the message back at once, they would use up its receives.
const CAME_BACK: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(16) };

/// Carries out verdicts. Cheap to clone.
#[derive(Clone)]
pub struct Settler {
    /// The in-flight table that holds the jobs.
    pub inflight: Arc<InFlight>,
    /// The store that holds the claims.
    pub idempotency: IdempotencyClient,
    /// The batches that settle the messages.
    pub batches: Batches,
    /// The retry policy.
    pub policy: RetryPolicy,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The circuit breakers, which decide when a parked job continues.
    pub outages: Arc<Outages>,
    /// The account of received and settled messages.
    pub account: Arc<MessageAccount>,
    /// The last failures, for operators.
    pub failures: Arc<Failures>,
}

impl Settler {
    /// Settles a job, or makes it wait, according to the end of its attempt.
    pub async fn settle(&self, mut job: Box<Job>, mut attempt_outcome: AttemptOutcome) {
        let mut verdict = self.decide(&job, &attempt_outcome);
        // The store comes first: a crash before the delete causes a duplicate delivery, not a
        // second effect. A message is not deleted until the store has its event as handled.
        if let Verdict::Delete(outcome) = verdict
            && let Err(error) = self.complete(&job, outcome).await
        {
            attempt_outcome = error.into();
            verdict = self.decide(&job, &attempt_outcome);
        }
        if let Some(follows) = verdict.after_failure(&attempt_outcome) {
            self.failures.add_attempt(&job, &attempt_outcome, follows);
        }
        match verdict {
            Verdict::Delete(outcome) => self.delete(job, outcome, &attempt_outcome).await,
            Verdict::Retry { after, counted, suspect } => {
                job.failures += 1;
                job.retries += u32::from(counted);
                if let Some(excess) = self.retry(job, after, suspect, &attempt_outcome) {
                    self.give_up_for_others(excess).await;
                }
            }
            Verdict::Park(dependency, how) => {
                let excess = self.park(job, dependency, how, &attempt_outcome);
                if let Some(excess) = excess.or_else(|| self.parked_in_excess(dependency)) {
                    self.give_up_for_others(excess).await;
                }
            }
            Verdict::Release(after) => self.give_up(job, after, &attempt_outcome).await,
            Verdict::DeadLetter(reason) => {
                self.dead_letter(job, reason, describe(&attempt_outcome).1).await;
            }
            Verdict::Forget => self.forget(job).await,
        }
    }

    fn decide(&self, job: &Job, attempt_outcome: &AttemptOutcome) -> Verdict {
        let Job { retries, failures, receive_count, rounds, .. } = *job;
        let receive_count = receive_count.saturating_add(rounds);
        let record = EventHistory { retries, failures, receive_count };
        let verdict = decide(attempt_outcome, record, &self.policy, &mut fastrand::Rng::new());
        match verdict {
            Verdict::Retry { .. } | Verdict::Park(..) | Verdict::Release(_)
                if self.inflight.is_ending(job, clock::now()) =>
            {
                Verdict::DeadLetter(DeadLetterReason::RetentionEnds)
            }
            Verdict::Retry { .. }
            | Verdict::Park(..)
            | Verdict::Release(_)
            | Verdict::Delete(_)
            | Verdict::DeadLetter(_)
            | Verdict::Forget => verdict,
        }
    }

    async fn complete(&self, job: &Job, outcome: Outcome) -> Result<(), StoreError> {
        let how = match outcome {
            Outcome::Success | Outcome::Failed => HandledAs::Applied,
            Outcome::Dropped => HandledAs::Superseded,
        };
        let completed =
            self.idempotency.complete((&job.event).into(), job.lease.token(), how).await;
        if let Err(StoreError::NotOwner(_)) = completed {
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

    /// Dead-letters an event whose id belongs to another event. It does not release the claim,
    /// which belongs to the other event.
    pub async fn reject_reused_id(&self, job: Box<Job>, removed: RemovedJob, known: ContentHash) {
        let error = "another event has this id".to_owned();
        let reason = DeadLetterReason::IdReused;
        self.count(&job, Outcome::Failed);
        log_job!(
            warn,
            job,
            outcome = Outcome::Failed.as_str(),
            error,
            event_id = job.event.id.as_str(),
            content_hash = %job.hash,
            known_content_hash = %known,
            reason = reason.as_str(),
            "Another event has this id: it goes to the dead-letter queue"
        );
        self.failures.add_job(&job, reason.as_str(), "id_reused", String::new());
        let event_type = job.event.event_type().as_str();
        end_span(job, Outcome::Failed, Some((reason.as_str(), &error)));
        self.send_dead_letter(removed, Grounds { reason, error, event_type }).await;
    }

    /// Dead-letters a job that is in the table and whose id belongs to another event.
    pub async fn reject_claimed_id(&self, job: Box<Job>, known: ContentHash) {
        let removed = self.inflight.take(&job);
        self.reject_reused_id(job, removed, known).await;
    }

    /// Hands back a message that was received while the process leaves: visible at once, or after a
    /// backoff if it was received before.
    pub async fn hand_back_unopened(&self, receipt: Receipt) {
        let came_back = receipt.receive_count.checked_sub(2);
        let after = came_back.map_or(Duration::ZERO, |times| CAME_BACK.bound(times));
        self.batches.send(Settlement::Release(receipt, after)).await;
    }

    /// Hands back a job that is not settled; its message becomes visible after `after`.
    pub async fn hand_back(&self, job: Box<Job>, after: Duration) {
        self.release_claim(&job).await;
        self.put_back(job, after).await;
    }

    /// Like [`Settler::hand_back`], but waits for the store only until `limit`.
    /// Returns whether the store answered. Otherwise the claim may not be released.
    pub async fn hand_back_by(&self, job: Box<Job>, after: Duration, limit: Instant) -> bool {
        let is_answered = timeout_at(limit, self.release_claim(&job)).await.is_ok();
        self.put_back(job, after).await;
        is_answered
    }

    async fn put_back(&self, job: Box<Job>, after: Duration) {
        log_job!(info, job, visible_after_ms = millis(after), "Event handed back to the queue");
        self.release_messages(&job, after).await;
        let Job { span, attempt, .. } = *job;
        span.end("handed_back", attempt, None);
    }

    async fn delete(&self, job: Box<Job>, outcome: Outcome, attempt_outcome: &AttemptOutcome) {
        self.count(&job, outcome);
        if let AttemptOutcome::Superseded { found } = attempt_outcome {
            self.metrics.superseded();
            log_fate(&job, outcome, &format!("Event superseded: the reservation is {found}"));
        } else {
            self.metrics.latency(Some(job.event.event_type()), job.received_at.elapsed());
            log_fate(&job, outcome, "Event processed successfully");
        }
        self.delete_messages(&job).await;
        end_span(job, outcome, None);
    }

    /// Schedules a retry. Returns a suspect that must be given up, if there are too many.
    fn retry(
        &self,
        mut job: Box<Job>,
        after: Duration,
        suspect: Option<Service>,
        attempt_outcome: &AttemptOutcome,
    ) -> Option<Box<Job>> {
        let (code, error) = describe(attempt_outcome);
        self.metrics.event_retried(job.event.event_type(), attempt_outcome.retry_reason());
        log_job!(
            warn,
            job,
            attempt = attempt_begun(&job),
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
        let until = Instant::now() + after;
        match suspect {
            Some(service) => {
                self.inflight.wait_as_suspect(job, self.metrics.suspect(service), until)
            }
            None if is_refused_for_now(attempt_outcome) && after <= TURN_MAX => {
                self.inflight.wait_in_turn(job, until);
                None
            }
            None => {
                self.inflight.wait(job, until);
                None
            }
        }
    }

    /// Parks a job until its service is called again, or has room for a call.
    /// A job that failed at the service counts as a retry that uses up none. A job that made no
    /// call is only logged at debug level: a thousand may wait, and the breaker logs the outage
    /// once. Returns a suspect that must be given up, if there are too many.
    fn park(
        &self,
        mut job: Box<Job>,
        dependency: Dependency,
        how: ParkedAs,
        attempt_outcome: &AttemptOutcome,
    ) -> Option<Box<Job>> {
        let service = dependency.service().as_str();
        if let AttemptOutcome::Parked { error: Some(error), .. } = attempt_outcome {
            self.metrics.event_retried(job.event.event_type(), attempt_outcome.retry_reason());
            log_job!(
                warn,
                job,
                attempt = attempt_begun(&job),
                outcome = "retried",
                error = %error,
                service,
                "Attempt failed, will be retried when the service is called again"
            );
        } else if !how.is_full {
            log_job!(debug, job, service, "Event parked until the service is called again");
        }
        if !how.is_full {
            job.span.add_event("parked", [("service", service.into())]);
        }
        // A job that is a suspect at one service is not one at another.
        job.suspect = how.is_suspect.then(|| self.metrics.suspect(dependency.service()));
        let excess = self.inflight.park(job, dependency, how);
        // The service may have recovered before the job was parked.
        self.outages.notify();
        excess
    }

    pub(super) async fn dead_letter(&self, job: Box<Job>, reason: DeadLetterReason, error: String) {
        self.release_claim(&job).await;
        self.count(&job, Outcome::Failed);
        if reason == DeadLetterReason::MoneyWithoutSeat {
            self.metrics.money_without_seat();
        }
        log_dead_letter(&job, reason, &error);
        let removed = self.inflight.take(&job);
        let event_type = job.event.event_type().as_str();
        end_span(job, Outcome::Failed, Some((reason.as_str(), &error)));
        self.send_dead_letter(removed, Grounds { reason, error, event_type }).await;
    }

    async fn forget(&self, job: Box<Job>) {
        // `None`: a newer receipt has arrived, and the job continues with it.
        if let Some(forgotten) = self.inflight.forget_lost(job) {
            self.lost(forgotten).await;
        }
    }

    pub(super) async fn release_claim(&self, job: &Job) {
        if !job.lease.may_be_claimed() {
            return;
        }
        match self.idempotency.release((&job.event).into(), job.lease.token(), job.done).await {
            // Another process has claimed the event since, or the store is known to be away.
            Ok(()) | Err(StoreError::NotOwner(_) | StoreError::Away { .. }) => {}
            Err(why @ (StoreError::Unavailable { .. } | StoreError::Unreadable(_))) => {
                log_job!(
                    warn,
                    job,
                    error = %format_args!("idempotency store: {why}"),
                    "The event's claim could not be released: it runs out with the lease"
                );
            }
        }
    }

    async fn delete_messages(&self, job: &Job) {
        for receipt in self.inflight.take(job).receipts {
            self.batches.send(Settlement::Delete(receipt, Disposition::Deleted)).await;
        }
    }

    pub(super) async fn release_messages(&self, job: &Job, after: Duration) {
        for receipt in self.inflight.release(job, after) {
            self.batches.send(Settlement::Release(receipt, after)).await;
        }
    }

    pub(super) async fn send_dead_letter(&self, removed: RemovedJob, grounds: Grounds) {
        let settlement = Settlement::DeadLetter(Box::new(removed), Box::new(grounds));
        self.batches.send(settlement).await;
    }

    pub(super) fn count(&self, job: &Job, outcome: Outcome) {
        self.metrics.event_settled(Some(job.event.event_type()), outcome);
        if let Some(sent_at) = job.sent_at {
            let age = SystemTime::now().duration_since(sent_at).unwrap_or(Duration::ZERO);
            self.metrics.event_age(age);
        }
    }
}

/// Whether the service refused the call for now and accepts it later.
fn is_refused_for_now(attempt_outcome: &AttemptOutcome) -> bool {
    matches!(attempt_outcome, AttemptOutcome::Failed { error, .. } if error.class == Class::Paced)
}
