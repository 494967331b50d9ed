//! Circuit breakers per service and per store shard, and concurrency limits per service.
//!
//! ```text
//!               five fresh reservations fail, or are refused,
//!               and no call succeeds
//!   SERVING ─────────────────────────────────────────────────▶ DOWN (away, failing, refusing)
//!    │  ▲ ▲                                                      │  probes: fresh events first,
//!    │  │ └──────────── a call that began since succeeds ────────┘  five a round, 1 to 10 s apart
//!    │  │ the pause ends
//!    ▼  │
//!   PAUSED: several fresh reservations are paced (told to retry later)
//! ```
//!
//! - **Evidence** comes from *fresh* calls: distinct reservations that have not failed at this
//!   service before. A reservation that fails while others succeed is a *suspect*. It waits on its
//!   own timer and is no evidence about the service.
//! - **Serving**: the limit bounds the in-flight calls, and adapts. After an outage it starts low
//!   and doubles.
//! - **Down**: events that need the service next are parked: held without a worker, and without
//!   spending a retry or a receive. Permanent errors are not final then.
//! - **Attribution** of a failure is decided in one table: [`attribution`].
//!
//! This module records outcomes and times. It makes no calls and holds no events. The waiting
//! events are held in the table of events in flight ([`crate::inflight`]).

pub mod attribution;
mod breaker;
mod dependency;
mod evidence;
mod limit;
mod log;
mod overview;
#[cfg(test)]
mod tests;
mod troubled;
mod window;

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ahash::RandomState;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::breaker::Due;
use self::breaker::{Breaker, Change, Entered};
pub use self::dependency::{Dependency, SHARDS_MAX, Shard};
use self::evidence::BegunCall;
use self::limit::{Bounds, Limit, LimitStep};
pub use self::overview::ServiceOverview;
use self::troubled::Troubled;
use crate::client::Load;
use crate::metrics::{LimitChange, Metrics, PaceScope, Service};

/// Outcome of a call, as evidence about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The service performed the operation, or stated why it must not be performed.
    Done,
    /// State conflict. The state is queried next.
    Conflict,
    /// The service, or the connection to it, is at fault.
    Outage,
    /// 500 and similar status codes.
    Failing,
    /// Permanent error. The cause may be this event alone.
    Refused,
    /// Paced: the service asks for a retry after this duration or later.
    Paced(Option<Duration>),
}

/// State of a service after the outcome of a call was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// The service is called. If `false`, the event waits for it.
    pub is_called: bool,
    /// Other reservations have succeeded since this one failed for the first time.
    pub is_suspect: bool,
    /// Other reservations were paced recently too. Set only for a suspect.
    pub are_others_paced: bool,
    /// Number of outages so far.
    pub outages: u64,
    /// Number of calls begun so far.
    pub begun: u64,
    /// Number of the latest-begun call among those that succeeded.
    pub succeeded: u64,
    /// Time since the first failure after the last success.
    pub failing_for: Duration,
}

impl BreakerSnapshot {
    /// Returns the wait of an event that failed with no success since: one probe interval.
    #[must_use]
    pub fn probe_wait(&self) -> Duration {
        breaker::probe_wait(self.failing_for)
    }
}

/// Numbers of events that wait for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Events that have not failed at the service.
    pub fresh: usize,
    /// Events that have failed there, with no known success of other events since.
    pub tried: usize,
    /// Suspects that wait for a permit.
    pub suspects: usize,
}

impl Waiting {
    /// Returns the number of all waiting events.
    #[must_use]
    pub const fn total(self) -> usize {
        self.fresh + self.tried + self.suspects
    }
}

/// Settings of the concurrency limits.
#[derive(Clone, Copy, Debug)]
pub struct OutageSettings {
    /// Maximum in-flight limit per service: the number of workers.
    pub calls_max: usize,
    /// Minimum in-flight limit per service.
    pub calls_min: usize,
    /// Latency target of the Reservation API.
    pub reservation_target: Option<Duration>,
    /// Latency target of the Inventory service.
    pub inventory_target: Option<Duration>,
}

/// Breakers of all dependencies.
#[derive(Debug)]
pub struct Outages {
    breakers: [Mutex<Breaker>; Dependency::COUNT],
    troubled: Troubled,
    changed: Notify,
    metrics: Arc<Metrics>,
    hasher: RandomState,
    calls_min: usize,
    calls_max: AtomicUsize,
}

/// Permit for one call. Dropped without a report, it counts as a call that was never made.
#[derive(Debug)]
#[must_use = "a call that is not reported counts as never made"]
pub struct CallPermit {
    outages: Arc<Outages>,
    dependency: Dependency,
    call: BegunCall,
    open: bool,
}

/// Reason why no permit is available. A parked event is released by [`Outages::due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallDenied {
    /// The service is not called. If `false`, its limit is reached.
    pub is_away: bool,
    /// The reservation or event has not failed at this service.
    pub is_fresh: bool,
    /// The reservation or event fails there while others succeed.
    pub is_suspect: bool,
}

impl Outages {
    /// Creates the breakers. All services are in the serving state.
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
                // No limit: claims are renewed for all held events, which no limit would fit.
                // Queries follow calls that are limited.
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
            calls_min,
            calls_max: AtomicUsize::new(calls_max),
        }
    }

    /// Requests a permit for one call now, for that reservation or event.
    ///
    /// # Errors
    /// Returns [`CallDenied`] if the service is away or its limit is reached.
    pub fn enter(
        self: &Arc<Self>,
        dependency: Dependency,
        subject: &(impl Hash + ?Sized),
    ) -> Result<CallPermit, CallDenied> {
        let subject = self.hasher.hash_one(subject);
        let entered = self.lock(dependency).enter(subject, Instant::now());
        let not_now =
            |is_away, is_fresh, is_suspect| Err(CallDenied { is_away, is_fresh, is_suspect });
        match entered {
            Entered::Go(call) => {
                self.metrics.call_began(dependency.service());
                Ok(CallPermit { outages: Arc::clone(self), dependency, call, open: true })
            }
            Entered::Away { is_fresh } => not_now(true, is_fresh, false),
            Entered::Full { is_fresh, is_suspect } => not_now(false, is_fresh, is_suspect),
        }
    }

    /// Returns whether the service takes no calls for some time, or probes only.
    pub fn is_away(&self, dependency: Dependency) -> bool {
        self.lock(dependency).is_away(Instant::now())
    }

    /// Returns whether any shard of the store is away.
    pub fn is_store_away(&self) -> bool {
        self.store_shards_away() > 0
    }

    /// Returns the number of store shards that are away.
    pub fn store_shards_away(&self) -> usize {
        if self.troubled.is_none() {
            return 0;
        }
        let now = Instant::now();
        self.store_shards(|breaker| breaker.is_away(now))
    }

    /// Returns whether the shard was down for `time` while another one served all that time.
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

    /// Returns how many parked events may be released now, and when to call this again.
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

    /// Returns the smallest number of calls that a service can be given soon, over those not away.
    pub fn smallest_limit(&self) -> usize {
        let now = Instant::now();
        let limits = [Dependency::ReservationApi, Dependency::Inventory].map(|dependency| {
            let breaker = self.lock(dependency);
            breaker.limit().filter(|_| !breaker.is_away(now)).map(Limit::calls_soon)
        });
        limits.into_iter().flatten().min().unwrap_or(self.calls_max.load(Ordering::Relaxed))
    }

    /// Returns whether a service is limited to a call rate, or is in a short pause.
    pub fn is_rationed(&self) -> bool {
        let now = Instant::now();
        [Dependency::ReservationApi, Dependency::Inventory].into_iter().any(|dependency| {
            let mut breaker = self.lock(dependency);
            breaker.forget(now);
            let is_rationed = breaker.limit().is_some_and(Limit::is_rationed);
            !breaker.is_away(now) && (is_rationed || breaker.is_paused(now))
        })
    }

    /// Signals that an event was parked or may be released, so that [`Outages::due`] is called.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits until the result of [`Outages::due`] may change. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self, dependency: Dependency) -> MutexGuard<'_, Breaker> {
        self.breakers[dependency.index()].lock().expect("no panic happens under this lock")
    }

    /// Makes the other parts of the service probe now, as they may be back too.
    fn hasten_others(&self, dependency: Dependency, change: Change, now: Instant) {
        if let Change::Back { .. } = change {
            let parts = Dependency::all().filter(|it| it.service() == dependency.service());
            parts.for_each(|part| self.lock(part).hasten(now));
        }
    }
}

impl CallPermit {
    /// Records the outcome of the call and its duration.
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
        // Queries are rare. Other Reservation API calls show whose fault a failed query is.
        if dependency == Dependency::ReservationApi
            && matches!(outcome, CallOutcome::Done | CallOutcome::Conflict)
        {
            outages.lock(Dependency::ReservationQuery).others_do_well();
        }
        if let CallOutcome::Paced(_) = outcome {
            outages.metrics.paced(service, PaceScope::Event);
        }
        if let Some(step) = step {
            let direction = match step {
                LimitStep::Up => LimitChange::Up,
                LimitStep::Down => LimitChange::Down,
            };
            outages.metrics.limit_changed(service, direction);
        }
        log::rate(service, found_before, found);
        if let Some(change) = change {
            log::change(dependency, change);
            if let Change::Paced { .. } = change {
                outages.metrics.paced(service, PaceScope::Service);
            }
            outages.hasten_others(dependency, change, now);
        }
        // Fast path: in normal operation, nothing more is to be done.
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
