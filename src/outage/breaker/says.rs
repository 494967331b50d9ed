//! What a breaker says of itself, to those who show it or decide by it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Breaker, State, Trouble};
use crate::metrics::BreakerState;
use crate::outage::BreakerSnapshot;
use crate::outage::evidence::Begun;
use crate::outage::limit::Limit;

/// Who comes to a service that is paused for so short a time waits for room there.
const PAUSE_SHORT: Duration = Duration::from_secs(5);

impl Breaker {
    /// What is known once that call was booked.
    pub(in crate::outage) fn snapshot(&mut self, call: Begun, now: Instant) -> BreakerSnapshot {
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

    /// Whether nobody may call it for some time, or only to find out.
    pub(in crate::outage) fn is_away(&self, now: Instant) -> bool {
        match self.state {
            State::Serving => false,
            State::Down(_) => true,
            State::Paused { until, .. } => now + PAUSE_SHORT < until,
        }
    }

    /// Whether it asked everybody to come a little later.
    pub(in crate::outage) fn is_paused(&self, now: Instant) -> bool {
        matches!(self.state, State::Paused { until, .. } if now < until) && !self.is_away(now)
    }

    /// Why nobody calls it, if that is so.
    pub(in crate::outage) fn trouble(&self) -> Option<Trouble> {
        match &self.state {
            State::Down(down) => Some(down.trouble),
            State::Serving | State::Paused { .. } => None,
        }
    }

    /// It is called, and nobody waits for it.
    pub(in crate::outage) fn is_calm(&self) -> bool {
        self.is_serving() && !self.has_waiting
    }

    /// Whether it is called as any other.
    pub(in crate::outage) fn is_serving(&self) -> bool {
        matches!(self.state, State::Serving)
    }

    /// Whether any call has ever gone well.
    pub(in crate::outage) fn has_succeeded(&self) -> bool {
        self.evidence.succeeded() > 0
    }

    /// How many calls it is given, where they are limited.
    pub(in crate::outage) fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// What a gauge shows.
    pub(in crate::outage) fn shown(&self, now: Instant) -> BreakerState {
        match &self.state {
            State::Down(down) if down.probes_open > 0 => BreakerState::HalfOpen,
            State::Down(_) => BreakerState::Open,
            State::Paused { until, .. } if now < *until => BreakerState::Open,
            State::Serving | State::Paused { .. } => {
                // Where few events come, the slow start does not end; but nobody waits for it either.
                let is_ramp = self.outages > 0
                    && self.has_waiting
                    && self.limit.as_ref().is_some_and(Limit::is_starting);
                if is_ramp { BreakerState::HalfOpen } else { BreakerState::Closed }
            }
        }
    }
}
