//! State of a breaker as read by gauges, attribution and other modules.

use std::time::Duration;

use tokio::time::Instant;

use super::{Breaker, BreakerPhase, Trouble};
use crate::metrics::BreakerState;
use crate::outage::BreakerSnapshot;
use crate::outage::evidence::BegunCall;
use crate::outage::limit::Limit;

/// In a pause this short, an event waits for a permit of the service.
const PAUSE_SHORT: Duration = Duration::from_secs(5);

impl Breaker {
    /// Returns the state after that call was recorded.
    pub(in crate::outage) fn snapshot(&mut self, call: BegunCall, now: Instant) -> BreakerSnapshot {
        let is_suspect = self.evidence.is_suspect(call.subject);
        BreakerSnapshot {
            is_called: self.is_serving(),
            is_suspect,
            are_others_paced: is_suspect && self.evidence.are_others_paced(now),
            outages: self.outages,
            begun: self.evidence.begun(),
            succeeded: self.evidence.succeeded(),
            failing_for: self.evidence.failing_for(now),
        }
    }

    /// Returns whether the service takes no calls for some time, or probes only.
    pub(in crate::outage) fn is_away(&self, now: Instant) -> bool {
        match self.state {
            BreakerPhase::Serving => false,
            BreakerPhase::Down(_) => true,
            BreakerPhase::Paused { until, .. } => now + PAUSE_SHORT < until,
        }
    }

    /// Returns whether the service is in a short pause.
    pub(in crate::outage) fn is_paused(&self, now: Instant) -> bool {
        matches!(self.state, BreakerPhase::Paused { until, .. } if now < until)
            && !self.is_away(now)
    }

    /// Returns the reason why the service is down, if it is.
    pub(in crate::outage) fn trouble(&self) -> Option<Trouble> {
        match &self.state {
            BreakerPhase::Down(down) => Some(down.trouble),
            BreakerPhase::Serving | BreakerPhase::Paused { .. } => None,
        }
    }

    /// Returns whether the service is called and no event waits for it.
    pub(in crate::outage) fn is_calm(&self) -> bool {
        self.is_serving() && !self.has_waiting
    }

    /// Returns whether the service is neither down nor paused.
    pub(in crate::outage) fn is_serving(&self) -> bool {
        matches!(self.state, BreakerPhase::Serving)
    }

    /// Returns whether any call has ever succeeded.
    pub(in crate::outage) fn has_succeeded(&self) -> bool {
        self.evidence.succeeded() > 0
    }

    /// Returns whether the service is in a pause of any length.
    pub(in crate::outage) fn is_resting(&self, now: Instant) -> bool {
        matches!(self.state, BreakerPhase::Paused { until, .. } if now < until)
    }

    /// Returns the time since the service went down, or since it was last called again.
    pub(in crate::outage) fn since(&self, now: Instant) -> Duration {
        self.lasts(true, now).or_else(|| self.lasts(false, now)).unwrap_or_default()
    }

    /// Returns the time until the next probe, or until the end of the pause.
    pub(in crate::outage) fn next_call_in(&self, now: Instant) -> Option<Duration> {
        match &self.state {
            BreakerPhase::Down(down) => Some(down.next_probe.saturating_duration_since(now)),
            BreakerPhase::Paused { until, .. } if now < *until => Some(*until - now),
            BreakerPhase::Paused { .. } | BreakerPhase::Serving => None,
        }
    }

    /// Returns the number of calls in flight.
    pub(in crate::outage) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the limit, if calls are limited.
    pub(in crate::outage) fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// Returns the state for the gauge.
    pub(in crate::outage) fn shown(&self, now: Instant) -> BreakerState {
        match &self.state {
            BreakerPhase::Down(down) if down.probes_open > 0 => BreakerState::HalfOpen,
            BreakerPhase::Down(_) => BreakerState::Open,
            BreakerPhase::Paused { until, .. } if now < *until => BreakerState::Open,
            BreakerPhase::Serving | BreakerPhase::Paused { .. } => {
                // With few events the slow start does not end, but no event waits for it either.
                let is_ramp = self.outages > 0
                    && self.has_waiting
                    && self.limit.as_ref().is_some_and(Limit::is_starting);
                if is_ramp { BreakerState::HalfOpen } else { BreakerState::Closed }
            }
        }
    }
}
