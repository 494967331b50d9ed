//! What can be made to go wrong, queue by queue, while the server runs.
//! `Plan` holds the knobs and rolls the dice; `Faults` is the handle that tests turn them with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::ailment::Ailments;
use super::error::ErrorCode;
use super::ledger::FaultKind;
use super::world::Shared;

/// One way for a whole call to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An SQS error, with its usual status; nothing is done.
    Error(ErrorCode),
    /// An HTTP status without a body that the SDK could read; nothing is done.
    Http(u16),
    /// The connection is reset; nothing is done.
    Reset,
    /// The action is carried out, then the connection is reset.
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

/// A chance and a countdown: something happens to the next so many, then with a probability.
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

/// The knobs of one queue.
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
    /// How long the call is held back, and how it fails, if it does.
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

/// The knobs of one queue, to turn at any time. All are off at first; probabilities run from 0 to 1.
/// On a queue that does not exist (any more) they do nothing.
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

    /// Starts the dice anew, so that a run can be repeated.
    pub fn seed(&self, seed: u64) {
        self.turn(|plan| plan.rng = fastrand::Rng::with_seed(seed));
    }

    /// Turns every knob off.
    pub fn clear(&self) {
        self.turn(|plan| *plan = Plan { rng: plan.rng.clone(), ..Plan::default() });
    }

    /// Holds every call of this action back for `fixed`, and up to `jitter` more.
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

    /// Fails calls of this action now and then.
    pub fn fail_sometimes(&self, action: Action, probability: f64, fault: Fault) {
        self.turn(|plan| {
            plan.actions.entry(action).or_default().chance = Some((probability, fault));
        });
    }

    /// Leaves delivered messages visible, so that they are delivered again at once.
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

    /// Answers deletes with success and does not carry them out.
    pub fn delete_silently(&self, probability: f64) {
        self.turn(|plan| plan.silent_deletes.probability = probability);
    }

    /// Answers the next `deletes` deletes with success and does not carry them out.
    pub fn delete_next_silently(&self, deletes: u32) {
        self.turn(|plan| plan.silent_deletes.next = deletes);
    }
}
