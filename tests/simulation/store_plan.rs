//! The part of a plan about the shared store: whether there is one, its faults, and the other pods.
//! Drawn from a random sequence of its own, so that it does not change the rest of the plan.

use std::time::Duration;

use fastrand::Rng;

use super::plan::{Kind, MessageSpec, millis, pick, secs};

/// The faults of the shared store, and its other users.
#[derive(Clone, Debug, Default)]
pub(crate) struct StorePlan {
    /// Percentage of operations that fail.
    pub(crate) faults_pct: u8,
    pub(crate) down: Vec<StoreDown>,
    /// Periods of higher latency.
    pub(crate) slow: Vec<(Duration, Duration)>,
    /// The times at which a replica takes over that lacks the writes of the last second.
    pub(crate) failovers: Vec<Duration>,
    /// The client's timeout.
    pub(crate) timeout: Duration,
    pub(crate) others: Vec<OtherSpec>,
}

/// A period in which all operations fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreDown {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// Operations get no response. Otherwise they are refused.
    pub(crate) is_silent: bool,
}

/// A pod that gets a copy of an event from outside the simulated queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OtherSpec {
    /// The time at which it starts.
    pub(crate) at: Duration,
    /// The event, by its index in the plan.
    pub(crate) event: usize,
    pub(crate) end: OtherEnd,
    /// The pause before each step. The claim is renewed meanwhile.
    pub(crate) pace: Duration,
    /// The duration of its claims.
    pub(crate) lasts: Duration,
}

/// Where another pod stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherEnd {
    Completes,
    /// After its first step, which it records.
    GivesUp,
    /// With a claim, before its first step.
    VanishesAtOnce,
    /// Between the effect of its first step and the record of it.
    VanishesUnrecorded,
    /// Before its second step.
    VanishesRecorded,
}

impl StorePlan {
    /// Draws the plan. `None`: the processes share no store.
    pub(crate) fn draw(seed: u64, span: Duration, messages: &[MessageSpec]) -> Option<Self> {
        let rng = &mut Rng::with_seed(seed ^ 0x0DD5_EED5_70FE_0001);
        if rng.bool() {
            return None;
        }
        let window = |rng: &mut Rng, longest_s: u64| {
            let from = span.mul_f64(rng.f64());
            (from, from + secs(rng.u64(1..=longest_s)))
        };
        let mut down = Vec::new();
        if rng.u8(0..5) < 2 {
            let longest_s = pick(rng, &[5, 20, 60, 300]);
            for _ in 0..rng.usize(1..=2) {
                let ((from, to), is_silent) = (window(rng, longest_s), rng.u8(0..4) == 0);
                down.push(StoreDown { from, to, is_silent });
            }
        }
        let slow = if rng.u8(0..4) == 0 { vec![window(rng, 60)] } else { vec![] };
        let mut failovers = Vec::new();
        let rolls = if rng.u8(0..5) == 0 { rng.usize(1..=4) } else { 0 };
        for _ in 0..rolls {
            // Soon after the arrival of a message, so that there are writes to lose.
            let at = messages[rng.usize(0..messages.len())].at + millis(rng.u64(0..1_500));
            failovers.push(at);
            // The store has no primary for a moment.
            down.push(StoreDown { from: at, to: at + millis(rng.u64(1..3_000)), is_silent: false });
        }
        let others = if rng.u8(0..5) < 2 { 0 } else { rng.usize(1..=8) };
        let others = (0..others).filter_map(|_| other(rng, messages, &down)).collect();
        Some(Self {
            faults_pct: pick(rng, &[0, 0, 2, 10, 30]),
            down,
            slow,
            failovers,
            timeout: millis(pick(rng, &[100, 500, 1_000])),
            others,
        })
    }

    /// The end of its last fault.
    pub(crate) fn ends(&self) -> Duration {
        let ends = self.down.iter().map(|down| down.to).chain(self.failovers.iter().copied());
        ends.max().unwrap_or_default()
    }
}

fn other(rng: &mut Rng, messages: &[MessageSpec], down: &[StoreDown]) -> Option<OtherSpec> {
    use OtherEnd::{Completes, GivesUp, VanishesAtOnce, VanishesRecorded, VanishesUnrecorded};
    let (message, at) = if !down.is_empty() && rng.bool() {
        // While the store is down, claims expire. The first claim after that gets the event.
        let down = pick(rng, down);
        let before = messages.partition_point(|message| message.at < down.from);
        let place = rng.usize(before.saturating_sub(4)..=before).min(messages.len() - 1);
        (&messages[place], down.from + (down.to - down.from).mul_f64(rng.f64()))
    } else {
        let message = &messages[rng.usize(0..messages.len())];
        // Before the worker, at about the same time, or later.
        let at = match rng.u8(0..3) {
            0 => message.at.saturating_sub(millis(rng.u64(0..2_000))),
            1 => message.at + millis(rng.u64(0..2_000)),
            _ => message.at + millis(rng.u64(0..60_000)),
        };
        (message, at)
    };
    let Kind::Event(event) = message.kind else { return None };
    let ends =
        [Completes, Completes, GivesUp, VanishesAtOnce, VanishesUnrecorded, VanishesRecorded];
    Some(OtherSpec {
        at,
        event,
        end: pick(rng, &ends),
        pace: millis(pick(rng, &[50, 500, 3_000, 12_000])),
        lasts: secs(pick(rng, &[5, 10, 30])),
    })
}
