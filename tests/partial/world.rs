//! The state that all parts of the simulated world share: the clock, the random numbers, the log,
//! and the progress of each event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use reservation_worker::event::{EventId, Step, idempotency_key};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::lanes::Lanes;
use super::order::OrderLog;
use super::plan::{Plan, Side};
use super::queue::QueueState;
use super::service::ServiceState;

/// More calls than this in one run mean a loop that does not wait.
const CALLS_MAX: u64 = 20_000_000;

/// The progress of an event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Became {
    /// Whether the step is done, by [`Side`].
    pub(crate) steps: [bool; 2],
    pub(crate) done_at: Option<Duration>,
    /// The times of its first receive and of its first call.
    pub(crate) received_at: Option<Duration>,
    pub(crate) called_at: Option<Duration>,
    /// Whether the run has stopped waiting for it.
    closed: bool,
}

pub(crate) struct World {
    started: Instant,
    pub(crate) plan: Arc<Plan>,
    pub(crate) rng: Rng,
    log: Option<Vec<String>>,
    calls: u64,
    pub(crate) events: Vec<Became>,
    /// The number of events that are to be done and are not.
    pub(crate) open: usize,
    /// The event and the service of each idempotency key.
    pub(crate) keys: HashMap<Uuid, (usize, Side)>,
    pub(crate) queue: QueueState,
    /// By [`Side`].
    pub(crate) services: [ServiceState; 2],
    /// The lanes of the shared store.
    pub(crate) lanes: Lanes,
    /// Kept where processes share the order.
    pub(crate) order: OrderLog,
    pub(crate) violations: Vec<String>,
    /// For how long a process treated a service as down.
    pub(crate) away: Duration,
}

/// The world, shared by all its parts.
pub(crate) struct Sim {
    world: Mutex<World>,
    /// A message can be received.
    pub(crate) arrivals: Notify,
    /// A message becomes visible earlier than the pending timer.
    pub(crate) sooner: Notify,
}

pub(crate) fn event_id(n: usize) -> String {
    format!("evt_{n}")
}

/// Waits until this process is not frozen. What it sends and hears meanwhile, it sends and hears
/// then.
pub(crate) async fn thaw(sim: &Sim, process: usize) {
    loop {
        let until = {
            let world = sim.lock();
            world.plan.frozen_until(process, world.now()).map(|until| world.instant(until))
        };
        let Some(until) = until else { return };
        sleep_until(until).await;
    }
}

impl Sim {
    pub(crate) fn new(plan: Plan, logged: bool) -> Self {
        let plan = Arc::new(plan);
        let mut keys = HashMap::with_capacity(plan.events.len() * 2);
        for (n, event) in plan.events.iter().enumerate() {
            let id = EventId::new(&event_id(n)).expect("the id is valid");
            keys.insert(idempotency_key(&id, Step::ReservationStatus), (n, Side::Api));
            if event.seats {
                keys.insert(idempotency_key(&id, Step::InventoryRelease), (n, Side::Inventory));
            }
        }
        let world = World {
            started: Instant::now(),
            rng: Rng::with_seed(plan.seed ^ 0x5eed),
            log: logged.then(Vec::new),
            calls: 0,
            events: vec![Became::default(); plan.events.len()],
            open: plan.events.iter().filter(|event| event.awaited()).count(),
            keys,
            queue: QueueState::new(&plan),
            services: Side::BOTH.map(|side| ServiceState::new(&plan.services[side.index()])),
            lanes: Lanes::default(),
            order: OrderLog::default(),
            violations: Vec::new(),
            away: Duration::ZERO,
            plan,
        };
        Self { world: Mutex::new(world), arrivals: Notify::new(), sooner: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("the lock is not poisoned")
    }

    pub(crate) fn into_world(self: Arc<Self>) -> Option<World> {
        Some(Arc::into_inner(self)?.world.into_inner().expect("the lock is not poisoned"))
    }
}

impl World {
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }

    /// Returns true with a probability of `percent`.
    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    pub(crate) fn between(&mut self, (from, to): (Duration, Duration)) -> Duration {
        from + (to - from).mul_f64(self.rng.f64())
    }

    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.started.elapsed();
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10.3} {}", now.as_secs_f64(), line()));
        }
    }

    pub(crate) fn take_log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    /// Counts a call of any kind.
    pub(crate) fn called(&mut self) {
        self.calls += 1;
        assert!(self.calls < CALLS_MAX, "too many calls: some loop does not wait");
    }

    /// Marks a step as done, as the engine gets its response.
    pub(crate) fn step_done(&mut self, event: usize, side: Side) {
        let now = self.now();
        let spec = &self.plan.events[event];
        let became = &mut self.events[event];
        became.steps[side.index()] = true;
        let all = became.steps[0] && (became.steps[1] || !spec.seats);
        if all && became.done_at.is_none() {
            became.done_at = Some(now);
            self.close(event);
        }
    }

    /// Stops waiting for this event.
    pub(crate) fn close(&mut self, event: usize) {
        let was_closed = std::mem::replace(&mut self.events[event].closed, true);
        self.open -= usize::from(!was_closed && self.plan.events[event].awaited());
    }
}

impl super::plan::EventSpec {
    /// Whether the run waits for this event.
    pub(crate) fn awaited(&self) -> bool {
        use super::plan::Grade::{Bad, Good, Late};
        match self.grade {
            Good | Late => !self.poison,
            Bad => false,
        }
    }
}
