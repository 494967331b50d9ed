//! Faults of calls to the queue: random ones from the plan's weather, and in seeds from [`FIRST`]
//! on one action that always fails for a time while the rest of the queue works.
//!
//! In those seeds nothing else uses up the receives of a message. A good event in the dead-letter
//! queue is therefore there because the action failed.

use std::time::Duration;

use fastrand::Rng;
use reservation_worker::metrics::QueueAction;
use reservation_worker::queue::QueueErrorKind;

use super::plan::{Plan, pick, secs};
use super::queue::Receipt;
use super::world::World;

/// The first seed in which one action of the queue fails.
pub(crate) const FIRST: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call is refused at once.
    Error(QueueErrorKind),
    /// The call takes effect, and its response is lost.
    AnswerLost,
    /// The call never ends.
    Hangs,
    /// Some entries of the batch fail.
    Partly,
    /// All entries of the batch fail.
    Entries,
}

/// An action of the queue that fails between two times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HalfWell {
    action: QueueAction,
    fault: Fault,
    from: Duration,
    to: Duration,
}

const ACTIONS: [QueueAction; 5] = QueueAction::ALL;

const FAULTS: [Fault; 6] = [
    Fault::Error(QueueErrorKind::Denied),
    Fault::Error(QueueErrorKind::Denied),
    Fault::Error(QueueErrorKind::Throttled),
    Fault::Error(QueueErrorKind::Other),
    Fault::Hangs,
    Fault::Entries,
];

impl Plan {
    /// The plan with only one fault of the queue: one action fails.
    pub(crate) fn half_well(mut self) -> Self {
        let rng = &mut Rng::with_seed(self.seed);
        let from = if rng.bool() { Duration::ZERO } else { secs(rng.u64(0..200)) };
        let to = from + secs(pick(rng, &[10, 60, 300, 3_600]));
        let (action, fault) = (pick(rng, &ACTIONS), pick(rng, &FAULTS));
        self.half_well = Some(HalfWell { action, fault, from, to });
        self.queue.faults_pct = 0;
        self.queue.duplicates_pct = 0;
        self.queue.bad.clear();
        self.interrupts.clear();
        self.max_receives = 3;
        self.has_dlq = true;
        self.calm_at = self.calm_at.max(to + secs(60));
        self
    }
}

impl World {
    /// Notes receipts whose response was lost. If one hides its message for less time than an
    /// earlier receipt, the holder of that one cannot know it.
    pub(crate) fn lost_on_the_way(&mut self, receipts: &[usize]) {
        for number in receipts {
            let Receipt { msg, until, .. } = self.queue.receipts[*number];
            self.queue.msgs[msg].excuses += 1;
            let earlier = self.queue.receipts.iter_mut().filter(|r| r.msg == msg);
            earlier.filter(|r| r.until > until).for_each(|r| r.crossed = true);
        }
    }

    /// The fault of a call of that action, if any.
    pub(crate) fn queue_fault(&mut self, action: QueueAction) -> Option<Fault> {
        let now = self.now();
        if let Some(HalfWell { action: which, fault, from, to }) = self.plan.half_well {
            let fails = which == action && from <= now && now < to;
            if fails {
                self.cover.met(name(action));
            }
            return fails.then_some(fault);
        }
        let weather = &self.plan.queue;
        let bad = weather.bad.iter().any(|(from, to)| *from <= now && now < *to);
        let percent = if bad { 70 } else { weather.faults_pct };
        if self.calm() || !self.chance(percent) {
            return None;
        }
        let (fault, name) = match self.rng.u8(0..10) {
            0 | 1 => (Fault::Error(QueueErrorKind::Throttled), "queue throttles"),
            2 => (Fault::Error(QueueErrorKind::Network), "queue unreachable"),
            3 => (Fault::Error(QueueErrorKind::Other), "queue fails"),
            4 => (Fault::Error(QueueErrorKind::Denied), "queue denies"),
            5 | 6 => (Fault::AnswerLost, "queue's answer lost"),
            7 => (Fault::Hangs, "queue hangs"),
            _ if is_batch(action) => (Fault::Partly, "batch fails partly"),
            _ => (Fault::Error(QueueErrorKind::Timeout), "queue times out"),
        };
        self.cover.met(name);
        self.log(|| name.to_owned());
        Some(fault)
    }
}

fn is_batch(action: QueueAction) -> bool {
    match action {
        QueueAction::Extend | QueueAction::Delete => true,
        QueueAction::Receive | QueueAction::DeadLetter | QueueAction::Attributes => false,
    }
}

fn name(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Receive => "half well: no receive",
        QueueAction::Extend => "half well: no extension",
        QueueAction::Delete => "half well: no delete",
        QueueAction::DeadLetter => "half well: no copy",
        QueueAction::Attributes => "half well: no attributes",
    }
}
