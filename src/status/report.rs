//! The report: texts and numbers that need no further knowledge to be shown.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use serde::Serialize;
use tokio::time::Instant;

use super::{BUCKET, Status, lock};
use crate::clock::{self, millis, rfc3339};
use crate::controls::LeverInEffect;
use crate::event::{EventId, EventType};
use crate::inflight::{EventState, HeldEvent, StateCount};
use crate::metrics::{BreakerState, EventTotals, Service};
use crate::outage::{Dependency, ServiceOverview};
use crate::settle::failures::RecentFailure;

/// Held events shown one by one: the oldest.
const OLDEST_MAX: usize = 20;

/// The status at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct StatusReport {
    /// When it was made.
    pub at: String,
    /// The worker's version.
    pub version: &'static str,
    /// The name of the process.
    pub process: String,
    /// When the process started.
    pub started_at: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// What operators changed, and until when.
    pub controls: Vec<ControlReport>,
    /// Whether messages are received and can be processed.
    pub is_ready: bool,
    /// Why not.
    pub not_ready: Option<String>,
    /// The parts, and the queue's actions.
    pub parts: Vec<PartReport>,
    /// The services.
    pub services: Vec<BreakerReport>,
    /// Number of held events.
    pub held_total: usize,
    /// Held events by state.
    pub held: Vec<HeldReport>,
    /// The oldest held events, the oldest first.
    pub oldest: Vec<HeldEventReport>,
    /// The last failures, the newest first.
    pub failures: Vec<FailureReport>,
    /// The last five minutes.
    pub activity: ActivityReport,
    /// The effective configuration, secrets masked.
    pub configuration: Vec<(&'static str, String)>,
}

/// A change by an operator.
#[derive(Clone, Debug, Serialize)]
pub struct ControlReport {
    /// `pause`, `concurrency` or `log_level`.
    pub lever: &'static str,
    /// Its value; empty for a pause.
    pub value: String,
    /// Why.
    pub reason: String,
    /// `process`, or `all` that share the store.
    pub scope: &'static str,
    /// When it was made.
    pub since: String,
    /// When it goes back.
    pub until: String,
}

/// A part of the worker, or an action of the queue.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// Its name.
    pub name: String,
    /// `ok`, or what is wrong.
    pub state: String,
    /// Whether it works.
    pub is_ok: bool,
}

/// A service with its breaker.
#[derive(Clone, Debug, Serialize)]
pub struct BreakerReport {
    /// The service, or the part of it.
    pub name: String,
    /// `called`, `away`, `failing`, `refusing` or `paused`.
    pub state: &'static str,
    /// The breaker's state, as the metric has it.
    pub breaker: &'static str,
    /// Milliseconds in this state.
    pub for_ms: u64,
    /// Milliseconds until the next probe, or until the end of the pause.
    pub next_call_in_ms: Option<u64>,
    /// Calls in flight.
    pub calls: usize,
    /// Calls at once that it is given.
    pub calls_max: Option<usize>,
    /// Calls a second that it is given.
    pub calls_per_second_max: Option<f64>,
}

/// The held events in one state.
#[derive(Clone, Debug, Serialize)]
pub struct HeldReport {
    /// What they do or wait for.
    pub state: String,
    /// Number of events.
    pub events: usize,
    /// Milliseconds since the oldest was received.
    pub oldest_ms: u64,
}

/// One held event.
#[derive(Clone, Debug, Serialize)]
pub struct HeldEventReport {
    /// Its id.
    pub event_id: String,
    /// Its reservation.
    pub reservation_id: String,
    /// What it does or waits for.
    pub state: String,
    /// Milliseconds since it was received.
    pub age_ms: u64,
}

/// One failure.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    /// When.
    pub at: String,
    /// The event's type.
    pub event_type: &'static str,
    /// The reservation, empty if it is not known.
    pub reservation_id: String,
    /// What follows, or why the event was given up.
    pub reason: &'static str,
    /// The class of the failure.
    pub class: &'static str,
    /// The error code.
    pub code: String,
    /// The trace id.
    pub trace_id: String,
}

/// Events by outcome over the last five minutes, in buckets, the oldest first.
#[derive(Clone, Debug, Serialize)]
pub struct ActivityReport {
    /// Seconds that a bucket covers.
    pub bucket_s: u64,
    /// Events in each bucket.
    pub buckets: Vec<EventTotals>,
    /// Events in all buckets.
    pub total: EventTotals,
}

impl Status {
    pub(super) fn make_report(&self) -> StatusReport {
        let sources = &self.sources;
        let ready = sources.health.ready();
        let overview = sources.inflight.overview(OLDEST_MAX, clock::now());
        let buckets = lock(&self.activity).buckets();
        StatusReport {
            at: rfc3339(SystemTime::now()),
            version: env!("CARGO_PKG_VERSION"),
            process: sources.process.clone(),
            started_at: rfc3339(self.started_at),
            uptime_s: self.started.elapsed().as_secs(),
            controls: sources.controls.in_effect().into_iter().map(control).collect(),
            is_ready: ready.is_ok(),
            not_ready: ready.err().map(|problem| problem.to_string()),
            parts: self.parts(),
            services: sources.outages.overview(Instant::now()).iter().map(service).collect(),
            held_total: overview.states.iter().map(|count| count.events).sum(),
            held: overview.states.iter().map(held).collect(),
            oldest: overview.oldest.iter().map(event).collect(),
            failures: sources.failures.latest().into_iter().map(failure).collect(),
            activity: ActivityReport {
                bucket_s: BUCKET.as_secs(),
                total: buckets.iter().copied().fold(EventTotals::default(), |all, it| all + it),
                buckets,
            },
            configuration: sources.configuration.clone(),
        }
    }

    /// Returns what the held event with this id does; `None` if this process does not hold it.
    #[must_use]
    pub fn event(&self, id: &str) -> Option<HeldEventReport> {
        let id = EventId::new(id).ok()?;
        self.sources.inflight.held_event(&id, clock::now()).as_ref().map(event)
    }

    fn parts(&self) -> Vec<PartReport> {
        let health = &self.sources.health;
        let ok = |is_ok: bool| if is_ok { "ok" } else { "failing" };
        let alive = health.alive();
        let part =
            |name: &str, state: String, is_ok| PartReport { name: name.to_owned(), state, is_ok };
        let mut parts = vec![part(
            "progress",
            alive.map_or_else(|problem| problem.to_string(), |()| "ok".to_owned()),
            alive.is_ok(),
        )];
        parts.extend(
            health.parts_ready().map(|(name, is_ok)| part(name, ok(is_ok).to_owned(), is_ok)),
        );
        let has_socket = self.has_control_socket.load(Ordering::Relaxed);
        let socket = if has_socket { "ok" } else { "cannot be used: `ctl` does not work" };
        parts.push(part("control socket", socket.to_owned(), has_socket));
        if self.sources.controls.is_notice_unreadable() {
            let state = "cannot be read: the last ones hold until their end, or `ctl --all`";
            parts.push(part("levers of all workers", state.to_owned(), false));
        }
        parts.extend(health.queue_actions().map(|(action, why)| {
            part(
                &format!("queue {}", action.as_str()),
                why.unwrap_or("ok").to_owned(),
                why.is_none(),
            )
        }));
        parts
    }
}

fn control(lever: LeverInEffect) -> ControlReport {
    ControlReport {
        lever: lever.lever.as_str(),
        value: lever.value,
        reason: lever.reason,
        scope: lever.scope.as_str(),
        since: rfc3339(lever.since),
        until: rfc3339(lever.until),
    }
}

fn service(overview: &ServiceOverview) -> BreakerReport {
    // The store that is well is one service, however many shards it has.
    let is_whole_store =
        overview.dependency.service() == Service::Store && overview.breaker == BreakerState::Closed;
    BreakerReport {
        name: if is_whole_store {
            Service::Store.as_str().to_owned()
        } else {
            name(overview.dependency)
        },
        state: overview.trouble.unwrap_or("called"),
        breaker: overview.breaker.as_str(),
        for_ms: millis(overview.lasts),
        next_call_in_ms: overview.next_call_in.map(millis),
        calls: overview.in_flight,
        calls_max: overview.limit,
        calls_per_second_max: overview.rate,
    }
}

fn name(dependency: Dependency) -> String {
    let service = dependency.service().as_str();
    match (dependency.calls(), dependency) {
        (Some(calls), _) => format!("{service} {calls}"),
        (None, Dependency::Store(shard)) => format!("{service} {shard}"),
        (
            None,
            Dependency::ReservationApi | Dependency::Inventory | Dependency::ReservationQuery,
        ) => service.to_owned(),
    }
}

fn held(count: &StateCount) -> HeldReport {
    HeldReport { state: state(count.state), events: count.events, oldest_ms: millis(count.oldest) }
}

fn event(held: &HeldEvent) -> HeldEventReport {
    HeldEventReport {
        event_id: held.event_id.as_str().to_owned(),
        reservation_id: held.reservation_id.as_ref().map_or("", |id| id.as_str()).to_owned(),
        state: state(held.state),
        age_ms: millis(held.age),
    }
}

fn state(state: EventState) -> String {
    match state {
        EventState::Running => "running".to_owned(),
        EventState::Buffered => "waits for a worker".to_owned(),
        EventState::InLane => "waits for an earlier event of its reservation".to_owned(),
        EventState::Turn => "waits for its reservation, which another process has".to_owned(),
        EventState::Backoff => "waits for its next attempt".to_owned(),
        EventState::Suspect => "fails alone, waits for its next trial".to_owned(),
        EventState::Full(dependency) => format!("waits for a free call: {}", name(dependency)),
        EventState::Away(dependency) => format!("waits for a service: {}", name(dependency)),
    }
}

fn failure(failure: RecentFailure) -> FailureReport {
    FailureReport {
        at: rfc3339(failure.at),
        event_type: failure.event_type.map_or("unknown", EventType::as_str),
        reservation_id: failure
            .reservation_id
            .map_or_else(String::new, |id| id.as_str().to_owned()),
        reason: failure.reason,
        class: failure.class,
        code: failure.code,
        trace_id: failure.trace_id,
    }
}
