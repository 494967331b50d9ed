//! Every metric, in one registry of its own: no globals. Series are made at the start and kept in arrays indexed by
//! enums, so that counting is an atomic add without a label look-up, and each series stands at 0 before its first event.
//! What is counted, and when, is for the callers to decide; [`crate::admin`] serves the text.
//!
//! The names that existing dashboards use come first in [`Metrics`]; the others follow
//! <https://prometheus.io/docs/practices/naming/>.

mod build;
mod judged;
mod labels;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Encoder, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use self::judged::Judged;
pub use self::judged::SuspectGuard;
pub use self::labels::{
    BreakerState, Call, CallResult, DuplicateReason, HeldState, LimitChange, Outcome, PaceScope,
    QueueAction, QueueErrorKind, RetryReason, Service, SettlementKind, SpanLoss,
};
use crate::event::EventType;

/// `type` label values: each event type, and `unknown`.
const TYPES: usize = EventType::ALL.len() + 1;
/// `outcome` label values: each settled outcome, and `retried`.
const OUTCOMES: usize = Outcome::ALL.len() + 1;
/// The place of `retried` among them.
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
    without_id: [IntCounter; EventType::ALL.len()],
    money_without_seat: IntCounter,
    dead_letters: Vec<(&'static str, IntCounter)>,
    dead_letters_other: IntCounter,

    pool_size: IntGauge,
    in_flight_max: IntGauge,
    alive: IntGauge,
    ready: IntGauge,
    spans_exported: IntCounter,
    spans_dropped: [IntCounter; SpanLoss::ALL.len()],
    log_lines_dropped: IntCounter,
}

impl Metrics {
    /// An event was settled: once for each event, when its outcome is final. `None`: its type could not be read.
    pub fn event_settled(&self, event_type: Option<EventType>, outcome: Outcome) {
        self.events[type_index(event_type)][outcome.index()].inc();
    }

    /// A retry was scheduled: once for each retry.
    pub fn event_retried(&self, event_type: EventType, reason: RetryReason) {
        self.events[type_index(Some(event_type))][RETRIED].inc();
        self.retries[reason.index()].inc();
    }

    /// The time from an event's receipt to its last effect, waits included.
    pub fn latency(&self, event_type: Option<EventType>, latency: Duration) {
        self.latency[type_index(event_type)].observe(latency.as_secs_f64());
    }

    /// A worker is busy for as long as the guard lives.
    pub fn pool_active(&self) -> ActiveGuard {
        self.pool_active.inc();
        ActiveGuard(self.pool_active.clone())
    }

    /// A receive was answered with so many messages.
    pub fn received(&self, messages: usize) {
        self.receives.inc();
        if messages == 0 {
            self.empty_receives.inc();
        }
        self.messages_received.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    /// A receive failed.
    pub fn poll_error(&self, kind: QueueErrorKind) {
        self.poll_errors.inc();
        self.poll_errors_by_kind[kind.index()].inc();
    }

    /// Whether an action of the queue fails, for good or for now.
    pub fn queue_action_failing(&self, action: QueueAction, is_failing: bool) {
        self.queue_action_failing[action.index()].set(i64::from(is_failing));
    }

    /// A call of an action failed, or all of its entries did.
    pub fn queue_action_failed(&self, action: QueueAction, why: QueueErrorKind) {
        self.queue_action_failures[action.index()][why.index()].inc();
    }

    /// A message is held, in this state, for as long as the guard lives; the guard moves it to others.
    pub fn held(&self, state: HeldState) -> HeldGuard {
        let gauges = Arc::clone(&self.held);
        gauges[state.index()].inc();
        HeldGuard { gauges, state }
    }

    /// The time from `SentTimestamp` to settlement. A clock that ran backwards counts as zero.
    pub fn event_age(&self, age: Duration) {
        self.event_age.observe(age.as_secs_f64());
    }

    /// How long a message had been in the queue when it was received for the first time.
    pub fn queue_lag(&self, lag: Duration) {
        self.queue_lag.observe(lag.as_secs_f64());
    }

    /// SQS acknowledged a settlement.
    pub fn settled(&self, kind: SettlementKind) {
        self.settlements[kind.index()].inc();
    }

    /// A settlement, or one entry of a batch, failed; it may be tried again.
    pub fn settlement_failed(&self, kind: SettlementKind) {
        self.settlement_failures[kind.index()].inc();
    }

    /// So many messages had their visibility extended.
    pub fn leases_extended(&self, messages: u64) {
        self.lease_extensions.inc_by(messages);
    }

    /// An extension of one message failed; it may be tried again.
    pub fn lease_extension_failed(&self) {
        self.lease_extension_failures.inc();
    }

    /// A message slipped away: it may be delivered again while it is being handled.
    pub fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    /// A call out ended.
    pub fn call(&self, call: Call, result: CallResult, duration: Duration) {
        self.calls[call.index()][result.index()].inc();
        self.call_duration[call.index()].observe(duration.as_secs_f64());
    }

    /// A delivery turned out to be a copy.
    pub fn duplicate(&self, reason: DuplicateReason) {
        self.duplicates[reason.index()].inc();
    }

    /// An event was dropped because a later status stands.
    pub fn superseded(&self) {
        self.superseded.inc();
    }

    /// An event was handed back so that its reservation leaves room for others.
    pub fn event_deferred(&self) {
        self.deferred.inc();
    }

    /// An event came in whose body has no id.
    pub fn event_without_id(&self, event_type: EventType) {
        let index = EventType::ALL.iter().position(|known| *known == event_type);
        self.without_id[index.expect("ALL has every type")].inc();
    }

    /// Paid for, confirmed, and no seat: somebody must act.
    pub fn money_without_seat(&self) {
        self.money_without_seat.inc();
    }

    /// A message went to the dead-letter queue. A reason that was not announced at the start is counted as `other`.
    pub fn dead_letter(&self, reason: &'static str) {
        self.dead_letters
            .iter()
            .find(|(known, _)| *known == reason)
            .map_or(&self.dead_letters_other, |(_, counter)| counter)
            .inc();
    }

    /// How much the worker may do and hold at once.
    pub fn limits(&self, workers: usize, in_flight_max: usize) {
        self.pool_size.set(gauge_value(workers));
        self.in_flight_max.set(gauge_value(in_flight_max));
    }

    /// What the health endpoints say at this moment.
    pub fn health(&self, alive: bool, ready: bool) {
        self.alive.set(i64::from(alive));
        self.ready.set(i64::from(ready));
    }

    /// The collector took so many spans.
    pub fn spans_exported(&self, spans: u64) {
        self.spans_exported.inc_by(spans);
    }

    /// So many spans will never reach the collector.
    pub fn spans_dropped(&self, why: SpanLoss, spans: u64) {
        self.spans_dropped[why.index()].inc_by(spans);
    }

    /// So many log lines could not be written.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.inc_by(lines);
    }

    /// How many log lines could not be written so far.
    #[must_use]
    pub fn log_lines_dropped_total(&self) -> u64 {
        self.log_lines_dropped.get()
    }

    /// Appends the whole registry in the Prometheus text format, version 0.0.4.
    ///
    /// Reads a few files of `/proc` on Linux (memory, file descriptors, CPU time of this process).
    ///
    /// # Errors
    /// When a metric cannot be encoded, which the registry's own checks at the start rule out.
    pub fn render(&self, text: &mut Vec<u8>) -> Result<(), prometheus::Error> {
        TextEncoder::new().encode(&self.registry.gather(), text)
    }

    /// The content type of what [`Metrics::render`] writes.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";
}

/// A busy worker, counted until dropped.
#[derive(Debug)]
#[must_use = "the worker counts as busy only while the guard lives"]
pub struct ActiveGuard(IntGauge);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A held message, counted in its state until dropped.
#[derive(Debug)]
#[must_use = "the message counts as held only while the guard lives"]
pub struct HeldGuard {
    gauges: Arc<[IntGauge; HeldState::ALL.len()]>,
    state: HeldState,
}

impl HeldGuard {
    /// The message is now in this state.
    pub fn set(&mut self, state: HeldState) {
        self.gauges[self.state.index()].dec();
        self.gauges[state.index()].inc();
        self.state = state;
    }

    /// The state it was last put in.
    #[must_use]
    pub fn state(&self) -> HeldState {
        self.state
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

/// The place of an event type among the `type` label's values; the last is `unknown`.
const fn type_index(event_type: Option<EventType>) -> usize {
    match event_type {
        Some(EventType::ReservationExpired) => 0,
        Some(EventType::PaymentApproved) => 1,
        Some(EventType::PaymentFailed) => 2,
        None => TYPES - 1,
    }
}
