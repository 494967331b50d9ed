//! Circuit breaker of one service: admission of calls, and state transitions.
//! Plain data; time is a parameter. [`evidence`](super::evidence) judges the answers.

mod change;
mod probing;
mod snapshot;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

pub use self::change::Due;
pub(super) use self::change::{Change, Entered, Trouble};
pub(super) use self::probing::probe_wait;
use self::probing::{Down, LOST_AFTER};
use super::evidence::{BegunCall, Evidence, FailureKind, Proof};
use super::limit::{Bounds, Limit, LimitStep, Sample};
use super::{CallOutcome, Waiting};
use crate::client::Load;

/// Calls of the limit per suspect: a quarter of the permits is for suspects.
const CALLS_PER_SUSPECT: usize = 4;

/// Minimum pause, for a service that names no time or a very short one.
const PAUSE_MIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum BreakerPhase {
    Serving,
    Down(Down),
    /// Also ended by a call that succeeds and began after call `begun`, the last paced one.
    Paused {
        until: Instant,
        begun: u64,
    },
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: BreakerPhase,
    evidence: Evidence,
    /// `None`: calls are not limited.
    limit: Option<Limit>,
    in_flight: usize,
    suspects_in_flight: usize,
    /// Events released that have not called yet, and the time of the last release.
    let_go: usize,
    let_go_at: Option<Instant>,
    /// A call was refused a permit, and its event may still wait.
    has_waiting: bool,
    /// Number of outages so far.
    outages: u64,
    /// Time of the last recovery, or the start of the process.
    called_since: Instant,
}

impl Breaker {
    pub(super) fn new(limit: Option<Limit>) -> Self {
        Self {
            state: BreakerPhase::Serving,
            evidence: Evidence::default(),
            limit,
            in_flight: 0,
            suspects_in_flight: 0,
            let_go: 0,
            let_go_at: None,
            has_waiting: false,
            outages: 0,
            called_since: Instant::now(),
        }
    }

    pub(super) fn enter(&mut self, subject: u64, now: Instant) -> Entered {
        let entered = self.try_enter(subject, now);
        self.has_waiting |= !matches!(entered, Entered::Go(_));
        entered
    }

    fn try_enter(&mut self, subject: u64, now: Instant) -> Entered {
        self.end_pause(now);
        let is_fresh = self.evidence.is_fresh(subject);
        let is_away = self.is_away(now);
        let is_probe = match &mut self.state {
            BreakerPhase::Paused { .. } if is_away => return Entered::Away { is_fresh },
            BreakerPhase::Paused { .. } => return Entered::Full { is_fresh, is_suspect: false },
            BreakerPhase::Serving => false,
            BreakerPhase::Down(down) => {
                if !down.may_enter(is_fresh, self.has_waiting, now) {
                    return Entered::Away { is_fresh };
                }
                down.begin_probe(now);
                true
            }
        };
        let is_suspect = self.evidence.is_suspect(subject) && !self.evidence.are_others_paced(now);
        if !is_probe && (self.free(now) == 0 || is_suspect && self.free_for_suspects() == 0) {
            // A released event that gets no permit frees its place for the next one.
            self.let_go = self.let_go.saturating_sub(1);
            return Entered::Full { is_fresh, is_suspect };
        }
        if let Some(limit) = &mut self.limit {
            limit.begin(now);
        }
        self.in_flight += 1;
        self.let_go = self.let_go.saturating_sub(1);
        let call = self.evidence.begin(subject, is_probe);
        self.suspects_in_flight += usize::from(call.is_suspect);
        Entered::Go(call)
    }

    /// Ends a call that this process gave up before an answer.
    pub(super) fn cancel(&mut self, call: BegunCall, now: Instant) {
        self.end(call);
        if call.is_probe
            && let BreakerPhase::Down(down) = &mut self.state
        {
            down.next_probe = now;
        }
    }

    fn end(&mut self, call: BegunCall) {
        self.in_flight -= 1;
        self.suspects_in_flight -= usize::from(call.is_suspect);
        if call.is_probe
            && let BreakerPhase::Down(down) = &mut self.state
            && call.number > down.begun
        {
            down.probes_open = down.probes_open.saturating_sub(1);
        }
    }

    /// Records an answer. Returns the state change and the direction of the limit's change.
    pub(super) fn report(
        &mut self,
        call: BegunCall,
        outcome: CallOutcome,
        load: Load,
        took: Duration,
        now: Instant,
    ) -> (Option<Change>, Option<LimitStep>) {
        let in_flight = self.in_flight;
        self.end(call);
        // A suspect that times out or is refused is no sample of the service's capacity.
        let is_own = matches!(load, Load::TimedOut | Load::Refused)
            && self.evidence.is_suspect(call.subject)
            && !(load == Load::Refused && self.evidence.are_others_paced(now));
        let load = if is_own { Load::Unknown } else { load };
        let step = self.add_sample(call, load, took, in_flight, now);
        let change = match outcome {
            CallOutcome::Conflict => {
                self.evidence.add_answer(call);
                self.come_back(call, true, now)
            }
            CallOutcome::Done => {
                self.evidence.add_success(call, now);
                self.come_back(call, true, now)
            }
            CallOutcome::Outage => self.failed(call, FailureKind::Outage, took, now),
            CallOutcome::Failing => self.failed(call, FailureKind::Failing, took, now),
            CallOutcome::Paced(wait) => self.failed(
                call,
                FailureKind::Paced(now + wait.unwrap_or_default().max(PAUSE_MIN)),
                took,
                now,
            ),
            CallOutcome::Refused => self.failed(call, FailureKind::Refused, took, now),
        };
        (change, step)
    }

    fn add_sample(
        &mut self,
        call: BegunCall,
        load: Load,
        took: Duration,
        in_flight: usize,
        at: Instant,
    ) -> Option<LimitStep> {
        let begun = self.evidence.begun();
        let limit = self.limit.as_mut().filter(|_| matches!(self.state, BreakerPhase::Serving))?;
        limit.add(Sample { number: call.number, begun, took, load, in_flight, at })
    }

    fn failed(
        &mut self,
        call: BegunCall,
        kind: FailureKind,
        took: Duration,
        now: Instant,
    ) -> Option<Change> {
        self.evidence.add_failure(call, kind, now);
        match &mut self.state {
            BreakerPhase::Serving => self.judge(now),
            BreakerPhase::Paused { .. } => None,
            // Any answer shows that the service is up. A service that refuses all calls must show
            // that anew.
            BreakerPhase::Down(Down { trouble: Trouble::Away | Trouble::Failing, .. })
                if kind == FailureKind::Refused =>
            {
                let back = self.come_back(call, false, now);
                self.judge(now).or(back)
            }
            BreakerPhase::Down(down) => {
                if call.is_probe && call.number > down.begun {
                    down.probe_failed(took);
                }
                None
            }
        }
    }

    fn judge(&mut self, now: Instant) -> Option<Change> {
        if !matches!(self.state, BreakerPhase::Serving) {
            return None;
        }
        match self.evidence.proof(self.in_flight, now)? {
            Proof::Away => self.go_down(Trouble::Away, now),
            Proof::Failing => self.go_down(Trouble::Failing, now),
            Proof::Refusing => self.go_down(Trouble::Refusing, now),
            Proof::Paced(until) => {
                self.state = BreakerPhase::Paused { until, begun: self.evidence.run_ends() };
                self.evidence.begin_pause();
                if let Some(limit) = &mut self.limit {
                    limit.pause(now);
                }
                Some(Change::Paced { wait: until.saturating_duration_since(now) })
            }
        }
    }

    fn go_down(&mut self, trouble: Trouble, now: Instant) -> Option<Change> {
        let reservations = self.evidence.count(|kind| match trouble {
            Trouble::Away | Trouble::Failing => {
                matches!(kind, FailureKind::Outage | FailureKind::Failing)
            }
            Trouble::Refusing => kind == FailureKind::Refused,
        });
        self.outages += 1;
        self.let_go = 0;
        if let Some(limit) = &mut self.limit {
            limit.go_down(now);
        }
        self.state = BreakerPhase::Down(Down::new(
            trouble,
            self.evidence.begun(),
            self.evidence.succeeded(),
            now,
        ));
        let within = self.evidence.run_lasts(now);
        Some(Change::Down { trouble, reservations, within })
    }

    /// Ends an outage, for an answered call that began while the service was down.
    /// Ends a pause, for a call that succeeded and began after the last paced one of the run.
    fn come_back(&mut self, call: BegunCall, is_success: bool, now: Instant) -> Option<Change> {
        if let BreakerPhase::Paused { begun, .. } = self.state
            && call.number > begun
        {
            self.serve_again();
            return None;
        }
        let BreakerPhase::Down(Down { trouble, since, begun, succeeded, .. }) = self.state else {
            return None;
        };
        if call.number <= begun {
            return None;
        }
        self.state = BreakerPhase::Serving;
        self.evidence.begin_anew(succeeded, is_success, now);
        self.called_since = now;
        if let Some(limit) = &mut self.limit {
            limit.after_outage(self.evidence.begun());
        }
        Some(Change::Back { trouble, after: now.saturating_duration_since(since) })
    }

    /// Sets new bounds of the limit, if calls are limited.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.limit.iter_mut().for_each(|limit| limit.set_bounds(bounds));
    }

    /// Drops a rate that restricts no call.
    pub(super) fn forget(&mut self, now: Instant) {
        self.limit.iter_mut().for_each(|limit| limit.forget(now));
    }

    fn end_pause(&mut self, now: Instant) {
        if let BreakerPhase::Paused { until, .. } = self.state
            && until <= now
        {
            self.serve_again();
        }
    }

    fn serve_again(&mut self) {
        self.state = BreakerPhase::Serving;
        if let Some(limit) = &mut self.limit {
            limit.after_outage(self.evidence.begun());
        }
    }

    /// Returns for how long the service has been down, or called; `None` in the other state.
    pub(super) fn lasts(&self, is_down: bool, now: Instant) -> Option<Duration> {
        let since = match &self.state {
            BreakerPhase::Down(down) => is_down.then_some(down.since),
            BreakerPhase::Serving | BreakerPhase::Paused { .. } => {
                (!is_down).then_some(self.called_since)
            }
        };
        since.map(|since| now.saturating_duration_since(since))
    }

    /// Records that another part of the service succeeds: a failure here is the event's own.
    pub(super) fn others_do_well(&mut self) {
        self.evidence.others_do_well();
    }

    /// Makes a probe due now, as another part of the service is back.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let BreakerPhase::Down(down) = &mut self.state {
            down.next_probe = now;
        }
    }

    /// Returns the free permits of suspects: a quarter of the limit, at least one in total.
    fn free_for_suspects(&self) -> usize {
        fail_point!("suspects::unbounded", |_| usize::MAX);
        self.limit.as_ref().map_or(usize::MAX, |limit| {
            (limit.calls() / CALLS_PER_SUSPECT).max(1).saturating_sub(self.suspects_in_flight)
        })
    }

    fn free(&mut self, now: Instant) -> usize {
        self.limit.as_mut().map_or(usize::MAX, |limit| limit.free(self.in_flight, now))
    }

    /// Returns how many waiting events may be released, and when to ask again.
    pub(super) fn due(&mut self, waiting: Waiting, now: Instant) -> (Due, Option<Instant>) {
        self.end_pause(now);
        self.has_waiting = waiting.total() > 0;
        match &mut self.state {
            BreakerPhase::Paused { until, .. } => (Due::Calls(0), Some(*until)),
            BreakerPhase::Down(down) => down.due(waiting, now),
            BreakerPhase::Serving => {
                if self.let_go_at.is_some_and(|at| now.saturating_duration_since(at) >= LOST_AFTER)
                {
                    self.let_go = 0;
                }
                let free = if waiting.total() > 0 { self.free(now) } else { 0 };
                // Suspects come last, and no more of them than have a permit free.
                let suspects = waiting.suspects.min(self.free_for_suspects());
                let may_go = waiting.total() - waiting.suspects + suspects;
                let calls = free.saturating_sub(self.let_go).min(may_go);
                if calls > 0 {
                    self.let_go += calls;
                    self.let_go_at = Some(now);
                }
                let lost_at = (self.let_go > 0).then_some(now + LOST_AFTER);
                let limit = self.limit.as_ref().filter(|_| may_go > calls);
                let next_at = limit.and_then(|limit| limit.next(self.let_go + 1, now));
                (Due::Calls(calls), [lost_at, next_at].into_iter().flatten().min())
            }
        }
    }
}
