//! The world of one run: the clock, the random numbers, the log, the interrupts, and the state that
//! all parts share. The parts are in `queue`, `services`, `store` and `order`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::coverage::Coverage;
use super::guard::Shared;
use super::order::Order;
use super::plan::{Interrupt, Plan, What, When};
use super::queue::Sqs;
use super::services::ServicesState;
use super::store::StoreState;

/// More interactions than this in one second mean a loop that does not wait. Some thousand are
/// normal when a hundred events retry the store every ten milliseconds, the shortest backoff.
const GATES_MAX: u64 = 20_000;

/// The world of a run, shared by all its parts.
pub(crate) struct Sim {
    world: Mutex<World>,
    /// A message may have become visible.
    pub(crate) arrivals: Notify,
    /// An interrupt is pending.
    pub(crate) interrupted: Notify,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) started: Instant,
    log: Option<Vec<String>>,
    pub(crate) violations: Vec<String>,
    pub(crate) cover: Coverage,
    /// The number of the current or last process.
    pub(crate) life: u32,
    /// Whether that process is alive.
    pub(crate) alive: bool,
    pub(crate) draining: bool,
    /// The end of the shutdown time.
    pub(crate) drain_until: Option<Duration>,
    gates: u64,
    /// The second of the latest interaction, and the number of interactions in it.
    gates_of_second: (u64, u64),
    /// Interactions since the process was told to stop.
    leaving_gates: u64,
    /// Interactions by kind.
    point_gates: BTreeMap<&'static str, u64>,
    interrupts: Vec<Interrupt>,
    /// An interrupt that the run has not handled yet.
    pub(crate) pending: Option<What>,
    pub(crate) queue: Sqs,
    pub(crate) services: ServicesState,
    /// The store that all pods share, if the plan has one. It outlives each process.
    pub(crate) store: Option<Shared>,
    /// Whether the previous process, if any, shut down in good order and in time.
    pub(crate) left: bool,
    pub(crate) order: Order,
}

impl Sim {
    pub(crate) fn new(plan: Plan, logged: bool) -> Self {
        let queue = Sqs::new(&plan);
        let services = ServicesState::new(&plan);
        let store = plan
            .store
            .as_ref()
            .map(|store| Shared::new(StoreState::new(services.ids.len(), store.failovers.clone())));
        let world = World {
            // A sequence independent of the plan's.
            rng: Rng::with_seed(plan.seed ^ 0x5EED_0F3A_11D1_CE00),
            started: Instant::now(),
            log: logged.then(Vec::new),
            violations: Vec::new(),
            cover: Coverage::default(),
            life: 0,
            alive: false,
            draining: false,
            drain_until: None,
            gates: 0,
            gates_of_second: (0, 0),
            leaving_gates: 0,
            point_gates: BTreeMap::new(),
            interrupts: plan.interrupts.clone(),
            pending: None,
            queue,
            services,
            store,
            left: true,
            order: Order::default(),
            plan,
        };
        Self { world: Mutex::new(world), arrivals: Notify::new(), interrupted: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("the lock is not poisoned")
    }

    /// An interrupt point: the process may be killed or told to stop here. Never returns in a dead
    /// process.
    pub(crate) async fn gate(&self, life: u32, point: &'static str) {
        let (dead, interrupted) = self.lock().gate(life, point);
        if interrupted {
            self.interrupted.notify_one();
        }
        if dead {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        self.lock().log.take().unwrap_or_default()
    }
}

impl World {
    /// The time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.started + at
    }

    /// Whether the last fault is over.
    pub(crate) fn calm(&self) -> bool {
        self.now() >= self.plan.calm_at
    }

    /// Returns true with a probability of `percent`.
    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    /// Draws a duration from `from` to `to` milliseconds.
    pub(crate) fn draw_ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.u64(from..=to))
    }

    /// Adds a line if the run is logged.
    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.started.elapsed();
        if let Some(log) = &mut self.log {
            let text = line();
            log.push(format!("{:>11.3} [{}] {text}", now.as_secs_f64(), self.life));
        }
    }

    /// Records a violation.
    pub(crate) fn violation(&mut self, what: impl FnOnce() -> String) {
        /// Later violations are usually consequences of the first ones.
        const KEPT: usize = 5;
        if self.violations.len() < KEPT {
            let text = format!("{:.3} s, life {}: {}", self.now().as_secs_f64(), self.life, what());
            self.log(|| format!("VIOLATION {text}"));
            self.violations.push(text);
        }
    }

    /// Records a violation unless `fine`.
    pub(crate) fn check(&mut self, fine: bool, what: impl FnOnce() -> String) {
        if !fine {
            self.violation(what);
        }
    }

    /// Counts an interaction. Returns whether this life is over, and whether an interrupt is due.
    fn gate(&mut self, life: u32, point: &'static str) -> (bool, bool) {
        if !self.alive || life != self.life {
            return (true, false);
        }
        self.gates += 1;
        let gates = self.gates;
        let second = self.now().as_secs();
        let of_second =
            if self.gates_of_second.0 == second { self.gates_of_second.1 + 1 } else { 1 };
        self.gates_of_second = (second, of_second);
        self.check(of_second != GATES_MAX, || "a loop that does not wait".to_owned());
        self.leaving_gates += u64::from(self.draining);
        let leaving = self.leaving_gates;
        let of_kind = self.point_gates.entry(point).or_default();
        *of_kind += 1;
        let of_kind = *of_kind;
        let due = |interrupt: &Interrupt| match interrupt.when {
            When::Gate(n) => n <= gates,
            When::Leaving(n) => n <= leaving,
            When::Point(kind, n) => kind == point && n <= of_kind,
            When::At(_) => false,
        };
        let Some(at) = self.interrupts.iter().position(due) else { return (false, false) };
        // A process that is already stopping ignores this interrupt.
        let what = self.interrupts.swap_remove(at).what;
        self.cover.met(name_of(what, point, self.draining));
        self.interrupt(what);
        (!self.alive, true)
    }

    /// Kills the process, or tells it to stop.
    pub(crate) fn interrupt(&mut self, what: What) {
        if what == What::Term && self.draining {
            return;
        }
        self.log(|| format!("{what:?}"));
        let now = self.now();
        let mut down = self.plan.api.down.iter().chain(&self.plan.inventory.down);
        if down.any(|(from, to, _)| *from <= now && now < *to) {
            self.cover.met(match what {
                What::Crash => "crash in an outage",
                What::Term => "term in an outage",
            });
        }
        if self.store_down().is_some() {
            self.cover.met(match what {
                What::Crash => "crash while the store is down",
                What::Term => "term while the store is down",
            });
        }
        if what == What::Crash {
            self.alive = false;
        }
        if self.pending != Some(What::Crash) {
            self.pending = Some(what);
        }
    }

    /// The time of the next timed interrupt.
    pub(crate) fn next_timed(&self) -> Option<Duration> {
        let times = self.interrupts.iter().filter_map(|interrupt| match interrupt.when {
            When::At(at) => Some(at),
            When::Gate(_) | When::Leaving(_) | When::Point(..) => None,
        });
        times.min()
    }

    /// Carries out the timed interrupts that are due.
    pub(crate) fn interrupt_timed(&mut self) {
        let now = self.now();
        let due = |interrupt: &Interrupt| matches!(interrupt.when, When::At(at) if at <= now);
        while let Some(at) = self.interrupts.iter().position(due) {
            let what = self.interrupts.swap_remove(at).what;
            self.cover.met(match what {
                What::Crash => "crash at a timer",
                What::Term => "term at a timer",
            });
            self.interrupt(what);
        }
    }

    /// Clears the remaining interrupts at the end of the run.
    pub(crate) fn no_more_interrupts(&mut self) {
        self.interrupts.clear();
    }

    pub(crate) fn begin_life(&mut self) {
        self.life += 1;
        self.alive = true;
        self.draining = false;
        self.drain_until = None;
        self.leaving_gates = 0;
        self.pending = None;
        self.queue.begin_life();
        self.services.begin_life();
        let left = std::mem::take(&mut self.left);
        if let Some(store) = &mut self.store {
            store.begin_life(left);
        }
        self.order = Order::default();
        self.log(|| "started".to_owned());
    }
}

/// The coverage name of an interrupt.
fn name_of(what: What, point: &str, draining: bool) -> &'static str {
    match (what, point, draining) {
        (What::Crash, _, true) => "crash while leaving",
        (What::Crash, "before receive", _) => "crash before receive",
        (What::Crash, "after receive", _) => "crash after receive",
        (What::Crash, "before call", _) => "crash before a call",
        (What::Crash, "after call", _) => "crash after an effect",
        (What::Crash, "before delete", _) => "crash before delete",
        (What::Crash, "after delete", _) => "crash after delete",
        (What::Crash, "before change", _) => "crash before a visibility change",
        (What::Crash, "after change", _) => "crash after a visibility change",
        (What::Crash, "before copy", _) => "crash before a dead letter",
        (What::Crash, "after copy", _) => "crash after a dead letter",
        (What::Crash, "before store", _) => "crash before a store operation",
        (What::Crash, "after store", _) => "crash after a store operation",
        (What::Crash, _, _) => "crash elsewhere",
        (What::Term, "before receive" | "after receive", _) => "term in a receive",
        (What::Term, "before call" | "after call", _) => "term in a call",
        (What::Term, "before store" | "after store", _) => "term in a store operation",
        (What::Term, _, _) => "term while settling",
    }
}
