//! Metrics of the services that have a circuit breaker: breaker state, concurrency limit, rate
//! limit and waiting events. SQS is not one of them.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts};

use super::registrar::Registrar;
use super::{BreakerState, LimitChange, Metrics, PaceScope, Service, gauge_value};

/// The services with a circuit breaker.
const JUDGED: [Service; 3] = [Service::Reservation, Service::Inventory, Service::Store];

/// The series of all services in [`JUDGED`].
#[derive(Debug)]
pub(super) struct Judged {
    services: [Series; JUDGED.len()],
    targets: GaugeVec,
    limit_min: IntGauge,
}

/// The series of one service.
#[derive(Debug)]
struct Series {
    breaker: IntGauge,
    limit: IntGauge,
    rate: Gauge,
    calls: IntGauge,
    suspects: IntGauge,
    refusing: IntGauge,
    changes: [IntCounter; LimitChange::ALL.len()],
    paced: [IntCounter; PaceScope::ALL.len()],
}

impl Judged {
    pub(super) fn new(make: &Registrar) -> Self {
        let breaker = gauges(
            make,
            "worker_breaker_state",
            "How much a service is called: 0 closed (calls are made), 1 half-open (few, as it is just back), 2 open (probes alone).",
        );
        let limit =
            gauges(make, "worker_concurrency_limit", "Calls at once that a service is given now.");
        let calls = gauges(make, "worker_calls_in_flight", "Calls to a service that are open now.");
        let rate = Opts::new(
            "worker_rate_limit",
            "Calls a second that a service is given now, as it refuses more; 0 where it is given as many as there are.",
        );
        let rate = make.register(GaugeVec::new(rate, &["service"]));
        let suspects = gauges(
            make,
            "worker_suspects",
            "Events that wait because they fail at a service while others do well there.",
        );
        let refusing = gauges(
            make,
            "worker_refusing",
            "Whether a service refuses everybody: 1 while its refusals are not final, 0 otherwise.",
        );
        let changes = make.counter_vec(
            "worker_concurrency_limit_changes_total",
            "Changes of the calls at once that a service is given because of an answer, by direction.",
            &["service", "direction"],
        );
        let paced = make.counter_vec(
            "worker_paced_total",
            "Answers that asked for fewer calls (event), and pauses of the whole service that followed (service).",
            &["service", "scope"],
        );
        let targets = Opts::new(
            "worker_latency_target_seconds",
            "What an attempt at a service should take; no series where no target is set.",
        );
        let services = JUDGED.map(Service::as_str).map(|service| Series {
            breaker: breaker.with_label_values(&[service]),
            limit: limit.with_label_values(&[service]),
            rate: rate.with_label_values(&[service]),
            calls: calls.with_label_values(&[service]),
            suspects: suspects.with_label_values(&[service]),
            refusing: refusing.with_label_values(&[service]),
            changes: LimitChange::ALL
                .map(|change| changes.with_label_values(&[service, change.as_str()])),
            paced: PaceScope::ALL.map(|scope| paced.with_label_values(&[service, scope.as_str()])),
        });
        let limit_min = make.gauge(
            "worker_concurrency_limit_min",
            "Calls at once that a service is never given fewer of: CONCURRENCY_MIN.",
        );
        let targets = make.register(GaugeVec::new(targets, &["service"]));
        Self { services, targets, limit_min }
    }

    /// Returns the series of a service; `None` for SQS.
    fn of(&self, service: Service) -> Option<&Series> {
        let place = match service {
            Service::Sqs => return None,
            Service::Reservation => 0,
            Service::Inventory => 1,
            Service::Store => 2,
        };
        Some(&self.services[place])
    }
}

fn gauges(make: &Registrar, name: &str, help: &str) -> IntGaugeVec {
    make.register(IntGaugeVec::new(Opts::new(name, help), &["service"]))
}

/// Guard of a suspect, counted until it is dropped.
#[derive(Debug)]
pub struct SuspectGuard {
    service: Service,
    gauge: Option<IntGauge>,
}

impl SuspectGuard {
    /// Returns the service at which the event fails.
    #[must_use]
    pub const fn service(&self) -> Service {
        self.service
    }
}

impl Drop for SuspectGuard {
    fn drop(&mut self) {
        self.gauge.iter().for_each(IntGauge::dec);
    }
}

/// Metrics of the services in [`JUDGED`]. For SQS these methods record nothing.
impl Metrics {
    /// Sets the state of the circuit breaker.
    pub fn breaker(&self, service: Service, state: BreakerState) {
        if let Some(series) = self.judged.of(service) {
            series.breaker.set(gauge_value(state.index()));
        }
    }

    /// Returns the last state set with [`Metrics::breaker`]. `None` for SQS.
    #[must_use]
    pub fn breaker_state(&self, service: Service) -> Option<BreakerState> {
        let number = self.judged.of(service)?.breaker.get();
        BreakerState::ALL.into_iter().find(|state| gauge_value(state.index()) == number)
    }

    /// Sets the concurrency limit of the service.
    pub fn concurrency_limit(&self, service: Service, calls: usize) {
        if let Some(series) = self.judged.of(service) {
            series.limit.set(gauge_value(calls));
        }
    }

    /// Sets the rate limit of the service in calls per second. `None` is no limit.
    pub fn rate_limit(&self, service: Service, per_second: Option<f64>) {
        if let Some(series) = self.judged.of(service) {
            series.rate.set(per_second.unwrap_or_default());
        }
    }

    /// Counts the start of a call in `worker_calls_in_flight`.
    pub fn call_began(&self, service: Service) {
        if let Some(series) = self.judged.of(service) {
            series.calls.inc();
        }
    }

    /// Counts the end of a call, with any result.
    pub fn call_ended(&self, service: Service) {
        if let Some(series) = self.judged.of(service) {
            series.calls.dec();
        }
    }

    /// Sets the minimum concurrency limit of all services.
    pub fn concurrency_limit_min(&self, calls: usize) {
        self.judged.limit_min.set(gauge_value(calls));
    }

    /// Sets the target latency of one attempt. Takes a lock: call it at startup, not per call.
    pub fn latency_target(&self, service: Service, target: Option<Duration>) {
        let label = [service.as_str()];
        match (self.judged.of(service), target) {
            (Some(_), Some(target)) => {
                self.judged.targets.with_label_values(&label).set(target.as_secs_f64());
            }
            // An error means that the series does not exist, which is the wanted state.
            (Some(_), None) => drop(self.judged.targets.remove_label_values(&label)),
            (None, Some(_) | None) => {}
        }
    }

    /// Counts a suspect until the guard is dropped. A suspect is an event that fails at the service
    /// while others succeed there.
    pub fn suspect(&self, service: Service) -> SuspectGuard {
        let gauge = self.judged.of(service).map(|series| series.suspects.clone());
        gauge.iter().for_each(IntGauge::inc);
        SuspectGuard { service, gauge }
    }

    /// Sets whether the service refuses all events.
    pub fn refusing(&self, service: Service, is_refusing: bool) {
        if let Some(series) = self.judged.of(service) {
            series.refusing.set(i64::from(is_refusing));
        }
    }

    /// Counts a change of the concurrency limit.
    pub fn limit_changed(&self, service: Service, change: LimitChange) {
        if let Some(series) = self.judged.of(service) {
            series.changes[change.index()].inc();
        }
    }

    /// Counts a request of the service for fewer calls, or the pause that followed.
    pub fn paced(&self, service: Service, scope: PaceScope) {
        if let Some(series) = self.judged.of(service) {
            series.paced[scope.index()].inc();
        }
    }
}
