//! What operators see of the services: the gauges, and breakers, limits and calls in flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Trouble;
use super::log::trouble_word;
use super::{Bounds, Dependency, Limit, Outages, Shard};
use crate::metrics::BreakerState;

/// A service, or a part of it, at one moment.
#[derive(Clone, Debug)]
pub struct ServiceOverview {
    /// The service or its part.
    pub dependency: Dependency,
    /// The breaker.
    pub breaker: BreakerState,
    /// Why the service is not called, as one word; `None` while it is called.
    pub trouble: Option<&'static str>,
    /// Time since it was last called again, or since it went down.
    pub lasts: Duration,
    /// Time until the next probe, or until the end of the pause.
    pub next_call_in: Option<Duration>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls at once that it is given; `None` is no limit.
    pub limit: Option<usize>,
    /// Calls a second that it is given; `None` is no limit.
    pub rate: Option<f64>,
}

impl Outages {
    /// Sets the gauges. A service with several parts shows the worst state.
    pub(super) fn show(&self, dependency: Dependency, now: Instant) {
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

    /// Sets how many calls at once a service may be given, for another number of workers.
    pub fn set_calls_max(&self, calls: usize) {
        self.calls_max.store(calls, Ordering::Relaxed);
        let bounds = Bounds::new(self.calls_min, calls);
        for dependency in Dependency::all() {
            self.lock(dependency).set_bounds(bounds);
            self.show(dependency, Instant::now());
        }
        self.notify();
    }

    /// Returns the services: the Reservation API, the Inventory service and the store, and each
    /// part of them that is not called while the rest may be.
    pub fn overview(&self, now: Instant) -> Vec<ServiceOverview> {
        let mut services = Vec::new();
        let mut in_flight_store = 0;
        for dependency in Dependency::all() {
            let breaker = self.lock(dependency);
            let is_closed = breaker.shown(now) == BreakerState::Closed;
            let is_shown = match dependency {
                Dependency::ReservationApi | Dependency::Inventory => true,
                Dependency::ReservationQuery => !is_closed,
                Dependency::Store(shard) => {
                    in_flight_store += breaker.in_flight();
                    !is_closed || shard == Shard::default()
                }
            };
            if is_shown {
                let trouble = breaker.trouble().map(trouble_word);
                services.push(ServiceOverview {
                    dependency,
                    breaker: breaker.shown(now),
                    trouble: trouble.or(breaker.is_resting(now).then_some("paused")),
                    lasts: breaker.since(now),
                    next_call_in: breaker.next_call_in(now),
                    in_flight: breaker.in_flight(),
                    limit: breaker.limit().map(Limit::calls),
                    rate: breaker.limit().and_then(Limit::rate),
                });
            }
        }
        for service in &mut services {
            if let Dependency::Store(shard) = service.dependency
                && shard == Shard::default()
            {
                service.in_flight = in_flight_store;
            }
        }
        services
    }
}
