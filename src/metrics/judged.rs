//! What is known of the services that are judged by their answers: how much each is called, how many calls at once it is given, and who
//! waits. SQS is not among them. Who decides all this is left to the engine.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts};

use super::build::Maker;
use super::{BreakerState, LimitChange, Metrics, PaceScope, Service, gauge_value};

/// The services that are judged.
const JUDGED: [Service; 3] = [Service::Reservation, Service::Inventory, Service::Store];

/// The series of every judged service.
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
    pub(super) fn new(make: &Maker) -> Self {
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

    /// Nothing for SQS, which is not judged.
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

fn gauges(make: &Maker, name: &str, help: &str) -> IntGaugeVec {
    make.register(IntGaugeVec::new(Opts::new(name, help), &["service"]))
}

/// Counts an event among the suspects for as long as it lives.
#[derive(Debug)]
pub struct SuspectGuard {
    service: Service,
    gauge: Option<IntGauge>,
}

impl SuspectGuard {
    /// Where it fails.
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

/// Of SQS, which is not judged, none of these keeps anything.
impl Metrics {
    /// The service is called so much now.
    pub fn breaker(&self, service: Service, state: BreakerState) {
        if let Some(series) = self.judged.of(service) {
            series.breaker.set(gauge_value(state.index()));
        }
    }

    /// How much the service is called, as it was last told.
    #[must_use]
    pub fn breaker_state(&self, service: Service) -> Option<BreakerState> {
        let number = self.judged.of(service)?.breaker.get();
        BreakerState::ALL.into_iter().find(|state| gauge_value(state.index()) == number)
    }

    /// So many calls at once are what the service is given now.
    pub fn concurrency_limit(&self, service: Service, calls: usize) {
        if let Some(series) = self.judged.of(service) {
            series.limit.set(gauge_value(calls));
        }
    }

    /// So many calls a second are what the service is given now; `None`: as many as there are.
    pub fn rate_limit(&self, service: Service, per_second: Option<f64>) {
        if let Some(series) = self.judged.of(service) {
            series.rate.set(per_second.unwrap_or_default());
        }
    }

    /// A call to the service begins.
    pub fn call_began(&self, service: Service) {
        if let Some(series) = self.judged.of(service) {
            series.calls.inc();
        }
    }

    /// It has ended, in whatever way.
    pub fn call_ended(&self, service: Service) {
        if let Some(series) = self.judged.of(service) {
            series.calls.dec();
        }
    }

    /// No service is given fewer calls at once than this.
    pub fn concurrency_limit_min(&self, calls: usize) {
        self.judged.limit_min.set(gauge_value(calls));
    }

    /// What an attempt at the service should take. Takes a lock: for the start, not for each call.
    pub fn latency_target(&self, service: Service, target: Option<Duration>) {
        let label = [service.as_str()];
        match (self.judged.of(service), target) {
            (Some(_), Some(target)) => {
                self.judged.targets.with_label_values(&label).set(target.as_secs_f64());
            }
            // An error says that there was no such series, which is what is wanted.
            (Some(_), None) => drop(self.judged.targets.remove_label_values(&label)),
            (None, Some(_) | None) => {}
        }
    }

    /// An event fails at the service while others do well there, for as long as the guard lives.
    pub fn suspect(&self, service: Service) -> SuspectGuard {
        let gauge = self.judged.of(service).map(|series| series.suspects.clone());
        gauge.iter().for_each(IntGauge::inc);
        SuspectGuard { service, gauge }
    }

    /// The service refuses everybody, or no longer does.
    pub fn refusing(&self, service: Service, is_refusing: bool) {
        if let Some(series) = self.judged.of(service) {
            series.refusing.set(i64::from(is_refusing));
        }
    }

    /// The calls at once that the service is given went up or down.
    pub fn limit_changed(&self, service: Service, change: LimitChange) {
        if let Some(series) = self.judged.of(service) {
            series.changes[change.index()].inc();
        }
    }

    /// The service asked for fewer calls: who waits for that.
    pub fn paced(&self, service: Service, scope: PaceScope) {
        if let Some(series) = self.judged.of(service) {
            series.paced[scope.index()].inc();
        }
    }
}
