//! What is done about refusals: 429 and its like.
//!
//! A refusal may mean a true limit, of so many calls a second, or may strike at random.
//!
//! - **The rate** of a true limit needs no guess while more calls are made than it allows: from one refusal to another it
//!   has let in just what it allows, however large a burst it takes. Calls begin at a little less than that from then on,
//!   and at a little more each second. Where fewer calls are made, what was let in is only what was asked for: such a rate
//!   is too low, and rises until it holds nobody back.
//! - **A small rate**, as each of many processes has at one limit, moves a little with each answer: what one process was let in
//!   is what the others left.
//! - **An experiment** tells both kinds apart. At that rate a true limit refuses hardly any call, and chance as many as
//!   before, however many that are. What is random is left alone for a while. A few refusals at a quiet time may end by
//!   themselves meanwhile: they are taken for a limit until the rate has risen.

mod measure;
mod rate;

use std::time::Duration;

use tokio::time::Instant;

use self::measure::{Measure, Window};
use self::rate::Pace;

/// The part of a window's answers that may be refused. SPEC allows 5% of all calls.
const REFUSED_MAX: f64 = 0.03;

/// What an experiment leaves of the rate that it began with.
const EXPERIMENT_LEAST: f64 = 0.5;

/// The part at which it shows something: near the least.
const EXPERIMENT_SHOWS: f64 = 0.6;

/// Answers that show whether most are refused, at least.
const MOST_OF: u32 = 10;

/// The part of what a limit lets in that calls begin at.
const CUT_TO: f64 = 0.97;

/// A lower rate has helped where the odds of a refusal fell below this part of what they were.
const HELPED_BELOW: f64 = 0.5;
const SMALL_HELPED_BELOW: f64 = 0.42;

/// The part that is taken to be refused before a pause, at least.
const PAUSED_PART_MIN: f64 = 0.3;

/// After so many cuts that did not help, refusals are random, and are left alone: for so long, and twice as long each time.
const CUTS_MAX: u32 = 3;
const LEFT_ALONE_MIN: Duration = Duration::from_secs(30);
const LEFT_ALONE_MAX: Duration = Duration::from_secs(5 * 60);

/// How much a window counts in the part that is taken to be random.
const LEARNT: f64 = 0.1;

/// How a rate rises with each window where refusals are left alone: soon nobody is held back, but a true limit shows before that.
const RAISE_LEFT_ALONE: f64 = 3.0;

/// A rate that held nobody back for so long is forgotten with the next answer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The refusals of one service, and the rate at which it is called because of them.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    state: State,
    window: Window,
    measure: Measure,
    pace: Option<Pace>,
    /// The rate has helped: the service has a limit.
    has_helped: bool,
    /// Of the latest answers, most were refused.
    are_most_refused: bool,
    /// For how long they were left alone last.
    left_alone_for: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// There are few.
    #[default]
    Few,
    /// Calls begin at a lower rate, to see whether it helps. `before` is the refused part until then, `from` the rate.
    Trying { before: f64, cuts: u32, from: f64 },
    /// Nothing helped. `part` is refused since then; of the latest window it was much more.
    LeftAlone { until: Instant, part: f64, was_worse: bool },
}

/// How many times as likely a refusal is as none. Half of 0.9 is as far from it as half of 0.1.
fn odds(part: f64) -> f64 {
    part / (1.0 - part).max(1e-3)
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
        self.rate().filter(|_| self.has_helped)
    }

    /// Whether the service takes so few of the calls that what it refused waits for others, and not for a time.
    pub(super) fn is_rationed(&self) -> bool {
        let is_left_alone = matches!(self.state, State::LeftAlone { .. });
        !is_left_alone && (self.found().is_some() || self.are_most_refused)
    }

    /// Calls that are open are no sample of what comes now.
    pub(super) fn restart(&mut self) {
        self.window = Window::default();
        self.are_most_refused = false;
    }

    /// The whole service is paused, as it refuses everybody.
    pub(super) fn pause(&mut self, now: Instant) {
        let part = self.window.part().max(PAUSED_PART_MIN);
        self.window = Window::default();
        self.measure.refused(now);
        // A small rate has moved by each refusal that led to this.
        if self.is_small() {
            return;
        }
        match self.state {
            State::LeftAlone { .. } => {}
            State::Few => {
                if self.cut(0.0, now) {
                    self.state = self.trying(part);
                }
            }
            State::Trying { before, cuts, from } => {
                if self.cut(EXPERIMENT_LEAST * from, now) {
                    self.state = State::Trying { before: before.max(part), cuts, from };
                }
            }
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

    /// Judges by an answer to a call that began since the last decrease. Says whether the rate was cut.
    pub(super) fn add(&mut self, is_refused: bool, at: Instant) -> bool {
        self.forget(at);
        let is_left_alone = matches!(self.state, State::LeftAlone { .. });
        let is_lowered = match &mut self.pace {
            Some(pace) if !is_left_alone => pace.step(is_refused, at),
            Some(_) | None => false,
        };
        if self.window.since.is_none() && !is_refused && matches!(self.state, State::Few) {
            if let Some(pace) = &mut self.pace {
                pace.raise(at);
            }
            return false;
        }
        let window = &mut self.window;
        window.since.get_or_insert(at);
        window.answers += 1;
        window.refused += u32::from(is_refused);
        if window.answers >= MOST_OF {
            self.are_most_refused = 2 * window.refused > window.answers;
        }
        if !window.is_full(at) {
            return is_lowered;
        }
        let part = window.part();
        self.window = Window::default();
        self.judge(part, at) || is_lowered
    }

    fn judge(&mut self, part: f64, now: Instant) -> bool {
        if let State::LeftAlone { until, part: before, was_worse } = &mut self.state {
            let is_worse = HELPED_BELOW * odds(part) >= odds(*before);
            if !is_worse {
                *before += (part - *before) * LEARNT;
                if let Some(pace) = &mut self.pace {
                    pace.raise_to(RAISE_LEFT_ALONE, now);
                    pace.least = EXPERIMENT_LEAST * pace.per_second;
                }
            }
            if !(is_worse && *was_worse) {
                *was_worse = is_worse;
                if now >= *until {
                    self.state = State::Few;
                }
                return false;
            }
            self.left_alone_for = Duration::ZERO;
        }
        let goes_on = match self.state {
            State::Few | State::Trying { .. } | State::LeftAlone { .. } if part <= REFUSED_MAX => {
                self.state = State::Few;
                self.has_helped = self.pace.is_some();
                self.left_alone_for = Duration::ZERO;
                return false;
            }
            State::Few | State::LeftAlone { .. } => None,
            State::Trying { before, .. } if odds(part) < self.helped_below() * odds(before) => None,
            State::Trying { before, cuts, from } if self.is_over(cuts, from) => {
                let longer = 2 * self.left_alone_for;
                self.left_alone_for = longer.clamp(LEFT_ALONE_MIN, LEFT_ALONE_MAX);
                let until = now + self.left_alone_for;
                self.state =
                    State::LeftAlone { until, part: before.midpoint(part), was_worse: false };
                self.has_helped = false;
                self.measure = Measure::default();
                return false;
            }
            State::Trying { before, cuts, from } => {
                Some((State::Trying { before, cuts: cuts + 1, from }, from))
            }
        };
        let is_cut = self.cut(goes_on.map_or(0.0, |(_, from)| EXPERIMENT_LEAST * from), now);
        // Where there is no measure, an experiment that goes on comes to its end all the same.
        if is_cut || matches!(self.state, State::Trying { .. }) {
            self.state = goes_on.map_or_else(|| self.trying(part), |(state, _)| state);
        }
        is_cut
    }

    /// An experiment begins with the rate as it is now.
    fn trying(&self, before: f64) -> State {
        State::Trying { before, cuts: 1, from: self.rate().unwrap_or_default() }
    }

    /// The windows of a small rate are small, and show by chance what is not so.
    fn helped_below(&self) -> f64 {
        if self.is_small() { SMALL_HELPED_BELOW } else { HELPED_BELOW }
    }

    fn is_small(&self) -> bool {
        self.pace.as_ref().is_some_and(Pace::is_small)
    }

    /// Whether an experiment has lowered the rate enough to show whether that helps.
    fn is_over(&self, cuts: u32, from: f64) -> bool {
        match &self.pace {
            Some(pace) if pace.is_small() => pace.per_second <= EXPERIMENT_SHOWS * from,
            Some(_) | None => cuts >= CUTS_MAX,
        }
    }

    /// Sets the rate to a little less than what was let in, where that is known. A small one has moved already.
    fn cut(&mut self, least: f64, now: Instant) -> bool {
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.is_small()) {
            pace.least = least.max(EXPERIMENT_LEAST * pace.per_second);
            return true;
        }
        let Some(let_in) = self.measure.take() else { return false };
        let per_second = (CUT_TO * let_in).max(least);
        self.pace = Some(Pace::new(per_second, EXPERIMENT_LEAST * per_second, now));
        true
    }

    fn forget(&mut self, now: Instant) {
        let held_back_at = self.pace.as_ref().map(|pace| pace.held_back_at);
        if held_back_at.is_some_and(|at| now.saturating_duration_since(at) >= FORGOTTEN_AFTER) {
            (self.pace, self.has_helped, self.state) = (None, false, State::Few);
        }
    }
}
