//! A breaker for each service, the idempotency store among them: when nobody should call it, who tries whether it is back, and how
//! fast it is called again.
//!
//! ```text
//!             5 failures in a row, or half of 20 within 20 s,
//!             from two reservations or more
//!   CLOSED ──────────────────────────────────────────────────▶ OPEN ◀──┐
//!     ▲                                                          │     │ the probe fails:
//!     │ as many calls at once                        its time is │     │ the wait doubles
//!     │ as there are workers                                  up ▼     │
//!   RAMPING ◀──────────────── the probe is answered ──────── HALF-OPEN ┘
//! ```
//!
//! - **What counts** is SPEC's *outage class*, and, where no success comes between, failures that
//!   point at the service only when several reservations see them (500 and its like, 403).
//! - **Open**: events whose next step needs the service are parked: held, with no worker, no retry
//!   and no receive spent. When the wait is over one of them is let go as a probe, each time
//!   another one. Any answer outside the class closes the breaker.
//! - **Ramping** is a slow start, as in TCP: one call at a time at first, one more with each answer,
//!   so that a service that has just come back is not knocked over by all that waited for it.
//! - **Pacing**: a service that names a time (`Retry-After`, `RetryInfo`) is called by nobody before
//!   it, and ramps up after it.
//!
//! Whether a failure is the event's fault or the service's shows only by comparison: see
//! [`Answer::blames`]. This module is told what happened and when; it makes no call, and holds
//! no event. Which events wait is the table's to know.

mod breaker;
mod window;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::breaker::{Begun, Breaker, Change};
use crate::event::ReservationId;
use crate::metrics::{Metrics, Service};

/// A service that can be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// The Reservation API.
    ReservationApi,
    /// The Inventory service.
    Inventory,
    /// The idempotency store.
    Store,
}

impl Dependency {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::ReservationApi, Self::Inventory, Self::Store];

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn service(self) -> Service {
        match self {
            Self::ReservationApi => Service::Reservation,
            Self::Inventory => Service::Inventory,
            Self::Store => Service::Store,
        }
    }

    /// Its place in an array of all.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::ReservationApi => 0,
            Self::Inventory => 1,
            Self::Store => 2,
        }
    }
}

/// What an answer says about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works: it answered, whatever the answer means for the event.
    Well,
    /// It is at fault, or the way to it is.
    Outage,
    /// It failed, in a way that may be this event's own.
    Failure,
    /// It refused us, which may be this event's own.
    Refusal,
    /// It wants to be left alone for so long.
    Paced(Duration),
}

/// What is known once an answer was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The service is called, if only by a few; where not, the event had better wait for it.
    pub called: bool,
    /// How many calls to it have begun so far.
    pub begun: u64,
    /// Which of them was the latest to begin among those that went well.
    pub well: u64,
    /// The same, as it was when the answered call began.
    pub well_before: u64,
    /// How often so far several reservations failed with no success between, and whether they do now.
    pub shared_count: u64,
    /// See [`Answer::shared_count`].
    pub is_shared: bool,
    /// How often it was found to be away so far.
    pub openings: u64,
}

impl Answer {
    /// What an event keeps of a failure of its own, to judge it by when it fails again: nothing
    /// where others fail too.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        let Self { begun, shared_count, is_shared, .. } = *self;
        (!is_shared).then_some(Mark { begun, shared_count })
    }

    /// Whether this failure is the event's own: since that earlier one a call has begun and gone
    /// well, before this one began, and no other event failed with it. Then it costs a retry. (What
    /// was under way when the service went away, or came back, proves nothing.) An event that fails
    /// alone, with nobody to compare with, is not blamed, and neither is one among several.
    #[must_use]
    pub fn blames(&self, earlier: Option<Mark>) -> bool {
        earlier.is_some_and(|mark| {
            self.well_before > mark.begun && self.shared_count == mark.shared_count
        })
    }
}

/// How a service fared when an event failed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    begun: u64,
    shared_count: u64,
}

/// The breakers.
#[derive(Debug)]
pub struct Outages {
    breakers: [Mutex<Breaker>; Dependency::ALL.len()],
    changed: Notify,
    metrics: Arc<Metrics>,
}

/// The permission to make one call. Dropped without an answer, it counts as never given.
#[derive(Debug)]
#[must_use = "a call that is not reported counts as never made"]
pub struct Pass {
    outages: Arc<Outages>,
    dependency: Dependency,
    call: Begun,
    open: bool,
}

impl Outages {
    /// All closed. `calls_max` is how many calls are made at once at most, where the ramp ends.
    #[must_use]
    pub fn new(calls_max: usize, metrics: Arc<Metrics>) -> Self {
        let breakers = Dependency::ALL.map(|_| Mutex::new(Breaker::new(calls_max)));
        Self { breakers, changed: Notify::new(), metrics }
    }

    /// Asks to make one call now. `None`: not now; whoever is parked is told when.
    pub fn enter(self: &Arc<Self>, dependency: Dependency) -> Option<Pass> {
        let call = self.lock(dependency).enter(Instant::now())?;
        Some(Pass { outages: Arc::clone(self), dependency, call, open: true })
    }

    /// Whether nobody may call it now.
    pub fn is_away(&self, dependency: Dependency) -> bool {
        self.lock(dependency).is_away_at(Instant::now())
    }

    /// How many parked events may go on now, and when to ask again.
    pub fn due(&self, dependency: Dependency, now: Instant) -> (usize, Option<Instant>) {
        let mut breaker = self.lock(dependency);
        let due = breaker.due(now);
        let shown = breaker.shown(now);
        drop(breaker);
        self.metrics.breaker(dependency.service(), shown);
        due
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

    fn tell(dependency: Dependency, change: Change) {
        let service = dependency.service().as_str();
        match change {
            Change::Opened { failures, wait } => error!(
                service,
                failures,
                probe_in_ms = millis(wait),
                "Service is away: events that need it wait, held"
            ),
            Change::Back { away } => info!(
                service,
                away_ms = millis(away),
                "Service is back: events that waited for it go on"
            ),
            Change::Paced { wait } => {
                warn!(service, wait_ms = millis(wait), "Service asks to be left alone for a while");
            }
        }
    }
}

impl Pass {
    /// Books what the call was answered with.
    pub fn report(self, sign: Sign, reservation_id: &ReservationId) -> Answer {
        let whose = hash(reservation_id);
        self.book(sign, whose)
    }

    /// Books an answer that no event can be at fault for: each counts as another reservation's.
    pub fn report_alone(self, sign: Sign) -> Answer {
        let whose = self.call.number;
        self.book(sign, whose)
    }

    fn book(mut self, sign: Sign, whose: u64) -> Answer {
        self.open = false;
        let outages = Arc::clone(&self.outages);
        let mut breaker = outages.lock(self.dependency);
        let now = Instant::now();
        let was_closed = breaker.is_closed();
        let change = breaker.report(self.call, sign, whose, now);
        let answer = breaker.answer(self.call);
        let is_closed = breaker.is_closed();
        let shown = breaker.shown(now);
        drop(breaker);
        if let Some(change) = change {
            Outages::tell(self.dependency, change);
        }
        // While all is well, this is all that an answer costs.
        if change.is_some() || !was_closed || !is_closed {
            outages.metrics.breaker(self.dependency.service(), shown);
            outages.notify();
        }
        answer
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.open {
            self.outages.lock(self.dependency).cancel(self.call, Instant::now());
            self.outages.notify();
        }
    }
}

/// The same for the same id, in this process.
fn hash(reservation_id: &ReservationId) -> u64 {
    let mut hasher = DefaultHasher::new();
    reservation_id.hash(&mut hasher);
    hasher.finish()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
