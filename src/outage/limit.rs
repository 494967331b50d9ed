//! Concurrency limit of a service: its in-flight calls, and how the limit adapts.
//!
//! - **With a latency target** ([`aimd`]): additive increase while calls take less than the target,
//!   multiplicative decrease when too many take longer or time out. The operator states the target.
//!   A learned baseline drifts, and processes that join under load learn a bad one.
//! - **Without one** ([`timeouts`]): the number of workers, half of it if too many calls time out.
//! - **Refusals**, in both ([`pacing`]): if 429 and similar show a limit of calls/s, calls begin at
//!   that rate.
//! - **After an outage**, in both: a slow start, which doubles with each round of answers.
//!
//! Fast failures are no samples: they would make a broken service look fast. Calls that began
//! before a decrease are no samples after it, as the decrease could not help them.

mod aimd;
mod bounds;
mod pacing;
mod sample;
#[cfg(test)]
mod tests;
mod timeouts;

use std::time::Duration;

use tokio::time::Instant;

use self::aimd::{Aimd, AimdAdvice};
pub(super) use self::bounds::Bounds;
use self::pacing::Pacing;
pub(super) use self::sample::Sample;
use self::timeouts::{Fastest, Quickest, Speed, TimedAnswer, TimeoutAdvice, TimeoutLimit};
use crate::client::Load;

/// Initial limit of a slow start. The first round costs little; three rounds later it is 32.
const START: f64 = 4.0;

/// After this idle time the limit is outdated, and a slow start begins.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Maximum initial limit of a slow start after idle time.
const IDLE_START: f64 = 10.0;

/// Latency ratio that shows queueing, compared with the fastest tenth, if without a target.
/// [`INFLATED_MIN`] is the minimum difference. The limit then rises slowly. It is not lowered, as
/// no target states how long is too long.
const INFLATED: u32 = 4;
const INFLATED_MIN: Duration = Duration::from_millis(250);

/// How long the limit at which timeouts came is remembered.
const CEILING_LASTS: Duration = Duration::from_secs(60);

/// Share of that limit from which the limit rises only once per [`NEAR_EVERY`].
const NEAR: f64 = 0.85;
const NEAR_EVERY: Duration = Duration::from_secs(10);

/// Interval of increases while calls wait for most of the timeout.
/// After a decrease, any answer over half of the timeout counts as that for [`LATE_LASTS`].
const LATE_EVERY: Duration = Duration::from_secs(60);
const LATE_LASTS: Duration = Duration::from_secs(180);

/// Time horizon of [`Limit::calls_soon`].
const SOON: Duration = Duration::from_millis(250);

/// Direction of a change of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitStep {
    Up,
    Down,
}

/// Limit of one service.
#[derive(Debug)]
pub(super) struct Limit {
    bounds: Bounds,
    value: f64,
    /// Final value of a slow start under way: each answer adds a call, until one is slow.
    slow_start: Option<f64>,
    /// The limit before narrower bounds cut it; infinite if it was at its maximum.
    uncut: Option<f64>,
    law: Algorithm,
    pacing: Pacing,
    ceiling: Ceiling,
    /// Latency of fast answers since the last slow start began. Without a target it determines how
    /// fast the limit rises.
    fastest: Fastest,
    quickest: Quickest,
    /// The latest sample timed out.
    timed_out: bool,
    /// Duration of the last call that timed out.
    timeout: Option<Duration>,
    /// Calls up to this number are no samples.
    mark: u64,
    used_at: Option<Instant>,
}

#[derive(Debug)]
enum Algorithm {
    Aimd(Aimd),
    Timeouts(TimeoutLimit),
}

/// Limit at which timeouts came last: near it the limit rises slowly.
#[derive(Clone, Copy, Debug, Default)]
struct Ceiling {
    value: Option<f64>,
    set_at: Option<Instant>,
    raised_at: Option<Instant>,
}

impl Ceiling {
    fn new(value: f64, now: Instant) -> Self {
        Self { value: Some(value), set_at: Some(now), raised_at: Some(now) }
    }

    /// Returns whether it was set within that time.
    fn is_known_for(&self, time: Duration, now: Instant) -> bool {
        self.set_at.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    fn allows(&mut self, value: f64, speed: Speed, now: Instant) -> bool {
        let is_near = self.is_known_for(CEILING_LASTS, now)
            && self.value.is_some_and(|ceiling| value >= NEAR * ceiling);
        let every = match speed {
            Speed::Slowest => LATE_EVERY,
            Speed::Slow => NEAR_EVERY,
            Speed::Fast if is_near => NEAR_EVERY,
            Speed::Fast => Duration::ZERO,
        };
        let may_rise = self.raised_at.is_none_or(|at| now.saturating_duration_since(at) >= every);
        if may_rise {
            self.raised_at = Some(now);
        }
        may_rise
    }
}

impl Limit {
    pub(super) fn new(bounds: Bounds, target: Option<Duration>) -> Self {
        let (value, slow_start, law) = match target {
            Some(target) => (START, Some(bounds.max), Algorithm::Aimd(Aimd::new(target))),
            None => (bounds.max, None, Algorithm::Timeouts(TimeoutLimit::default())),
        };
        Self {
            bounds,
            value: bounds.clamp(value),
            slow_start,
            uncut: None,
            law,
            pacing: Pacing::default(),
            ceiling: Ceiling::default(),
            fastest: Fastest::default(),
            quickest: Quickest::default(),
            timed_out: false,
            timeout: None,
            mark: 0,
            used_at: None,
        }
    }

    /// Returns the in-flight limit.
    pub(super) fn calls(&self) -> usize {
        as_usize(self.value)
    }

    /// Returns the call rate in calls/s, if calls begin at a rate.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pacing.rate()
    }

    /// Returns the rate, if the service is known to have a limit.
    pub(super) fn rate_found(&self) -> Option<f64> {
        self.pacing.found()
    }

    /// Drops a rate that restricts no call.
    pub(super) fn forget(&mut self, now: Instant) {
        self.pacing.forget(now);
    }

    /// Returns whether refused calls wait their turn with the others, not for a time of their own.
    pub(super) fn is_rationed(&self) -> bool {
        self.pacing.is_rationed()
    }

    /// Returns the calls that can begin soon: at most the limit, and [`SOON`] worth of the rate.
    pub(super) fn calls_soon(&self) -> usize {
        let by_rate = self.rate().map(|rate| as_usize(rate * SOON.as_secs_f64()));
        self.calls().min(by_rate.unwrap_or(usize::MAX))
    }

    /// Returns the calls that may begin now, with this number in flight.
    pub(super) fn free(&mut self, in_flight: usize, now: Instant) -> usize {
        let free = self.calls().saturating_sub(in_flight);
        match self.pacing.free(now) {
            Some(calls) if calls < 1.0 => 0,
            Some(calls) => free.min(as_usize(calls)),
            None => free,
        }
    }

    /// Returns when the rate allows this number of calls; `None` if it allows them now.
    pub(super) fn next(&self, calls: usize, now: Instant) -> Option<Instant> {
        self.pacing.next(as_f64(calls), now)
    }

    /// Returns whether a slow start is under way.
    pub(super) fn is_starting(&self) -> bool {
        self.slow_start.is_some()
    }

    /// Records the beginning of a call.
    pub(super) fn begin(&mut self, now: Instant) {
        let is_idle = self.used_at.is_some_and(|at| now.saturating_duration_since(at) >= IDLE_MAX);
        if is_idle && matches!(self.law, Algorithm::Aimd(_)) {
            self.start_slowly(IDLE_START, self.bounds.max, 0);
        }
        self.used_at = Some(now);
        self.pacing.begin();
    }

    /// Records a pause of the service.
    pub(super) fn pause(&mut self, now: Instant) {
        self.pacing.pause(now);
    }

    /// Records an outage. If timeouts led to it, the limit may have been too high.
    pub(super) fn go_down(&mut self, now: Instant) {
        if self.timed_out {
            // A slow start had not reached its final value, so that value was not what was too
            // much.
            let before = self.slow_start.unwrap_or(self.value);
            self.ceiling = Ceiling::new(before, now);
            self.lower(TimeoutLimit::lowered(before), self.mark);
        }
    }

    /// Starts a slow start up to the previous limit, after an outage or a pause. Calls that began
    /// before are no samples.
    pub(super) fn after_outage(&mut self, begun: u64) {
        fail_point!("limit::ramp-at-once", |_| ());
        let before = self.slow_start.map_or(self.value, |up_to| up_to.max(self.value));
        self.start_slowly(START.min(before / 2.0), before, begun);
    }

    fn start_slowly(&mut self, value: f64, up_to: f64, begun: u64) {
        self.value = self.bounds.clamp(value.min(self.value));
        self.slow_start = (self.value < up_to).then_some(up_to);
        self.mark = self.mark.max(begun);
        self.fastest = Fastest::default();
        match &mut self.law {
            Algorithm::Aimd(law) => law.restart(),
            Algorithm::Timeouts(law) => law.restart(),
        }
        self.pacing.restart();
    }

    /// Records an answer. Returns the direction if the limit has changed.
    pub(super) fn add(&mut self, sample: Sample) -> Option<LimitStep> {
        self.used_at = Some(sample.at);
        if sample.load != Load::Unknown {
            self.pacing.count(sample.load == Load::Refused, sample.at);
        }
        if sample.load == Load::Unknown || sample.is_from_before(self.mark) {
            return None;
        }
        let before = self.calls();
        match sample.load {
            Load::Unknown => {}
            Load::Refused => self.slow_start = None,
            Load::Answered | Load::TimedOut => self.add_latency(sample),
        }
        if self.pacing.add(sample.load == Load::Refused, sample.at) {
            self.mark = sample.begun;
        }
        self.value = self.bounds.clamp(self.value);
        match self.calls().cmp(&before) {
            std::cmp::Ordering::Greater => Some(LimitStep::Up),
            std::cmp::Ordering::Less => Some(LimitStep::Down),
            std::cmp::Ordering::Equal => None,
        }
    }

    fn add_latency(&mut self, sample: Sample) {
        let is_timed_out = sample.load == Load::TimedOut;
        self.timed_out = is_timed_out;
        self.timeout = if is_timed_out { Some(sample.took) } else { self.timeout };
        let fastest = self.fastest.add(sample.took);
        let is_inflated = sample.took > fastest * INFLATED && sample.took > fastest + INFLATED_MIN;
        let quickest = self.quickest.add(sample.took, sample.at);
        let is_long = self.timeout.is_some_and(|timeout| 2 * sample.took > timeout);
        let is_remembered = self.ceiling.is_known_for(LATE_LASTS, sample.at);
        let is_late = is_long && (sample.took > quickest * INFLATED || is_remembered);
        let is_slow = match &self.law {
            Algorithm::Aimd(law) => is_timed_out || law.is_slow(sample.took),
            // Queueing does not end a slow start: no target states how long is too long, and the
            // slow start only leads back to the previous limit.
            Algorithm::Timeouts(_) => is_timed_out || is_late,
        };
        if is_late && matches!(self.law, Algorithm::Timeouts(_)) {
            self.slow_start = None;
        }
        if let Some(up_to) = self.slow_start
            && !is_slow
            // Answers that come together are recorded before the next calls begin.
            && sample.in_flight * 4 >= self.calls()
        {
            self.value = (self.value + 1.0).min(up_to);
            self.slow_start = (self.value < up_to).then_some(up_to);
        }
        let is_reached = sample.is_limit_reached(self.calls());
        let (is_starting, at) = (self.slow_start.is_some(), sample.at);
        match &mut self.law {
            Algorithm::Aimd(law) => {
                match law.add(is_slow, is_reached, is_starting, self.value, at) {
                    Some(AimdAdvice::Lower) => self.lower(Aimd::lowered(self.value), sample.begun),
                    Some(AimdAdvice::Raise) => self.raise(Speed::Fast, at),
                    None => {}
                }
            }
            Algorithm::Timeouts(law) => {
                let is_full = self.value >= self.bounds.max;
                let is_quick = !is_timed_out && !is_inflated && !is_long;
                let answer =
                    TimedAnswer { is_timed_out, is_inflated, is_quick, is_late, is_reached };
                match law.add(answer, is_full, at) {
                    Some(TimeoutAdvice::Lower) => {
                        self.ceiling = Ceiling::new(self.value, at);
                        self.lower(TimeoutLimit::lowered(self.value), sample.begun);
                    }
                    Some(TimeoutAdvice::Raise(speed)) => self.raise(speed, at),
                    None => {}
                }
            }
        }
    }

    fn lower(&mut self, value: f64, begun: u64) {
        self.value = self.bounds.clamp(value);
        self.slow_start = None;
        self.mark = begun;
    }

    fn raise(&mut self, speed: Speed, now: Instant) {
        if self.slow_start.is_some() {
            return;
        }
        if self.value >= self.bounds.max {
            self.ceiling = Ceiling::default();
        } else if self.ceiling.allows(self.value, speed, now) {
            self.value += 1.0;
        }
    }
}

/// Converts a number of calls. Limits are small, so nothing is lost.
fn as_f64(calls: usize) -> f64 {
    u32::try_from(calls).map_or(f64::from(u32::MAX), f64::from)
}

/// Returns the whole calls of a limit, at least one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded above, and positive"
)]
fn as_usize(value: f64) -> usize {
    value.clamp(1.0, f64::from(u32::MAX)) as usize
}
