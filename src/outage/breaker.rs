//! One breaker: plain data and its transitions; time is handed in. A reservation is known by a hash
//! of its id: all that matters is whether two failures are of the same one.

use std::time::Duration;

use tokio::time::Instant;

use super::window::Window;
use super::{Answer, Sign};
use crate::metrics::BreakerState;
use crate::retry::Backoff;

/// Failures in a row that open it: more than bad luck, less than a second of a busy worker's calls.
const OPEN_AFTER: u32 = 5;

/// Refusals in a row, each of another reservation, that open it. Each of them has been dead-lettered,
/// so it takes fewer of them.
const OPEN_AFTER_REFUSALS: u32 = 3;

/// Calls in the window from which on their failures are a ratio to go by.
const RATIO_CALLS_MIN: u32 = 20;

/// It opens when at least one in so many calls of the window is of the outage class.
const RATIO_ONE_IN: u32 = 2;

/// The wait before a probe: from 1 s, doubling to 30 s. Not drawn at random: the probe is one call,
/// and its own jitter is when the breaker opened.
const PROBE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };

/// An event that was let go and has not called by then was lost on its way: another one is let go.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(1);

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Its place among all that began.
    pub(super) number: u64,
    pub(super) is_probe: bool,
    /// The latest to begin of those that had gone well by then.
    pub(super) well: u64,
}

/// What a call has changed, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened { failures: u32, wait: Duration },
    Back { away: Duration },
    Paced { wait: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        probes: u32,
    },
    HalfOpen {
        probes: u32,
    },
    /// As many calls at once as `limit`.
    Ramping {
        limit: usize,
    },
}

/// Failures in a row, with no success between.
#[derive(Debug, Default)]
struct Streak {
    failures: u32,
    refusals: u32,
    /// The first to fail; another one shows that it is not that event's fault.
    first: Option<u64>,
    is_shared: bool,
    last_refused: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    calls_max: usize,
    in_flight: usize,
    streak: Streak,
    window: Window,
    away_since: Option<Instant>,
    paced_until: Option<Instant>,
    /// Calls are numbered as they begin.
    begun: u64,
    /// The latest to begin of those that went well.
    well: u64,
    openings: u64,
    shared_count: u64,
}

impl Breaker {
    pub(super) fn new(calls_max: usize) -> Self {
        Self {
            state: State::Closed,
            calls_max,
            in_flight: 0,
            streak: Streak::default(),
            window: Window::default(),
            away_since: None,
            paced_until: None,
            begun: 0,
            well: 0,
            openings: 0,
            shared_count: 0,
        }
    }

    /// `Some`: go on.
    pub(super) fn enter(&mut self, now: Instant) -> Option<Begun> {
        if self.is_paced(now) {
            return None;
        }
        let is_probe = match self.state {
            State::Closed => false,
            State::Open { until, probes } if until <= now => {
                self.state = State::HalfOpen { probes };
                true
            }
            State::Ramping { limit } if self.in_flight < limit => false,
            State::Open { .. } | State::HalfOpen { .. } | State::Ramping { .. } => return None,
        };
        self.in_flight += 1;
        self.begun += 1;
        Some(Begun { number: self.begun, is_probe, well: self.well })
    }

    /// The call was never answered, by our own doing.
    pub(super) fn cancel(&mut self, call: Begun, now: Instant) {
        self.in_flight -= 1;
        if call.is_probe
            && let State::HalfOpen { probes } = self.state
        {
            self.state = State::Open { until: now, probes };
        }
    }

    /// What is known once that call was booked.
    pub(super) fn answer(&self, call: Begun) -> Answer {
        let called = matches!(self.state, State::Closed | State::Ramping { .. });
        Answer {
            called,
            begun: self.begun,
            well: self.well,
            well_before: call.well,
            shared_count: self.shared_count,
            is_shared: self.streak.is_shared,
            openings: self.openings,
        }
    }

    /// Whether a call would be refused, but for the number of those that are open.
    pub(super) fn is_away_at(&self, now: Instant) -> bool {
        match self.state {
            State::Open { until, .. } => now < until,
            State::HalfOpen { .. } => true,
            State::Closed | State::Ramping { .. } => false,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// What a gauge shows.
    pub(super) fn shown(&self, now: Instant) -> BreakerState {
        match self.state {
            _ if self.is_paced(now) => BreakerState::Open,
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } | State::Ramping { .. } => BreakerState::HalfOpen,
        }
    }

    /// How many parked events may go on, and when to ask again.
    pub(super) fn due(&mut self, now: Instant) -> (usize, Option<Instant>) {
        if let Some(until) = self.paced_until
            && now < until
        {
            return (0, Some(until));
        }
        match self.state {
            State::Closed => (usize::MAX, None),
            State::Open { until, .. } if now < until => (0, Some(until)),
            State::Open { .. } => (1, Some(now + PROBE_LOST_AFTER)),
            State::HalfOpen { .. } => (0, None),
            State::Ramping { limit } => {
                let free = limit.saturating_sub(self.in_flight);
                // Those who are let go may be lost on their way here.
                (free, (free > 0).then_some(now + PROBE_LOST_AFTER))
            }
        }
    }

    pub(super) fn report(
        &mut self,
        call: Begun,
        sign: Sign,
        reservation: u64,
        now: Instant,
    ) -> Option<Change> {
        self.in_flight -= 1;
        let is_probe = call.is_probe;
        match sign {
            Sign::Well => {
                self.window.add(None, now);
                self.well = self.well.max(call.number);
                self.went_well(is_probe, now)
            }
            Sign::Paced(wait) => {
                self.window.add(None, now);
                self.paced(is_probe, wait, now)
            }
            Sign::Outage => {
                self.window.add(Some(reservation), now);
                self.failed(is_probe, sign, reservation, now)
            }
            Sign::Failure | Sign::Refusal => self.failed(is_probe, sign, reservation, now),
        }
    }

    fn went_well(&mut self, is_probe: bool, now: Instant) -> Option<Change> {
        self.streak = Streak::default();
        match self.state {
            State::Closed => None,
            // An answer to a call from before it opened proves nothing about now.
            State::Open { .. } => None,
            State::HalfOpen { .. } if !is_probe => None,
            State::HalfOpen { .. } => {
                self.state = self.ramp(2);
                self.window.clear();
                self.back(now)
            }
            State::Ramping { limit } => {
                self.state = self.ramp(limit + 1);
                None
            }
        }
    }

    fn back(&mut self, now: Instant) -> Option<Change> {
        let away = self.away_since.take().map_or(Duration::ZERO, |since| now - since);
        Some(Change::Back { away })
    }

    fn ramp(&self, limit: usize) -> State {
        if limit >= self.calls_max { State::Closed } else { State::Ramping { limit } }
    }

    /// A service that can say when it wants to be called is well enough to be called then.
    fn paced(&mut self, is_probe: bool, wait: Duration, now: Instant) -> Option<Change> {
        self.streak = Streak::default();
        let until = now + wait;
        let was_paced = self.is_paced(now);
        self.paced_until = Some(self.paced_until.map_or(until, |before| before.max(until)));
        let is_late = match self.state {
            State::Closed | State::Ramping { .. } => false,
            // An answer to a call from before it opened proves nothing about now.
            State::Open { .. } => true,
            State::HalfOpen { .. } => !is_probe,
        };
        if is_late {
            return None;
        }
        self.state = self.ramp(1);
        if self.away_since.is_some() {
            return self.back(now);
        }
        (!was_paced).then_some(Change::Paced { wait })
    }

    fn failed(
        &mut self,
        is_probe: bool,
        sign: Sign,
        reservation: u64,
        now: Instant,
    ) -> Option<Change> {
        let was_shared = self.streak.is_shared;
        self.streak.add(sign, reservation);
        self.shared_count += u64::from(self.streak.is_shared && !was_shared);
        let is_away = self.is_away(sign, now);
        match self.state {
            State::Open { .. } => None,
            State::HalfOpen { probes } if is_probe => {
                self.open(probes + 1, now);
                None
            }
            State::HalfOpen { .. } => None,
            State::Closed | State::Ramping { .. } if is_away => {
                let failures = self.streak.failures;
                self.away_since = Some(now);
                self.openings += 1;
                let wait = self.open(0, now);
                Some(Change::Opened { failures, wait })
            }
            State::Ramping { limit } => {
                self.state = self.ramp((limit / 2).max(1));
                None
            }
            State::Closed => None,
        }
    }

    /// Several reservations fail, in a row or in a large part: it is not one event's own fault.
    fn is_away(&mut self, sign: Sign, now: Instant) -> bool {
        let streak = &self.streak;
        if streak.refusals >= OPEN_AFTER_REFUSALS {
            return true;
        }
        if streak.is_shared && streak.failures >= OPEN_AFTER {
            return true;
        }
        let seen = self.window.totals(now);
        sign == Sign::Outage
            && seen.is_shared
            && seen.calls >= RATIO_CALLS_MIN
            && seen.failures >= seen.calls / RATIO_ONE_IN
    }

    fn open(&mut self, probes: u32, now: Instant) -> Duration {
        let wait = PROBE.bound(probes);
        self.state = State::Open { until: now + wait, probes };
        wait
    }

    fn is_paced(&self, now: Instant) -> bool {
        self.paced_until.is_some_and(|until| now < until)
    }
}

impl Streak {
    fn add(&mut self, sign: Sign, reservation: u64) {
        self.failures = self.failures.saturating_add(1);
        match &self.first {
            None => self.first = Some(reservation),
            Some(first) => self.is_shared |= *first != reservation,
        }
        if sign == Sign::Refusal {
            if self.last_refused != Some(reservation) {
                self.refusals += 1;
                self.last_refused = Some(reservation);
            }
        } else {
            self.refusals = 0;
            self.last_refused = None;
        }
    }
}

#[cfg(test)]
mod tests;
