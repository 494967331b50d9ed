//! Another pod. It gets a copy of an event from outside the simulated queue, claims the event in
//! the shared store and takes its steps by the same rules as the engine. It completes the event,
//! gives it up, or stops half-way.

use std::sync::Arc;
use std::time::Duration;

use reservation_worker::client::{ReleaseReason, ReservationStatus};
use reservation_worker::event::{EventType, Step, StepSet};
use reservation_worker::idempotency::{Claim, HandledAs};
use tokio::time::{sleep, sleep_until};

use super::judge::{Verdict, verdict};
use super::plan::{EventSpec, Fate};
use super::services::{Ask, OTHER, What, target_of};
use super::store::{Holder, Op};
use super::store_plan::{OtherEnd, OtherSpec};
use super::world::{Sim, World};

/// The number of claims that it tries while another owner has the event.
const CLAIMS_MAX: u32 = 8;

/// The result of a step.
enum Tried {
    Done,
    Superseded,
    /// The step failed, for any reason.
    Failed,
}

/// The pod has stopped; the coverage has the reason.
struct Over;

struct Other {
    sim: Arc<Sim>,
    number: usize,
    spec: OtherSpec,
    event: EventSpec,
    /// The index of the event's id.
    id: usize,
    done: StepSet,
    /// The end of its claim.
    until: Duration,
}

/// Spawns every other pod of the plan.
pub(crate) fn spawn_all(sim: &Arc<Sim>) {
    let world = sim.lock();
    let others = world.plan.store.iter().flat_map(|store| &store.others);
    for (number, spec) in others.enumerate() {
        let event = world.plan.events[spec.event].clone();
        let id = world.services.ids.iter().position(|progress| progress.id == event.id);
        let mut other = Other {
            sim: Arc::clone(sim),
            number,
            spec: *spec,
            event,
            id: id.expect("the id is in the plan"),
            done: StepSet::EMPTY,
            until: Duration::ZERO,
        };
        let begins = world.instant(spec.at);
        tokio::spawn(async move {
            sleep_until(begins).await;
            let Err(Over) = other.live().await;
        });
    }
}

impl Other {
    async fn live(&mut self) -> Result<std::convert::Infallible, Over> {
        self.claim().await?;
        let steps = self.event.steps.clone();
        for (place, (step, _)) in steps.iter().enumerate() {
            if self.done.contains(*step) {
                continue;
            }
            self.think().await?;
            match self.spec.end {
                OtherEnd::VanishesAtOnce => return self.over("the other vanishes at once"),
                OtherEnd::VanishesRecorded if place > 0 => {
                    return self.over("the other vanishes half-way");
                }
                OtherEnd::Completes
                | OtherEnd::GivesUp
                | OtherEnd::VanishesUnrecorded
                | OtherEnd::VanishesRecorded => {}
            }
            self.take(place, *step).await?;
            if place + 1 < steps.len() {
                self.say(Op::Record { done: self.done }).await?;
            }
        }
        self.say(Op::Complete { how: HandledAs::Applied }).await?;
        self.over("the other completes")
    }

    fn over<T>(&self, how: &'static str) -> Result<T, Over> {
        let mut world = self.sim.lock();
        world.cover.met(how);
        let (number, id) = (self.number, &self.event.id);
        world.log(|| format!("{id}: {how}, which is other {number}"));
        Err(Over)
    }

    /// Claims the event, and waits while another owner has it.
    async fn claim(&mut self) -> Result<(), Over> {
        for _ in 0..CLAIMS_MAX {
            let (hash, lasts) = (self.event.hash, self.spec.lasts);
            let claim = self.say(Op::Claim { hash, lasts }).await?;
            match claim.expect("the answer to a claim is a claim") {
                Claim::Ours(done) => {
                    self.done = done;
                    self.until = self.sim.lock().now() + lasts;
                    return Ok(());
                }
                Claim::Handled(_) => return self.over("the other finds it handled"),
                Claim::IdReused(_) => return self.over("the other finds another content"),
                Claim::Elsewhere(rest) | Claim::Behind(rest) => {
                    sleep(rest.min(Duration::from_secs(5))).await;
                }
            }
        }
        self.over("the other waits in vain")
    }

    /// Waits before a step, and renews its claim meanwhile if the store is up.
    async fn think(&mut self) -> Result<(), Over> {
        let until = self.sim.lock().now() + self.spec.pace;
        loop {
            let now = self.sim.lock().now();
            if now >= until {
                return Ok(());
            }
            sleep((until - now).min(self.spec.lasts / 2)).await;
            if self.sim.lock().store_down().is_none() {
                self.say(Op::Renew { lasts: self.spec.lasts }).await?;
                self.until = self.sim.lock().now() + self.spec.lasts;
            }
        }
    }

    /// Takes one step. Stops if the claim has expired or the step fails.
    async fn take(&mut self, place: usize, step: Step) -> Result<(), Over> {
        let tried = {
            let mut world = self.sim.lock();
            if world.now() >= self.until {
                world.cover.met("the other is too late");
                return Err(Over);
            }
            world.other_tries(self.id, &self.event, place)
        };
        match tried {
            Tried::Done => {}
            Tried::Superseded => {
                self.say(Op::Complete { how: HandledAs::Superseded }).await?;
                return self.over("the other finds it superseded");
            }
            Tried::Failed => {
                self.say(Op::Release { done: self.done }).await?;
                return self.over("the other fails, and gives up");
            }
        }
        self.done.insert(step);
        self.sim.lock().excuse(self.id);
        match self.spec.end {
            OtherEnd::VanishesUnrecorded => self.over("the other vanishes before the record"),
            OtherEnd::GivesUp => {
                self.say(Op::Release { done: self.done }).await?;
                self.over("the other gives up")
            }
            OtherEnd::Completes | OtherEnd::VanishesAtOnce | OtherEnd::VanishesRecorded => Ok(()),
        }
    }

    /// Sends an operation to the store, after the end of any outage.
    async fn say(&self, op: Op) -> Result<Option<Claim>, Over> {
        const AGAIN: Duration = Duration::from_millis(500);
        while self.sim.lock().store_down().is_some() {
            sleep(AGAIN).await;
        }
        let reply = self.sim.lock().store_apply(self.id, Holder::Other(self.number), op);
        match reply {
            Ok(claim) => Ok(claim),
            Err(_) => self.over("the other has lost its claim"),
        }
    }
}

impl World {
    /// The other pod's call. It sees the real state of the services and their outages, but no
    /// faults of single calls.
    fn other_tries(&mut self, id: usize, event: &EventSpec, place: usize) -> Tried {
        let (step, key) = event.steps[place];
        let quantity = i32::try_from(event.seats).expect("the number is small");
        let what = match step {
            Step::ReservationStatus => What::Patch(target_of(event.event_type)),
            Step::InventoryCommit => What::Commit(quantity),
            Step::InventoryRelease if event.event_type == EventType::ReservationExpired => {
                What::Release(quantity, ReleaseReason::Expired)
            }
            Step::InventoryRelease => What::Release(quantity, ReleaseReason::FailedPayment),
        };
        let ask = Ask { what, key, reservation: event.reservation };
        let refused = matches!(event.fate, Fate::Refused(at, _) if at == place);
        if refused || self.is_down(ask.service()) {
            return Tried::Failed;
        }
        self.cover.met("the other takes a step");
        if self.apply(id, &ask).is_ok() {
            self.learn(id, event.reservation, self.services.keys[&key].1, Some(OTHER));
            return Tried::Done;
        }
        let asked = Ask { what: What::Get, ..ask };
        let found: Option<ReservationStatus> = self.apply(id, &asked).ok().flatten();
        match found.map(|found| verdict(event.event_type, &found).1) {
            Some(Verdict::Done) => {
                self.learn(id, event.reservation, 0, Some(OTHER));
                Tried::Done
            }
            Some(Verdict::Superseded) => {
                self.services.ids[id].superseded = true;
                Tried::Superseded
            }
            Some(Verdict::Money | Verdict::Unclear) | None => Tried::Failed,
        }
    }
}
