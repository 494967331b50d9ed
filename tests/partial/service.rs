//! The two simulated services: which calls fail and how, the duration of the others, and samples of
//! all calls. The client's timeout is applied here too: the response of a call that takes longer is
//! thrown away.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Commit, Inventory, ReleaseHold, Reservation, ReservationApi,
    TargetStatus,
};
use reservation_worker::event::ReservationId;
use tokio::time::sleep;
use uuid::Uuid;

use super::answers;
use super::load::{Servers, Tokens};
use super::plan::{Fault, ServicePlan, Side, Trouble, Who};
use super::world::{Sim, World, thaw};

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// Served, and the client got the response.
    Served,
    /// Served after the client's timeout.
    ThrownAway,
    /// Told to retry later.
    Paced,
    /// Failed in another way.
    Failed,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) process: usize,
    pub(crate) ended: Duration,
    pub(crate) took: Duration,
    pub(crate) went: Went,
}

pub(crate) struct ServiceState {
    servers: Servers,
    tokens: Tokens,
    pub(crate) in_flight: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) samples: Vec<Sample>,
}

impl ServiceState {
    pub(crate) fn new(plan: &ServicePlan) -> Self {
        Self {
            servers: Servers::new(&plan.stages),
            tokens: Tokens::new(plan.bucket),
            in_flight: 0,
            in_flight_max: 0,
            samples: Vec::new(),
        }
    }
}

/// The two services as one process reaches them.
pub(crate) struct SimServices {
    pub(crate) sim: Arc<Sim>,
    pub(crate) process: usize,
}

/// The outcome of a call.
struct Journey {
    event: usize,
    took: Duration,
    trouble: Option<Trouble>,
    went: Went,
}

/// An open call, closed on drop.
struct Open<'a> {
    sim: &'a Sim,
    side: Side,
    /// Its number in the order's log.
    number: Option<usize>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut world = self.sim.lock();
        world.services[self.side.index()].in_flight -= 1;
        let now = world.now();
        if let Some(number) = self.number {
            world.order.ends(number, now);
        }
    }
}

impl SimServices {
    async fn call(&self, side: Side, key: Uuid) -> Result<(), CallError> {
        thaw(&self.sim, self.process).await;
        let (journey, number) = {
            let mut world = self.sim.lock();
            let journey = world.begin(side, key);
            let number = world.order_begins(journey.event, side, self.process);
            (journey, number)
        };
        let open = Open { sim: &self.sim, side, number };
        sleep(journey.took).await;
        drop(open);
        self.sim.lock().ended(side, self.process, number, &journey);
        thaw(&self.sim, self.process).await;
        match journey.trouble {
            None => Ok(()),
            Some(trouble) => Err(answers::error(side, trouble)),
        }
    }
}

impl World {
    fn ended(&mut self, side: Side, process: usize, number: Option<usize>, journey: &Journey) {
        let Journey { event, took, trouble, went } = *journey;
        let ended = self.now();
        self.services[side.index()].samples.push(Sample { process, ended, took, went });
        self.log(|| format!("p{process} {side:?} e{event}: {went:?} {trouble:?} in {took:?}"));
        if trouble.is_none() {
            self.step_done(event, side);
            if let Some(number) = number {
                self.order.served(number);
            }
        }
    }

    fn begin(&mut self, side: Side, key: Uuid) -> Journey {
        self.called();
        let now = self.now();
        let (event, _) = self.keys[&key];
        self.events[event].called_at.get_or_insert(now);
        let plan = Arc::clone(&self.plan);
        let service = &plan.services[side.index()];
        let latency = self.between(service.latency);
        let fails_in = service.fails_in.unwrap_or(latency);
        let state = &mut self.services[side.index()];
        state.in_flight += 1;
        state.in_flight_max = state.in_flight_max.max(state.in_flight);
        let part = plan.events[event].part;
        let fault = plan.faults.iter().find(|fault| self.hits(fault, side, part, now));
        if let Some(fault) = fault {
            let (took, went) = match fault.trouble {
                Trouble::Silent => (service.timeout, Went::Failed),
                Trouble::Paced(_) => (fails_in, Went::Paced),
                Trouble::Away
                | Trouble::AwayUntil(_)
                | Trouble::Failing
                | Trouble::FailingUntil(_)
                | Trouble::Refused
                | Trouble::Forbidden
                | Trouble::Foreign(_)
                | Trouble::Html => (fails_in, Went::Failed),
            };
            return Journey { event, took, trouble: Some(fault.trouble), went };
        }
        let state = &mut self.services[side.index()];
        if let Some(after) = state.tokens.refuses(now) {
            let trouble = Some(Trouble::Paced(Some(after)));
            return Journey { event, took: fails_in, trouble, went: Went::Paced };
        }
        let took = state.servers.served_at(now) - now + latency;
        if took > service.timeout {
            let (took, trouble) = (service.timeout, Some(Trouble::Silent));
            return Journey { event, took, trouble, went: Went::ThrownAway };
        }
        Journey { event, took, trouble: None, went: Went::Served }
    }

    fn hits(&mut self, fault: &Fault, side: Side, part: u8, now: Duration) -> bool {
        let on = fault.side == side && fault.from <= now && now < fault.to;
        on && match fault.who {
            Who::All => true,
            Who::Part(of) => of == part,
            Who::Random(percent) => self.chance(percent),
        }
    }
}

#[async_trait]
impl ReservationApi for SimServices {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        _id: &ReservationId,
        _target: TargetStatus,
        _payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        self.call(Side::Api, call.idempotency_key).await
    }

    async fn reservation(
        &self,
        _call: &CallContext<'_>,
        _id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        unreachable!("no answer is a conflict, and every event names its seats")
    }
}

#[async_trait]
impl Inventory for SimServices {
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        _release: ReleaseHold<'_>,
    ) -> Result<(), CallError> {
        self.call(Side::Inventory, call.idempotency_key).await
    }

    async fn commit(&self, _call: &CallContext<'_>, _commit: Commit<'_>) -> Result<(), CallError> {
        unreachable!("no payment names seats")
    }
}
