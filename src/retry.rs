//! Exponential backoff with full jitter.
//!
//! The callers decide how often to retry.

use std::time::Duration;

/// Backoff with bounds that double from `base` to `cap`, and full jitter.
///
/// Each delay is drawn uniformly from zero to the bound, so that callers that failed together do
/// not retry together (AWS Architecture Blog, "Exponential Backoff And Jitter").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first bound.
    pub base: Duration,
    /// The maximum bound.
    pub cap: Duration,
}

impl Backoff {
    /// Returns the delay after `failures` earlier failures (0 for the first).
    #[must_use]
    pub fn delay(&self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        let bound = self.bound(failures);
        let bound_us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random.u64(0..=bound_us))
    }

    /// Returns the maximum delay that [`Backoff::delay`] can return.
    #[must_use]
    pub fn bound(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let bounds: Vec<u64> = (0..8).map(|n| BACKOFF.bound(n).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(BACKOFF.bound(31), BACKOFF.cap);
        assert_eq!(BACKOFF.bound(u32::MAX), BACKOFF.cap);
    }

    #[test]
    fn full_jitter_is_between_zero_and_the_bound() {
        let mut random = fastrand::Rng::with_seed(1);
        let delays: Vec<_> = (0..1_000).map(|_| BACKOFF.delay(2, &mut random)).collect();
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(4)));
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(400)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(3_600)));
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let draw = || {
            let mut random = fastrand::Rng::with_seed(7);
            (0..10).map(|n| BACKOFF.delay(n, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
