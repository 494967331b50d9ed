//! What is done about refusals: 429 and its like.
//!
//! A refusal may mean a true limit, of so many calls a second, or may strike at random.
//!
//! - **The rate** of a true limit needs no guess while more calls are made than it allows: from one refusal to another it
//!   has let in just what it allows, however large a burst it takes. Calls begin at a little less than that from then on,
//!   and at a little more each second. Where fewer calls are made, what was let in is only what was asked for: such a rate
//!   is too low, and rises until it holds nobody back.
//! - **An experiment** tells both kinds apart. At that rate a true limit refuses hardly any call, and chance as many as
//!   before, however many that are. What is random is left alone for a while. A few refusals at a quiet time may end by
//!   themselves meanwhile: they are taken for a limit until the rate has risen.

use std::time::Duration;

use tokio::time::Instant;

/// Answers of a window, or how long it lasts with at least [`ANSWERS_MIN`].
const ANSWERS: u32 = 100;
const ANSWERS_MIN: u32 = 30;
const LASTS: Duration = Duration::from_secs(1);

/// The part of a window's answers that may be refused. SPEC allows 5% of all calls.
const REFUSED_MAX: f64 = 0.03;

/// What is let in is measured over so long, and so many calls, at least: a few calls after a pause are no measure.
const MEASURED_MIN: Duration = Duration::from_millis(100);
const MEASURED_CALLS: u32 = 20;

/// After so long without a refusal, what was let in says nothing about the limit: it was not reached.
const MEASURED_MAX: Duration = Duration::from_secs(20);

/// Where so many calls are refused for each that is let in, so few are a measure, and so long: a limit that many processes
/// share may let in less than one call a second of each.
const FEW_REFUSED: u32 = 4;
const FEW_CALLS: u32 = 5;
const FEW_MIN: Duration = Duration::from_secs(5);
const FEW_MAX: Duration = Duration::from_secs(120);

/// A rate below this is lowered without a measure, by the refused part, but to this part of it at least.
const SMALL: f64 = 1.0;
const SMALL_CUT_MIN: f64 = 0.5;

/// The part of what a limit lets in that calls begin at.
const CUT_TO: f64 = 0.97;

/// A lower rate has helped where the odds of a refusal fell below this part of what they were.
const HELPED_BELOW: f64 = 0.5;

/// The part that is taken to be refused before a pause, at least.
const PAUSED_PART_MIN: f64 = 0.3;

/// After so many cuts that did not help, refusals are random, and are left alone for so long.
const CUTS_MAX: u32 = 3;
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// How the rate rises: times so much each second, until so long after the last cut. All takes longer where so many calls
/// take longer than a second: fewer show nothing.
const RAISE_EVERY: Duration = Duration::from_secs(1);
const RAISE_CALLS: f64 = 10.0;
const RAISES: [(Duration, f64); 2] =
    [(Duration::from_secs(10), 1.01), (Duration::from_secs(15), 1.05)];
const RAISE_AT_LAST: f64 = 1.2;

/// A rate that held nobody back for so long is forgotten with the next answer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Between two looks whether a call may begin: a timer's step at least.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Calls that may begin together: those of so long a time, and one at least.
const BURST: Duration = Duration::from_millis(20);

/// The refusals of one service, and the rate at which it is called because of them.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    state: State,
    window: Window,
    measure: Measure,
    pace: Option<Pace>,
    /// The rate has helped: the service has a limit.
    has_helped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// There are few.
    #[default]
    Few,
    /// Calls begin at a lower rate, to see whether it helps. `before` is the refused part until then.
    Trying { before: f64, cuts: u32 },
    /// Nothing helped.
    LeftAlone { until: Instant, part: f64 },
}

/// How many times as likely a refusal is as none. Half of 0.9 is as far from it as half of 0.1.
fn odds(part: f64) -> f64 {
    part / (1.0 - part).max(1e-3)
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    answers: u32,
    refused: u32,
}

impl Window {
    fn is_full(&self, at: Instant) -> bool {
        let lasted = self.since.map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
        self.answers >= ANSWERS || self.answers >= ANSWERS_MIN && lasted >= LASTS
    }

    fn part(&self) -> f64 {
        // One refusal may be anything.
        if self.refused > 1 { f64::from(self.refused) / f64::from(self.answers) } else { 0.0 }
    }
}

/// What is let in between two refusals.
#[derive(Debug, Default)]
struct Measure {
    /// The first refusal.
    from: Option<Instant>,
    let_in: u32,
    refused: u32,
    /// The latest refusal, and what was let in up to it.
    to: Option<(Instant, u32)>,
}

impl Measure {
    fn let_in(&mut self) {
        self.let_in += 1;
    }

    fn refused(&mut self, at: Instant) {
        match self.from {
            Some(from) if at.saturating_duration_since(from) <= self.lasts_max() => {
                self.refused += 1;
                self.to = Some((at, self.let_in));
            }
            Some(_) | None => *self = Self { from: Some(at), ..Self::default() },
        }
    }

    fn lasts_max(&self) -> Duration {
        if self.are_few(self.let_in) { FEW_MAX } else { MEASURED_MAX }
    }

    fn are_few(&self, let_in: u32) -> bool {
        self.refused >= FEW_REFUSED * let_in
    }

    /// Calls a second, where enough was seen. The next measure begins where this one ends.
    fn take(&mut self) -> Option<f64> {
        let (from, (to, let_in)) = (self.from?, self.to?);
        let lasted = to.saturating_duration_since(from);
        let is_measure = let_in >= MEASURED_CALLS && lasted >= MEASURED_MIN;
        let is_measure_of_few = let_in >= FEW_CALLS && self.are_few(let_in) && lasted >= FEW_MIN;
        if !is_measure && !is_measure_of_few {
            return None;
        }
        *self = Self { from: Some(to), let_in: self.let_in - let_in, refused: 0, to: None };
        // The measure ends with a call that was let in, as it is taken when there are enough: of few, that one is much.
        let counted = if is_measure { let_in } else { let_in - 1 };
        Some(f64::from(counted) / lasted.as_secs_f64())
    }
}

/// A rate at which calls begin.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    /// Calls that may begin now.
    tokens: f64,
    counted_at: Instant,
    cut_at: Instant,
    refused_at: Instant,
    raised_at: Instant,
    /// When it held somebody back last.
    held_back_at: Instant,
}

impl Pace {
    fn new(per_second: f64, now: Instant) -> Self {
        Self {
            per_second,
            tokens: 0.0,
            counted_at: now,
            cut_at: now,
            refused_at: now,
            raised_at: now,
            held_back_at: now,
        }
    }

    fn count(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.counted_at).as_secs_f64();
        let most = (self.per_second * BURST.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + since * self.per_second).min(most);
        self.counted_at = now;
    }

    fn raise(&mut self, now: Instant) {
        let since = |at| now.saturating_duration_since(at);
        let slower = (RAISE_CALLS / self.per_second).max(1.0);
        if since(self.raised_at) < RAISE_EVERY.mul_f64(slower) || self.held_back_at < self.raised_at
        {
            return;
        }
        // Where calls are few, one refusal shows that the limit is near.
        let since_cut = since(if slower > 1.0 { self.refused_at } else { self.cut_at });
        let raise = RAISES.into_iter().find(|(until, _)| since_cut <= until.mul_f64(slower));
        self.per_second *= raise.map_or(RAISE_AT_LAST, |(_, times)| times);
        self.raised_at = now;
    }
}

impl Pacing {
    /// Calls that may begin now; `None` where there is no rate.
    pub(super) fn free(&mut self, now: Instant) -> Option<f64> {
        let pace = self.pace.as_mut()?;
        pace.count(now);
        if pace.tokens < 1.0 {
            pace.held_back_at = now;
        }
        Some(pace.tokens)
    }

    /// When so many calls may begin; `None` where they may now, as far as the rate is concerned.
    pub(super) fn next(&self, calls: f64, now: Instant) -> Option<Instant> {
        let pace = self.pace.as_ref().filter(|pace| pace.tokens < calls)?;
        let wait = Duration::try_from_secs_f64((calls - pace.tokens) / pace.per_second);
        Some(now + wait.unwrap_or(LOOK_MAX).clamp(LOOK_MIN, LOOK_MAX))
    }

    /// A call begins.
    pub(super) fn begin(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.tokens = (pace.tokens - 1.0).max(0.0);
        }
    }

    /// Calls a second that the service is given, where it refuses more.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pace.as_ref().map(|pace| pace.per_second)
    }

    /// The same, once it has been seen to help.
    pub(super) fn found(&self) -> Option<f64> {
        self.rate().filter(|_| self.has_helped)
    }

    /// Calls that are open are no sample of what comes now.
    pub(super) fn restart(&mut self) {
        self.window = Window::default();
    }

    /// The whole service is paused, as it refuses everybody.
    pub(super) fn pause(&mut self, now: Instant) {
        let part = self.window.part().max(PAUSED_PART_MIN);
        self.window = Window::default();
        self.measure.refused(now);
        match self.state {
            State::LeftAlone { .. } => {}
            State::Few => {
                if self.cut(None, now) {
                    self.state = State::Trying { before: part, cuts: 1 };
                }
            }
            State::Trying { before, cuts } => {
                if self.cut(None, now) {
                    self.state = State::Trying { before: before.max(part), cuts };
                }
            }
        }
    }

    /// Counts an answer, whenever its call began.
    pub(super) fn count(&mut self, is_refused: bool, at: Instant) {
        if is_refused {
            self.measure.refused(at);
            self.pace.iter_mut().for_each(|pace| pace.refused_at = at);
        } else {
            self.measure.let_in();
        }
    }

    /// Judges by an answer to a call that began since the last decrease. Says whether the rate was cut.
    pub(super) fn add(&mut self, is_refused: bool, at: Instant) -> bool {
        self.forget(at);
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
        if !window.is_full(at) {
            return false;
        }
        let part = window.part();
        self.window = Window::default();
        self.judge(part, at)
    }

    fn judge(&mut self, part: f64, now: Instant) -> bool {
        let trying = match self.state {
            // Unless it is much worse than what was found to be random.
            State::LeftAlone { until, part: before }
                if now < until && HELPED_BELOW * odds(part) < odds(before) =>
            {
                return false;
            }
            State::Few | State::Trying { .. } | State::LeftAlone { .. } if part <= REFUSED_MAX => {
                self.state = State::Few;
                self.has_helped = self.pace.is_some();
                return false;
            }
            State::Few | State::LeftAlone { .. } => State::Trying { before: part, cuts: 1 },
            State::Trying { before, .. } if odds(part) < HELPED_BELOW * odds(before) => {
                State::Trying { before: part, cuts: 1 }
            }
            State::Trying { before, cuts } if cuts >= CUTS_MAX => {
                self.state = State::LeftAlone { until: now + LEFT_ALONE, part: before };
                (self.pace, self.has_helped) = (None, false);
                self.measure = Measure::default();
                return false;
            }
            State::Trying { before, cuts } => State::Trying { before, cuts: cuts + 1 },
        };
        let is_cut = self.cut(Some(part), now);
        // Where there is no measure, an experiment that goes on comes to its end all the same.
        if is_cut || matches!(self.state, State::Trying { .. }) {
            self.state = trying;
        }
        is_cut
    }

    /// Sets the rate to a little less than what was let in, where that is known; or lowers a small one by the part of a whole
    /// window that was refused.
    fn cut(&mut self, part: Option<f64>, now: Instant) -> bool {
        let small = self.pace.as_ref().map(|pace| pace.per_second);
        let small = small.filter(|per_second| *per_second < SMALL);
        let per_second = match (self.measure.take(), small, part) {
            (Some(let_in), ..) => CUT_TO * let_in,
            (None, Some(small), Some(part)) => small * (1.0 - part).max(SMALL_CUT_MIN),
            (None, Some(_) | None, Some(_) | None) => return false,
        };
        self.pace = Some(Pace::new(per_second, now));
        true
    }

    fn forget(&mut self, now: Instant) {
        let held_back_at = self.pace.as_ref().map(|pace| pace.held_back_at);
        if held_back_at.is_some_and(|at| now.saturating_duration_since(at) >= FORGOTTEN_AFTER) {
            (self.pace, self.has_helped, self.state) = (None, false, State::Few);
        }
    }
}
