//! Creates and registers the metrics: names, help texts, labels and buckets.

use std::array;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec, Opts};

use super::judged::Judged;
use super::registrar::Registrar;
use super::{
    Call, CallResult, ControlLever, DuplicateReason, HeldState, Metrics, OUTCOMES, Outcome,
    QueueAction, QueueErrorKind, RetryReason, SettlementKind, SpanLoss, TYPES,
};
use crate::event::EventType;

/// Latency buckets: from a warm call on the same network (1 ms) to the longest wait that still
/// counts as processing (60 s).
const LATENCY_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Age buckets: from an idle queue (10 ms) to the maximum time that a message can be held (12 h).
const AGE_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 43200.0];

/// Label value of dead-letter reasons that were not passed to [`Metrics::new`].
const OTHER: &str = "other";

impl Metrics {
    /// Creates all metrics. `dead_letter_reasons` are the values of the `reason` label of
    /// `worker_dead_letters_total`, in addition to `other`.
    #[must_use]
    pub fn new(dead_letter_reasons: &[&'static str]) -> Self {
        let make = Registrar::default();
        make.process();
        let dead_letters = make.counter_vec(
            "worker_dead_letters_total",
            "Messages sent to the dead-letter queue, by reason.",
            &["reason"],
        );
        Self {
            events: make.events(),
            latency: make.latency(),
            poll_errors: make.counter("sqs_poll_errors_total", "Receives that failed."),
            pool_active: make.gauge("worker_pool_active_gauge", "Workers busy now."),
            poll_errors_by_kind: make.counters(
                "worker_receive_errors_total",
                "Receives that failed, by kind.",
                "kind",
                QueueErrorKind::ALL.map(QueueErrorKind::as_str),
            ),
            queue_action_failing: make.queue_action_failing(),
            queue_action_failures: make.queue_action_failures(),
            receives: make.counter("worker_receives_total", "Receives that were answered."),
            empty_receives: make
                .counter("worker_empty_receives_total", "Receives that brought no message."),
            messages_received: make.counter("worker_messages_received_total", "Messages received."),
            held: make.held(),
            event_age: make.histogram(
                "worker_event_age_seconds",
                "Time from a message's SentTimestamp to its settlement.",
                &AGE_BUCKETS,
            ),
            queue_lag: make.histogram(
                "worker_queue_lag_seconds",
                "Time from a message's SentTimestamp to its first receipt: how far behind the queue this process found it.",
                &AGE_BUCKETS,
            ),
            retries: make.counters(
                "worker_retries_total",
                "Retries scheduled, by what made them necessary.",
                "reason",
                RetryReason::ALL.map(RetryReason::as_str),
            ),
            settlements: make.counters(
                "worker_settlements_total",
                "Settlements that SQS acknowledged, by kind.",
                "kind",
                SettlementKind::ALL.map(SettlementKind::as_str),
            ),
            settlement_failures: make.counters(
                "worker_settlement_failures_total",
                "Settlements that failed, tried again or not, by kind.",
                "kind",
                SettlementKind::ALL.map(SettlementKind::as_str),
            ),
            lease_extensions: make.counter(
                "worker_lease_extensions_total",
                "Messages whose visibility was extended.",
            ),
            lease_extension_failures: make.counter(
                "worker_lease_extension_failures_total",
                "Extensions that failed, tried again or not.",
            ),
            leases_lost: make.counter(
                "worker_leases_lost_total",
                "Messages that became visible while they were held.",
            ),
            calls: make.calls(),
            call_duration: make.call_duration(),
            judged: Judged::new(&make),
            duplicates: make.counters(
                "worker_duplicates_total",
                "Deliveries that were copies, by how that was noticed.",
                "reason",
                DuplicateReason::ALL.map(DuplicateReason::as_str),
            ),
            order_waits: make.counter(
                "worker_order_waits_total",
                "Events that waited because another process was working on their reservation, or an event sent earlier was next.",
            ),
            order_wait: make.histogram(
                "worker_order_wait_seconds",
                "Time that events waited for their turn in the order that all processes share.",
                &AGE_BUCKETS,
            ),
            order_lost: make.counter(
                "worker_order_lost_total",
                "Renewals and records that found the turn of a claimed event taken by another process. An event in work stops before its next step.",
            ),
            deferred: make.counter(
                "worker_events_deferred_total",
                "Events handed back, until their turn is near, so that one reservation leaves room for others.",
            ),
            superseded: make.counter(
                "worker_superseded_total",
                "Events dropped because a later status stands.",
            ),
            without_id: make.counters(
                "worker_events_without_id_total",
                "Events received whose body has no id: the SQS message id is their identity.",
                "type",
                EventType::ALL.map(EventType::as_str),
            ),
            money_without_seat: make.counter(
                "worker_money_without_seat_total",
                "Payments that were taken and got no seat: somebody must act.",
            ),
            dead_letters_other: dead_letters.with_label_values(&[OTHER]),
            dead_letters: dead_letter_reasons
                .iter()
                .map(|reason| (*reason, dead_letters.with_label_values(&[*reason])))
                .collect(),
            pool_size: make.gauge(
                "worker_pool_size",
                "Workers that there are: WORKER_CONCURRENCY, unless an operator changed it.",
            ),
            controls: make.controls(),
            in_flight_max: make.gauge(
                "worker_messages_in_flight_max",
                "Messages that may be held at once: MAX_IN_FLIGHT.",
            ),
            alive: make.gauge("worker_alive", "What /healthz says: 1 alive, 0 some part is stuck."),
            ready: make.gauge("worker_ready", "What /readyz says: 1 ready, 0 not."),
            spans_exported: make
                .counter("worker_spans_exported_total", "Spans that the collector accepted."),
            spans_dropped: make.counters(
                "worker_spans_dropped_total",
                "Spans that never reached the collector, by why.",
                "reason",
                SpanLoss::ALL.map(SpanLoss::as_str),
            ),
            log_lines_dropped: make.counter(
                "worker_log_lines_dropped_total",
                "Log lines that standard output did not take.",
            ),
            registry: make.into_registry(),
        }
    }
}

impl Registrar {
    fn events(&self) -> [[IntCounter; OUTCOMES]; TYPES] {
        let vec = self.counter_vec(
            "worker_events_total",
            "Events by outcome: retried once for each retry scheduled, the others once for each event settled.",
            &["type", "outcome"],
        );
        let outcomes: [&str; OUTCOMES] =
            array::from_fn(|i| Outcome::ALL.get(i).map_or("retried", |outcome| outcome.as_str()));
        type_labels().map(|kind| outcomes.map(|outcome| vec.with_label_values(&[kind, outcome])))
    }

    fn latency(&self) -> [Histogram; TYPES] {
        let vec = self.histogram_vec(
            "worker_latency_seconds",
            "Time from an event's receipt to its last effect, waits included.",
            &["type"],
            &LATENCY_BUCKETS,
        );
        type_labels().map(|kind| vec.with_label_values(&[kind]))
    }

    fn held(&self) -> Arc<[IntGauge; HeldState::ALL.len()]> {
        let opts =
            Opts::new("worker_messages_in_flight", "Messages held now, by what they are doing.");
        let vec = self.register(IntGaugeVec::new(opts, &["state"]));
        Arc::new(HeldState::ALL.map(|state| vec.with_label_values(&[state.as_str()])))
    }

    fn controls(&self) -> [IntGauge; ControlLever::ALL.len()] {
        let opts = Opts::new(
            "worker_control_active",
            "Whether an operator's change is in effect: 1 yes, 0 no. It goes back by itself.",
        );
        let vec = self.register(IntGaugeVec::new(opts, &["lever"]));
        ControlLever::ALL.map(|lever| vec.with_label_values(&[lever.as_str()]))
    }

    fn queue_action_failing(&self) -> [IntGauge; QueueAction::ALL.len()] {
        let opts = Opts::new(
            "worker_queue_action_failing",
            "Whether an action of the queue fails: 1 yes, 0 no. What cannot be settled is not received meanwhile.",
        );
        let vec = self.register(IntGaugeVec::new(opts, &["action"]));
        QueueAction::ALL.map(|action| vec.with_label_values(&[action.as_str()]))
    }

    fn queue_action_failures(
        &self,
    ) -> [[IntCounter; QueueErrorKind::ALL.len()]; QueueAction::ALL.len()] {
        let vec = self.counter_vec(
            "worker_queue_action_failures_total",
            "Calls to the queue that failed, or whose entries all did, by action and by why.",
            &["action", "reason"],
        );
        QueueAction::ALL.map(|action| {
            QueueErrorKind::ALL.map(|why| vec.with_label_values(&[action.as_str(), why.as_str()]))
        })
    }

    fn calls(&self) -> [[IntCounter; CallResult::ALL.len()]; Call::ALL.len()] {
        let vec = self.counter_vec(
            "worker_calls_total",
            "Calls out, by how they ended.",
            &["service", "method", "result"],
        );
        Call::ALL.map(|call| {
            CallResult::ALL.map(|result| {
                vec.with_label_values(&[call.service().as_str(), call.as_str(), result.as_str()])
            })
        })
    }

    /// Has no `result` label: six times as many series, and `worker_calls_total` has this label.
    fn call_duration(&self) -> [Histogram; Call::ALL.len()] {
        let vec = self.histogram_vec(
            "worker_call_duration_seconds",
            "Time of calls out; ReceiveMessage includes the long poll's wait.",
            &["service", "method"],
            &LATENCY_BUCKETS,
        );
        Call::ALL.map(|call| vec.with_label_values(&[call.service().as_str(), call.as_str()]))
    }

    /// Registers the process metrics: build, start time, and on Linux the values of `/proc`.
    fn process(&self) {
        let opts = Opts::new("worker_build_info", "Always 1; the labels say what runs.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        self.register(IntGauge::with_opts(opts)).set(1);
        let started = self.register(Gauge::new(
            "worker_start_time_seconds",
            "When the worker started, in seconds since the Unix epoch.",
        ));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        started.set(since_epoch.unwrap_or_default().as_secs_f64());
        self.process_collector();
    }
}

/// Returns the `type` label values, in the order of `type_index`.
fn type_labels() -> [&'static str; TYPES] {
    array::from_fn(|i| EventType::ALL.get(i).map_or("unknown", |kind| kind.as_str()))
}
