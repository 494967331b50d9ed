//! How a call to a service travels: its latency, its failure, a lost response, an effect that comes
//! after the caller has died. The client's timeout is applied here too: no call takes effect after
//! it, and the engine relies on that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Class, Commit, Inventory, ReleaseHold, Reservation, ReservationApi,
    TargetStatus,
};
use reservation_worker::event::{ReservationId, Seats, ShowId};
use tokio::time::sleep;

use super::draw::hold_of;
use super::plan::{Down, Fate, Weather};
use super::rows::{self, Row};
use super::services::{Answer, Ask, Service, What};
use super::world::{Sim, World};

/// The two services as one process reaches them.
pub(crate) struct SimServices {
    pub(crate) sim: Arc<Sim>,
    pub(crate) life: u32,
}

/// The outcome of one call.
enum Journey {
    /// The call takes effect and is answered.
    Well { there: Duration, back: Duration },
    /// The call is answered with this error and has no effect.
    Refused(Duration, CallError),
    /// Takes effect; the answer is lost with the connection.
    AnswerLost(Duration),
    /// No response. With a duration: the call takes effect after it.
    Silent(Option<Duration>),
}

struct Travel {
    id: usize,
    journey: Journey,
    timeout: Duration,
    /// The service is down for all callers, with answers of the outage class or with none.
    down: bool,
}

/// An open call, closed on drop.
struct OpenCall<'a> {
    sim: &'a Sim,
    life: u32,
    number: u64,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let mut world = self.sim.lock();
        if world.life == self.life {
            world.services.close(self.number);
        }
    }
}

const TIMEOUT: Row = Row { name: "no answer in time", class: Class::Outage };
const RESET: Row = Row { name: "answer lost", class: Class::Outage };

impl SimServices {
    async fn call(&self, ask: Ask) -> Answer {
        self.sim.gate(self.life, "before call").await;
        let begun = {
            let mut world = self.sim.lock();
            let begun = world.begin_call(&ask);
            begun.map(|(id, number)| (world.travel(id, &ask), number))
        };
        let Some((Travel { id, journey, timeout, down }, number)) = begun else {
            return Err(TIMEOUT.error(None));
        };
        let _open = OpenCall { sim: &self.sim, life: self.life, number };
        let answer = match journey {
            Journey::Well { there, back } => {
                sleep(there).await;
                let answer = self.sim.lock().apply(id, &ask);
                self.sim.gate(self.life, "after call").await;
                sleep(back).await;
                answer
            }
            Journey::Refused(after, error) => {
                sleep(after).await;
                Err(error)
            }
            Journey::AnswerLost(after) => {
                sleep(after).await;
                drop(self.sim.lock().apply(id, &ask));
                self.sim.gate(self.life, "after call").await;
                Err(self.sim.lock().row(RESET))
            }
            Journey::Silent(effect_at) => {
                if let Some(at) = effect_at {
                    self.apply_later(id, &ask, at);
                }
                sleep(timeout).await;
                Err(self.sim.lock().row(TIMEOUT))
            }
        };
        let mut world = self.sim.lock();
        if world.alive && world.life == self.life {
            world.answered(id, &ask, &answer, down);
        }
        answer
    }

    /// Applies the request later, even if the process that sent it has died.
    fn apply_later(&self, id: usize, ask: &Ask, after: Duration) {
        let (sim, ask) = (Arc::clone(&self.sim), ask.clone());
        tokio::spawn(async move {
            sleep(after).await;
            drop(sim.lock().apply(id, &ask));
        });
    }
}

impl World {
    fn travel(&mut self, id: usize, ask: &Ask) -> Travel {
        let service = ask.service();
        let now = self.now();
        let down = self.down_how(service);
        let (weather, timeout) = match service {
            Service::Api => (&self.plan.api, self.plan.api_timeout),
            Service::Inventory => (&self.plan.inventory, self.plan.inventory_timeout),
        };
        let within = |(from, to): &(Duration, Duration)| *from <= now && now < *to;
        let Weather { faults_pct, slow, .. } = weather;
        let slow = slow.iter().any(within);
        let faults_pct = if self.calm() { 0 } else { *faults_pct };
        let refused = self.fate_of(id, ask);
        let journey = if let Some(how) = down {
            self.cover.met("call to a service that is down");
            self.down(service, how, timeout)
        } else if let Some(row) = refused {
            Journey::Refused(self.draw_ms(1, 30), self.row(row))
        } else if self.chance(faults_pct) {
            self.fault(service, timeout)
        } else {
            self.well(slow, timeout)
        };
        // The other kinds count as an outage only after failures of a second reservation, and may
        // cost retries before that.
        let down = matches!(down, Some(Down::Answers | Down::Silent));
        Travel { id, journey, timeout, down }
    }

    fn down_how(&self, service: Service) -> Option<Down> {
        let now = self.now();
        let down = match service {
            Service::Api => &self.plan.api.down,
            Service::Inventory => &self.plan.inventory.down,
        };
        down.iter().find(|(from, to, _)| *from <= now && now < *to).map(|(_, _, how)| *how)
    }

    /// Whether the service is down for all callers.
    pub(crate) fn is_down(&self, service: Service) -> bool {
        self.down_how(service).is_some()
    }

    /// The row as an error. A row that names a time gets a random one.
    fn row(&mut self, row: Row) -> CallError {
        self.cover.met(row.name);
        let longest_s = if self.chance(10) { 300 } else { 20 };
        let after = row.names_time().then(|| self.draw_ms(0, longest_s * 1_000));
        row.error(after)
    }

    /// The plan's fixed error for this step of the event.
    fn fate_of(&self, id: usize, ask: &Ask) -> Option<Row> {
        let specs = &self.services.ids[id].specs;
        let spec = specs.iter().map(|n| &self.plan.events[*n]).find(|spec| {
            spec.reservation == ask.reservation && spec.steps.iter().any(|(_, key)| *key == ask.key)
        })?;
        let place = spec.steps.iter().position(|(_, key)| *key == ask.key)?;
        match spec.fate {
            Fate::Refused(at, row) if at == place && ask.what != What::Get => Some(row),
            Fate::Refused(..) | Fate::Normal => None,
        }
    }

    fn well(&mut self, slow: bool, timeout: Duration) -> Journey {
        let most_ms = if slow { 1_500 } else { 40 };
        let (there, back) = (self.draw_ms(1, most_ms), self.draw_ms(1, most_ms));
        if slow {
            self.cover.met("slow call");
        }
        if there >= timeout {
            Journey::Silent(None)
        } else if there + back >= timeout {
            Journey::Silent(Some(there))
        } else {
            Journey::Well { there, back }
        }
    }

    fn down(&mut self, service: Service, how: Down, timeout: Duration) -> Journey {
        let row = match (service, how) {
            (_, Down::Silent) => {
                let effect = self.chance(20).then(|| timeout.mul_f64(0.9));
                return Journey::Silent(effect);
            }
            (Service::Api, Down::Answers) => self.pick(&rows::API_OUTAGE),
            (Service::Inventory, Down::Answers) => self.pick(&rows::INV_OUTAGE),
            (Service::Api, Down::Shared500) => rows::API_TRANSIENT[0],
            (Service::Inventory, Down::Shared500) => rows::INV_TRANSIENT[0],
            (Service::Api, Down::Forbidden) => rows::API_FORBIDDEN[0],
            (Service::Inventory, Down::Forbidden) => rows::INV_FORBIDDEN[0],
        };
        Journey::Refused(self.draw_ms(1, 20), self.row(row))
    }

    /// A random fault of one call.
    fn fault(&mut self, service: Service, timeout: Duration) -> Journey {
        let api = service == Service::Api;
        let row = match self.rng.u8(0..16) {
            0 | 1 => return Journey::AnswerLost(self.draw_ms(1, 100)),
            2 => {
                self.cover.met("an effect that comes late");
                return Journey::Silent(Some(timeout.mul_f64(self.rng.f64())));
            }
            3 => return Journey::Silent(None),
            4..=6 if api => self.pick(&rows::API_OUTAGE),
            4..=6 => self.pick(&rows::INV_OUTAGE),
            7..=11 if api => self.pick(&rows::API_TRANSIENT),
            7..=11 => self.pick(&rows::INV_TRANSIENT),
            12..=14 if api => self.pick(&rows::API_PACED),
            12..=14 => self.pick(&rows::INV_PACED),
            // These errors are final, so they are rare.
            _ if self.chance(80) => return self.well(false, timeout),
            _ if api => rows::API_FORBIDDEN[0],
            _ => rows::INV_FORBIDDEN[0],
        };
        Journey::Refused(self.draw_ms(1, 40), self.row(row))
    }

    fn pick(&mut self, rows: &[Row]) -> Row {
        super::plan::pick(&mut self.rng, rows)
    }
}

fn ask(context: &CallContext<'_>, id: &ReservationId, what: What) -> Ask {
    let number = id.as_str().strip_prefix("rsv_").and_then(|n| n.parse().ok());
    let reservation = number.expect("the reservation is in the plan");
    Ask { what, key: context.idempotency_key, reservation }
}

#[async_trait]
impl ReservationApi for SimServices {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        _payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        self.call(ask(call, id, What::Patch(target))).await.map(drop)
    }

    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        let ask = ask(call, id, What::Get);
        let quantity = hold_of(ask.reservation).to_string();
        let status = self.call(ask).await?.expect("a GET is answered with a status");
        let show_id = ShowId::new("show").ok();
        Ok(Reservation { status, show_id, seats: Seats::known(&[], Some(&quantity)) })
    }
}

#[async_trait]
impl Inventory for SimServices {
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        release: ReleaseHold<'_>,
    ) -> Result<(), CallError> {
        let what = What::Release(release.seats.quantity, release.reason);
        self.call(ask(call, release.reservation_id, what)).await.map(drop)
    }

    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError> {
        let what = What::Commit(commit.seats.quantity);
        self.call(ask(call, commit.reservation_id, what)).await.map(drop)
    }
}
