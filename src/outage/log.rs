//! Log lines about services: outages and recoveries with the evidence, pauses, and call rates.

use tracing::{error, info, warn};

use super::Dependency;
use super::breaker::{Change, Trouble};
use crate::clock::millis;
use crate::metrics::Service;

/// Logs a state change of a breaker.
pub(super) fn change(dependency: Dependency, change: Change) {
    let (service, calls) = (dependency.service().as_str(), dependency.calls());
    match change {
        Change::Down { trouble, reservations, within } => {
            let within_ms = millis(within);
            match trouble {
                Trouble::Away => error!(
                    service,
                    calls,
                    reservations,
                    within_ms,
                    "Service is away: events that need it wait, held"
                ),
                Trouble::Failing => error!(
                    service,
                    calls,
                    reservations,
                    within_ms,
                    "Service is failing: events that need it wait, held"
                ),
                Trouble::Refusing => error!(
                    service,
                    calls,
                    reservations,
                    within_ms,
                    "Service refuses everybody: events that need it wait, held"
                ),
            }
        }
        Change::Back { trouble, after } => info!(
            service,
            calls,
            was = trouble_word(trouble),
            away_ms = millis(after),
            "Service is back: events that waited for it go on"
        ),
        Change::Paced { wait } => {
            warn!(
                service,
                calls,
                wait_ms = millis(wait),
                "Service asks to be left alone for a while"
            );
        }
    }
}

/// Logs that calls begin at a rate from now on, or no longer do.
pub(super) fn rate(service: Service, before: Option<f64>, now: Option<f64>) {
    let service = service.as_str();
    match (before, now) {
        (None, Some(per_second)) => {
            let calls_per_second = (per_second * 10.0).round() / 10.0;
            warn!(
                service,
                calls_per_second, "Service refuses calls beyond a rate: they begin at that rate"
            );
        }
        (Some(_), None) => info!(service, "No limit of the service is known any more"),
        (None, None) | (Some(_), Some(_)) => {}
    }
}

pub(super) const fn trouble_word(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Away => "away",
        Trouble::Failing => "failing",
        Trouble::Refusing => "refusing",
    }
}
