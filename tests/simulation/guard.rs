//! Checks calls against the true state of the shared store. A step must not run without a claim of
//! this process or under another claim, when the store already has it as done, or before the
//! previous step is recorded. A handled event must get no more calls. A message must not be deleted
//! before its event is handled. A message that is handed back must leave no claim behind.
//!
//! [`Watch`] holds the reasons why a step may be repeated although its first call was answered.

use std::collections::VecDeque;
use std::time::Duration;

use reservation_worker::event::{Step, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, StoreError};

use super::plan::EventSpec;
use super::services::{Ask, OTHER, What};
use super::store::{Holder, Op, Phase, Record, Reply, StoreState};
use super::world::World;

/// What is known about one event id beside its record in the store.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// A step may be done and answered but not recorded: the process died or was cut off first, the
    /// store did not get the record, or it did not get the renewal of the claim in time.
    is_excused: bool,
    /// A claim of this life may remain although no worker has the event: the response to the claim
    /// was lost, or the release did not arrive.
    is_stray: bool,
    /// Failures of the store since the last settlement of the event.
    failed: u32,
    /// The last life that had to wait for the store or for another owner.
    waited_in: u32,
}

/// Whether the engine may treat the store as down and send it no requests.
#[derive(Clone, Debug, Default)]
struct Doubt {
    /// Consecutive failures.
    streak: u32,
    /// Times of recent failures.
    recent: VecDeque<Duration>,
    /// Successes after which the engine certainly uses the store again.
    left: usize,
}

impl Doubt {
    /// Lower than the engine's own thresholds, over at least the same window.
    const STREAK: u32 = 5;
    const RECENT: usize = 10;
    const LOOKS_BACK: Duration = Duration::from_secs(20);

    fn answered(&mut self, well: bool, now: Duration, calls_max: usize) {
        if well {
            self.streak = 0;
            self.left = self.left.saturating_sub(1);
            return;
        }
        self.streak += 1;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| *at + Self::LOOKS_BACK < now) {
            self.recent.pop_front();
        }
        let doubtful = self.streak >= Self::STREAK || self.recent.len() >= Self::RECENT;
        if doubtful || self.left > 0 {
            // The limit starts at one request and rises by one with each answer.
            self.left = 2 * calls_max + 2;
        }
    }
}

/// The store that all pods share, with the state of the checks.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: StoreState,
    watches: Vec<Watch>,
    doubt: Doubt,
    /// Numbers the tokens for the log. Tokens differ between runs; their order does not.
    tokens: Vec<ClaimToken>,
}

impl Shared {
    pub(crate) fn new(state: StoreState) -> Self {
        let watches = vec![Watch::default(); state.len()];
        Self { state, watches, doubt: Doubt::default(), tokens: Vec::new() }
    }

    /// Begins a life. `left`: the previous life shut down in good order.
    pub(crate) fn begin_life(&mut self, left: bool) {
        for watch in &mut self.watches {
            watch.is_excused |= !left;
            (watch.is_stray, watch.failed) = (false, 0);
        }
        self.doubt = Doubt::default();
    }

    /// The name of a holder in the log.
    fn name(&mut self, holder: Holder) -> String {
        let Holder::Worker { token, life } = holder else { return format!("{holder:?}") };
        let known = self.tokens.iter().position(|seen| *seen == token);
        let number = known.unwrap_or_else(|| {
            self.tokens.push(token);
            self.tokens.len() - 1
        });
        format!("t{number} of life {life}")
    }
}

/// Explanations for how one event was settled.
pub(crate) struct Excuses {
    /// Failures of the store since the last settlement.
    pub(crate) failed: u32,
    /// Whether the event had to wait for the store or for another owner in this life.
    pub(crate) waited: bool,
    /// Whether the engine may treat the store as down.
    pub(crate) doubt: bool,
}

impl World {
    /// Applies an operation to the shared store.
    pub(crate) fn store_apply(&mut self, id: usize, holder: Holder, op: Op) -> Reply {
        self.fail_over();
        let now = self.now();
        let Some(shared) = &mut self.store else { unreachable!("the seed has no shared store") };
        let is_new = shared.state.record(id).is_none_or(|record| record.holder != holder);
        let outcome = shared.state.apply(id, holder, op, now);
        let holder_name = shared.name(holder);
        let is_doubtful = shared.doubt.left > 0;
        if let (Holder::Other(_), Err(_)) = (holder, &outcome.reply) {
            self.excuse(id);
        } else if !is_doubtful && self.is_all_known(id) {
            self.excuse_no_more(id);
        }
        self.cover.met(outcome.name);
        let name = self.services.ids[id].id.clone();
        self.log(|| format!("{name}: {} for {holder_name}: {op:?}", outcome.name));
        if outcome.reply.is_ok() {
            self.check_true(id, op);
            if matches!(op, Op::Release { .. }) || is_new {
                // The store knows of a superseded event only once it is handled. After a lost
                // lease, another delivery must detect it again.
                self.services.ids[id].superseded_in = None;
            }
        }
        outcome.reply
    }

    /// The store's record and the event that it is about. An id may be used by two events.
    fn recorded(&self, id: usize) -> Option<(&Record, &EventSpec)> {
        let record = self.store.as_ref()?.state.record(id)?;
        let specs = self.services.ids[id].specs.iter().map(|n| &self.plan.events[*n]);
        let spec = specs.into_iter().find(|spec| spec.hash == record.hash)?;
        Some((record, spec))
    }

    /// Whether the store has a record of every step whose answer a pod received.
    fn is_all_known(&self, id: usize) -> bool {
        let Some((record, spec)) = self.recorded(id) else { return false };
        let known = |place: usize| {
            let mut states = self.states(id, spec.reservation);
            states.any(|all| all[place].known_in.is_some())
        };
        let mut steps = Step::ALL.iter().enumerate();
        matches!(record.phase, Phase::Handled(_))
            || steps.all(|(place, step)| !known(place) || record.done.contains(*step))
    }

    /// Checks that an operation reports only steps that took effect.
    fn check_true(&mut self, id: usize, op: Op) {
        let Some((_, spec)) = self.recorded(id) else { return };
        let fine = match op {
            Op::Claim { .. } | Op::Renew { .. } => true,
            Op::Record { done } | Op::Release { done } => self.services.applied(spec, done),
            Op::Complete { how: HandledAs::Applied } => self.services.complete(spec),
            Op::Complete { how: HandledAs::Superseded } => self.services.ids[id].superseded,
        };
        let name = spec.id.clone();
        self.check(fine, || format!("{name}: the store is told what is not so: {op:?}"));
    }

    fn fail_over(&mut self) {
        let now = self.now();
        let Some(shared) = &mut self.store else { return };
        for id in shared.state.fail_over(now) {
            self.cover.met("a write that a failover lost");
            let name = self.services.ids[id].id.clone();
            self.log(|| format!("{name}: a write is lost by a failover"));
        }
    }

    /// Notes that an operation had no effect, or that its caller does not know of its effect.
    pub(crate) fn store_missed(&mut self, id: usize, op: Op) {
        let Some(shared) = &mut self.store else { return };
        let watch = &mut shared.watches[id];
        match op {
            Op::Claim { .. } => watch.is_stray = true,
            Op::Renew { .. } => {}
            Op::Record { .. } | Op::Complete { .. } => watch.is_excused = true,
            Op::Release { .. } => (watch.is_excused, watch.is_stray) = (true, true),
        }
    }

    /// Notes that a step may be known to a pod and missing in the store.
    pub(crate) fn excuse(&mut self, id: usize) {
        if let Some(shared) = &mut self.store {
            shared.watches[id].is_excused = true;
        }
    }

    fn excuse_no_more(&mut self, id: usize) {
        if let Some(shared) = &mut self.store {
            shared.watches[id].is_excused = false;
        }
    }

    /// Takes note of an answer that the engine has received.
    pub(crate) fn store_answered(&mut self, id: usize, reply: &Reply) {
        let (now, life) = (self.now(), self.life);
        let Some(shared) = &mut self.store else { return };
        let well = !matches!(reply, Err(StoreError::Unavailable { .. }));
        shared.doubt.answered(well, now, self.plan.settings.concurrency);
        if shared.doubt.left > 0 {
            // From now on, the engine may skip any operation.
            for watch in &mut shared.watches {
                (watch.is_excused, watch.is_stray) = (true, true);
            }
        }
        let watch = &mut shared.watches[id];
        match reply {
            Ok(Some(Claim::Elsewhere(_) | Claim::Behind(_))) => watch.waited_in = life,
            Ok(Some(Claim::Ours(_) | Claim::Handled(_) | Claim::IdReused(_)) | None) => {}
            Err(_) => {
                watch.failed += 1;
                watch.waited_in = life;
                // Without its claim, the process cannot record what is done.
                watch.is_excused = true;
            }
        }
    }

    /// The explanations for an event's settlement. Resets the count of failures.
    pub(crate) fn take_excuses(&mut self, id: usize) -> Excuses {
        let life = self.life;
        let Some(shared) = &mut self.store else {
            return Excuses { failed: 0, waited: false, doubt: false };
        };
        let doubt = shared.doubt.left > 0;
        let watch = &mut shared.watches[id];
        let failed = std::mem::take(&mut watch.failed);
        Excuses { failed, waited: watch.waited_in == life, doubt }
    }

    /// Whether a step may be repeated although its first call was answered.
    pub(crate) fn may_repeat(&self, id: usize) -> bool {
        self.store
            .as_ref()
            .is_some_and(|shared| shared.watches[id].is_excused || shared.state.is_forgotten(id))
    }

    /// Whether a step of the event took effect and its caller got the answer.
    pub(crate) fn was_known(&self, id: usize, step: usize, ask: &Ask) -> bool {
        let life = Some(self.life);
        let progress = &self.services.ids[id];
        if ask.what == What::Get && progress.asks {
            return progress.asked;
        }
        let mut states = self.states(id, ask.reservation);
        if self.store.is_some() {
            return ask.what != What::Get && states.any(|all| all[step].known_in.is_some());
        }
        states.any(|all| all[step].known_in == life)
    }

    /// Checks a call as it begins: this process must hold the claim, and the store must have all
    /// earlier steps.
    pub(crate) fn check_guarded(&mut self, id: usize, step: usize, ask: &Ask) {
        self.fail_over();
        let (now, life) = (self.now(), self.life);
        let Some(shared) = &self.store else { return };
        if shared.state.is_forgotten(id) {
            self.cover.met("a call for an event whose record was lost");
            return;
        }
        let name = self.services.ids[id].id.clone();
        let (what, holder) = (ask.what, shared.state.holder(id, now));
        let is_handled = shared.state.is_handled(id);
        let done = shared.state.record(id).map_or(StepSet::EMPTY, |record| record.done);
        let is_excused = shared.watches[id].is_excused;
        let missing = self.missing_before(id, step, ask.reservation, done);
        let repeats = self.states(id, ask.reservation).any(|all| all[step].applied);
        let known = self.states(id, ask.reservation).find_map(|all| all[step].known_in);
        let ours = matches!(holder, Some(Holder::Worker { life: of, .. }) if of == life);
        self.check(!is_handled, || format!("{name}: {what:?} though the store says it is handled"));
        self.check(ours || holder.is_none(), || {
            format!("{name}: {what:?} while somebody else has its claim")
        });
        self.check(holder.is_some(), || format!("{name}: {what:?} while nobody has its claim"));
        let is_done = what != What::Get && done.contains(Step::ALL[step]);
        self.check(!is_done, || format!("{name}: {what:?}, which the store knows as done"));
        self.check(missing.is_none(), || {
            format!("{name}: {what:?} before the store knows of {missing:?}")
        });
        if repeats && what != What::Get {
            self.cover.met(match (known, is_excused) {
                (None, _) => "repeated: nobody knew",
                (Some(OTHER), _) => "repeated: the other pod knew",
                (Some(_), _) => "repeated: the one who knew could not say",
            });
        }
    }

    /// An earlier step of the event that the store does not have as done.
    fn missing_before(
        &self,
        id: usize,
        step: usize,
        reservation: usize,
        done: StepSet,
    ) -> Option<Step> {
        let specs = self.services.ids[id].specs.iter().map(|n| &self.plan.events[*n]);
        let mut steps = specs.filter(|spec| spec.reservation == reservation).map(|s| &s.steps);
        let steps = steps.next()?;
        let earlier = steps.iter().take_while(|(one, _)| *one != Step::ALL[step]);
        earlier.map(|(one, _)| *one).find(|one| !done.contains(*one))
    }

    /// Checks the deletion of an event's message that has no copy in the dead-letter queue.
    pub(crate) fn check_handled(&mut self, id: usize, n: usize) {
        self.fail_over();
        let Some(shared) = &self.store else { return };
        let fine = shared.state.is_handled(id) || shared.state.is_forgotten(id);
        self.check(fine, || format!("m-{n} deleted before the store knows that it is handled"));
    }

    /// Checks that no claim remains when the process gives up an event that is not handled. A call
    /// that was cut off may still take effect, so its claim may remain.
    pub(crate) fn check_let_go(&mut self, id: usize) {
        self.fail_over();
        if self.out_of_time() {
            return;
        }
        let (now, life) = (self.now(), self.life);
        let Some(shared) = &self.store else { return };
        let holder = shared.state.holder(id, now);
        let kept = matches!(holder, Some(Holder::Worker { life: of, .. }) if of == life);
        let is_stray = shared.watches[id].is_stray || shared.state.is_forgotten(id);
        let given_up = shared.state.record(id).is_some_and(|it| it.phase == Phase::GivenUp);
        if given_up {
            self.cover.met("handed back with its claim given up");
        }
        let name = self.services.ids[id].id.clone();
        self.check(!kept || is_stray, || format!("{name}: let go with its claim standing"));
    }

    /// Checks that a process that shut down in good order left no claim.
    pub(crate) fn check_nothing_claimed(&mut self) {
        for id in 0..self.services.ids.len() {
            self.check_let_go(id);
        }
    }
}
