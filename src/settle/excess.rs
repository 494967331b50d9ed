//! Gives up jobs so that others can continue: too many events fail while others succeed, or too
//! many wait for a part of the store while the other parts are called.

use std::time::Duration;

use super::Settler;
use super::decide::DeadLetterReason;
use super::report::{attempt_begun, end_span};
use crate::clock::{self, millis};
use crate::inflight::{GroupFate, Job, log_job};
use crate::metrics::Outcome;
use crate::outage::Dependency;

/// Visibility delay of such a message. Each receive counts towards the dead-letter queue; a
/// recovery is noticed within a quarter of an hour.
const HIDDEN: Duration = Duration::from_secs(15 * 60);

/// Time for which a part of the store must be away, while other parts are called, before a job is
/// given up. A recovering store returns part by part.
const AWAY_ALONE_MIN: Duration = Duration::from_secs(3);

impl Settler {
    /// Returns the job that has waited longest for a part of the store, if other parts are called
    /// and too many jobs wait.
    pub(super) fn parked_in_excess(&self, dependency: Dependency) -> Option<Box<Job>> {
        let Dependency::Store(_) = dependency else { return None };
        if !self.outages.is_away_alone_for(dependency, AWAY_ALONE_MIN) {
            return None;
        }
        self.inflight.take_parked_in_excess(dependency, self.outages.store_shards_away())
    }

    /// Hands back a job for [`HIDDEN`], or dead-letters it in the last receive of a FIFO group.
    pub(super) async fn give_up_for_others(&self, job: Box<Job>) {
        const WHY: &str = "too many events fail or wait while others do well";
        if self.inflight.group_fate(&job) == GroupFate::LastReceive {
            return self.dead_letter(job, DeadLetterReason::RetriesUsedUp, WHY.to_owned()).await;
        }
        let after = self.inflight.hidden_job(&job, HIDDEN, clock::now());
        self.release_claim(&job).await;
        self.count(&job, Outcome::Failed);
        log_job!(
            error,
            job,
            attempt = attempt_begun(&job),
            latency_ms = millis(job.received_at.elapsed()),
            outcome = Outcome::Failed.as_str(),
            error = WHY,
            receive_count = job.receive_count,
            visible_after_ms = millis(after),
            "Handed back so that other events go on: the queue's redrive policy decides"
        );
        self.release_messages(&job, after).await;
        end_span(job, Outcome::Failed, Some(("given_up", WHY)));
    }
}
