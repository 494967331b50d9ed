//! What is counted of answers: the refused part of a window, and what is let in between two refusals.

use std::time::Duration;

use tokio::time::Instant;

/// Answers of a window, and how long it lasts at least.
const ANSWERS: u32 = 100;
const LASTS: Duration = Duration::from_secs(1);

/// Fewer answers are enough, with so many refusals.
const ANSWERS_MIN: u32 = 30;
const REFUSED_MIN: u32 = 12;

/// Where more than this part of a window is refused, by more than chance makes of it, there are too many.
const ALLOWED: f64 = 0.04;
const CHANCE: f64 = 3.0;
const CHANCE_OF_BOTH: f64 = 4.0;

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

/// Answers, and how many of them were refusals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) answers: u32,
    pub(super) refused: u32,
}

impl Count {
    pub(super) fn add(&mut self, is_refused: bool) {
        self.answers = self.answers.saturating_add(1);
        self.refused = self.refused.saturating_add(u32::from(is_refused));
    }

    pub(super) fn part(self) -> f64 {
        f64::from(self.refused) / f64::from(self.answers.max(1))
    }

    /// Whether a larger part is refused than of others, by more than chance makes of both.
    pub(super) fn is_more_than_of(self, other: Self) -> bool {
        let (ours, others) = (f64::from(self.answers.max(1)), f64::from(other.answers.max(1)));
        let all = f64::from(self.refused + other.refused) / (ours + others);
        let chance = CHANCE_OF_BOTH * (all * (1.0 - all) * (1.0 / ours + 1.0 / others)).sqrt();
        self.part() - other.part() > chance
    }

    /// Whether more than that part is refused, by more than chance makes of it.
    pub(super) fn is_more_than(self, part: f64) -> bool {
        let expected = part * f64::from(self.answers);
        let chance = CHANCE * (expected * (1.0 - part)).sqrt();
        f64::from(self.refused) > expected + chance
    }
}

/// Answers since a refusal.
#[derive(Debug, Default)]
pub(super) struct Window {
    since: Option<Instant>,
    pub(super) count: Count,
}

impl Window {
    pub(super) fn begun(at: Instant) -> Self {
        Self { since: Some(at), count: Count::default() }
    }

    /// Begins without a refusal, unless it has begun.
    pub(super) fn begin(&mut self, at: Instant) {
        self.since.get_or_insert(at);
    }

    /// Whether it shows how much is refused.
    pub(super) fn shows(&self) -> bool {
        let Count { answers, refused } = self.count;
        answers >= ANSWERS || answers >= ANSWERS_MIN && refused >= REFUSED_MIN
    }

    /// Counts an answer; the refusal that begins it is not counted. Says whether there is a window.
    pub(super) fn add(&mut self, is_refused: bool, at: Instant) -> bool {
        if self.since.is_some() {
            self.count.add(is_refused);
        } else if is_refused {
            self.since = Some(at);
        }
        self.since.is_some()
    }

    pub(super) fn is_full(&self, at: Instant) -> bool {
        let lasted = self.since.map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
        self.shows() && lasted >= LASTS
    }

    /// Whether more are refused than may be.
    pub(super) fn is_too_much(&self) -> bool {
        self.count.answers >= ANSWERS_MIN && self.count.is_more_than(ALLOWED)
    }
}

/// What is let in between two refusals.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// The first refusal.
    from: Option<Instant>,
    let_in: u32,
    refused: u32,
    /// The latest refusal, and what was let in up to it.
    to: Option<(Instant, u32)>,
}

impl Measure {
    pub(super) fn let_in(&mut self) {
        self.let_in += 1;
    }

    pub(super) fn refused(&mut self, at: Instant) {
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
    pub(super) fn take(&mut self) -> Option<f64> {
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
