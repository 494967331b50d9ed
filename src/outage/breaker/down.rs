//! A service that is not called: who finds out whether it serves again, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::{Due, Trouble};
use crate::outage::Waiting;
use crate::sabotage::{Sabotage, on};

/// Between rounds of probes: a twelfth of the outage's length, so that even with the last round's own length it is a tenth
/// at most, from 1 to 10 s. Half of it is drawn at random: pods do not ask together.
const PROBE_SHARE: u32 = 12;
const PROBE_EVERY_MIN: Duration = Duration::from_secs(1);
const PROBE_EVERY_MAX: Duration = Duration::from_secs(10);

/// Probes of one round: where the first fails fast, others follow at once, each for another reservation. What goes on
/// failing alone does not keep a service closed.
pub(super) const PROBES_A_ROUND: u32 = 5;

/// A probe that fails within this time costs the service next to nothing.
const FAST: Duration = Duration::from_millis(500);

/// Probes that are open at once. More than one only where the service is silent for longer than a round.
pub(super) const PROBES_OPEN_MAX: usize = 3;

/// An event that was let go and has not called by then was lost on its way: another one is let go.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Down {
    pub(super) trouble: Trouble,
    pub(super) since: Instant,
    /// Calls that had begun by then prove nothing about now.
    pub(super) begun: u64,
    /// The latest call to begin of those that had succeeded by then.
    pub(super) succeeded: u64,
    pub(super) next_probe: Instant,
    last_probe: Instant,
    /// Probes of this round so far, and whether the next one belongs to it.
    round: u32,
    goes_on: bool,
    pub(super) probes_open: usize,
    /// One may call, until then; only a fresh one, where one waited.
    granted: Option<Instant>,
    wants_fresh: bool,
    /// No other fresh event waited when the last probe was let go.
    is_out_of_fresh: bool,
}

impl Down {
    /// `begun` calls had begun by `now`, and `succeeded` was the latest that had succeeded.
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
            // The first that can prove something since.
            at = at.min(self.last_probe + PROBE_EVERY_MIN);
        }
        if now < at {
            return (Due::Calls(0), Some(at));
        }
        self.wants_fresh = waiting.fresh > 0 && !on(Sabotage::ProbesOldestFirst);
        self.is_out_of_fresh = waiting.fresh <= 1;
        let until = now + LOST_AFTER;
        self.granted = Some(until);
        (Due::Probe, Some(until))
    }

    /// Whether a call may be made, by one that has not waited. Where nobody waits, nobody is let go.
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

    /// A probe failed within that time: the round goes on where that cost the service next to nothing.
    pub(super) fn probe_failed(&mut self, took: Duration) {
        if took < FAST && self.round < PROBES_A_ROUND {
            self.goes_on = true;
        }
    }
}

/// How long to wait before another round of probes, in an outage of that length so far.
pub(in crate::outage) fn probe_wait(outage: Duration) -> Duration {
    let full = (outage / PROBE_SHARE).clamp(PROBE_EVERY_MIN, PROBE_EVERY_MAX);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}
