//! The contents of a seed: events, faults, interrupts, settings. `draw` draws them before the run
//! begins, so that they can be printed as its schedule.

use std::time::Duration;

use fastrand::Rng;
use reservation_worker::app::AppSettings;
use reservation_worker::event::{ContentHash, EventType, Step};
use uuid::Uuid;

use super::half_well::HalfWell;
use super::rows::Row;
use super::store_plan::StorePlan;

/// The time after the last fault within which everything must be settled: the longest release (15
/// min), and the time that a circuit breaker, a retry time or a lost receive may add.
pub(crate) const CALM_MAX: Duration = Duration::from_secs(20 * 60);

/// One logical event. Two events may have the same id (a reused id).
#[derive(Clone, Debug)]
pub(crate) struct EventSpec {
    /// Its index in [`Plan::events`].
    pub(crate) number: usize,
    pub(crate) id: String,
    pub(crate) event_type: EventType,
    pub(crate) reservation: usize,
    pub(crate) seats: u32,
    pub(crate) steps: Vec<(Step, Uuid)>,
    pub(crate) fate: Fate,
    /// Whether the worker must ask the Reservation API for the seats.
    pub(crate) asks: bool,
    pub(crate) body: String,
    /// The hash by which the store distinguishes it from another event with the same id.
    pub(crate) hash: ContentHash,
}

/// The fixed answers of the services to an event, independent of faults.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Normal,
    /// This error at the step with that index.
    Refused(usize, Row),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event, by its index in [`Plan::events`].
    Event(usize),
    /// A message that is no event, and the dead-letter reason that the engine must give.
    Poison(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct MessageSpec {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) body: String,
    pub(crate) group: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Crash,
    Term,
}

/// The points of interruption: before a call to the queue, a service or the store, and between its
/// effect and its answer.
pub(crate) const POINTS: [&str; 12] = [
    "before receive",
    "after receive",
    "before call",
    "after call",
    "before delete",
    "after delete",
    "before change",
    "after change",
    "before copy",
    "after copy",
    "before store",
    "after store",
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// At the n-th interaction since the start.
    Gate(u64),
    /// At the n-th interaction since the process was told to stop.
    Leaving(u64),
    /// At the n-th interaction of one kind.
    Point(&'static str, u64),
    At(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupt {
    pub(crate) what: What,
    pub(crate) when: When,
}

/// How a service that is down behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// Errors of the outage class.
    Answers,
    /// No response.
    Silent,
    /// A transient error for all calls.
    Shared500,
    /// Permission denied for all calls.
    Forbidden,
}

/// The faults of a service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Percentage of calls that fail.
    pub(crate) faults_pct: u8,
    pub(crate) down: Vec<(Duration, Duration, Down)>,
    /// Periods of higher latency.
    pub(crate) slow: Vec<(Duration, Duration)>,
}

/// The faults of the queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueWeather {
    pub(crate) faults_pct: u8,
    pub(crate) duplicates_pct: u8,
    /// Periods in which most calls fail.
    pub(crate) bad: Vec<(Duration, Duration)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) fifo: bool,
    pub(crate) max_receives: u32,
    pub(crate) has_dlq: bool,
    pub(crate) reservations: usize,
    pub(crate) locked_until: Vec<Duration>,
    pub(crate) events: Vec<EventSpec>,
    pub(crate) messages: Vec<MessageSpec>,
    pub(crate) api: Weather,
    pub(crate) inventory: Weather,
    pub(crate) queue: QueueWeather,
    /// One action that fails for a time. Replaces the faults of `queue`.
    pub(crate) half_well: Option<HalfWell>,
    /// The store that all pods share. `None`: each process has its own in-memory store.
    pub(crate) store: Option<StorePlan>,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) grace: Duration,
    pub(crate) api_timeout: Duration,
    pub(crate) inventory_timeout: Duration,
    pub(crate) calm_at: Duration,
    pub(crate) settings: AppSettings,
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(0..from.len())]
}

impl Plan {
    pub(crate) fn visibility(&self) -> Duration {
        self.settings.visibility
    }

    /// The schedule as text.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = vec![
            format!("seed {}: {:?}", self.seed, self.settings),
            format!(
                "fifo {} max_receives {} dlq {} grace {:?} timeouts {:?} {:?} calm at {:?}",
                self.fifo,
                self.max_receives,
                self.has_dlq,
                self.grace,
                self.api_timeout,
                self.inventory_timeout,
                self.calm_at
            ),
            format!("api {:?}", self.api),
            format!("inventory {:?}", self.inventory),
            format!("queue {:?} half well {:?}", self.queue, self.half_well),
            format!("shared store {:?}", self.store),
            format!("interrupts {:?}", self.interrupts),
            format!("locked {:?}", self.locked_until),
        ];
        for (n, event) in self.events.iter().enumerate() {
            let EventSpec { id, event_type, reservation, seats, fate, .. } = event;
            lines.push(format!(
                "event {n}: {id} {event_type} reservation {reservation} seats {seats} {fate:?}"
            ));
        }
        for (n, message) in self.messages.iter().enumerate() {
            let MessageSpec { at, kind, group, .. } = message;
            lines.push(format!("message m-{n}: at {at:?} {kind:?} group {group:?}"));
        }
        lines
    }
}
