//! Law with a latency target: additive increase, multiplicative decrease.
//!
//! A window has as many answers as the limit has calls, and at least [`WINDOW_MIN`].

use std::time::Duration;

use tokio::time::Instant;

/// Minimum answers and duration of a window: smaller ones would follow noise.
const WINDOW_MIN: u32 = 5;
const WINDOW_LASTS_MIN: Duration = Duration::from_millis(100);

/// Share of slow answers: minimum for a decrease, and maximum for an increase.
const DECREASE_AT: f64 = 0.3;
const INCREASE_AT: f64 = 0.1;

/// Factor of a decrease.
const DECREASE_TO: f64 = 0.8;

/// State of the law.
#[derive(Debug)]
pub(super) struct Aimd {
    target: Duration,
    since: Option<Instant>,
    answers: u32,
    slow: u32,
    is_reached: bool,
}

/// Advice from a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AimdAdvice {
    Lower,
    Raise,
}

impl Aimd {
    pub(super) fn new(target: Duration) -> Self {
        Self { target, since: None, answers: 0, slow: 0, is_reached: false }
    }

    pub(super) fn restart(&mut self) {
        *self = Self::new(self.target);
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took > self.target
    }

    /// Records an answer. `is_early`: a slow start is under way, which ends as soon as answers are
    /// slow.
    pub(super) fn add(
        &mut self,
        is_slow: bool,
        is_reached: bool,
        is_early: bool,
        value: f64,
        at: Instant,
    ) -> Option<AimdAdvice> {
        let since = *self.since.get_or_insert(at);
        self.answers += 1;
        self.slow += u32::from(is_slow);
        self.is_reached |= is_reached;
        let (answers, slow) = (f64::from(self.answers), f64::from(self.slow));
        let is_slow_at_last = slow >= DECREASE_AT * answers;
        let is_early = is_early && self.answers >= WINDOW_MIN && is_slow_at_last;
        let is_full = answers >= f64::from(WINDOW_MIN).max(value.floor())
            && at.saturating_duration_since(since) >= WINDOW_LASTS_MIN;
        if !is_early && !is_full {
            return None;
        }
        let is_reached = self.is_reached;
        self.restart();
        if is_slow_at_last {
            return Some(AimdAdvice::Lower);
        }
        (slow <= INCREASE_AT * answers && is_reached).then_some(AimdAdvice::Raise)
    }

    /// Returns the limit after a decrease.
    pub(super) fn lowered(value: f64) -> f64 {
        value * DECREASE_TO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the advice of a window of 20 answers within 190 ms, at a limit of 20 calls.
    fn advice(slow: u32, is_reached: bool) -> Option<AimdAdvice> {
        let mut law = Aimd::new(Duration::from_millis(100));
        let from = Instant::now();
        let answer = |n: u32| {
            let at = from + Duration::from_millis(10) * n;
            law.add(n < slow, is_reached && n == 7, false, 20.0, at)
        };
        let given: Vec<_> = (0..20).map(answer).collect();
        assert!(given[..19].iter().all(Option::is_none), "a window is not over before its end");
        given[19]
    }

    #[test]
    fn only_a_limit_that_is_reached_by_quick_calls_is_raised() {
        for (slow, when_reached, otherwise) in [
            (0, Some(AimdAdvice::Raise), None),
            (2, Some(AimdAdvice::Raise), None),
            (3, None, None),
            (5, None, None),
            (6, Some(AimdAdvice::Lower), Some(AimdAdvice::Lower)),
            (20, Some(AimdAdvice::Lower), Some(AimdAdvice::Lower)),
        ] {
            assert_eq!(advice(slow, true), when_reached, "{slow} of 20 slow");
            assert_eq!(advice(slow, false), otherwise, "{slow} of 20 slow, not reached");
        }
    }
}
