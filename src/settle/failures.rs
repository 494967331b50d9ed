//! The last failures, for operators. Holds no text that a service or a sender wrote.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::report::class_and_code;
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
        let code = if code == class { String::new() } else { code.into_owned() };
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
