//! What is counted of answers: the refused part of a window, and what is let in between two refusals.

use std::time::Duration;

use tokio::time::Instant;

/// Answers of a window, or how long it lasts with at least [`ANSWERS_MIN`].
const ANSWERS: u32 = 100;
const ANSWERS_MIN: u32 = 30;
const LASTS: Duration = Duration::from_secs(1);

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

#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) since: Option<Instant>,
    pub(super) answers: u32,
    pub(super) refused: u32,
}

impl Window {
    pub(super) fn is_full(&self, at: Instant) -> bool {
        let lasted = self.since.map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
        self.answers >= ANSWERS || self.answers >= ANSWERS_MIN && lasted >= LASTS
    }

    pub(super) fn part(&self) -> f64 {
        // One refusal may be anything.
        if self.refused > 1 { f64::from(self.refused) / f64::from(self.answers) } else { 0.0 }
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
