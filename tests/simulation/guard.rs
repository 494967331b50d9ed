//! What the shared store's true state forbids: a step while somebody else has the event, or nobody;
//! a step that the store knows as done; one whose predecessor it does not know; an effect of what is
//! handled; a deletion of what is not; a claim that is left standing by a hand-back.
//!
//! And what explains that a step is repeated though somebody knew that it was done: see [`Watch`].

use std::collections::VecDeque;
use std::time::Duration;

use reservation_worker::event::{Step, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, StoreError};

use super::plan::EventSpec;
use super::services::{Ask, OTHER, What};
use super::store::{Holder, Op, Phase, Record, Reply, StoreState};
use super::world::World;

/// What is known about the store's dealings with one event id, beside its record.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// A step may be done, known, and not recorded: the process died or was cut off before it could
    /// say so, the store did not hear it, or did not hear in time that the claim goes on.
    is_excused: bool,
    /// A claim of this life may stand though nobody works on the event: a claim that was not
    /// answered, a release that was not heard.
    is_stray: bool,
    /// Failures of the store since the event's last settlement.
    failed: u32,
    /// The last life that had to wait for the store, or for somebody else.
    waited_in: u32,
}

/// Whether the engine may think that the store is away, and not even ask it.
#[derive(Clone, Debug, Default)]
struct Doubt {
    /// Failures in a row.
    streak: u32,
    /// When operations failed lately.
    recent: VecDeque<Duration>,
    /// Successes that it may take to be sure again.
    left: usize,
}

impl Doubt {
    /// Fewer than the engine needs to be sure, over as long as it looks back.
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
            // It is asked by one at a time at first, by one more with each answer.
            self.left = 2 * calls_max + 2;
        }
    }
}

/// The store that all pods share, and what is watched about it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: StoreState,
    watches: Vec<Watch>,
    doubt: Doubt,
    /// For the log: tokens differ from run to run, their order does not.
    tokens: Vec<ClaimToken>,
}

impl Shared {
    pub(crate) fn new(state: StoreState) -> Self {
        let watches = vec![Watch::default(); state.len()];
        Self { state, watches, doubt: Doubt::default(), tokens: Vec::new() }
    }

    /// `left`: the life before this one left in good order.
    pub(crate) fn begin_life(&mut self, left: bool) {
        for watch in &mut self.watches {
            watch.is_excused |= !left;
            (watch.is_stray, watch.failed) = (false, 0);
        }
        self.doubt = Doubt::default();
    }

    /// A holder's name in the log.
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

/// What the engine might be excused for, at one event.
pub(crate) struct Excuses {
    /// Failures of the store since its last settlement.
    pub(crate) failed: u32,
    /// It had to wait for the store, or for somebody else, in this life.
    pub(crate) waited: bool,
    /// The engine may think that the store is away.
    pub(crate) doubt: bool,
}

impl World {
    /// Carries an operation out on the shared store.
    pub(crate) fn store_apply(&mut self, id: usize, holder: Holder, op: Op) -> Reply {
        self.fail_over();
        let now = self.now();
        let Some(shared) = &mut self.store else { unreachable!("a seed with a shared store") };
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
                // That it is superseded is known to the store only where it is handled: another
                // delivery, after a lease that was lost meanwhile, must find it out for itself.
                self.services.ids[id].superseded_in = None;
            }
        }
        outcome.reply
    }

    /// The event that the store's record is about: an id may have been used twice.
    fn recorded(&self, id: usize) -> Option<(&Record, &EventSpec)> {
        let record = self.store.as_ref()?.state.record(id)?;
        let specs = self.services.ids[id].specs.iter().map(|n| &self.plan.events[*n]);
        let spec = specs.into_iter().find(|spec| spec.hash == record.hash)?;
        Some((record, spec))
    }

    /// Whether the store knows of each step that anybody knows to be done.
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

    /// What the store is told is so.
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

    /// An operation had no effect when it should have had, or its caller does not know of it.
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

    /// A step may be known, and not to the store.
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

    /// The engine has the answer now.
    pub(crate) fn store_answered(&mut self, id: usize, reply: &Reply) {
        let (now, life) = (self.now(), self.life);
        let Some(shared) = &mut self.store else { return };
        let well = !matches!(reply, Err(StoreError::Unavailable(_)));
        shared.doubt.answered(well, now, self.plan.settings.concurrency);
        if shared.doubt.left > 0 {
            // Whatever is to be said to the store now may never be said.
            for watch in &mut shared.watches {
                (watch.is_excused, watch.is_stray) = (true, true);
            }
        }
        let watch = &mut shared.watches[id];
        match reply {
            Ok(Some(Claim::Elsewhere(_))) => watch.waited_in = life,
            Ok(Some(Claim::Ours(_) | Claim::Handled(_) | Claim::IdReused(_)) | None) => {}
            Err(_) => {
                watch.failed += 1;
                watch.waited_in = life;
                // A claim that is lost cannot be told what is done.
                watch.is_excused = true;
            }
        }
    }

    /// What the store has to do with an event's settlement, which begins the count anew.
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

    /// Whether a step that somebody knew to be done may be repeated.
    pub(crate) fn may_repeat(&self, id: usize) -> bool {
        self.store
            .as_ref()
            .is_some_and(|shared| shared.watches[id].is_excused || shared.state.is_forgotten(id))
    }

    /// Whether a step of that event was done, and its doer knew.
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

    /// A step begins: the event must be ours in the store, and the store must know all before it.
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

    /// An earlier step of the event that the store does not know as done.
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

    /// A message of an event is deleted, with no copy in the dead-letter queue.
    pub(crate) fn check_handled(&mut self, id: usize, n: usize) {
        self.fail_over();
        let Some(shared) = &self.store else { return };
        let fine = shared.state.is_handled(id) || shared.state.is_forgotten(id);
        self.check(fine, || format!("m-{n} deleted before the store knows that it is handled"));
    }

    /// An event is out of this process's hands, and not handled: its claim must not outlast that,
    /// unless it was cut off in a call, which may still take effect.
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

    /// The process has left in good order: no claim of it stands.
    pub(crate) fn check_nothing_claimed(&mut self) {
        for id in 0..self.services.ids.len() {
            self.check_let_go(id);
        }
    }
}
