//! Probes of a service that is down: which call probes it, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::{Due, Trouble};
use crate::outage::Waiting;

/// Interval between probe rounds: a twelfth of the outage so far, from 1 to 10 s. With the duration
/// of the last round, it is a tenth at most. Half of it is random, so that pods do not probe
/// together.
const PROBE_SHARE: u32 = 12;
const PROBE_EVERY_MIN: Duration = Duration::from_secs(1);
const PROBE_EVERY_MAX: Duration = Duration::from_secs(10);

/// Probes per round. If the first fails fast, others follow at once, each for another reservation.
/// Reservations that fail alone thus do not keep the service closed off.
pub(super) const PROBES_A_ROUND: u32 = 5;

/// A probe that fails within this time costs the service next to nothing.
const FAST: Duration = Duration::from_millis(500);

/// Maximum open probes. There is more than one only if an answer takes longer than a round.
pub(super) const PROBES_OPEN_MAX: usize = 3;

/// A released event that has not called by then is counted as lost, and another one is released.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Down {
    pub(super) trouble: Trouble,
    pub(super) since: Instant,
    /// Number of calls begun before the outage. They prove nothing about the time since.
    pub(super) begun: u64,
    /// Number of the latest-begun call that had succeeded by then.
    pub(super) succeeded: u64,
    pub(super) next_probe: Instant,
    last_probe: Instant,
    /// Probes of this round so far, and whether the next one belongs to it.
    round: u32,
    goes_on: bool,
    pub(super) probes_open: usize,
    /// One probe may be made until then; only for a fresh event, if one waited.
    granted: Option<Instant>,
    wants_fresh: bool,
    /// No other fresh event waited when the last probe was released.
    is_out_of_fresh: bool,
}

impl Down {
    /// Starts an outage: `begun` calls had begun, and `succeeded` was the latest that succeeded.
    pub(super) fn new(trouble: Trouble, begun: u64, succeeded: u64, now: Instant) -> Self {
        Self {
            trouble,
            since: now,
            begun,
            succeeded,
            next_probe: now + probe_wait(Duration::ZERO),
            last_probe: now,
            round: 0,
            goes_on: false,
            probes_open: 0,
            granted: None,
            wants_fresh: false,
            is_out_of_fresh: false,
        }
    }

    pub(super) fn due(&mut self, waiting: Waiting, now: Instant) -> (Due, Option<Instant>) {
        if let Some(until) = self.granted.filter(|until| now < *until) {
            return (Due::Calls(0), Some(until));
        }
        self.granted = None;
        if waiting.total() == 0 || self.probes_open >= PROBES_OPEN_MAX {
            return (Due::Calls(0), None);
        }
        let mut at = self.next_probe;
        if self.goes_on && waiting.total() > 1 {
            at = now;
        } else if self.is_out_of_fresh && waiting.fresh > 0 {
            // A fresh event is the first since then that can prove something.
            at = at.min(self.last_probe + PROBE_EVERY_MIN);
        }
        if now < at {
            return (Due::Calls(0), Some(at));
        }
        self.wants_fresh = wants_fresh(waiting);
        self.is_out_of_fresh = waiting.fresh <= 1;
        let until = now + LOST_AFTER;
        self.granted = Some(until);
        (Due::Probe, Some(until))
    }

    /// Returns whether a call may be made without waiting. If no event waits, none is released.
    pub(super) fn may_enter(&self, is_fresh: bool, has_waiting: bool, now: Instant) -> bool {
        match self.granted.filter(|until| now <= *until) {
            Some(_) => is_fresh || !self.wants_fresh,
            None => !has_waiting && self.next_probe <= now && self.probes_open < PROBES_OPEN_MAX,
        }
    }

    pub(super) fn begin_probe(&mut self, now: Instant) {
        let goes_on = std::mem::take(&mut self.goes_on);
        if goes_on && now < self.next_probe {
            self.round += 1;
        } else {
            self.round = 1;
            self.next_probe = now + probe_wait(now.saturating_duration_since(self.since));
        }
        self.granted = None;
        self.probes_open += 1;
        self.last_probe = now;
    }

    /// Records a failed probe. The round goes on if the failure was fast, and so cost little.
    pub(super) fn probe_failed(&mut self, took: Duration) {
        if took < FAST && self.round < PROBES_A_ROUND {
            self.goes_on = true;
        }
    }
}

/// Returns whether the next probe must be a fresh event.
fn wants_fresh(waiting: Waiting) -> bool {
    fail_point!("probes::oldest-first", |_| false);
    waiting.fresh > 0
}

/// Returns the wait before the next round of probes, after an outage of this length so far.
pub(in crate::outage) fn probe_wait(outage: Duration) -> Duration {
    let full = (outage / PROBE_SHARE).clamp(PROBE_EVERY_MIN, PROBE_EVERY_MAX);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}
