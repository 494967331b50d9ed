//! A rate at which calls begin, and how it moves.

use std::time::Duration;

use tokio::time::Instant;

use super::REFUSED;
use super::measure::Count;

/// How quickly the rate moves: so much each second, by the part that is refused beyond what is sought; where calls are few, by
/// so much with each of them at most.
const GAIN_PER_SECOND: f64 = 3.0;
const GAIN_MAX: f64 = 0.22;

/// Without a refusal for so many answers, and so long, the rate rises so many times as quickly.
const CLEAN_ANSWERS: u32 = 150;
const CLEAN_LASTS: Duration = Duration::from_secs(2);
const CLEAN_GAIN: f64 = 5.0;

/// The same where the limit is surely gone.
const GONE_LASTS: Duration = Duration::from_secs(5 * 60);
const GONE_GAIN: f64 = 25.0;

/// No rate is smaller: it would hardly show that the limit is gone.
const LEAST: f64 = 0.1;

/// An experiment ends at this part of the best rate; what is refused is counted from that part on.
const HALF: f64 = 0.5;
const LATE: f64 = 0.7;

/// A limit that was seen is doubted at this part of what the rate was since.
const SUNK: f64 = 0.15;

/// The rate does not fall below that part before that is known; one of so few a second, for which that takes long, not below
/// this part.
const FEW: f64 = 10.0;
const FLOOR: f64 = 0.25;

/// What is to be counted for that, at least: answers, with some refusals unless there are many.
const LATE_ANSWERS: u32 = 20;
const LATE_REFUSED: u32 = 8;

/// Answers of which the refused part is looked at, and how long they take at least.
const RECENT: u32 = 100;
const RECENT_LASTS: Duration = Duration::from_secs(1);

/// Between two looks whether a call may begin: a timer's step at least.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Calls that may begin together: those of so long a time, and one at least.
const BURST: Duration = Duration::from_millis(20);

/// A rate at which calls begin.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) per_second: f64,
    /// Calls that may begin now.
    tokens: f64,
    counted_at: Instant,
    /// When it held somebody back last.
    pub(super) held_back_at: Instant,
    /// When the last experiment ended, and the highest that the rate was since.
    pub(super) since: Instant,
    best: f64,
    /// The same since the limit was seen.
    peak: f64,
    /// Answers since it fell well below that.
    late: Count,
    recent: Count,
    recent_since: Instant,
    /// Calls that were let in since one was refused, and when that was.
    clean: u32,
    refused_at: Instant,
}

impl Pace {
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

    /// Calls that may begin now.
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

    /// When so many calls may begin; `None` where they may now.
    pub(super) fn next(&self, calls: f64, now: Instant) -> Option<Instant> {
        if self.tokens >= calls {
            return None;
        }
        let wait = Duration::try_from_secs_f64((calls - self.tokens) / self.per_second);
        Some(now + wait.unwrap_or(LOOK_MAX).clamp(LOOK_MIN, LOOK_MAX))
    }

    /// A call begins.
    pub(super) fn begin(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    /// Moves by one answer.
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

    /// Whether somebody waited for it of late.
    fn holds_back(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.held_back_at).as_secs_f64();
        since <= (2.0 / self.per_second).max(1.0)
    }

    pub(super) fn raise_to(&mut self, times: f64, now: Instant) {
        self.per_second = (self.per_second * times).min(1e9);
        self.peak = self.per_second;
        self.begin_anew(now);
    }

    /// The limit is seen at this rate.
    pub(super) fn helped(&mut self) {
        self.peak = self.per_second;
    }

    /// Whether it has come down so far that no limit is likely.
    pub(super) fn has_sunk(&self) -> bool {
        self.per_second < SUNK * self.peak
    }

    /// Another experiment may begin with the rate as it is.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        (self.best, self.late, self.since) = (self.per_second, Count::default(), now);
    }

    /// What is refused at about half of the best rate, once it is known.
    pub(super) fn halved(&self) -> Option<Count> {
        let is_low = self.per_second <= (1.1 * HALF * self.best).max(LEAST);
        let Count { answers, refused } = self.late;
        let is_enough = refused >= LATE_REFUSED && answers >= LATE_ANSWERS || answers >= RECENT;
        (is_low && is_enough).then_some(self.late)
    }

    /// What was refused of the latest answers, once there are enough; the next ones begin anew.
    pub(super) fn take_recent(&mut self, now: Instant) -> Option<Count> {
        let lasted = now.saturating_duration_since(self.recent_since);
        if self.recent.answers < RECENT || lasted < RECENT_LASTS {
            return None;
        }
        self.recent_since = now;
        Some(std::mem::take(&mut self.recent))
    }
}
