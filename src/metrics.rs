//! All metrics, in their own registry and not in a global one.
//!
//! Series are created at startup and stored in arrays indexed by enums. Counting is an atomic add
//! without a label lookup, and each series is 0 before its first event. [`crate::admin`] serves the
//! text.
//!
//! The names that existing dashboards use are first in [`Metrics`]; the others follow
//! <https://prometheus.io/docs/practices/naming/>.

mod build;
mod judged;
mod labels;
mod registrar;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Encoder, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use self::judged::Judged;
pub use self::judged::SuspectGuard;
pub use self::labels::{
    BreakerState, Call, CallResult, ControlLever, DuplicateReason, HeldState, LimitChange, Outcome,
    PaceScope, QueueAction, QueueErrorKind, RetryReason, Service, SettlementKind, SpanLoss,
};
pub use self::totals::EventTotals;
use crate::event::EventType;

/// Number of `type` label values: the event types and `unknown`.
const TYPES: usize = EventType::ALL.len() + 1;
/// Number of `outcome` label values: the settled outcomes and `retried`.
const OUTCOMES: usize = Outcome::ALL.len() + 1;
/// Index of `retried` among the `outcome` label values.
const RETRIED: usize = Outcome::ALL.len();

/// All metrics of the process. Share it in an `Arc`; every method is lock-free but
/// [`Metrics::render`] and [`Metrics::latency_target`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    events: [[IntCounter; OUTCOMES]; TYPES],
    latency: [Histogram; TYPES],
    poll_errors: IntCounter,
    pool_active: IntGauge,

    poll_errors_by_kind: [IntCounter; QueueErrorKind::ALL.len()],
    queue_action_failing: [IntGauge; QueueAction::ALL.len()],
    queue_action_failures: [[IntCounter; QueueErrorKind::ALL.len()]; QueueAction::ALL.len()],
    receives: IntCounter,
    empty_receives: IntCounter,
    messages_received: IntCounter,
    held: Arc<[IntGauge; HeldState::ALL.len()]>,
    event_age: Histogram,
    queue_lag: Histogram,
    retries: [IntCounter; RetryReason::ALL.len()],
    settlements: [IntCounter; SettlementKind::ALL.len()],
    settlement_failures: [IntCounter; SettlementKind::ALL.len()],
    lease_extensions: IntCounter,
    lease_extension_failures: IntCounter,
    leases_lost: IntCounter,
    calls: [[IntCounter; CallResult::ALL.len()]; Call::ALL.len()],
    call_duration: [Histogram; Call::ALL.len()],
    judged: Judged,
    duplicates: [IntCounter; DuplicateReason::ALL.len()],
    superseded: IntCounter,
    deferred: IntCounter,
    order_waits: IntCounter,
    order_wait: Histogram,
    order_lost: IntCounter,
    without_id: [IntCounter; EventType::ALL.len()],
    money_without_seat: IntCounter,
    dead_letters: Vec<(&'static str, IntCounter)>,
    dead_letters_other: IntCounter,

    pool_size: IntGauge,
    controls: [IntGauge; ControlLever::ALL.len()],
    in_flight_max: IntGauge,
    alive: IntGauge,
    ready: IntGauge,
    spans_exported: IntCounter,
    spans_dropped: [IntCounter; SpanLoss::ALL.len()],
    log_lines_dropped: IntCounter,
}

impl Metrics {
    /// Counts a settled event. Call it once per event, when its outcome is final. `None` is an
    /// event whose type could not be read.
    pub fn event_settled(&self, event_type: Option<EventType>, outcome: Outcome) {
        self.events[type_index(event_type)][outcome.index()].inc();
    }

    /// Returns the events counted so far, by outcome.
    #[must_use]
    pub fn events_total(&self) -> EventTotals {
        let of = |index: usize| self.events.iter().map(|by_type| by_type[index].get()).sum();
        EventTotals {
            succeeded: of(Outcome::Success.index()),
            failed: of(Outcome::Failed.index()),
            dropped: of(Outcome::Dropped.index()),
            retried: of(RETRIED),
        }
    }

    /// Counts a scheduled retry.
    pub fn event_retried(&self, event_type: EventType, reason: RetryReason) {
        self.events[type_index(Some(event_type))][RETRIED].inc();
        self.retries[reason.index()].inc();
    }

    /// Observes the time from an event's receive to its last effect, waits included.
    pub fn latency(&self, event_type: Option<EventType>, latency: Duration) {
        self.latency[type_index(event_type)].observe(latency.as_secs_f64());
    }

    /// Counts a busy worker until the guard is dropped.
    pub fn pool_active(&self) -> ActiveGuard {
        self.pool_active.inc();
        ActiveGuard(self.pool_active.clone())
    }

    /// Counts a successful receive and its messages.
    pub fn received(&self, messages: usize) {
        self.receives.inc();
        if messages == 0 {
            self.empty_receives.inc();
        }
        self.messages_received.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    /// Counts a failed receive.
    pub fn poll_error(&self, kind: QueueErrorKind) {
        self.poll_errors.inc();
        self.poll_errors_by_kind[kind.index()].inc();
    }

    /// Sets whether a queue action currently fails.
    pub fn queue_action_failing(&self, action: QueueAction, is_failing: bool) {
        self.queue_action_failing[action.index()].set(i64::from(is_failing));
    }

    /// Counts a failed call of a queue action; also a batch in which all entries failed.
    pub fn queue_action_failed(&self, action: QueueAction, why: QueueErrorKind) {
        self.queue_action_failures[action.index()][why.index()].inc();
    }

    /// Sets whether an operator's change is in effect.
    pub fn control(&self, lever: ControlLever, is_active: bool) {
        self.controls[lever.index()].set(i64::from(is_active));
    }

    /// Sets the number of workers.
    pub fn pool_size(&self, workers: usize) {
        self.pool_size.set(gauge_value(workers));
    }

    /// Counts a held message in `state` until the guard is dropped. [`HeldGuard::set`] changes the
    /// state.
    pub fn held(&self, state: HeldState) -> HeldGuard {
        let gauges = Arc::clone(&self.held);
        gauges[state.index()].inc();
        HeldGuard { gauges, state }
    }

    /// Observes the time from `SentTimestamp` to settlement. Pass zero if the clock ran backwards.
    pub fn event_age(&self, age: Duration) {
        self.event_age.observe(age.as_secs_f64());
    }

    /// Observes how long a message was in the queue before its first receive.
    pub fn queue_lag(&self, lag: Duration) {
        self.queue_lag.observe(lag.as_secs_f64());
    }

    /// Counts an event that begins to wait for another one of its reservation in another process.
    pub fn order_wait_began(&self) {
        self.order_waits.inc();
    }

    /// Observes how long an event waited for its turn.
    pub fn order_waited(&self, waited: Duration) {
        self.order_wait.observe(waited.as_secs_f64());
    }

    /// Counts a renewal or a record that found the event's turn taken by another process.
    pub fn order_lost(&self) {
        self.order_lost.inc();
    }

    /// Counts a settlement that SQS acknowledged.
    pub fn settled(&self, kind: SettlementKind) {
        self.settlements[kind.index()].inc();
    }

    /// Counts a failed settlement or batch entry. It may be retried.
    pub fn settlement_failed(&self, kind: SettlementKind) {
        self.settlement_failures[kind.index()].inc();
    }

    /// Counts messages whose visibility timeout was extended.
    pub fn leases_extended(&self, messages: u64) {
        self.lease_extensions.inc_by(messages);
    }

    /// Counts a failed visibility extension of one message. It may be retried.
    pub fn lease_extension_failed(&self) {
        self.lease_extension_failures.inc();
    }

    /// Counts a lost lease: the message may be delivered again while it is processed.
    pub fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    /// Counts a finished outgoing call and observes its duration.
    pub fn call(&self, call: Call, result: CallResult, duration: Duration) {
        self.calls[call.index()][result.index()].inc();
        self.call_duration[call.index()].observe(duration.as_secs_f64());
    }

    /// Counts a duplicate delivery.
    pub fn duplicate(&self, reason: DuplicateReason) {
        self.duplicates[reason.index()].inc();
    }

    /// Counts an event dropped because the reservation already has a later status.
    pub fn superseded(&self) {
        self.superseded.inc();
    }

    /// Counts an event released so that its reservation does not take the capacity of others.
    pub fn event_deferred(&self) {
        self.deferred.inc();
    }

    /// Counts a received event whose body has no id.
    pub fn event_without_id(&self, event_type: EventType) {
        let index = EventType::ALL.iter().position(|known| *known == event_type);
        self.without_id[index.expect("ALL has every type")].inc();
    }

    /// Counts a confirmed payment without a seat. An operator must act.
    pub fn money_without_seat(&self) {
        self.money_without_seat.inc();
    }

    /// Counts a message sent to the dead-letter queue. A reason that was not passed to
    /// [`Metrics::new`] is counted as `other`.
    pub fn dead_letter(&self, reason: &'static str) {
        self.dead_letters
            .iter()
            .find(|(known, _)| *known == reason)
            .map_or(&self.dead_letters_other, |(_, counter)| counter)
            .inc();
    }

    /// Sets the number of workers and the in-flight limit.
    pub fn limits(&self, workers: usize, in_flight_max: usize) {
        self.pool_size.set(gauge_value(workers));
        self.in_flight_max.set(gauge_value(in_flight_max));
    }

    /// Sets the current result of the health endpoints.
    pub fn health(&self, alive: bool, ready: bool) {
        self.alive.set(i64::from(alive));
        self.ready.set(i64::from(ready));
    }

    /// Counts spans that the collector accepted.
    pub fn spans_exported(&self, spans: u64) {
        self.spans_exported.inc_by(spans);
    }

    /// Counts spans that are lost before they reach the collector.
    pub fn spans_dropped(&self, why: SpanLoss, spans: u64) {
        self.spans_dropped[why.index()].inc_by(spans);
    }

    /// Counts log lines that could not be written.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.inc_by(lines);
    }

    /// Returns the number of log lines that could not be written so far.
    #[must_use]
    pub fn log_lines_dropped_total(&self) -> u64 {
        self.log_lines_dropped.get()
    }

    /// Appends the whole registry in the Prometheus text format, version 0.0.4.
    ///
    /// On Linux it reads some files of `/proc` (memory, file descriptors, CPU time of the process).
    ///
    /// # Errors
    /// If a metric cannot be encoded. The registry's checks at startup prevent this.
    pub fn render(&self, text: &mut Vec<u8>) -> Result<(), prometheus::Error> {
        TextEncoder::new().encode(&self.registry.gather(), text)
    }

    /// The content type of the output of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";
}

/// Guard of a busy worker, counted until it is dropped.
#[derive(Debug)]
#[must_use = "the worker counts as busy only while the guard lives"]
pub struct ActiveGuard(IntGauge);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Guard of a held message, counted in its state until it is dropped.
#[derive(Debug)]
#[must_use = "the message counts as held only while the guard lives"]
pub struct HeldGuard {
    gauges: Arc<[IntGauge; HeldState::ALL.len()]>,
    state: HeldState,
}

impl HeldGuard {
    /// Moves the message to another state.
    pub fn set(&mut self, state: HeldState) {
        self.gauges[self.state.index()].dec();
        self.gauges[state.index()].inc();
        self.state = state;
    }
}

impl Drop for HeldGuard {
    fn drop(&mut self) {
        self.gauges[self.state.index()].dec();
    }
}

fn gauge_value(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the index of an event type among the `type` label values. The last is `unknown`.
const fn type_index(event_type: Option<EventType>) -> usize {
    match event_type {
        Some(EventType::ReservationExpired) => 0,
        Some(EventType::PaymentApproved) => 1,
        Some(EventType::PaymentFailed) => 2,
        None => TYPES - 1,
    }
}
