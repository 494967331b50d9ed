//! The last failures, for operators. Holds no text that a service or a sender wrote.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::client::Class;
use crate::event::{EventType, ReservationId};
use crate::handler::AttemptOutcome;
use crate::inflight::Job;

/// Failures kept: the newest ones.
const KEPT_MAX: usize = 50;

/// The last failures of this process.
#[derive(Debug, Default)]
pub struct Failures(Mutex<VecDeque<RecentFailure>>);

/// One failed attempt, or one message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentFailure {
    /// When it failed.
    pub at: SystemTime,
    /// The event's type; `None` if the body is no event.
    pub event_type: Option<EventType>,
    /// The reservation, if it is known.
    pub reservation_id: Option<ReservationId>,
    /// What follows: a retry, a wait for a service, or the reason of giving up.
    pub reason: &'static str,
    /// The class of the failure.
    pub class: &'static str,
    /// The error code, from a fixed set; empty if the class says all.
    pub code: String,
    /// The trace id, as 32 hexadecimal digits.
    pub trace_id: String,
}

impl Failures {
    /// Records a failure, and drops the oldest one if there are too many.
    pub fn add(&self, failure: RecentFailure) {
        let mut kept = self.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(failure);
    }

    /// Records the failed attempt of a job; `reason` says what follows.
    pub(super) fn add_attempt(&self, job: &Job, end: &AttemptOutcome, reason: &'static str) {
        let (class, code) = class_and_code(end);
        self.add_job(job, reason, class, code);
    }

    /// Records the failure of a job.
    pub(super) fn add_job(
        &self,
        job: &Job,
        reason: &'static str,
        class: &'static str,
        code: String,
    ) {
        self.add(RecentFailure {
            at: SystemTime::now(),
            event_type: Some(job.event.event_type()),
            reservation_id: Some(job.event.reservation_id.clone()),
            reason,
            class,
            code,
            trace_id: job.span.trace_id().to_owned(),
        });
    }

    /// Returns the failures, the newest first.
    pub fn latest(&self) -> Vec<RecentFailure> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecentFailure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn class_and_code(end: &AttemptOutcome) -> (&'static str, String) {
    let (class, code) = match end {
        AttemptOutcome::Failed { error, .. }
        | AttemptOutcome::Parked { error: Some(error), .. } => {
            (class_word(error.class), error.code.as_ref())
        }
        AttemptOutcome::Parked { error: None, dependency, .. } => {
            ("waiting", dependency.service().as_str())
        }
        AttemptOutcome::Unclear { .. } => ("unclear_status", ""),
        AttemptOutcome::HoldUnknown => ("invalid_event", ""),
        AttemptOutcome::MoneyWithoutSeat { .. } => ("money_without_seat", ""),
        AttemptOutcome::LeaseLost => ("lease_lost", ""),
        AttemptOutcome::Store(_) => ("store", ""),
        AttemptOutcome::Panicked => ("panic", ""),
        AttemptOutcome::Applied | AttemptOutcome::Superseded { .. } => ("none", ""),
    };
    (class, code.to_owned())
}

const fn class_word(class: Class) -> &'static str {
    match class {
        Class::Outage => "outage",
        Class::Transient => "transient",
        Class::Paced => "paced",
        Class::Conflict => "conflict",
        Class::Forbidden => "forbidden",
        Class::Permanent => "permanent",
        Class::MoneyWithoutSeat => "money_without_seat",
    }
}
