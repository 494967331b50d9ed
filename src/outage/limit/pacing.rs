//! Call rate in response to refusals: 429 and similar.
//!
//! A refusal is caused by a true limit of calls/s, or is random. A few refusals cost nothing and
//! have no effect: at a limit, 5% of calls may be refused. If there are more:
//!
//! - **Calls begin at a rate**: initially the measured rate of accepted calls. It rises with each
//!   accepted call and falls with each refused one, so that 2% are refused. This uses the whole
//!   limit, with one process or with many: all of them see the same share of refusals.
//! - **An experiment** tells both kinds apart. At half of the previous rate, a true limit refuses
//!   hardly any call, and random refusals are as frequent as before. Random refusals are left
//!   alone: the rate rises until it restricts no call, and another experiment follows later. If
//!   refusals increase meanwhile, there is a limit after all.

mod measure;
mod rate;

use std::time::Duration;

use tokio::time::Instant;

use self::measure::{Count, Measure, Window};
use self::rate::CallRate;

/// Target share of refusals at a rate.
const REFUSED: f64 = 0.02;

/// Share of refusals from which calls begin at a rate. The target is far lower, as few calls show
/// it.
const TOO_MUCH: f64 = 0.08;

/// Minimum number of answers to decide whether most are refused.
const MOST_OF: u32 = 10;

/// A lower rate has helped if the odds of a refusal fell below this share of what they were.
const HELPED_BELOW: f64 = 0.5;

/// Share of refusals above which an experiment takes at least [`EXPERIMENT_MIN`].
/// Other processes find their rates meanwhile.
const MOST: f64 = 0.35;
const EXPERIMENT_MIN: Duration = Duration::from_secs(30);

/// How long an observed limit is assumed to exist. The longer time applies if at most
/// [`FOUND_REFUSED_MAX`] is refused: each of many processes sees more refusals at times, at any
/// rate.
const FOUND_LASTS: Duration = Duration::from_secs(5 * 60);
const FOUND_LASTS_LONGER: Duration = Duration::from_secs(20 * 60);
const FOUND_REFUSED_MAX: f64 = 0.2;

/// How long random refusals are left alone. The time doubles with each experiment.
const LEFT_ALONE_MIN: Duration = Duration::from_secs(30);
const LEFT_ALONE_MAX: Duration = Duration::from_secs(5 * 60);
const LEFT_ALONE_WINDOWS: u32 = 3;

/// Weight of a window in the average share of random refusals.
const LEARNT: f64 = 0.1;

/// Factor per window by which the rate rises while refusals are left alone.
/// It soon restricts no call, but a true limit shows before that.
const RAISE_LEFT_ALONE: f64 = 2.0;

/// A rate that restricted no call for this time is dropped.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Minimum refusals assumed for a paused service.
const PAUSED: Count = Count { answers: 30, refused: 9 };

/// Refusals of one service, and the call rate that follows from them.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    pace: Option<CallRate>,
    measure: Measure,
    window: Window,
    /// The previous window had too many refusals. This one shows whether that was chance.
    is_doubted: bool,
    /// Refusals before calls began at a rate, or at a higher rate.
    before: Count,
    /// Time at which a lower rate last helped: the service has a limit.
    helped_at: Option<Instant>,
    left_alone: Option<LeftAlone>,
    /// Duration for which refusals were left alone last.
    left_alone_for: Duration,
    /// Most of the latest answers were refusals.
    are_most_refused: bool,
}

/// State while refusals are left alone, as a lower rate has not helped.
#[derive(Clone, Copy, Debug)]
struct LeftAlone {
    until: Instant,
    /// Rate at the beginning.
    from: f64,
    /// Average share of refusals since then.
    part: f64,
    /// Number of windows since then.
    windows: u32,
}

/// Returns the odds of a refusal. Half of 0.9 is as far from it as half of 0.1.
fn odds(part: f64) -> f64 {
    part / (1.0 - part).max(1e-3)
}

/// Returns whether a lower rate has helped.
fn has_helped(now: Count, before: Count) -> bool {
    odds(now.part()) < HELPED_BELOW * odds(before.part()) && before.is_more_than_of(now)
}

impl Pacing {
    /// Returns the calls that may begin now; `None` if there is no rate.
    pub(super) fn free(&mut self, now: Instant) -> Option<f64> {
        self.pace.as_mut().map(|pace| pace.free(now))
    }

    /// Returns when this number of calls may begin; `None` if the rate allows them now.
    pub(super) fn next(&self, calls: f64, now: Instant) -> Option<Instant> {
        self.pace.as_ref()?.next(calls, now)
    }

    /// Records the beginning of a call.
    pub(super) fn begin(&mut self) {
        self.pace.iter_mut().for_each(CallRate::begin);
    }

    /// Returns the call rate in calls/s, if there is one.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pace.as_ref().map(|pace| pace.per_second)
    }

    /// Returns the rate, once a lower rate has helped.
    pub(super) fn found(&self) -> Option<f64> {
        self.rate().filter(|_| self.helped_at.is_some())
    }

    /// Returns whether refused calls wait for a permit as others do, not for a time of their own.
    /// This applies while few calls are accepted.
    pub(super) fn is_rationed(&self) -> bool {
        self.left_alone.is_none() && (self.found().is_some() || self.are_most_refused)
    }

    /// Resets the window: open calls are no sample of the time from now on.
    pub(super) fn restart(&mut self) {
        self.window = Window::default();
        self.are_most_refused = false;
    }

    /// Records a pause of the whole service, which refuses all calls.
    pub(super) fn pause(&mut self, now: Instant) {
        let count = std::mem::take(&mut self.window).count;
        self.measure.refused(now);
        if self.pace.is_none() {
            let is_known = count.answers > PAUSED.answers && count.part() > PAUSED.part();
            self.begin_pace(if is_known { count } else { PAUSED }, now);
        }
    }

    /// Counts an answer, whenever its call began.
    pub(super) fn count(&mut self, is_refused: bool, at: Instant) {
        if is_refused {
            self.measure.refused(at);
        } else {
            self.measure.let_in();
        }
    }

    /// Adapts to an answer of a call that began since there is a rate.
    /// Returns whether a rate begins to apply now.
    pub(super) fn add(&mut self, is_refused: bool, at: Instant) -> bool {
        self.forget(at);
        let Some(pace) = self.pace.as_mut().filter(|_| self.left_alone.is_none()) else {
            return self.watch(is_refused, at);
        };
        pace.step(is_refused, at);
        if let Some(recent) = pace.take_recent(at) {
            self.are_most_refused = 2 * recent.refused > recent.answers;
            if has_helped(recent, self.before) {
                self.helped_at = Some(at);
                self.left_alone_for = Duration::ZERO;
            }
        }
        self.end_experiment(at);
        false
    }

    /// Watches refusals while there is no rate, or while they are left alone.
    fn watch(&mut self, is_refused: bool, at: Instant) -> bool {
        if self.left_alone.is_some() {
            self.window.begin(at);
        }
        if !self.window.add(is_refused, at) {
            self.are_most_refused = false;
            return false;
        }
        let Count { answers, refused } = self.window.count;
        if answers >= MOST_OF {
            self.are_most_refused = 2 * refused > answers;
        }
        if self.left_alone.is_none() {
            if self.is_doubted && self.window.shows() {
                let count = std::mem::take(&mut self.window).count;
                self.is_doubted = false;
                return count.part() >= TOO_MUCH && self.begin_pace(count, at);
            } else if !self.is_doubted && is_refused && self.window.is_too_much() {
                (self.window, self.is_doubted) = (Window::begun(at), true);
            } else if !self.is_doubted && self.window.is_full(at) {
                self.window = Window::default();
            }
        } else if self.window.is_full(at) {
            let window = std::mem::take(&mut self.window);
            self.go_on_alone(window.count, at);
        }
        false
    }

    /// Begins a rate at the measured rate of accepted calls, if that is known.
    fn begin_pace(&mut self, before: Count, now: Instant) -> bool {
        let Some(let_in) = self.measure.take() else { return false };
        self.pace = Some(CallRate::new(let_in, now));
        (self.before, self.left_alone) = (before, None);
        (self.window, self.is_doubted) = (Window::default(), false);
        true
    }

    /// Ends an experiment once the rate has come down to half of the best rate.
    /// Either that has helped, or refusals are random, unless they are few or a limit is known.
    fn end_experiment(&mut self, now: Instant) {
        let Some(pace) = &mut self.pace else { return };
        let Some(count) = pace.halved() else { return };
        let part = count.part();
        if part > MOST && now < pace.since + EXPERIMENT_MIN {
            return;
        }
        if has_helped(count, self.before) {
            self.helped_at = Some(now);
            self.left_alone_for = Duration::ZERO;
            pace.helped();
        }
        let lasts = if part <= FOUND_REFUSED_MAX { FOUND_LASTS_LONGER } else { FOUND_LASTS };
        let is_known = self.helped_at.is_some_and(|at| now < at + lasts) && !pace.has_sunk();
        if part <= REFUSED || is_known {
            self.before = count;
            pace.begin_anew(now);
            return;
        }
        self.left_alone_for = (2 * self.left_alone_for).clamp(LEFT_ALONE_MIN, LEFT_ALONE_MAX);
        let part = self.before.part().midpoint(part);
        let until = now + self.left_alone_for;
        let from = pace.per_second;
        self.left_alone = Some(LeftAlone { until, from, part, windows: 0 });
        (self.helped_at, self.window) = (None, Window::default());
    }

    fn go_on_alone(&mut self, count: Count, now: Instant) {
        let Some(alone) = &mut self.left_alone else { return };
        let part = count.part();
        let is_worse =
            HELPED_BELOW * odds(part) >= odds(alone.part) && count.is_more_than(alone.part);
        if is_worse {
            if let Some(pace) = &mut self.pace {
                pace.per_second = pace.per_second.min(alone.from);
                pace.begin_anew(now);
            }
            (self.left_alone, self.left_alone_for) = (None, Duration::ZERO);
            (self.before, self.helped_at) = (count, Some(now));
            return;
        }
        alone.part += (part - alone.part) * LEARNT;
        self.pace.iter_mut().for_each(|pace| pace.raise_by(RAISE_LEFT_ALONE, now));
        alone.windows += 1;
        if now >= alone.until && alone.windows >= LEFT_ALONE_WINDOWS {
            (self.before, self.left_alone) = (count, None);
        }
    }

    /// Drops a rate that restricts no call.
    pub(super) fn forget(&mut self, now: Instant) {
        let held_back_at = self.pace.as_ref().map(|pace| pace.held_back_at);
        if held_back_at.is_some_and(|at| now.saturating_duration_since(at) >= FORGOTTEN_AFTER) {
            (self.pace, self.helped_at, self.are_most_refused) = (None, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a window shows a limit, after `part` of the calls was refused at random.
    fn shows_limit(part: f64, answers: u32, refused: u32) -> bool {
        let now = Instant::now();
        let until = now + LEFT_ALONE_MIN;
        let mut pacing = Pacing {
            pace: Some(CallRate::new(100.0, now)),
            left_alone: Some(LeftAlone { until, from: 100.0, part, windows: 0 }),
            ..Pacing::default()
        };
        pacing.go_on_alone(Count { answers, refused }, now);
        pacing.found().is_some()
    }

    #[test]
    fn random_refusals_show_a_limit_only_if_they_double_by_more_than_chance() {
        for (part, answers, refused, shows) in [
            (0.05, 100, 10, false),
            (0.05, 100, 12, true),
            (0.2, 2_000, 640, false),
            (0.2, 2_000, 700, true),
            (0.2, 2_000, 0, false),
        ] {
            let seen = format!("{refused} of {answers} refused, {part} before");
            assert_eq!(shows_limit(part, answers, refused), shows, "{seen}");
        }
    }
}
