//! Law without a latency target: the number of workers, lowered if too many calls time out.

use std::time::Duration;

use tokio::time::Instant;

/// A window closes after this many answers, or after [`LASTS`] with at least [`ANSWERS_MIN`].
const ANSWERS: u32 = 100;
const ANSWERS_MIN: u32 = 5;
const LASTS: Duration = Duration::from_secs(1);

/// Share of timeouts in a window from which the limit is lowered.
const TIMED_OUT_MAX: f64 = 0.3;

/// Factor of a decrease. A timeout shows late that the open calls were too many for long.
const DECREASE_TO: f64 = 0.5;

/// How long the latency of the fastest answer is remembered, across outages.
const QUICKEST_LASTS: Duration = Duration::from_secs(600);

/// State of the law.
#[derive(Debug, Default)]
pub(super) struct TimeoutLimit {
    since: Option<Instant>,
    answers: u32,
    timed_out: u32,
    quick: u32,
    late: u32,
    is_reached: bool,
    is_inflated: bool,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimedAnswer {
    pub(super) is_timed_out: bool,
    /// Took much longer than the fastest answers.
    pub(super) is_inflated: bool,
    /// Answered, neither much slower than the fastest nor in most of the timeout.
    pub(super) is_quick: bool,
    /// Took over half of the timeout, and much longer than the fastest of the last minutes. The
    /// latter is not required for some minutes after a decrease.
    pub(super) is_late: bool,
    /// The limit was reached.
    pub(super) is_reached: bool,
}

/// Advice from a full window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeoutAdvice {
    Lower,
    Raise(Speed),
}

/// Speed at which the limit may rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    Fast,
    /// Calls queue at the service.
    Slow,
    /// Calls queue for most of the timeout. With little more load, all of them time out: in a FIFO
    /// queue all calls are late.
    Slowest,
}

impl TimeoutLimit {
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Records an answer. `is_full`: the limit is at its maximum.
    pub(super) fn add(
        &mut self,
        answer: TimedAnswer,
        is_full: bool,
        at: Instant,
    ) -> Option<TimeoutAdvice> {
        let TimedAnswer { is_timed_out, is_inflated, is_quick, is_late, is_reached } = answer;
        if self.since.is_none() && !is_timed_out && is_full {
            // Fast path: in normal operation, an answer costs no more than this.
            return None;
        }
        let since = *self.since.get_or_insert(at);
        self.answers += 1;
        self.timed_out += u32::from(is_timed_out);
        self.quick += u32::from(is_quick);
        self.late += u32::from(is_late);
        self.is_reached |= is_reached;
        self.is_inflated |= is_inflated;
        let lasted = at.saturating_duration_since(since);
        if self.answers < ANSWERS && (self.answers < ANSWERS_MIN || lasted < LASTS) {
            return None;
        }
        let Self { answers, timed_out, quick, late, is_reached, is_inflated, .. } =
            std::mem::take(self);
        // An overloaded service is slow for all calls. Timeouts beside fast answers have another
        // cause.
        let is_slow_for_all = 2 * quick <= answers - timed_out;
        if is_slow_for_all && f64::from(timed_out) >= TIMED_OUT_MAX * f64::from(answers) {
            return Some(TimeoutAdvice::Lower);
        }
        let may_rise = is_reached && timed_out == 0;
        let speed = match (2 * late > answers, is_inflated) {
            (true, _) => Speed::Slowest,
            (false, true) => Speed::Slow,
            (false, false) => Speed::Fast,
        };
        may_rise.then_some(TimeoutAdvice::Raise(speed))
    }

    /// Returns the limit after a decrease.
    pub(super) fn lowered(value: f64) -> f64 {
        value * DECREASE_TO
    }
}

/// Number of latency buckets, each less than 50% wide: the longest timeout is a minute.
const STEPS: usize = 54;

/// Latency of answers without queueing: the 10th percentile. A single answer, or one kind of call,
/// may be far faster than all others, and shows nothing about them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fastest {
    steps: [u32; STEPS],
    answers: u32,
}

impl Default for Fastest {
    fn default() -> Self {
        Self { steps: [0; STEPS], answers: 0 }
    }
}

impl Fastest {
    /// Counts an answer, and returns the 10th percentile.
    pub(super) fn add(&mut self, took: Duration) -> Duration {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(2);
        // Two buckets per power of two: the highest bit and the one below it select the bucket.
        let step = us.ilog2() * 2 + u32::from(us >> (us.ilog2() - 1) == 3);
        let step = usize::try_from(step).map_or(STEPS - 1, |step| step.min(STEPS - 1));
        self.steps[step] = self.steps[step].saturating_add(1);
        self.answers = self.answers.saturating_add(1);
        let (mut quicker, least) = (0, self.answers / 10 + 1);
        let at = self.steps.iter().position(|answers| {
            quicker += answers;
            quicker >= least
        });
        let at = u32::try_from(at.unwrap_or(step)).expect("few steps");
        // Lower bound of the bucket.
        Duration::from_micros((2 + u64::from(at % 2)) << (at / 2).saturating_sub(1))
    }
}

/// Latency of the fastest answer of the last [`QUICKEST_LASTS`], or of twice that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quickest {
    latest: Option<Duration>,
    before: Option<Duration>,
    since: Option<Instant>,
}

impl Quickest {
    pub(super) fn add(&mut self, took: Duration, at: Instant) -> Duration {
        let since = *self.since.get_or_insert(at);
        if at.saturating_duration_since(since) >= QUICKEST_LASTS {
            *self = Self { latest: None, before: self.latest, since: Some(at) };
        }
        let latest = self.latest.map_or(took, |latest| latest.min(took));
        self.latest = Some(latest);
        self.before.map_or(latest, |before| before.min(latest))
    }
}
