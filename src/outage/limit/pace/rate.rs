//! A rate at which calls begin, and how it moves.

use std::time::Duration;

use tokio::time::Instant;

/// A rate below this moves with each answer: down to this part of it with one that is refused; up by so much with one that is
/// let in, and by more after many of these. As it rises by the same in each process, all come to have the same.
const SMALL: f64 = 10.0;
const SMALL_DOWN: f64 = 0.8;
const SMALL_UP: f64 = 0.001;
const SMALL_MANY: u32 = 60;
const SMALL_UP_AFTER_MANY: f64 = 0.02;

/// No rate is smaller: it would hardly show that the limit is gone.
const SMALL_MIN: f64 = 0.1;

/// How a rate that is not small rises: times so much each second, until so long after the last cut.
const RAISE_EVERY: Duration = Duration::from_secs(1);
const RAISES: [(Duration, f64); 2] =
    [(Duration::from_secs(10), 1.01), (Duration::from_secs(15), 1.05)];
const RAISE_AT_LAST: f64 = 1.2;

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
    cut_at: Instant,
    raised_at: Instant,
    /// Below this, a small rate does not fall before the window is full.
    pub(super) least: f64,
    /// Calls that were let in since one was refused.
    let_in: u32,
    /// When it held somebody back last.
    pub(super) held_back_at: Instant,
}

impl Pace {
    pub(super) fn new(per_second: f64, least: f64, now: Instant) -> Self {
        let per_second = per_second.max(SMALL_MIN);
        Self {
            per_second,
            tokens: 0.0,
            counted_at: now,
            cut_at: now,
            raised_at: now,
            least,
            let_in: 0,
            held_back_at: now,
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

    pub(super) fn raise(&mut self, now: Instant) {
        let since = |at| now.saturating_duration_since(at);
        if !self.is_small() && since(self.raised_at) >= RAISE_EVERY {
            let raise = RAISES.into_iter().find(|(until, _)| since(self.cut_at) <= *until);
            self.raise_to(raise.map_or(RAISE_AT_LAST, |(_, times)| times), now);
        }
    }

    /// Raises the rate to so many times what it is, where it holds somebody back.
    pub(super) fn raise_to(&mut self, times: f64, now: Instant) {
        if self.held_back_at >= self.raised_at {
            self.per_second *= times;
            self.raised_at = now;
        }
    }

    pub(super) fn is_small(&self) -> bool {
        self.per_second < SMALL
    }

    /// Moves a small rate by one answer; says whether it was lowered.
    pub(super) fn step(&mut self, is_refused: bool, now: Instant) -> bool {
        self.let_in = if is_refused { 0 } else { self.let_in.saturating_add(1) };
        if !self.is_small() {
            return false;
        }
        if is_refused {
            self.per_second = (SMALL_DOWN * self.per_second).max(self.least).max(SMALL_MIN);
            return true;
        }
        if self.held_back_at >= self.raised_at {
            let are_many = self.let_in > SMALL_MANY;
            self.per_second += if are_many { SMALL_UP_AFTER_MANY } else { SMALL_UP };
            self.raised_at = now;
        }
        false
    }
}
