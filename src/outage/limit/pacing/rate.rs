//! Rate at which calls begin, and how it adapts.

use std::time::Duration;

use tokio::time::Instant;

use super::REFUSED;
use super::measure::Count;

/// Gain of the rate per second, times the share of refusals beyond the target. For a low rate,
/// [`GAIN_MAX`] bounds the gain per call.
const GAIN_PER_SECOND: f64 = 3.0;
const GAIN_MAX: f64 = 0.22;

/// Answers without a refusal after which the rate rises faster, by [`CLEAN_GAIN`].
/// They must also span [`CLEAN_LASTS`].
const CLEAN_ANSWERS: u32 = 150;
const CLEAN_LASTS: Duration = Duration::from_secs(2);
const CLEAN_GAIN: f64 = 5.0;

/// After this time without a refusal, the limit is surely gone.
const GONE_LASTS: Duration = Duration::from_secs(5 * 60);
const GONE_GAIN: f64 = 25.0;

/// Minimum rate in calls/s. A lower one would not show in time that the limit is gone.
const LEAST: f64 = 0.1;

/// An experiment ends at this share of the best rate. Refusals are counted from [`LATE`] on.
const HALF: f64 = 0.5;
const LATE: f64 = 0.7;

/// An observed limit is doubted below this share of the peak rate since.
const SUNK: f64 = 0.15;

/// Rate in calls/s above which [`HALF`] of the best rate is the floor until an experiment ends. For
/// lower rates an experiment takes long, and [`FLOOR`] applies.
const FEW: f64 = 10.0;
const FLOOR: f64 = 0.25;

/// Minimum answers and refusals to end an experiment. [`RECENT`] answers are enough by themselves.
const LATE_ANSWERS: u32 = 20;
const LATE_REFUSED: u32 = 8;

/// Answers per check of the share of refusals, and the minimum duration.
const RECENT: u32 = 100;
const RECENT_LASTS: Duration = Duration::from_secs(1);

/// Bounds of the wait until a call may begin: at least one timer step.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Burst: the calls of this duration may begin together, and at least one.
const BURST: Duration = Duration::from_millis(20);

/// Rate at which calls begin: a token bucket that adapts.
#[derive(Debug)]
pub(super) struct CallRate {
    pub(super) per_second: f64,
    /// Calls that may begin now.
    tokens: f64,
    counted_at: Instant,
    /// Time at which the rate last restricted a call.
    pub(super) held_back_at: Instant,
    /// End of the last experiment, and the highest rate since.
    pub(super) since: Instant,
    best: f64,
    /// Highest rate since the limit was observed.
    peak: f64,
    /// Answers since the rate fell to [`LATE`] of `best`.
    late: Count,
    recent: Count,
    recent_since: Instant,
    /// Calls accepted since the last refusal, and the time of that refusal.
    clean: u32,
    refused_at: Instant,
}

impl CallRate {
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        let per_second = per_second.max(LEAST);
        Self {
            per_second,
            tokens: 0.0,
            counted_at: now,
            held_back_at: now,
            since: now,
            best: per_second,
            peak: per_second,
            late: Count::default(),
            recent: Count::default(),
            recent_since: now,
            clean: 0,
            refused_at: now,
        }
    }

    /// Returns the calls that may begin now.
    pub(super) fn free(&mut self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.counted_at).as_secs_f64();
        let most = (self.per_second * BURST.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + since * self.per_second).min(most);
        self.counted_at = now;
        if self.tokens < 1.0 {
            self.held_back_at = now;
        }
        self.tokens
    }

    /// Returns when this number of calls may begin; `None` if they may begin now.
    pub(super) fn next(&self, calls: f64, now: Instant) -> Option<Instant> {
        if self.tokens >= calls {
            return None;
        }
        let wait = Duration::try_from_secs_f64((calls - self.tokens) / self.per_second);
        Some(now + wait.unwrap_or(WAIT_MAX).clamp(WAIT_MIN, WAIT_MAX))
    }

    /// Records the beginning of a call.
    pub(super) fn begin(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    /// Adapts the rate to one answer.
    pub(super) fn step(&mut self, is_refused: bool, now: Instant) {
        self.recent.add(is_refused);
        if self.per_second <= (LATE * self.best).max(LEAST) {
            self.late.add(is_refused);
        }
        let gain = GAIN_MAX.min(GAIN_PER_SECOND / self.per_second);
        if is_refused {
            (self.clean, self.refused_at) = (0, now);
            let lower = self.per_second * (-gain * (1.0 - REFUSED)).exp();
            let floor = if self.per_second > FEW { HALF } else { FLOOR };
            self.per_second = lower.max(floor * self.best).max(LEAST);
            return;
        }
        self.clean = self.clean.saturating_add(1);
        if !self.holds_back(now) {
            return;
        }
        let clean_for = now.saturating_duration_since(self.refused_at);
        let times = match clean_for {
            _ if clean_for >= GONE_LASTS => GONE_GAIN,
            _ if clean_for >= CLEAN_LASTS && self.clean > CLEAN_ANSWERS => CLEAN_GAIN,
            _ => 1.0,
        };
        self.per_second *= (times * gain * REFUSED).exp();
        self.peak = self.peak.max(self.per_second);
        if self.per_second > self.best {
            (self.best, self.late) = (self.per_second, Count::default());
        }
    }

    /// Returns whether the rate restricted a call recently.
    fn holds_back(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.held_back_at).as_secs_f64();
        since <= (2.0 / self.per_second).max(1.0)
    }

    /// Multiplies the rate, up to 1e9 calls/s, and allows another experiment from there.
    pub(super) fn raise_by(&mut self, times: f64, now: Instant) {
        self.per_second = (self.per_second * times).min(1e9);
        self.peak = self.per_second;
        self.begin_anew(now);
    }

    /// Records that the limit was observed at this rate.
    pub(super) fn helped(&mut self) {
        self.peak = self.per_second;
    }

    /// Returns whether the rate has fallen so far that a limit is unlikely.
    pub(super) fn has_sunk(&self) -> bool {
        self.per_second < SUNK * self.peak
    }

    /// Allows another experiment, from the current rate.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        (self.best, self.late, self.since) = (self.per_second, Count::default(), now);
    }

    /// Returns the refusals at about half of the best rate, once there are enough answers.
    pub(super) fn halved(&self) -> Option<Count> {
        let is_low = self.per_second <= (1.1 * HALF * self.best).max(LEAST);
        let Count { answers, refused } = self.late;
        let is_enough = refused >= LATE_REFUSED && answers >= LATE_ANSWERS || answers >= RECENT;
        (is_low && is_enough).then_some(self.late)
    }

    /// Returns the refusals among the latest answers, once there are enough, and resets the count.
    pub(super) fn take_recent(&mut self, now: Instant) -> Option<Count> {
        let lasted = now.saturating_duration_since(self.recent_since);
        if self.recent.answers < RECENT || lasted < RECENT_LASTS {
            return None;
        }
        self.recent_since = now;
        Some(std::mem::take(&mut self.recent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Returns by which factor one answer changes the rate, as a logarithm.
    fn change(rate: &mut CallRate, is_refused: bool, now: Instant) -> f64 {
        let before = rate.per_second;
        rate.step(is_refused, now);
        (rate.per_second / before).ln()
    }

    fn assert_near(is: f64, expected: f64, what: &str) {
        assert!((is - expected).abs() < 1e-6, "{what}: {is}, not {expected}");
    }

    #[test]
    fn calls_begin_at_the_rate_with_a_small_burst() {
        let now = Instant::now();
        let mut rate = CallRate::new(100.0, now);
        assert_near(rate.free(now), 0.0, "none at first");
        assert_eq!(rate.next(1.0, now), Some(now + ms(10)));
        assert_near(rate.free(now + ms(10)), 1.0, "a hundredth of a second");
        assert_eq!(rate.next(1.0, now + ms(10)), None);
        rate.begin();
        assert_near(rate.free(now + ms(10)), 0.0, "it has begun");
        assert_near(rate.free(now + ms(5_000)), 2.0, "a burst is 20 ms");
        let mut slow = CallRate::new(0.5, now);
        assert_near(slow.free(now + ms(60_000)), 1.0, "one call at least");
    }

    #[test]
    fn only_a_rate_that_restricts_calls_rises() {
        for (per_second, at_ms, rises) in
            [(100.0, 1_000, true), (100.0, 1_001, false), (0.5, 4_000, true), (0.5, 4_001, false)]
        {
            let now = Instant::now();
            let mut rate = CallRate::new(per_second, now);
            rate.free(now);
            rate.free(now + ms(60_000));
            let changed = change(&mut rate, false, now + ms(at_ms)) > 0.0;
            assert_eq!(changed, rises, "{per_second} calls/s, {at_ms} ms after");
        }
    }

    #[test]
    fn a_rate_rises_faster_the_longer_no_call_is_refused() {
        for (clean, clean_for_ms, times) in [
            (CLEAN_ANSWERS, 1_999, 1.0),
            (CLEAN_ANSWERS - 1, 2_000, 1.0),
            (CLEAN_ANSWERS, 2_000, CLEAN_GAIN),
            (CLEAN_ANSWERS, 299_999, CLEAN_GAIN),
            (0, 300_000, GONE_GAIN),
        ] {
            let from = Instant::now();
            let now = from + ms(clean_for_ms);
            let mut rate = CallRate::new(100.0, from);
            (rate.clean, rate.held_back_at) = (clean, now);
            let seen = change(&mut rate, false, now);
            assert_near(seen, times * 0.03 * REFUSED, &format!("{clean} in {clean_for_ms} ms"));
        }
    }

    #[test]
    fn a_refusal_lowers_the_rate_down_to_a_share_of_the_best() {
        let now = Instant::now();
        let mut rate = CallRate::new(100.0, now);
        assert_near(change(&mut rate, true, now), -0.03 * (1.0 - REFUSED), "at 100 calls/s");
        for (best, least) in [(100.0, 50.0), (8.0, 2.0), (0.2, LEAST)] {
            let mut rate = CallRate::new(best, now);
            (0..1_000).for_each(|_| rate.step(true, now));
            assert_near(rate.per_second, least, "the floor");
        }
    }

    #[test]
    fn an_experiment_ends_at_half_of_the_best_rate_after_enough_answers() {
        let now = Instant::now();
        for (per_second, answers, refused, ends) in [
            (55.0, LATE_ANSWERS, LATE_REFUSED, true),
            (56.0, LATE_ANSWERS, LATE_REFUSED, false),
            (50.0, LATE_ANSWERS - 1, LATE_REFUSED, false),
            (50.0, RECENT - 1, LATE_REFUSED - 1, false),
            (50.0, RECENT, 0, true),
        ] {
            let mut rate = CallRate::new(100.0, now);
            (rate.per_second, rate.late) = (per_second - 1e-9, Count { answers, refused });
            let seen = rate.halved().is_some();
            assert_eq!(seen, ends, "{refused} of {answers} at {per_second} calls/s");
            rate.begin_anew(now);
            assert!(rate.halved().is_none(), "another one begins");
        }
    }

    #[test]
    fn a_limit_is_doubted_far_below_the_highest_rate_since() {
        let now = Instant::now();
        let mut rate = CallRate::new(100.0, now);
        for (per_second, has_sunk) in [(16.0, false), (14.0, true)] {
            rate.per_second = per_second;
            assert_eq!(rate.has_sunk(), has_sunk, "{per_second} of 100 calls/s");
        }
        rate.helped();
        assert!(!rate.has_sunk(), "the limit was observed here");
        rate.raise_by(10.0, now);
        assert_near(rate.best, 140.0, "the best");
        rate.per_second = 20.0;
        assert!(rate.has_sunk());
    }

    #[test]
    fn the_latest_answers_are_taken_after_a_second_and_a_hundred_of_them() {
        let now = Instant::now();
        let mut rate = CallRate::new(100.0, now);
        (0..RECENT).for_each(|_| rate.step(true, now));
        assert!(rate.take_recent(now + ms(999)).is_none());
        let count = rate.take_recent(now + ms(1_000)).expect("enough");
        assert_eq!((count.answers, count.refused), (RECENT, RECENT));
        assert!(rate.take_recent(now + ms(9_000)).is_none(), "they are taken once");
    }
}
