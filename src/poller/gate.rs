//! How many messages may be received now, and for how long each is asked for: less where what comes in cannot be settled,
//! or its lease not extended. A pure rule; the poller asks it before each receive.

use std::time::Duration;

use tokio::time::Instant;

/// How long a message is asked for while leases cannot be extended. It has to be enough for all retries of an event, with
/// their backoffs (some two minutes by default), and one that nobody can hand back early stays hidden for as long where a
/// process dies: as long as the longest release, no longer.
const LEASE_MIN: Duration = Duration::from_secs(15 * 60);

/// How long the one message is asked for that asks a service which is away, while leases cannot be extended. It is spent
/// once for each of these: an hour, then twice as long each time, is an outage of three hours with two receives.
const LEASE_AWAY_MIN: Duration = Duration::from_secs(60 * 60);

/// The longest: what is left of the twelve hours is for the answer.
const LEASE_AWAY_MAX: Duration = Duration::from_secs(8 * 60 * 60);

/// Between the receives of those messages.
const AWAY_APART: Duration = Duration::from_secs(10);

/// What the worker does at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// Leases cannot be extended.
    pub(super) extend_fails: bool,
    /// What is done cannot be deleted.
    pub(super) delete_fails: bool,
    /// Events that are held.
    pub(super) held: usize,
    /// Those of them that wait for a service which is away.
    pub(super) parked: usize,
    /// Receives that are open.
    pub(super) receives_open: usize,
    /// Messages deleted so far, with their effects or with a copy in the dead-letter queue.
    pub(super) settled: u64,
    /// Now.
    pub(super) now: Instant,
}

/// What may be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Messages, at most.
    pub(super) messages: usize,
    /// The visibility timeout to ask for.
    pub(super) visibility: Duration,
}

/// The rule, and what it remembers.
#[derive(Debug)]
pub(super) struct Gate {
    concurrency: usize,
    visibility: Duration,
    /// Messages that may be held while leases cannot be extended: one at first, twice as many each time that some were
    /// done, one again where an event waits for a service.
    limit: usize,
    settled: u64,
    is_away: bool,
    /// How long the last message was asked for that asks a service which is away, and when it came.
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

    /// What may be received now; `None`: nothing.
    pub(super) fn allows(&mut self, situation: Situation) -> Option<Allowance> {
        // What is done is held until it is deleted, and more of it would only be held too.
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

    /// A receive brought messages, which were asked for so long.
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
    fn all_is_received_where_all_works_and_nothing_where_nothing_can_be_deleted() {
        let all = Allowance { messages: usize::MAX, visibility: VISIBILITY };
        let busy = Situation { held: 900, parked: 900, receives_open: 7, ..well() };
        assert_eq!(gate().allows(busy), Some(all));
        for extend_fails in [true, false] {
            let situation = Situation { delete_fails: true, extend_fails, ..well() };
            assert_eq!(gate().allows(situation), None);
        }
    }

    #[test]
    fn without_extensions_no_more_is_held_than_workers_are_idle() {
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
    fn a_longer_lease_that_was_asked_for_is_kept() {
        let mut gate = Gate::new(20, Duration::from_secs(3_600));
        let allowance = gate.allows(without_extensions()).expect("some are allowed");
        assert_eq!(allowance.visibility, Duration::from_secs(3_600));
    }

    #[test]
    fn a_service_that_is_away_is_asked_with_one_message_for_longer_each_time() {
        let mut gate = gate();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let parked = Situation { held: 60, parked: 60, now: at(0), ..without_extensions() };
        assert_eq!(messages(gate.allows(parked)), 0);
        let mut asked = Vec::new();
        for hour in [0, 1, 3, 7, 15] {
            // The leases of those before have run out.
            let situation = Situation { now: at(hour * 3_600), ..without_extensions() };
            let allowance = gate.allows(situation).expect("some are allowed");
            assert_eq!(allowance.messages, 1);
            gate.received(allowance.visibility, situation.now);
            asked.push(allowance.visibility.as_secs() / 3_600);
            let soon = Situation { now: at(hour * 3_600 + 9), ..without_extensions() };
            assert_eq!(gate.allows(soon), None, "far apart");
            // It was settled in another way: that is no reason to ask for longer.
            let later = Situation { now: at(hour * 3_600 + 10), ..without_extensions() };
            assert_eq!(gate.allows(later), Some(allowance));
        }
        assert_eq!(asked, [1, 2, 4, 8, 8]);
        let back = Situation { settled: 1, now: at(60_000), ..without_extensions() };
        assert_eq!(gate.allows(back), Some(Allowance { messages: 2, visibility: LEASE_MIN }));
    }
}
