//! Evidence about one service. Plain data; time is a parameter.
//!
//! Only *fresh* calls are evidence of a failure: calls for distinct reservations that have not
//! failed at this service before in this process. Repeated failures of one reservation are no
//! further evidence. Every success is evidence.
//!
//! Calls are numbered as they begin. A success proves something about calls that began before it,
//! and nothing about calls that began later. The *run* is the fresh failures that began after the
//! latest-begun call that succeeded.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use ahash::{HashMap, HashMapExt};
use tokio::time::Instant;

use super::window::CallWindow;

/// How long a failure counts as evidence.
const RUN_LASTS: Duration = Duration::from_secs(20);

/// Maximum length of a run. If this many failures prove nothing, the duration of the run does.
const RUN_MAX: usize = 128;

/// Minimum number of fresh failures without a success for an outage.
const FAILURES_MIN: usize = 5;

/// Minimum number of fresh permanent errors without a success to stop all calls. Each may have cost
/// a dead letter.
const REFUSALS_MIN: usize = 5;

/// Minimum number of fresh paced reservations for a pause of the whole service.
const PACED_MIN: usize = 2;

/// Maximum probability of a run at the recent failure rate, whatever the open calls return:
/// failures may be faster than successes. With 10% of calls failing at 50 calls/s, this allows one
/// false alarm per half an hour at most, which costs one probe.
const CHANCE_MAX: f64 = 1e-5;

/// Prior observations as (calls, failed), added to the observed counts. An unknown service is
/// assumed to fail one call in twenty. A service that has just come back is assumed to fail one in
/// two until it shows better: then 17 failures in a row are an outage again, and a few reservations
/// that still fail are not.
const UNKNOWN: (f64, f64) = (1.0, 0.05);
const JUST_BACK: (f64, f64) = (2.0, 1.0);

/// Maximum number of subjects remembered as failed: the maximum of `MAX_IN_FLIGHT`.
const FAILED_MAX: usize = 20_000;

/// A call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BegunCall {
    /// Sequence number in order of beginning.
    pub(super) number: u64,
    /// Hash of the reservation, or of the event for a store call.
    pub(super) subject: u64,
    /// The subject had not failed at this service before.
    pub(super) is_fresh: bool,
    /// Probe of a service that is down.
    pub(super) is_probe: bool,
    /// The subject fails while others succeed.
    pub(super) is_suspect: bool,
}

/// Kind of failure, as evidence about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The service or the connection to it is at fault: 503, no connection, and similar.
    Outage,
    /// 500 and similar status codes.
    Failing,
    /// Permanent error.
    Refused,
    /// The service asks for a retry at this time or later.
    Paced(Instant),
}

/// Conclusion from a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// All calls fail, because of the service or the connection to it.
    Away,
    /// All calls fail with 500 and similar status codes.
    Failing,
    /// All calls return permanent errors.
    Refusing,
    /// The service asks for no calls until this time.
    Paced(Instant),
}

#[derive(Clone, Copy, Debug)]
struct RecordedFailure {
    number: u64,
    subject: u64,
    at: Instant,
    kind: FailureKind,
    is_fresh: bool,
}

/// The evidence about one service.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    begun: u64,
    /// Number of the latest-begun call that succeeded.
    succeeded: u64,
    /// One more than the calls begun when another part of the service last succeeded.
    others: u64,
    run: VecDeque<RecordedFailure>,
    window: CallWindow,
    /// Time of the last recovery.
    back_at: Option<Instant>,
    failed: SuspectHistory,
    /// Time of the first failure after the last success.
    failing_since: Option<Instant>,
}

impl Evidence {
    pub(super) fn begin(&mut self, subject: u64, is_probe: bool) -> BegunCall {
        self.begun += 1;
        let is_fresh = self.is_fresh(subject);
        let is_suspect = self.is_suspect(subject);
        BegunCall { number: self.begun, subject, is_fresh, is_probe, is_suspect }
    }

    pub(super) fn is_fresh(&self, subject: u64) -> bool {
        !self.failed.contains(subject)
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    pub(super) fn succeeded(&self) -> u64 {
        self.succeeded
    }

    pub(super) fn add_success(&mut self, call: BegunCall, now: Instant) {
        if call.is_fresh {
            self.window.add_success(now);
        } else {
            self.failed.remove(call.subject);
        }
        self.add_answer(call);
    }

    /// Records that the service works, for a call that did not do what the event needs.
    pub(super) fn add_answer(&mut self, call: BegunCall) {
        if call.number > self.succeeded {
            self.succeeded = call.number;
            while self.run.front().is_some_and(|failure| failure.number < call.number) {
                self.run.pop_front();
            }
            self.failing_since = self.run.front().map(|failure| failure.at);
        }
    }

    pub(super) fn add_failure(&mut self, call: BegunCall, kind: FailureKind, now: Instant) {
        if call.is_fresh {
            match kind {
                FailureKind::Outage | FailureKind::Failing => self.window.add_failure(now),
                FailureKind::Paced(_) => self.window.add_paced(now),
                FailureKind::Refused => self.window.add_refused(now),
            }
        }
        let is_paced = matches!(kind, FailureKind::Paced(_));
        let is_fresh = self.counts_as_fresh(call, is_paced);
        if (is_fresh || is_paced) && call.number > self.succeeded {
            let BegunCall { number, subject, .. } = call;
            self.add_to_run(RecordedFailure { number, subject, at: now, kind, is_fresh });
        }
        if kind != FailureKind::Refused && !self.is_suspect(call.subject) {
            self.failing_since.get_or_insert(now);
        }
        self.failed.add(call.subject, self.begun);
    }

    /// Returns whether a failure counts as fresh.
    /// A repeated paced answer still does while no other subject succeeds. It adds to the fresh
    /// ones.
    fn counts_as_fresh(&self, call: BegunCall, is_paced: bool) -> bool {
        fail_point!("evidence::repeats-are-fresh", |_| true);
        call.is_fresh || is_paced && !self.is_suspect(call.subject)
    }

    fn add_to_run(&mut self, failure: RecordedFailure) {
        if let Some(other) = self.run.iter_mut().find(|other| other.subject == failure.subject) {
            other.kind = failure.kind;
            return;
        }
        if self.run.len() == RUN_MAX {
            self.run.pop_front();
        }
        // Answers do not arrive in the order in which the calls began.
        let at = self.run.partition_point(|other| other.number < failure.number);
        self.run.insert(at, failure);
    }

    /// Returns whether others succeeded in calls that began after the subject's first failure.
    /// Its failures are then its own.
    pub(super) fn is_suspect(&self, subject: u64) -> bool {
        self.failed.since(subject).is_some_and(|begun| self.succeeded.max(self.others) > begun)
    }

    /// Records that another part of the service succeeds.
    pub(super) fn others_do_well(&mut self) {
        self.others = self.begun + 1;
    }

    /// Returns whether others were paced recently. The cause is then not this event alone.
    pub(super) fn are_others_paced(&mut self, now: Instant) -> bool {
        self.window.totals(now).paced >= 2
    }

    /// Returns the age of the oldest failure in the run.
    pub(super) fn run_lasts(&self, now: Instant) -> Duration {
        self.run.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.at))
    }

    /// Returns the time since the first failure after the last success.
    pub(super) fn failing_for(&self, now: Instant) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Counts the distinct reservations in the run whose failure kind matches.
    pub(super) fn count(&self, is_it: impl Fn(FailureKind) -> bool) -> usize {
        self.run.iter().filter(|failure| is_it(failure.kind)).count()
    }

    /// Returns the number of the latest-begun call of the run.
    pub(super) fn run_ends(&self) -> u64 {
        self.run.back().map_or(0, |failure| failure.number)
    }

    /// Returns the conclusion from the run, with this number of calls open.
    pub(super) fn proof(&mut self, in_flight: usize, now: Instant) -> Option<Proof> {
        self.run.retain(|failure| now.saturating_duration_since(failure.at) < RUN_LASTS);
        if self.run.len() < PACED_MIN {
            return None;
        }
        let seen = self.window.totals(now);
        // Only calls that began after the latest success count as open.
        let since = usize::try_from(self.begun - self.succeeded).unwrap_or(usize::MAX);
        let open = in_flight.min(since.saturating_sub(self.run.len()));
        let refusals = self.refusals();
        if refusals >= REFUSALS_MIN
            && (open == 0
                || seen.refused == seen.calls
                || is_improbable(refusals, seen.refused, seen.calls, open, UNKNOWN))
        {
            return Some(Proof::Refusing);
        }
        let prior = if self.is_just_back(now) { JUST_BACK } else { UNKNOWN };
        let outages = self.count(|kind| kind == FailureKind::Outage);
        let failures = outages + self.count(|kind| kind == FailureKind::Failing);
        if failures >= FAILURES_MIN
            && (self.failing_for(now) >= RUN_LASTS
                || is_improbable(failures, seen.failures, seen.calls, open, prior))
        {
            return Some(if outages > 0 { Proof::Away } else { Proof::Failing });
        }
        let paced = self.count(|kind| matches!(kind, FailureKind::Paced(_)));
        let is_paced = |failure: &&RecordedFailure| matches!(failure.kind, FailureKind::Paced(_));
        let fresh = self.run.iter().filter(is_paced).filter(|failure| failure.is_fresh).count();
        if fresh >= PACED_MIN && is_improbable(paced, seen.paced, seen.calls, open, prior) {
            return self.paced_until(now).map(Proof::Paced);
        }
        None
    }

    /// Counts the distinct reservations in the run that were refused.
    fn refusals(&self) -> usize {
        fail_point!("evidence::refusals-unseen", |_| 0);
        self.count(|kind| kind == FailureKind::Refused)
    }

    /// Returns the latest time until which at least [`PACED_MIN`] reservations were paced.
    /// The time of one reservation may apply to that one alone.
    fn paced_until(&self, now: Instant) -> Option<Instant> {
        let times = self.run.iter().filter_map(|failure| match failure.kind {
            FailureKind::Paced(until) => (until > now).then_some(until),
            FailureKind::Outage | FailureKind::Failing | FailureKind::Refused => None,
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times.into_iter().nth_back(PACED_MIN - 1)
    }

    fn is_just_back(&self, now: Instant) -> bool {
        self.back_at.is_some_and(|at| now.saturating_duration_since(at) < RUN_LASTS)
    }

    /// Resets the evidence after an outage.
    /// Failures during the outage say nothing about the failure rate after it. Subjects that failed
    /// after call `succeeded` began are no suspects, as no call succeeded since.
    pub(super) fn begin_anew(&mut self, succeeded: u64, is_success: bool, now: Instant) {
        self.failed.forget_since(succeeded);
        self.window.clear();
        if is_success {
            self.window.add_success(now);
        }
        self.back_at = Some(now);
        self.run.retain(|failure| failure.kind == FailureKind::Refused);
    }

    /// Resets the evidence at the start of a pause: what led to the pause is not typical.
    pub(super) fn begin_pause(&mut self) {
        self.run.clear();
        self.window.clear();
    }
}

/// Returns whether `run` failures in a row are improbable at the previous failure rate.
/// The rate includes the prior. All `open` calls are assumed to succeed.
fn is_improbable(run: usize, failed: u32, calls: u32, open: usize, prior: (f64, f64)) -> bool {
    let [run, open] = [run, open].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    // The observed counts include the run, except for failures that have left the window.
    let before = f64::from(failed.saturating_sub(run)) + prior.1;
    let chance = before / (f64::from(calls.saturating_sub(run)) + prior.0);
    // Binomial coefficient: `run` of `run + open`.
    let ways = |n: u32| chance * (f64::from(open) + f64::from(n)) / f64::from(n);
    (1..=run).map(ways).product::<f64>() <= CHANCE_MAX
}

/// Subjects that have failed: a bounded set that evicts the oldest first.
#[derive(Debug, Default)]
struct SuspectHistory {
    /// Number of calls begun at the first failure of the subject.
    since: HashMap<u64, u64>,
    /// Subjects in order of failure. Removed subjects stay until they are evicted.
    order: VecDeque<u64>,
}

impl SuspectHistory {
    fn contains(&self, subject: u64) -> bool {
        !self.since.is_empty() && self.since.contains_key(&subject)
    }

    fn since(&self, subject: u64) -> Option<u64> {
        self.since.get(&subject).copied()
    }

    fn add(&mut self, subject: u64, begun: u64) {
        if self.since.contains_key(&subject) {
            return;
        }
        if self.order.len() == FAILED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.since.remove(&oldest);
        }
        self.since.insert(subject, begun);
        self.order.push_back(subject);
    }

    /// Removes the subjects whose first failure came after this number of calls had begun.
    fn forget_since(&mut self, begun: u64) {
        self.since.retain(|_, since| *since <= begun);
        self.order.retain(|subject| self.since.contains_key(subject));
    }

    fn remove(&mut self, subject: u64) {
        self.since.remove(&subject);
        if self.since.is_empty() {
            // Releases memory after a long outage.
            (self.since, self.order) = (HashMap::new(), VecDeque::new());
        }
    }
}
