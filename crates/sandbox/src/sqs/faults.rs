//! Faults per queue, which can change at run time. `Plan` has the settings and draws the faults;
//! `Faults` is the handle for tests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::ailment::Ailments;
use super::error::ErrorCode;
use super::ledger::FaultKind;
use super::world::Shared;

/// A fault of a whole call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An SQS error with its usual status, without effect.
    Error(ErrorCode),
    /// An HTTP status without an SQS error body, without effect.
    Http(u16),
    /// A connection reset, without effect.
    Reset,
    /// The action takes effect, then the connection is reset.
    ReplyLost,
}

impl Fault {
    pub(crate) fn kind(self) -> FaultKind {
        match self {
            Self::Error(_) => FaultKind::Error,
            Self::Http(_) => FaultKind::Http,
            Self::Reset => FaultKind::Reset,
            Self::ReplyLost => FaultKind::ReplyLost,
        }
    }
}

/// A fault that applies to the next `next` items, then with a probability.
#[derive(Clone, Copy, Debug, Default)]
struct Chance {
    next: u32,
    probability: f64,
}

impl Chance {
    fn strikes(&mut self, rng: &mut fastrand::Rng) -> bool {
        if self.next > 0 {
            self.next -= 1;
            return true;
        }
        self.probability > 0.0 && rng.f64() < self.probability
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct ActionPlan {
    latency: Duration,
    jitter: Duration,
    next: Option<(u32, Fault)>,
    chance: Option<(f64, Fault)>,
}

/// The settings of one queue.
#[derive(Debug)]
pub(crate) struct Plan {
    rng: fastrand::Rng,
    actions: HashMap<Action, ActionPlan>,
    pub(super) ailments: Ailments,
    duplicates: Chance,
    delete_entries: Chance,
    visibility_entries: Chance,
    silent_deletes: Chance,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rng: fastrand::Rng::with_seed(0),
            actions: HashMap::new(),
            ailments: Ailments::default(),
            duplicates: Chance::default(),
            delete_entries: Chance::default(),
            visibility_entries: Chance::default(),
            silent_deletes: Chance::default(),
        }
    }
}

impl Plan {
    /// Returns the delay and the fault of a call.
    pub(crate) fn call(&mut self, action: Action) -> (Duration, Option<Fault>) {
        let (ailing, fault) = self.ailments.call(action);
        if fault.is_some() {
            return (ailing, fault);
        }
        let Some(plan) = self.actions.get_mut(&action) else {
            return (ailing, None);
        };
        let latency = ailing + plan.latency + plan.jitter.mul_f64(self.rng.f64());
        let fault = match (&mut plan.next, plan.chance) {
            (Some((calls, fault)), _) if *calls > 0 => {
                *calls -= 1;
                Some(*fault)
            }
            (_, Some((probability, fault))) if self.rng.f64() < probability => Some(fault),
            (_, _) => None,
        };
        (latency, fault)
    }

    pub(crate) fn duplicates(&mut self) -> bool {
        self.duplicates.strikes(&mut self.rng)
    }

    pub(crate) fn fails_delete_entry(&mut self) -> bool {
        self.delete_entries.strikes(&mut self.rng)
    }

    pub(crate) fn fails_visibility_entry(&mut self) -> bool {
        self.visibility_entries.strikes(&mut self.rng)
    }

    pub(crate) fn deletes_silently(&mut self) -> bool {
        self.silent_deletes.strikes(&mut self.rng)
    }
}

/// The fault settings of one queue. All are off at first; probabilities are from 0 to 1. They do
/// nothing if the queue does not exist.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
    queue: String,
}

impl Faults {
    pub(crate) fn new(shared: Arc<Shared>, queue: String) -> Self {
        Self { shared, queue }
    }

    pub(super) fn turn(&self, knob: impl FnOnce(&mut Plan)) {
        if let Some(queue) = self.shared.lock().queue_mut(&self.queue) {
            knob(&mut queue.faults);
        }
    }

    /// Sets the seed of the random choices, so that a run can be repeated.
    pub fn seed(&self, seed: u64) {
        self.turn(|plan| plan.rng = fastrand::Rng::with_seed(seed));
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.turn(|plan| *plan = Plan { rng: plan.rng.clone(), ..Plan::default() });
    }

    /// Delays every call of this action by `fixed` plus up to `jitter`.
    pub fn latency(&self, action: Action, fixed: Duration, jitter: Duration) {
        self.turn(|plan| {
            let action = plan.actions.entry(action).or_default();
            action.latency = fixed;
            action.jitter = jitter;
        });
    }

    /// Fails the next `calls` calls of this action.
    pub fn fail_next(&self, action: Action, calls: u32, fault: Fault) {
        self.turn(|plan| plan.actions.entry(action).or_default().next = Some((calls, fault)));
    }

    /// Fails calls of this action with this probability.
    pub fn fail_sometimes(&self, action: Action, probability: f64, fault: Fault) {
        self.turn(|plan| {
            plan.actions.entry(action).or_default().chance = Some((probability, fault));
        });
    }

    /// Leaves delivered messages visible with this probability, so that they are delivered again.
    pub fn duplicate_sometimes(&self, probability: f64) {
        self.turn(|plan| plan.duplicates.probability = probability);
    }

    /// Leaves the next `messages` delivered messages visible.
    pub fn duplicate_next(&self, messages: u32) {
        self.turn(|plan| plan.duplicates.next = messages);
    }

    /// Fails entries of `DeleteMessageBatch` with `InternalError`.
    pub fn fail_delete_entries(&self, probability: f64) {
        self.turn(|plan| plan.delete_entries.probability = probability);
    }

    /// Fails the next `entries` entries of `DeleteMessageBatch`.
    pub fn fail_next_delete_entries(&self, entries: u32) {
        self.turn(|plan| plan.delete_entries.next = entries);
    }

    /// Fails entries of `ChangeMessageVisibilityBatch` with `InternalError`.
    pub fn fail_visibility_entries(&self, probability: f64) {
        self.turn(|plan| plan.visibility_entries.probability = probability);
    }

    /// Fails the next `entries` entries of `ChangeMessageVisibilityBatch`.
    pub fn fail_next_visibility_entries(&self, entries: u32) {
        self.turn(|plan| plan.visibility_entries.next = entries);
    }

    /// Answers deletes with success without deleting.
    pub fn delete_silently(&self, probability: f64) {
        self.turn(|plan| plan.silent_deletes.probability = probability);
    }

    /// Answers the next `deletes` deletes with success without deleting.
    pub fn delete_next_silently(&self, deletes: u32) {
        self.turn(|plan| plan.silent_deletes.next = deletes);
    }
}
