//! Measurements: the share of refusals in a window, and the accepted calls between two refusals.

use std::time::Duration;

use tokio::time::Instant;

/// Answers of a window, and its minimum duration.
const ANSWERS: u32 = 100;
const LASTS: Duration = Duration::from_secs(1);

/// Fewer answers are enough with [`REFUSED_MIN`] refusals.
const ANSWERS_MIN: u32 = 30;
const REFUSED_MIN: u32 = 12;

/// Allowed share of refusals in a window. More is too much if it exceeds chance by [`CHANCE`] (one
/// sample) or [`CHANCE_OF_BOTH`] (two samples) standard deviations.
const ALLOWED: f64 = 0.04;
const CHANCE: f64 = 3.0;
const CHANCE_OF_BOTH: f64 = 4.0;

/// Minimum duration and calls of a measurement: a few calls after a pause measure nothing.
const MEASURED_MIN: Duration = Duration::from_millis(100);
const MEASURED_CALLS: u32 = 20;

/// Maximum duration of a measurement, from its first refusal. After a longer time the accepted
/// calls show nothing about the limit: it was not reached.
const MEASURED_MAX: Duration = Duration::from_secs(20);

/// Refusals per accepted call from which [`FEW_CALLS`] and [`FEW_MIN`] are enough.
/// A limit that many processes share may accept less than one call/s of each.
const FEW_REFUSED: u32 = 4;
const FEW_CALLS: u32 = 5;
const FEW_MIN: Duration = Duration::from_secs(5);
const FEW_MAX: Duration = Duration::from_secs(120);

/// Number of answers, and of refusals among them.
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

    /// Returns whether the share of refusals exceeds that of `other` by more than chance.
    pub(super) fn is_more_than_of(self, other: Self) -> bool {
        let (ours, others) = (f64::from(self.answers.max(1)), f64::from(other.answers.max(1)));
        let all = f64::from(self.refused + other.refused) / (ours + others);
        let chance = CHANCE_OF_BOTH * (all * (1.0 - all) * (1.0 / ours + 1.0 / others)).sqrt();
        self.part() - other.part() > chance
    }

    /// Returns whether the share of refusals exceeds `part` by more than chance.
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

    /// Begins the window without a refusal, unless it has begun.
    pub(super) fn begin(&mut self, at: Instant) {
        self.since.get_or_insert(at);
    }

    /// Returns whether the answers are enough to show the share of refusals.
    pub(super) fn shows(&self) -> bool {
        let Count { answers, refused } = self.count;
        answers >= ANSWERS || answers >= ANSWERS_MIN && refused >= REFUSED_MIN
    }

    /// Counts an answer, except the refusal that begins the window. Returns whether it has begun.
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

    /// Returns whether the share of refusals is above the allowed one.
    pub(super) fn is_too_much(&self) -> bool {
        self.count.answers >= ANSWERS_MIN && self.count.is_more_than(ALLOWED)
    }
}

/// Accepted calls between two refusals.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// Time of the first refusal.
    from: Option<Instant>,
    let_in: u32,
    refused: u32,
    /// Time of the latest refusal, and the calls accepted up to it.
    to: Option<(Instant, u32)>,
}

impl Measure {
    pub(super) fn let_in(&mut self) {
        // A service that refuses nothing is counted for as long as the process runs.
        self.let_in = self.let_in.saturating_add(1);
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
        self.refused >= FEW_REFUSED.saturating_mul(let_in)
    }

    /// Returns the accepted calls/s, if enough was counted. The next measurement begins at its end.
    pub(super) fn take(&mut self) -> Option<f64> {
        let (from, (to, let_in)) = (self.from?, self.to?);
        let lasted = to.saturating_duration_since(from);
        let is_measure = let_in >= MEASURED_CALLS && lasted >= MEASURED_MIN;
        let is_measure_of_few = let_in >= FEW_CALLS && self.are_few(let_in) && lasted >= FEW_MIN;
        if !is_measure && !is_measure_of_few {
            return None;
        }
        *self = Self { from: Some(to), let_in: self.let_in - let_in, refused: 0, to: None };
        // The measurement is taken when there are enough calls, so it ends with an accepted call.
        // With few calls, that one matters and is not counted.
        let counted = if is_measure { let_in } else { let_in - 1 };
        Some(f64::from(counted) / lasted.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count((refused, answers): (u32, u32)) -> Count {
        Count { answers, refused }
    }

    /// The difference of two shares has a standard deviation of at most
    /// `sqrt(p * (1 - p) * (1 / n + 1 / m))`.
    #[test]
    fn a_share_is_more_than_another_only_if_chance_does_not_explain_it() {
        for (ours, others, is_more) in [
            ((14, 100), (0, 100), false),
            ((15, 100), (0, 100), true),
            ((33, 100), (10, 100), false),
            ((34, 100), (10, 100), true),
            ((1, 100), (0, 1_000), false),
            ((2, 100), (0, 1_000), true),
            ((10, 100), (100, 1_000), false),
            ((50, 50), (50, 50), false),
            ((0, 0), (0, 0), false),
        ] {
            let more = count(ours).is_more_than_of(count(others));
            assert_eq!(more, is_more, "{ours:?} and {others:?}");
        }
    }

    #[test]
    fn a_share_is_more_than_is_allowed_only_if_chance_does_not_explain_it() {
        for (ours, allowed, is_more) in [
            ((9, 100), 0.04, false),
            ((10, 100), 0.04, true),
            ((24, 50), 0.3, false),
            ((25, 50), 0.3, true),
            ((0, 0), 0.04, false),
        ] {
            assert_eq!(count(ours).is_more_than(allowed), is_more, "{ours:?} and {allowed}");
        }
    }

    #[test]
    fn the_accepted_calls_of_a_service_that_refuses_none_do_not_overflow() {
        let now = Instant::now();
        let mut measure = Measure { let_in: u32::MAX, from: Some(now), ..Measure::default() };
        measure.let_in();
        measure.refused(now);
        assert_eq!(measure.to, Some((now, u32::MAX)));
    }
}
