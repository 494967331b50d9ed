//! What is done about refusals: 429 and its like.
//!
//! A refusal may mean a true limit, of so many calls a second, or may strike at random. A few of them cost nothing and are
//! left alone: at a limit 5% of calls may be refused. Where there are more:
//!
//! - **Calls begin at a rate**: at first what was let in, then more with each call that is let in and less with each that is
//!   refused, so that 2% are refused. What has a limit is so used whole, by one process or by many, which all see the same
//!   share of refusals.
//! - **An experiment** tells both kinds apart. A true limit refuses hardly any call of a rate that is half of what it was, and
//!   chance as many as before. What is random is left alone: the rate rises until it holds nobody back, and is tried again
//!   later. Where refusals become more meanwhile, there is a limit after all.

mod measure;
mod rate;

use std::time::Duration;

use tokio::time::Instant;

use self::measure::{Count, Measure, Window};
use self::rate::Pace;

/// The part that a service refuses at the rate that is sought.
const REFUSED: f64 = 0.02;

/// Where this part is refused, calls begin at a rate. What is sought is well below, as calls are few that show it.
const TOO_MUCH: f64 = 0.08;

/// Answers that show whether most are refused, at least.
const MOST_OF: u32 = 10;

/// A lower rate has helped where the odds of a refusal fell below this part of what they were.
const HELPED_BELOW: f64 = 0.5;

/// Where most calls are refused, an experiment takes so long at least: other processes find their rates meanwhile.
const MOST: f64 = 0.35;
const EXPERIMENT_MIN: Duration = Duration::from_secs(30);

/// A limit that was seen is believed in for so long, and for longer where no more than this part is refused: of many processes
/// each is refused more at times, whatever it does.
const FOUND_LASTS: Duration = Duration::from_secs(5 * 60);
const FOUND_LASTS_LONGER: Duration = Duration::from_secs(20 * 60);
const FOUND_REFUSED_MAX: f64 = 0.2;

/// Refusals that are random are left alone for so long, and for twice as long each time.
const LEFT_ALONE_MIN: Duration = Duration::from_secs(30);
const LEFT_ALONE_MAX: Duration = Duration::from_secs(5 * 60);
const LEFT_ALONE_WINDOWS: u32 = 3;

/// How much a window counts in the part that is taken to be random.
const LEARNT: f64 = 0.1;

/// How the rate rises with each window that is left alone: soon nobody is held back, but a true limit shows before that.
const RAISE_LEFT_ALONE: f64 = 2.0;

/// A rate that held nobody back for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A service that is paused refuses so many at least.
const PAUSED: Count = Count { answers: 30, refused: 9 };

/// The refusals of one service, and the rate at which it is called because of them.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    pace: Option<Pace>,
    measure: Measure,
    window: Window,
    /// The window follows one of which too much was refused: is it so, or was it chance?
    is_doubted: bool,
    /// The part that was refused before calls began at a rate, or at a higher one.
    before: Count,
    /// When it was last seen that a lower rate helps: the service has a limit.
    helped_at: Option<Instant>,
    left_alone: Option<LeftAlone>,
    /// For how long they were left alone last.
    left_alone_for: Duration,
    /// Of the latest answers, most were refused.
    are_most_refused: bool,
}

/// Refusals that no lower rate has helped.
#[derive(Clone, Copy, Debug)]
struct LeftAlone {
    until: Instant,
    /// The rate by then.
    from: f64,
    /// The part that is refused since then.
    part: f64,
    /// How many windows there were since.
    windows: u32,
}

/// How many times as likely a refusal is as none. Half of 0.9 is as far from it as half of 0.1.
fn odds(part: f64) -> f64 {
    part / (1.0 - part).max(1e-3)
}

/// Whether a lower rate has helped.
fn has_helped(now: Count, before: Count) -> bool {
    odds(now.part()) < HELPED_BELOW * odds(before.part()) && before.is_more_than_of(now)
}

impl Pacing {
    /// Calls that may begin now; `None` where there is no rate.
    pub(super) fn free(&mut self, now: Instant) -> Option<f64> {
        self.pace.as_mut().map(|pace| pace.free(now))
    }

    /// When so many calls may begin; `None` where they may now, as far as the rate is concerned.
    pub(super) fn next(&self, calls: f64, now: Instant) -> Option<Instant> {
        self.pace.as_ref()?.next(calls, now)
    }

    /// A call begins.
    pub(super) fn begin(&mut self) {
        self.pace.iter_mut().for_each(Pace::begin);
    }

    /// Calls a second that the service is given, where it refuses more.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pace.as_ref().map(|pace| pace.per_second)
    }

    /// The same, once it has been seen to help.
    pub(super) fn found(&self) -> Option<f64> {
        self.rate().filter(|_| self.helped_at.is_some())
    }

    /// Whether the service takes so few of the calls that what it refused waits for others, and not for a time.
    pub(super) fn is_rationed(&self) -> bool {
        self.left_alone.is_none() && (self.found().is_some() || self.are_most_refused)
    }

    /// Calls that are open are no sample of what comes now.
    pub(super) fn restart(&mut self) {
        self.window = Window::default();
        self.are_most_refused = false;
    }

    /// The whole service is paused, as it refuses everybody.
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

    /// Judges by an answer to a call that began since there is a rate. Says whether there is one from now on.
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

    /// There is no rate, or it is on its way to hold nobody back.
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

    /// Calls begin at what was let in, where that is known.
    fn begin_pace(&mut self, before: Count, now: Instant) -> bool {
        let Some(let_in) = self.measure.take() else { return false };
        self.pace = Some(Pace::new(let_in, now));
        (self.before, self.left_alone) = (before, None);
        (self.window, self.is_doubted) = (Window::default(), false);
        true
    }

    /// Once the rate has come down to half: it has helped, or refusals are random, unless a limit is known and they are few.
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
        self.pace.iter_mut().for_each(|pace| pace.raise_to(RAISE_LEFT_ALONE, now));
        alone.windows += 1;
        if now >= alone.until && alone.windows >= LEFT_ALONE_WINDOWS {
            (self.before, self.left_alone) = (count, None);
        }
    }

    /// A rate that holds nobody back is none.
    pub(super) fn forget(&mut self, now: Instant) {
        let held_back_at = self.pace.as_ref().map(|pace| pace.held_back_at);
        if held_back_at.is_some_and(|at| now.saturating_duration_since(at) >= FORGOTTEN_AFTER) {
            (self.pace, self.helped_at, self.are_most_refused) = (None, None, false);
        }
    }
}
