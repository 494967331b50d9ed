//! What the answers of one service prove: plain data, time is handed in.
//!
//! Only *fresh* calls are evidence of a failure: calls for distinct reservations that have not failed at this service
//! before in this process. A reservation that goes on failing says nothing more about the service. Every success is
//! evidence, whoever had it.
//!
//! Calls are numbered as they begin. A success proves something about the calls that began before it, and nothing about
//! those that began later: the *run* is the fresh failures that began after the latest call that succeeded.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::{HashMap, HashMapExt};
use tokio::time::Instant;

use super::window::Window;
use crate::sabotage::{Sabotage, on};

/// How long a failure counts as evidence.
const RUN_LASTS: Duration = Duration::from_secs(20);

/// Failures kept in a run. Where a service fails so often that so many prove nothing, time does.
const RUN_MAX: usize = 128;

/// Fresh failures without a success from which a service may be down.
const FAILURES_MIN: usize = 5;

/// Fresh refusals without a success from which a service refuses everybody. Each may have cost a dead letter.
const REFUSALS_MIN: usize = 5;

/// Fresh reservations that must be paced before the whole service is paused.
const PACED_MIN: usize = 2;

/// A run counts where a service that fails as often as lately would show it once in so many times, whatever comes of the
/// calls that are open: failures may be faster than successes. With one call in ten failing at 50 calls a second, that is a
/// false alarm every half an hour at most, which costs one probe.
const CHANCE_MAX: f64 = 1e-5;

/// What counts beside what was seen, as (calls, failed): a service of which nothing is known is taken to fail one call in
/// twenty; one that has just come back one in two, until it has shown better: then 17 that fail in a row take it down again,
/// and a few that go on failing alone do not.
const UNKNOWN: (f64, f64) = (1.0, 0.05);
const JUST_BACK: (f64, f64) = (2.0, 1.0);

/// Reservations that are remembered as failed. As many as may be held: `MAX_IN_FLIGHT` at its largest.
const FAILED_MAX: usize = 20_000;

/// A call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Its place among all that began.
    pub(super) number: u64,
    /// A hash of what it is for: a reservation, or an event at the store.
    pub(super) subject: u64,
    /// The subject had not failed here before.
    pub(super) is_fresh: bool,
    /// It finds out whether the service serves again.
    pub(super) is_probe: bool,
    /// The subject fails while others do well.
    pub(super) is_suspect: bool,
}

/// How a call failed, as far as the service is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The service, or the way to it, is at fault: 503, no connection, and their like.
    Outage,
    /// 500 and its like.
    Failing,
    /// An answer that is permanent.
    Refused,
    /// The service wants to be called again then, or later.
    Paced(Instant),
}

/// What a run proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The service, or the way to it, fails for everybody.
    Away,
    /// The service fails for everybody with 500 and its like.
    Failing,
    /// The service refuses everybody.
    Refusing,
    /// The service wants to be called by nobody until then.
    Paced(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    number: u64,
    subject: u64,
    at: Instant,
    kind: Kind,
    is_fresh: bool,
}

/// The evidence about one service.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    begun: u64,
    /// The latest call to begin of those that succeeded.
    succeeded: u64,
    /// Calls that had begun when another part of the service did well, and one more.
    others: u64,
    run: VecDeque<Failure>,
    window: Window,
    /// When it came back last.
    back_at: Option<Instant>,
    failed: FailedBefore,
    /// The first failure after which nothing has succeeded.
    failing_since: Option<Instant>,
}

impl Evidence {
    pub(super) fn begin(&mut self, subject: u64, is_probe: bool) -> Begun {
        self.begun += 1;
        let is_fresh = self.is_fresh(subject);
        let is_suspect = self.is_suspect(subject);
        Begun { number: self.begun, subject, is_fresh, is_probe, is_suspect }
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

    pub(super) fn add_success(&mut self, call: Begun, now: Instant) {
        if call.is_fresh {
            self.window.add_success(now);
        } else {
            self.failed.remove(call.subject);
        }
        self.add_answer(call);
    }

    /// The service works, and the call has not done what the event needs.
    pub(super) fn add_answer(&mut self, call: Begun) {
        if call.number > self.succeeded {
            self.succeeded = call.number;
            while self.run.front().is_some_and(|failure| failure.number < call.number) {
                self.run.pop_front();
            }
            self.failing_since = self.run.front().map(|failure| failure.at);
        }
    }

    pub(super) fn add_failure(&mut self, call: Begun, kind: Kind, now: Instant) {
        if call.is_fresh {
            match kind {
                Kind::Outage | Kind::Failing => self.window.add_failure(now),
                Kind::Paced(_) => self.window.add_paced(now),
                Kind::Refused => self.window.add_refused(now),
            }
        }
        let is_paced = matches!(kind, Kind::Paced(_));
        // Being told to come later says something as long as nobody fares better, however often it is said; and it adds to
        // what those say who are told so for the first time.
        let is_fresh = call.is_fresh
            || is_paced && !self.is_suspect(call.subject)
            || on(Sabotage::SuspectCounted);
        if (is_fresh || is_paced) && call.number > self.succeeded {
            let Begun { number, subject, .. } = call;
            self.add_to_run(Failure { number, subject, at: now, kind, is_fresh });
        }
        if kind != Kind::Refused && !self.is_suspect(call.subject) {
            self.failing_since.get_or_insert(now);
        }
        self.failed.add(call.subject, self.begun);
    }

    fn add_to_run(&mut self, failure: Failure) {
        if let Some(other) = self.run.iter_mut().find(|other| other.subject == failure.subject) {
            other.kind = failure.kind;
            return;
        }
        if self.run.len() == RUN_MAX {
            self.run.pop_front();
        }
        // Answers come in another order than the calls began.
        let at = self.run.partition_point(|other| other.number < failure.number);
        self.run.insert(at, failure);
    }

    /// Whether others have succeeded, in calls that began after this subject failed for the first time: then its
    /// failures are its own.
    pub(super) fn is_suspect(&self, subject: u64) -> bool {
        self.failed.since(subject).is_some_and(|begun| self.succeeded.max(self.others) > begun)
    }

    /// Another part of the service does well.
    pub(super) fn others_do_well(&mut self) {
        self.others = self.begun + 1;
    }

    /// Whether others were paced lately: then being paced is not this event's own.
    pub(super) fn are_others_paced(&mut self, now: Instant) -> bool {
        self.window.totals(now).paced >= 2
    }

    /// For how long there has been a run.
    pub(super) fn run_lasts(&self, now: Instant) -> Duration {
        self.run.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.at))
    }

    /// For how long nothing has succeeded.
    pub(super) fn failing_for(&self, now: Instant) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Distinct reservations in the run that failed in that way.
    pub(super) fn count(&self, is_it: impl Fn(Kind) -> bool) -> usize {
        self.run.iter().filter(|failure| is_it(failure.kind)).count()
    }

    /// The latest call to begin of the run.
    pub(super) fn run_ends(&self) -> u64 {
        self.run.back().map_or(0, |failure| failure.number)
    }

    /// What the run proves now, while so many calls are open.
    pub(super) fn proof(&mut self, in_flight: usize, now: Instant) -> Option<Proof> {
        self.run.retain(|failure| now.saturating_duration_since(failure.at) < RUN_LASTS);
        let paced_min = if on(Sabotage::PauseForOne) { 1 } else { PACED_MIN };
        if self.run.len() < paced_min {
            return None;
        }
        let seen = self.window.totals(now);
        // Of those that began since the latest success.
        let since = usize::try_from(self.begun - self.succeeded).unwrap_or(usize::MAX);
        let open = in_flight.min(since.saturating_sub(self.run.len()));
        let refusals = self.count(|kind| kind == Kind::Refused);
        if refusals >= REFUSALS_MIN
            && !on(Sabotage::RefusalsUnseen)
            && (open == 0
                || seen.refused == seen.calls
                || is_improbable(refusals, seen.refused, seen.calls, open, UNKNOWN))
        {
            return Some(Proof::Refusing);
        }
        let prior = if self.is_just_back(now) { JUST_BACK } else { UNKNOWN };
        let outages = self.count(|kind| kind == Kind::Outage);
        let failures = outages + self.count(|kind| kind == Kind::Failing);
        if failures >= FAILURES_MIN
            && (self.failing_for(now) >= RUN_LASTS
                || is_improbable(failures, seen.failures, seen.calls, open, prior))
        {
            return Some(if outages > 0 { Proof::Away } else { Proof::Failing });
        }
        let paced = self.count(|kind| matches!(kind, Kind::Paced(_)));
        let is_paced = |failure: &&Failure| matches!(failure.kind, Kind::Paced(_));
        let fresh = self.run.iter().filter(is_paced).filter(|failure| failure.is_fresh).count();
        if fresh >= paced_min
            && (on(Sabotage::PauseForOne)
                || is_improbable(paced, seen.paced, seen.calls, open, prior))
        {
            return self.paced_until(paced_min, now).map(Proof::Paced);
        }
        None
    }

    /// The time for which so many at least want nobody: what one event is told may hold for it alone.
    fn paced_until(&self, paced_min: usize, now: Instant) -> Option<Instant> {
        let times = self.run.iter().filter_map(|failure| match failure.kind {
            Kind::Paced(until) => (until > now).then_some(until),
            Kind::Outage | Kind::Failing | Kind::Refused => None,
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times.into_iter().nth_back(paced_min - 1)
    }

    fn is_just_back(&self, now: Instant) -> bool {
        self.back_at.is_some_and(|at| now.saturating_duration_since(at) < RUN_LASTS)
    }

    /// The service is back: how often it failed while it was down says nothing about how often it fails now.
    /// Nor is it a reservation's own fault that it failed when nobody had succeeded since `succeeded`.
    pub(super) fn begin_anew(&mut self, succeeded: u64, is_success: bool, now: Instant) {
        self.failed.forget_since(succeeded);
        self.window.clear();
        if is_success {
            self.window.add_success(now);
        }
        self.back_at = Some(now);
        self.run.retain(|failure| failure.kind == Kind::Refused);
    }

    /// A pause begins: what led to it has been acted upon, and is not how the service fares as a rule.
    pub(super) fn begin_pause(&mut self) {
        self.run.clear();
        self.window.clear();
    }
}

/// Whether `run` failures in a row are not what a service shows that fails as often as it did before, by what was seen and what
/// counts beside it: even where all the calls that are `open` succeed.
fn is_improbable(run: usize, failed: u32, calls: u32, open: usize, prior: (f64, f64)) -> bool {
    let [run, open] = [run, open].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    // The run itself is among what was seen, but for what is too old for that.
    let before = f64::from(failed.saturating_sub(run)) + prior.1;
    let chance = before / (f64::from(calls.saturating_sub(run)) + prior.0);
    // So many of so many: `run` of `run + open`.
    let ways = |n: u32| chance * (f64::from(open) + f64::from(n)) / f64::from(n);
    (1..=run).map(ways).product::<f64>() <= CHANCE_MAX
}

/// Who has failed before: a bounded memory, the oldest goes first.
#[derive(Debug, Default)]
struct FailedBefore {
    /// How many calls had begun when it failed for the first time.
    since: HashMap<u64, u64>,
    /// In order of failing; what was removed stays until its turn comes.
    order: VecDeque<u64>,
}

impl FailedBefore {
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

    /// Forgets those that failed for the first time after so many calls had begun.
    fn forget_since(&mut self, begun: u64) {
        self.since.retain(|_, since| *since <= begun);
        self.order.retain(|subject| self.since.contains_key(subject));
    }

    fn remove(&mut self, subject: u64) {
        self.since.remove(&subject);
        if self.since.is_empty() {
            // Gives the memory of a bad hour back.
            (self.since, self.order) = (HashMap::new(), VecDeque::new());
        }
    }
}
