//! Judges each service, the idempotency store's shards among them, by evidence: whether it is called, by how many at
//! once, and who finds out whether it serves again.
//!
//! ```text
//!               five fresh reservations fail, or are refused,
//!               and nobody succeeds
//!   SERVING ─────────────────────────────────────────────────▶ DOWN (away, failing, refusing)
//!    │  ▲ ▲                                                      │  probes: fresh events first,
//!    │  │ └──────────── a call that began since succeeds ────────┘  five a round, 1 to 10 s apart
//!    │  │ the time is up
//!    ▼  │
//!   PAUSED: several fresh reservations are told to come later
//! ```
//!
//! - **Evidence** comes from *fresh* calls: for distinct reservations that have not failed at this service before.
//!   What fails while others do well is a *suspect*: it waits on a timer of its own, and says nothing about the service.
//! - **Serving**: as many calls at once as the limit says, which rises and falls with what the service shows. After an
//!   outage it begins small and doubles.
//! - **Down**: events whose next step needs the service are parked: held, with no worker, no retry and no receive spent.
//!   Permanent answers are not final then.
//! - **Whose fault** a failure is, stands in one table: [`attribution`].
//!
//! This module is told what happened and when. It makes no call, and holds no event. Which events wait is the table's to
//! know ([`crate::inflight`]).

pub mod attribution;
mod breaker;
mod dependency;
mod evidence;
mod limit;
mod log;
mod troubled;
mod window;

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ahash::RandomState;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::breaker::Due;
use self::breaker::{Breaker, Change, Entered, Trouble};
pub use self::dependency::{Dependency, SHARDS_MAX, Shard};
use self::evidence::Begun;
use self::limit::{Bounds, Limit, Step};
use self::troubled::Troubled;
use crate::client::Load;
use crate::metrics::{BreakerState, LimitChange, Metrics, PaceScope, Service};

/// What an answer says about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It did what was asked, or said why it is not to be done.
    Done,
    /// It answered that the state does not fit: what that means is asked next.
    Conflict,
    /// It, or the way to it, is at fault.
    Outage,
    /// It failed with 500 and its like.
    Failing,
    /// It refused for good, which may be this event's own.
    Refused,
    /// It wants to be called again after so long, or later.
    Paced(Option<Duration>),
}

/// What is known of a service once an answer was booked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// The service is called; where not, the event waits for it.
    pub is_called: bool,
    /// Others have done well since this reservation failed for the first time.
    pub is_suspect: bool,
    /// Others were told to come later too, lately. Known of a suspect only.
    pub are_others_paced: bool,
    /// How often the service was down so far.
    pub outages: u64,
    /// How many calls to it have begun so far.
    pub begun: u64,
    /// The latest of them to begin among those that succeeded.
    pub succeeded: u64,
    /// For how long nothing has succeeded.
    pub failing_for: Duration,
}

impl BreakerSnapshot {
    /// How long an event waits that failed before anybody has succeeded since: as long as between two rounds of probes.
    #[must_use]
    pub fn probe_wait(&self) -> Duration {
        breaker::probe_wait(self.failing_for)
    }
}

/// How many events wait for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Those that have not failed there.
    pub fresh: usize,
    /// Those that have, while nobody is known to have done well since.
    pub tried: usize,
    /// Suspects that wait for room.
    pub suspects: usize,
}

impl Waiting {
    /// All of them.
    #[must_use]
    pub const fn total(self) -> usize {
        self.fresh + self.tried + self.suspects
    }
}

/// How many calls the services are given.
#[derive(Clone, Copy, Debug)]
pub struct OutageSettings {
    /// Calls at once at most, of each service: as many as there are workers.
    pub calls_max: usize,
    /// Calls at once that a service is never given fewer of.
    pub calls_min: usize,
    /// What a call of the Reservation API should take.
    pub reservation_target: Option<Duration>,
    /// What a call of the Inventory service should take.
    pub inventory_target: Option<Duration>,
}

/// The breakers.
#[derive(Debug)]
pub struct Outages {
    breakers: [Mutex<Breaker>; Dependency::COUNT],
    troubled: Troubled,
    changed: Notify,
    metrics: Arc<Metrics>,
    hasher: RandomState,
    calls_max: usize,
}

/// The permission to make one call. Dropped without an answer, it counts as never given.
#[derive(Debug)]
#[must_use = "a call that is not reported counts as never made"]
pub struct CallPermit {
    outages: Arc<Outages>,
    dependency: Dependency,
    call: Begun,
    open: bool,
}

/// Why a call may not be made now. Whoever is parked is told when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// Nobody may call it; else as many calls are open as it is given.
    pub is_away: bool,
    /// What the call is for has not failed there.
    pub is_fresh: bool,
    /// What the call is for fails there while others do well.
    pub is_suspect: bool,
}

impl Outages {
    /// Every service is called.
    #[must_use]
    pub fn new(settings: OutageSettings, metrics: Arc<Metrics>) -> Self {
        let OutageSettings { calls_max, calls_min, reservation_target, inventory_target } =
            settings;
        let bounds = Bounds::new(calls_min, calls_max);
        metrics.concurrency_limit_min(calls_min.min(calls_max));
        let mut all = Dependency::all();
        let breakers = std::array::from_fn(|_| {
            let dependency = all.next().expect("as many as there are");
            let target = match dependency {
                Dependency::ReservationApi => reservation_target,
                Dependency::Inventory => inventory_target,
                // Claims are renewed for all that are held: no number of calls at once would fit. And queries follow
                // calls that are limited.
                Dependency::Store(_) | Dependency::ReservationQuery => {
                    return Mutex::new(Breaker::new(None));
                }
            };
            let limit = Limit::new(bounds, target);
            metrics.concurrency_limit(dependency.service(), limit.calls());
            metrics.latency_target(dependency.service(), target);
            Mutex::new(Breaker::new(Some(limit)))
        });
        Self {
            breakers,
            troubled: Troubled::default(),
            changed: Notify::new(),
            metrics,
            hasher: RandomState::new(),
            calls_max,
        }
    }

    /// Asks to make one call now, for that reservation or event.
    ///
    /// # Errors
    /// Not now.
    pub fn enter(
        self: &Arc<Self>,
        dependency: Dependency,
        subject: &(impl Hash + ?Sized),
    ) -> Result<CallPermit, NotNow> {
        let subject = self.hasher.hash_one(subject);
        let entered = self.lock(dependency).enter(subject, Instant::now());
        let not_now = |is_away, is_fresh, is_suspect| Err(NotNow { is_away, is_fresh, is_suspect });
        match entered {
            Entered::Go(call) => {
                self.metrics.call_began(dependency.service());
                Ok(CallPermit { outages: Arc::clone(self), dependency, call, open: true })
            }
            Entered::Away { is_fresh } => not_now(true, is_fresh, false),
            Entered::Full { is_fresh, is_suspect } => not_now(false, is_fresh, is_suspect),
        }
    }

    /// Whether nobody may call it for some time, or only to find out.
    pub fn is_away(&self, dependency: Dependency) -> bool {
        self.lock(dependency).is_away(Instant::now())
    }

    /// Whether any shard of the store is away.
    pub fn is_store_away(&self) -> bool {
        self.store_shards_away() > 0
    }

    /// How many shards of the store are away.
    pub fn store_shards_away(&self) -> usize {
        if self.troubled.is_none() {
            return 0;
        }
        let now = Instant::now();
        self.store_shards(|breaker| breaker.is_away(now))
    }

    /// Whether that shard of the store has been away for so long while others answered all that time.
    pub fn is_away_alone_for(&self, shard: Dependency, time: Duration) -> bool {
        let now = Instant::now();
        let lasts =
            |breaker: &Breaker, is_down| breaker.lasts(is_down, now).is_some_and(|it| it >= time);
        lasts(&self.lock(shard), true)
            && self.store_shards(|breaker| breaker.has_succeeded() && lasts(breaker, false)) > 0
    }

    fn store_shards(&self, are: impl Fn(&Breaker) -> bool) -> usize {
        let shards = Dependency::all().filter(|it| it.service() == Service::Store);
        shards.filter(|shard| are(&self.lock(*shard))).count()
    }

    /// How many parked events may go on now, and when to ask again.
    pub fn due(
        &self,
        dependency: Dependency,
        waiting: Waiting,
        now: Instant,
    ) -> (Due, Option<Instant>) {
        let mut breaker = self.lock(dependency);
        let due = breaker.due(waiting, now);
        drop(breaker);
        self.show(dependency, now);
        due
    }

    /// Calls that the service can be given soon which is given the fewest, of those that are not away.
    pub fn smallest_limit(&self) -> usize {
        let now = Instant::now();
        let limits = [Dependency::ReservationApi, Dependency::Inventory].map(|dependency| {
            let breaker = self.lock(dependency);
            breaker.limit().filter(|_| !breaker.is_away(now)).map(Limit::calls_soon)
        });
        limits.into_iter().flatten().min().unwrap_or(self.calls_max)
    }

    /// Whether a service takes only so many calls a second and refuses the others, or has asked everybody to come later.
    pub fn is_rationed(&self) -> bool {
        let now = Instant::now();
        [Dependency::ReservationApi, Dependency::Inventory].into_iter().any(|dependency| {
            let mut breaker = self.lock(dependency);
            breaker.forget(now);
            let is_rationed = breaker.limit().is_some_and(Limit::is_rationed);
            !breaker.is_away(now) && (is_rationed || breaker.is_paused(now))
        })
    }

    /// Says that an event was parked, or that one may be let go: [`Outages::due`] is to be asked.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for a change in what [`Outages::due`] says. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self, dependency: Dependency) -> MutexGuard<'_, Breaker> {
        self.breakers[dependency.index()].lock().expect("no panic happens under this lock")
    }

    /// Where one part of a service is back, the others may be too.
    fn hasten_others(&self, dependency: Dependency, change: Change, now: Instant) {
        if let Change::Back { .. } = change {
            let parts = Dependency::all().filter(|it| it.service() == dependency.service());
            parts.for_each(|part| self.lock(part).hasten(now));
        }
    }

    /// Sets the gauges. A service with several parts shows the worst of them.
    fn show(&self, dependency: Dependency, now: Instant) {
        let service = dependency.service();
        let of_it = Dependency::all().filter(|other| other.service() == service);
        let (mut worst, mut is_refusing) = (BreakerState::Closed, false);
        for other in of_it {
            let breaker = self.lock(other);
            worst = match (worst, breaker.shown(now)) {
                (BreakerState::Open, _) | (_, BreakerState::Open) => BreakerState::Open,
                (BreakerState::HalfOpen, _) | (_, BreakerState::HalfOpen) => BreakerState::HalfOpen,
                (BreakerState::Closed, BreakerState::Closed) => BreakerState::Closed,
            };
            is_refusing |= breaker.trouble() == Some(Trouble::Refusing);
            if let Some(limit) = breaker.limit() {
                self.metrics.concurrency_limit(service, limit.calls());
                self.metrics.rate_limit(service, limit.rate());
            }
        }
        self.metrics.breaker(service, worst);
        self.metrics.refusing(service, is_refusing);
    }
}

impl CallPermit {
    /// Books what the call was answered with, and how long that took.
    pub fn report(mut self, outcome: CallOutcome, load: Load, took: Duration) -> BreakerSnapshot {
        self.open = false;
        let (outages, dependency) = (Arc::clone(&self.outages), self.dependency);
        let service = dependency.service();
        let now = Instant::now();
        let mut breaker = outages.lock(dependency);
        let was_calm = breaker.is_calm();
        let rates = |breaker: &Breaker| {
            breaker.limit().map_or((None, None, false), |limit| {
                (limit.rate(), limit.rate_found(), limit.is_rationed())
            })
        };
        let (rate_before, found_before, was_rationed) = rates(&breaker);
        let (change, step) = breaker.report(self.call, outcome, load, took, now);
        let snapshot = breaker.snapshot(self.call, now);
        let is_calm = breaker.is_calm();
        let (rate, found, is_rationed) = rates(&breaker);
        outages.troubled.note(dependency, breaker.is_serving());
        drop(breaker);
        outages.metrics.call_ended(service);
        // Hardly anybody asks what a reservation is: others' calls tell whose fault it is that one cannot.
        if dependency == Dependency::ReservationApi
            && matches!(outcome, CallOutcome::Done | CallOutcome::Conflict)
        {
            outages.lock(Dependency::ReservationQuery).others_do_well();
        }
        if let CallOutcome::Paced(_) = outcome {
            outages.metrics.paced(service, PaceScope::Event);
        }
        if let Some(step) = step {
            outages.metrics.limit_changed(
                service,
                match step {
                    Step::Up => LimitChange::Up,
                    Step::Down => LimitChange::Down,
                },
            );
        }
        log::rate(service, found_before, found);
        if let Some(change) = change {
            log::change(dependency, change);
            if let Change::Paced { .. } = change {
                outages.metrics.paced(service, PaceScope::Service);
            }
            outages.hasten_others(dependency, change, now);
        }
        // While all is well, this is all that an answer costs.
        let has_changed = change.is_some()
            || step.is_some()
            || rate != rate_before
            || is_rationed != was_rationed;
        if has_changed || !was_calm || !is_calm {
            outages.show(dependency, now);
            outages.notify();
        }
        snapshot
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if self.open {
            self.outages.lock(self.dependency).cancel(self.call, Instant::now());
            self.outages.metrics.call_ended(self.dependency.service());
            self.outages.notify();
        }
    }
}
