//! The law without a latency target: as many calls as there are workers, fewer where too many time out.

use std::time::Duration;

use tokio::time::Instant;

/// Answers of a window, or how long it lasts with at least [`ANSWERS_MIN`].
const ANSWERS: u32 = 100;
const ANSWERS_MIN: u32 = 5;
const LASTS: Duration = Duration::from_secs(1);

/// The part of a window's answers that may time out.
const TIMED_OUT_MAX: f64 = 0.3;

/// What a decrease leaves. A timeout comes late: what is open then was too much for a long while.
const DECREASE_TO: f64 = 0.5;

/// How long it is remembered how quick answers can be, outages or not.
const QUICKEST_LASTS: Duration = Duration::from_secs(600);

/// The law's state.
#[derive(Debug, Default)]
pub(super) struct Timeouts {
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
pub(super) struct Answer {
    pub(super) is_timed_out: bool,
    /// It took much longer than the quickest.
    pub(super) is_inflated: bool,
    /// It was answered, and took neither much longer than the quickest nor most of the time after which calls time out.
    pub(super) is_quick: bool,
    /// It took much longer than any of the last minutes, and more than half of what calls take that time out.
    pub(super) is_late: bool,
    /// As many calls were open as may be.
    pub(super) is_reached: bool,
}

/// What a full window asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    Lower,
    Raise(Speed),
}

/// How fast the limit may rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    Fast,
    /// Calls wait for each other.
    Slow,
    /// They wait for most of their time. A little more, and all of them time out: what is taken in turn is late for all.
    Slowest,
}

impl Timeouts {
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// `is_full`: the limit is where it may rise no further.
    pub(super) fn add(&mut self, answer: Answer, is_full: bool, at: Instant) -> Option<Advice> {
        let Answer { is_timed_out, is_inflated, is_quick, is_late, is_reached } = answer;
        if self.since.is_none() && !is_timed_out && is_full {
            // While all is well, this is all that an answer costs.
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
        // A service that is given too much is slow for all. Beside quick answers, timeouts have another reason.
        let is_slow_for_all = 2 * quick <= answers - timed_out;
        if is_slow_for_all && f64::from(timed_out) >= TIMED_OUT_MAX * f64::from(answers) {
            return Some(Advice::Lower);
        }
        let may_rise = is_reached && timed_out == 0;
        let speed = match (2 * late > answers, is_inflated) {
            (true, _) => Speed::Slowest,
            (false, true) => Speed::Slow,
            (false, false) => Speed::Fast,
        };
        may_rise.then_some(Advice::Raise(speed))
    }

    /// What a decrease leaves of a limit.
    pub(super) fn lowered(value: f64) -> f64 {
        value * DECREASE_TO
    }
}

/// Answers by how long they took, in steps of less than a half: the longest time-out is a minute.
const STEPS: usize = 54;

/// How quick answers are that wait for no others: one in ten is no slower. One answer, or one kind of call, may be far quicker
/// than all others, and says nothing of them.
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
    /// Counts an answer, and says how quick they are.
    pub(super) fn add(&mut self, took: Duration) -> Duration {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(2);
        // The highest bit, and the one below it.
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
        // Where the step begins.
        Duration::from_micros((2 + u64::from(at % 2)) << (at / 2).saturating_sub(1))
    }
}

/// The quickest answer of the last [`QUICKEST_LASTS`], or of twice that.
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
