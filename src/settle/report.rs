//! Reports a message's outcome in one log line and in its span.

use std::borrow::Cow;

use tracing::debug;

use super::decide::DeadLetterReason;
use crate::clock::millis;
use crate::handler::AttemptOutcome;
use crate::idempotency::StoreError;
use crate::inflight::{Job, log_job};
use crate::metrics::Outcome;
use crate::telemetry::SpanFailure;

/// Error text of an expiry that names no seats.
const HOLD_UNKNOWN: &str =
    "event_id, or qty and seat_ids, are missing, and the Reservation API does not say them either";

pub(super) fn log_fate(job: &Job, outcome: Outcome, message: &str) {
    log_job!(
        info,
        job,
        attempt = attempt_begun(job),
        latency_ms = millis(job.received_at.elapsed()),
        outcome = outcome.as_str(),
        "{message}"
    );
    debug!(event_id = job.event.id.as_str(), trace_id = job.span.trace_id(), "Event settled");
}

pub(super) fn log_dead_letter(job: &Job, reason: DeadLetterReason, error: &str) {
    let message = match reason {
        DeadLetterReason::RetriesUsedUp => {
            "Retries and receives used up: the event goes to the dead-letter queue, and its message group goes on"
        }
        DeadLetterReason::RetentionEnds => {
            "SQS drops the event's message soon: it goes to the dead-letter queue"
        }
        DeadLetterReason::Poison(_)
        | DeadLetterReason::IdReused
        | DeadLetterReason::Rejected
        | DeadLetterReason::Forbidden
        | DeadLetterReason::MoneyWithoutSeat => {
            "Event can never succeed: it goes to the dead-letter queue"
        }
    };
    log_job!(
        error,
        job,
        attempt = attempt_begun(job),
        latency_ms = millis(job.received_at.elapsed()),
        outcome = Outcome::Failed.as_str(),
        error,
        reason = reason.as_str(),
        "{message}"
    );
}

/// Returns the attempt's number, from 1; `None` if no attempt was begun.
pub(super) fn attempt_begun(job: &Job) -> Option<u32> {
    (job.attempt > 0).then_some(job.attempt)
}

pub(super) fn end_span(job: Box<Job>, outcome: Outcome, failure: Option<(&str, &str)>) {
    let Job { span, attempt, .. } = *job;
    let failure = failure.map(|(error_type, message)| SpanFailure { error_type, message });
    span.end(outcome.as_str(), attempt, failure);
}

/// Returns the error code and the error text of an attempt's end.
pub(super) fn describe(attempt_outcome: &AttemptOutcome) -> (String, String) {
    let (_, code) = class_and_code(attempt_outcome);
    (code.into_owned(), error_text(attempt_outcome))
}

/// Returns the class and the code of an attempt's end, each from a fixed set. Where the class says
/// all, the code is the same word.
pub(super) fn class_and_code(attempt_outcome: &AttemptOutcome) -> (&'static str, Cow<'_, str>) {
    let word = match attempt_outcome {
        AttemptOutcome::Applied | AttemptOutcome::Superseded { .. } => "",
        AttemptOutcome::Failed { error, .. }
        | AttemptOutcome::Parked { error: Some(error), .. } => {
            return (error.class.as_str(), Cow::Borrowed(&*error.code));
        }
        AttemptOutcome::Parked { error: None, how, .. } => {
            return ("waiting", Cow::Borrowed(if how.is_full { "full" } else { "away" }));
        }
        AttemptOutcome::Unclear { .. } => "unclear_status",
        AttemptOutcome::HoldUnknown => "invalid_event",
        AttemptOutcome::MoneyWithoutSeat { .. } => "money_without_seat",
        AttemptOutcome::LeaseLost => "lease_lost",
        AttemptOutcome::Store(_) => "store",
        AttemptOutcome::Panicked => "panic",
    };
    (word, Cow::Borrowed(word))
}

/// Returns the text for the log, with what a service said.
fn error_text(attempt_outcome: &AttemptOutcome) -> String {
    match attempt_outcome {
        AttemptOutcome::Applied | AttemptOutcome::Superseded { .. } => String::new(),
        AttemptOutcome::Failed { error, .. }
        | AttemptOutcome::Parked { error: Some(error), .. } => error.to_string(),
        AttemptOutcome::Parked { dependency, error: None, how } => {
            let service = dependency.service().as_str();
            if how.is_full {
                format!("{service} has as many calls at once as it is given")
            } else {
                format!("{service} is away")
            }
        }
        AttemptOutcome::Unclear { found } => {
            format!("the reservation is in status {found}, from which nothing can be decided yet")
        }
        AttemptOutcome::HoldUnknown => HOLD_UNKNOWN.to_owned(),
        AttemptOutcome::MoneyWithoutSeat { detail } => detail.clone(),
        AttemptOutcome::LeaseLost => "the lease was lost".to_owned(),
        AttemptOutcome::Store(error @ (StoreError::NotOwner(_) | StoreError::Away { .. })) => {
            error.to_string()
        }
        AttemptOutcome::Store(
            error @ (StoreError::Unavailable { .. } | StoreError::Unreadable(_)),
        ) => format!("idempotency store: {error}"),
        AttemptOutcome::Panicked => "the handler panicked".to_owned(),
    }
}
