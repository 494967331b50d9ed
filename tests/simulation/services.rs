//! The state of the two simulated services, the effects of calls, and checks for effects that are
//! never allowed.
//!
//! A reservation has one status and one set of seats. As both services guarantee, a repeated call
//! with the key of a successful one succeeds and changes nothing. How a call travels and fails is
//! in `calls`.

use std::collections::HashMap;

use reservation_worker::client::{
    CallError, Class, ReleaseReason, ReservationStatus, TargetStatus,
};
use reservation_worker::event::{EventType, Step, StepSet};
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::Streak;
use super::plan::{EventSpec, Plan};
use super::rows::Row;
use super::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Api,
    Inventory,
}

/// Stands for another pod in place of a life of the process.
pub(crate) const OTHER: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Held,
    Expired,
    Confirmed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatState {
    Held,
    Sold,
    Released,
}

/// An operation of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Patch(TargetStatus),
    Get,
    Release(i32, ReleaseReason),
    Commit(i32),
}

/// A call as the service receives it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) what: What,
    pub(crate) key: Uuid,
    pub(crate) reservation: usize,
}

impl Ask {
    pub(crate) fn service(&self) -> Service {
        match self.what {
            What::Patch(_) | What::Get => Service::Api,
            What::Release(..) | What::Commit(_) => Service::Inventory,
        }
    }
}

pub(crate) type Answer = Result<Option<ReservationStatus>, CallError>;

/// The state of one step of an event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepState {
    /// Whether it took effect, or its effect was found.
    pub(crate) applied: bool,
    /// The life whose process knows this.
    pub(crate) known_in: Option<u32>,
}

/// The state of one event id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) id: String,
    /// The events with this id. More than one if the id was reused.
    pub(crate) specs: Vec<usize>,
    /// For each of `specs`, by [`Step::ALL`].
    steps: Vec<[StepState; 3]>,
    /// Whether the worker must ask the Reservation API for the seats.
    pub(crate) asks: bool,
    /// Whether that was answered in this delivery.
    pub(crate) asked: bool,
    pub(crate) superseded: bool,
    pub(crate) superseded_in: Option<u32>,
    pub(crate) told_permanent: bool,
    pub(crate) told_forbidden: bool,
    pub(crate) told_money: bool,
    /// The last life that made a call for it.
    pub(crate) called_in: u32,
    /// Failed calls since its last settlement: while the service was down for all callers, and
    /// others.
    pub(crate) failed_down: u32,
    pub(crate) failed_other: u32,
}

#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) number: u64,
    pub(crate) reservation: usize,
}

pub(crate) struct ServicesState {
    status: Vec<Status>,
    seats: Vec<SeatState>,
    pub(crate) ids: Vec<Progress>,
    pub(crate) keys: HashMap<Uuid, (usize, usize)>,
    pub(crate) open: Vec<Open>,
    pub(crate) last_number: u64,
    /// By [`Service`] and event: the earliest time of the next call, as the service requested.
    pub(crate) pace_until: HashMap<(usize, usize), Instant>,
    pub(crate) streaks: [Streak; 2],
}

fn index(step: Step) -> usize {
    Step::ALL.iter().position(|s| *s == step).expect("the step is in Step::ALL")
}

impl ServicesState {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut ids: Vec<Progress> = Vec::new();
        let mut keys = HashMap::new();
        for (n, spec) in plan.events.iter().enumerate() {
            let at = ids.iter().position(|p| p.id == spec.id).unwrap_or_else(|| {
                ids.push(Progress { id: spec.id.clone(), ..Progress::default() });
                ids.len() - 1
            });
            ids[at].specs.push(n);
            ids[at].asks |= spec.asks;
            ids[at].steps.push(Default::default());
            for (step, key) in &spec.steps {
                keys.insert(*key, (at, index(*step)));
            }
        }
        Self {
            status: vec![Status::Held; plan.reservations],
            seats: vec![SeatState::Held; plan.reservations],
            ids,
            keys,
            open: Vec::new(),
            last_number: 0,
            pace_until: HashMap::new(),
            streaks: Default::default(),
        }
    }

    pub(crate) fn begin_life(&mut self) {
        self.open.clear();
        for progress in &mut self.ids {
            (progress.failed_down, progress.failed_other) = (0, 0);
            progress.asked = false;
        }
        self.pace_until.clear();
        self.streaks = Default::default();
    }

    /// The index of an id.
    pub(crate) fn place(&self, id: &str) -> usize {
        self.ids.iter().position(|p| p.id == id).expect("the id is in the plan")
    }

    pub(crate) fn progress(&self, id: &str) -> &Progress {
        &self.ids[self.place(id)]
    }

    /// Whether each step of the event is in effect.
    pub(crate) fn complete(&self, spec: &EventSpec) -> bool {
        let states = self.step_states(spec);
        spec.steps.iter().all(|(step, _)| states[index(*step)].applied)
    }

    /// Whether each step of `done` is in effect.
    pub(crate) fn applied(&self, spec: &EventSpec, done: StepSet) -> bool {
        let states = self.step_states(spec);
        Step::ALL.iter().all(|step| !done.contains(*step) || states[index(*step)].applied)
    }

    /// Whether any step of the event is in effect.
    pub(crate) fn begun(&self, spec: &EventSpec) -> bool {
        self.step_states(spec).iter().any(|state| state.applied)
    }

    fn step_states(&self, spec: &EventSpec) -> &[StepState; 3] {
        let progress = self.progress(&spec.id);
        let at = progress.specs.iter().position(|n| *n == spec.number);
        &progress.steps[at.expect("the event is in the plan")]
    }

    pub(crate) fn close(&mut self, number: u64) {
        self.open.retain(|open| open.number != number);
    }

    pub(crate) fn open_calls(&self) -> usize {
        self.open.len()
    }
}

impl World {
    /// The steps of the events with this id and this reservation.
    pub(crate) fn states(
        &self,
        id: usize,
        reservation: usize,
    ) -> impl Iterator<Item = &[StepState; 3]> + Clone {
        let progress = &self.services.ids[id];
        let all = progress.specs.iter().zip(&progress.steps);
        all.filter(move |(n, _)| self.plan.events[**n].reservation == reservation).map(|(_, s)| s)
    }

    /// Marks a step as in effect, and as known to that life.
    pub(crate) fn learn(&mut self, id: usize, reservation: usize, step: usize, life: Option<u32>) {
        let progress = &mut self.services.ids[id];
        for (n, states) in progress.specs.iter().zip(&mut progress.steps) {
            if self.plan.events[*n].reservation == reservation {
                states[step].applied = true;
                states[step].known_in = life.or(states[step].known_in);
            }
        }
    }

    /// Applies a call. The engine may have given it up before.
    pub(crate) fn apply(&mut self, id: usize, ask: &Ask) -> Answer {
        let step = self.services.keys[&ask.key].1;
        let locked = self.now() < self.plan.locked_until[ask.reservation];
        let replay = self.states(id, ask.reservation).any(|states| states[step].applied);
        let status = self.services.status[ask.reservation];
        let answer = match ask.what {
            What::Get => return Ok(Some(if locked { other("LOCKED") } else { found(status) })),
            What::Patch(_) if replay => Ok(None),
            What::Patch(_) if locked => Err(self.conflict()),
            What::Patch(target) => self.patch(ask.reservation, target),
            What::Release(..) => self.release_seats(ask.reservation, replay),
            What::Commit(_) => self.commit_seats(ask.reservation, replay),
        };
        if answer.is_ok() {
            if replay {
                self.cover.met("a step repeated with its key");
            }
            self.learn(id, ask.reservation, step, None);
        }
        self.log(|| format!("effect {:?} rsv_{}: {answer:?}", ask.what, ask.reservation));
        answer
    }

    fn patch(&mut self, reservation: usize, target: TargetStatus) -> Answer {
        let wanted = match target {
            TargetStatus::Expired => Status::Expired,
            TargetStatus::Confirmed => Status::Confirmed,
            TargetStatus::Cancelled => Status::Cancelled,
        };
        let status = self.services.status[reservation];
        // A service may refuse to set a status that is already set.
        if status == Status::Held || (status == wanted && self.chance(70)) {
            self.services.status[reservation] = wanted;
            Ok(None)
        } else {
            Err(self.conflict())
        }
    }

    fn conflict(&mut self) -> CallError {
        let name = if self.chance(50) { "api 412" } else { "api 409" };
        self.cover.met(name);
        Row { name, class: Class::Conflict }.error(None)
    }

    fn release_seats(&mut self, reservation: usize, replay: bool) -> Answer {
        let status = self.services.status[reservation];
        let over = matches!(status, Status::Expired | Status::Cancelled);
        self.check(replay || over, || {
            format!("seats of rsv_{reservation} released while it is {status:?}")
        });
        let seats = &mut self.services.seats[reservation];
        match seats {
            SeatState::Sold => {
                self.violation(|| format!("sold seats of rsv_{reservation} released"));
                Ok(None)
            }
            SeatState::Held => {
                *seats = SeatState::Released;
                self.cover.met("inv released");
                Ok(None)
            }
            SeatState::Released => {
                let gone = self.chance(30);
                self.cover.met(if gone { "inv release not found" } else { "inv already released" });
                Ok(None)
            }
        }
    }

    fn commit_seats(&mut self, reservation: usize, replay: bool) -> Answer {
        let status = self.services.status[reservation];
        self.check(replay || status == Status::Confirmed, || {
            format!("seats of rsv_{reservation} sold while it is {status:?}")
        });
        self.services.seats[reservation] = SeatState::Sold;
        self.cover.met("inv committed");
        Ok(None)
    }
}

pub(crate) fn target_of(event_type: EventType) -> TargetStatus {
    match event_type {
        EventType::ReservationExpired => TargetStatus::Expired,
        EventType::PaymentApproved => TargetStatus::Confirmed,
        EventType::PaymentFailed => TargetStatus::Cancelled,
    }
}

fn found(status: Status) -> ReservationStatus {
    match status {
        Status::Held => other("HELD"),
        Status::Expired => ReservationStatus::Expired,
        Status::Confirmed => ReservationStatus::Confirmed,
        Status::Cancelled => ReservationStatus::Cancelled,
    }
}

fn other(status: &str) -> ReservationStatus {
    ReservationStatus::Other(status.to_owned())
}
