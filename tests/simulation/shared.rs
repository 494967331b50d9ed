//! How an operation travels to the store that all pods share: its latency, a refusal, a lost
//! response, an effect that comes after the caller has given up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{EventId, StepSet};
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};
use tokio::time::sleep;

use super::store::{Holder, Op, Reply};
use super::store_plan::{StoreDown, StorePlan};
use super::world::{Sim, World};

/// The shared store as one process reaches it.
pub(crate) struct SimStore {
    pub(crate) sim: Arc<Sim>,
    pub(crate) life: u32,
}

/// The outcome of one operation.
enum Trip {
    Well {
        there: Duration,
        back: Duration,
    },
    /// The operation has no effect, and the caller gets an error.
    Refused(Duration),
    /// Takes effect; the answer is lost with the connection.
    AnswerLost(Duration),
    /// No response. With a duration: the operation takes effect after it, possibly after the
    /// caller's timeout.
    Silent(Option<Duration>),
}

fn unavailable(why: &str) -> StoreError {
    StoreError::unavailable(format!("simulated: {why}"))
}

impl SimStore {
    async fn ask(&self, id: &EventId, token: ClaimToken, op: Op) -> Reply {
        // Renewals are frequent and nothing happens between two of them, so they are no interrupt
        // points.
        let is_gate = !matches!(op, Op::Renew { .. });
        if is_gate {
            self.sim.gate(self.life, "before store").await;
        }
        let holder = Holder::Worker { token, life: self.life };
        let departed = self.sim.lock().depart(id, op);
        let Some((place, trip, timeout)) = departed else {
            return Err(unavailable("an event that is in no plan"));
        };
        let reply = match trip {
            Trip::Well { there, back } => {
                sleep(there).await;
                let reply = self.sim.lock().store_apply(place, holder, op);
                if is_gate {
                    self.sim.gate(self.life, "after store").await;
                }
                sleep(back).await;
                reply
            }
            Trip::Refused(after) => {
                sleep(after).await;
                Err(unavailable("refused"))
            }
            Trip::AnswerLost(there) => {
                sleep(there).await;
                let _lost = self.sim.lock().store_apply(place, holder, op);
                if is_gate {
                    self.sim.gate(self.life, "after store").await;
                }
                Err(unavailable("answer lost"))
            }
            Trip::Silent(effect) => {
                if let Some(after) = effect {
                    self.apply_later(place, holder, op, after);
                }
                sleep(timeout).await;
                Err(unavailable("no answer in time"))
            }
        };
        let mut world = self.sim.lock();
        if world.alive && world.life == self.life {
            world.store_answered(place, &reply);
        }
        reply
    }

    /// Applies the operation later, even if the process that sent it has died.
    fn apply_later(&self, place: usize, holder: Holder, op: Op, after: Duration) {
        let sim = Arc::clone(&self.sim);
        tokio::spawn(async move {
            sleep(after).await;
            let _nobody_listens = sim.lock().store_apply(place, holder, op);
        });
    }

    async fn done(&self, id: &EventId, token: ClaimToken, op: Op) -> Result<(), StoreError> {
        self.ask(id, token, op).await.map(drop)
    }
}

impl World {
    /// The outage of the shared store at this time, if any.
    pub(crate) fn store_down(&self) -> Option<StoreDown> {
        let now = self.now();
        let down = self.plan.store.iter().flat_map(|store| &store.down);
        down.into_iter().find(|down| down.from <= now && now < down.to).copied()
    }

    /// The index of the event's id, the outcome of the operation, and the client's timeout.
    fn depart(&mut self, id: &EventId, op: Op) -> Option<(usize, Trip, Duration)> {
        let place = self.services.ids.iter().position(|progress| progress.id == id.as_str());
        let Some(place) = place else {
            self.violation(|| format!("{id}: the store is asked about no event of the plan"));
            return None;
        };
        let (trip, timeout) = self.store_trip();
        match trip {
            Trip::Well { .. } => {}
            Trip::Refused(_) | Trip::Silent(_) => self.store_missed(place, op),
            // A process that does not know of its claim does not release it.
            Trip::AnswerLost(_) if matches!(op, Op::Claim { .. }) => self.store_missed(place, op),
            Trip::AnswerLost(_) => {}
        }
        Some((place, trip, timeout))
    }

    fn store_trip(&mut self) -> (Trip, Duration) {
        let now = self.now();
        let store = self.plan.store.as_ref().expect("the seed has a shared store");
        let StorePlan { faults_pct, slow, timeout, .. } = store;
        let (faults_pct, timeout) = (*faults_pct, *timeout);
        let slow = slow.iter().any(|(from, to)| *from <= now && now < *to);
        let trip = match self.store_down() {
            Some(StoreDown { is_silent: true, .. }) => {
                self.cover.met("store down: silent");
                Trip::Silent(self.chance(20).then(|| timeout.mul_f64(0.9)))
            }
            Some(StoreDown { is_silent: false, .. }) => {
                self.cover.met("store down: refused");
                Trip::Refused(self.draw_ms(0, 5))
            }
            None if !self.calm() && self.chance(faults_pct) => self.store_fault(timeout),
            None => self.store_well(slow, timeout),
        };
        (trip, timeout)
    }

    fn store_well(&mut self, slow: bool, timeout: Duration) -> Trip {
        let most_ms = if slow { 400 } else { 2 };
        let (there, back) = (self.draw_ms(0, most_ms), self.draw_ms(0, most_ms));
        if slow {
            self.cover.met("store slow");
        }
        if there + back < timeout {
            return Trip::Well { there, back };
        }
        self.cover.met("store slower than its client's patience");
        Trip::Silent(Some(there))
    }

    /// A random fault of one operation.
    fn store_fault(&mut self, timeout: Duration) -> Trip {
        let (name, trip) = match self.rng.u8(0..8) {
            0..=2 => ("store refuses", Trip::Refused(self.draw_ms(0, 20))),
            3 | 4 => ("store's answer lost", Trip::AnswerLost(self.draw_ms(0, 20))),
            5 => ("store does not answer", Trip::Silent(None)),
            6 => ("store does not answer, and does it", {
                Trip::Silent(Some(timeout.mul_f64(self.rng.f64())))
            }),
            _ => ("store does it too late", {
                Trip::Silent(Some(timeout.mul_f64(1.0 + 2.0 * self.rng.f64())))
            }),
        };
        self.cover.met(name);
        trip
    }
}

#[async_trait]
impl Store for SimStore {
    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        let ClaimRequest { hash, token, lasts, .. } = request;
        let claim = self.ask(key.id, token, Op::Claim { hash, lasts }).await?;
        Ok(claim.expect("the answer to a claim is a claim"))
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.done(key.id, token, Op::Renew { lasts }).await
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.done(key.id, token, Op::Record { done }).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.done(key.id, token, Op::Complete { how }).await
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.done(key.id, token, Op::Release { done }).await
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        let (trip, timeout) = self.sim.lock().store_trip();
        match trip {
            Trip::Well { there, back } => {
                sleep(there + back).await;
                Ok(Notice::none())
            }
            Trip::Refused(after) | Trip::AnswerLost(after) => {
                sleep(after).await;
                Err(unavailable("refused"))
            }
            Trip::Silent(_) => {
                sleep(timeout).await;
                Err(unavailable("no answer in time"))
            }
        }
    }
}
