//! Limits receives while messages cannot be deleted or leases cannot be extended: how many messages
//! may be received, and with which visibility timeout. A pure rule; the poller applies it before
//! each receive.

use std::time::Duration;

use tokio::time::Instant;

/// Minimum visibility timeout while leases cannot be extended. It covers all retries of an event
/// with their backoffs (about two minutes by default). It is no longer than the longest release
/// delay: the message cannot be handed back early, so it stays hidden for this time if the process
/// ends.
const LEASE_MIN: Duration = Duration::from_secs(15 * 60);

/// Initial visibility timeout of a probe message while leases cannot be extended. A probe message
/// calls a service that is away. Each timeout costs one receive: one hour, doubled each time,
/// covers an outage of three hours with two receives.
const LEASE_AWAY_MIN: Duration = Duration::from_secs(60 * 60);

/// Maximum of that timeout: the rest of the SQS maximum of 12 hours is left for the response.
const LEASE_AWAY_MAX: Duration = Duration::from_secs(8 * 60 * 60);

/// Minimum interval between receives of probe messages.
const AWAY_APART: Duration = Duration::from_secs(10);

/// Current state of the worker, input of the rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// Leases cannot be extended.
    pub(super) extend_fails: bool,
    /// Settled messages cannot be deleted.
    pub(super) delete_fails: bool,
    /// Held events, without some that only wait for a timer.
    pub(super) held: usize,
    /// Held events that wait for a service that is away.
    pub(super) parked: usize,
    /// Open receives.
    pub(super) receives_open: usize,
    /// Messages deleted so far, after their effects or after a copy to the dead-letter queue.
    pub(super) settled: u64,
    /// Current time.
    pub(super) now: Instant,
}

/// What the next receive may request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Maximum number of messages.
    pub(super) messages: usize,
    /// The visibility timeout to request.
    pub(super) visibility: Duration,
}

/// The rule and its state.
#[derive(Debug)]
pub(super) struct Gate {
    concurrency: usize,
    visibility: Duration,
    /// Held messages allowed while leases cannot be extended. Starts at one, doubles each time
    /// messages were settled, and returns to one when an event waits for a service.
    limit: usize,
    settled: u64,
    is_away: bool,
    /// Visibility timeout of the latest probe message, and the time of its receipt.
    away_lease: Duration,
    away_at: Option<Instant>,
}

impl Gate {
    pub(super) fn new(concurrency: usize, visibility: Duration) -> Self {
        Self {
            concurrency,
            visibility,
            limit: 1,
            settled: 0,
            is_away: false,
            away_lease: LEASE_AWAY_MIN,
            away_at: None,
        }
    }

    /// Returns what may be received now; `None` for nothing.
    pub(super) fn allows(&mut self, situation: Situation) -> Option<Allowance> {
        // Settled messages stay held until they are deleted; further ones would only add to them.
        if situation.delete_fails {
            return None;
        }
        if !situation.extend_fails {
            *self =
                Self { settled: situation.settled, ..Self::new(self.concurrency, self.visibility) };
            return Some(Allowance { messages: usize::MAX, visibility: self.visibility });
        }
        self.learn(situation);
        let messages = self.limit.saturating_sub(situation.held);
        if messages == 0 || situation.receives_open > 0 {
            return None;
        }
        if !self.is_away {
            return Some(Allowance { messages, visibility: self.visibility.max(LEASE_MIN) });
        }
        let Some(at) = self.away_at else {
            return Some(Allowance { messages: 1, visibility: self.away_lease });
        };
        let has_run_out = situation.now >= at + self.away_lease;
        let longer = if has_run_out { self.away_lease * 2 } else { self.away_lease };
        let visibility = longer.min(LEASE_AWAY_MAX);
        (situation.now >= at + AWAY_APART).then_some(Allowance { messages: 1, visibility })
    }

    fn learn(&mut self, situation: Situation) {
        if situation.parked > 0 {
            self.limit = 1;
            self.is_away = true;
        } else if situation.settled > self.settled {
            self.limit = self.concurrency.min(self.limit * 2);
            self.is_away = false;
            (self.away_lease, self.away_at) = (LEASE_AWAY_MIN, None);
        }
        self.settled = situation.settled;
    }

    /// Notes a receive that returned messages with this visibility timeout.
    pub(super) fn received(&mut self, visibility: Duration, now: Instant) {
        if self.is_away && visibility >= LEASE_AWAY_MIN {
            (self.away_lease, self.away_at) = (visibility, Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITY: Duration = Duration::from_secs(30);

    fn gate() -> Gate {
        Gate::new(20, VISIBILITY)
    }

    fn well() -> Situation {
        Situation {
            extend_fails: false,
            delete_fails: false,
            held: 0,
            parked: 0,
            receives_open: 0,
            settled: 0,
            now: Instant::now(),
        }
    }

    fn without_extensions() -> Situation {
        Situation { extend_fails: true, ..well() }
    }

    fn messages(allowance: Option<Allowance>) -> usize {
        allowance.map_or(0, |allowance| allowance.messages)
    }

    #[test]
    fn all_is_received_normally_and_nothing_while_deletes_fail() {
        let all = Allowance { messages: usize::MAX, visibility: VISIBILITY };
        let busy = Situation { held: 900, parked: 900, receives_open: 7, ..well() };
        assert_eq!(gate().allows(busy), Some(all));
        for extend_fails in [true, false] {
            let situation = Situation { delete_fails: true, extend_fails, ..well() };
            assert_eq!(gate().allows(situation), None);
        }
    }

    #[test]
    fn without_extensions_at_most_one_message_per_worker_is_held() {
        let mut gate = gate();
        let mut allowed = Vec::new();
        for settled in 0..7 {
            let situation = Situation { settled, ..without_extensions() };
            let allowance = gate.allows(situation).expect("some are allowed");
            assert_eq!(allowance.visibility, LEASE_MIN);
            allowed.push(allowance.messages);
        }
        assert_eq!(allowed, [1, 2, 4, 8, 16, 20, 20]);
        let held = |held| Situation { settled: 6, held, ..without_extensions() };
        assert_eq!(messages(gate.allows(held(13))), 7);
        assert_eq!(messages(gate.allows(held(20))), 0);
        assert_eq!(messages(gate.allows(Situation { receives_open: 1, ..held(0) })), 0);
    }

    #[test]
    fn a_longer_configured_visibility_timeout_is_kept() {
        let mut gate = Gate::new(20, Duration::from_secs(3_600));
        let allowance = gate.allows(without_extensions()).expect("some are allowed");
        assert_eq!(allowance.visibility, Duration::from_secs(3_600));
    }

    #[test]
    fn during_an_outage_one_message_is_received_with_growing_timeouts() {
        let mut gate = gate();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let parked = Situation { held: 60, parked: 60, now: at(0), ..without_extensions() };
        assert_eq!(messages(gate.allows(parked)), 0);
        let mut asked = Vec::new();
        for hour in [0, 1, 3, 7, 15] {
            // The earlier leases have expired.
            let situation = Situation { now: at(hour * 3_600), ..without_extensions() };
            let allowance = gate.allows(situation).expect("some are allowed");
            assert_eq!(allowance.messages, 1);
            gate.received(allowance.visibility, situation.now);
            asked.push(allowance.visibility.as_secs() / 3_600);
            let soon = Situation { now: at(hour * 3_600 + 9), ..without_extensions() };
            assert_eq!(gate.allows(soon), None, "a probe too early");
            // The probe was settled in another way: the timeout does not grow.
            let later = Situation { now: at(hour * 3_600 + 10), ..without_extensions() };
            assert_eq!(gate.allows(later), Some(allowance));
        }
        assert_eq!(asked, [1, 2, 4, 8, 8]);
        let back = Situation { settled: 1, now: at(60_000), ..without_extensions() };
        assert_eq!(gate.allows(back), Some(Allowance { messages: 2, visibility: LEASE_MIN }));
    }

    #[test]
    fn more_is_received_only_if_something_was_settled_and_since_extensions_fail() {
        let mut gate = gate();
        let settled = |settled| Situation { settled, ..without_extensions() };
        let allowed = [1, 1, 2, 2, 3, 3].map(|n| messages(gate.allows(settled(n))));
        assert_eq!(allowed, [2, 2, 4, 4, 8, 8]);
        gate.allows(Situation { settled: 3, ..well() });
        assert_eq!(messages(gate.allows(settled(3))), 1, "they have worked since");
    }

    #[test]
    fn a_service_that_is_away_again_is_asked_as_if_for_the_first_time() {
        let mut gate = gate();
        let settled = |settled| Situation { settled, ..without_extensions() };
        for n in 1..=3 {
            gate.allows(settled(n));
        }
        for n in [3, 4] {
            assert_eq!(gate.allows(Situation { held: 9, parked: 9, ..settled(n) }), None);
            let probe = Some(Allowance { messages: 1, visibility: LEASE_AWAY_MIN });
            assert_eq!(gate.allows(settled(n)), probe);
            gate.received(LEASE_AWAY_MIN, settled(n).now);
            assert_eq!(gate.allows(settled(n)), None, "it has just been asked");
            assert_eq!(messages(gate.allows(settled(n + 1))), 2, "it is back");
        }
    }
}
