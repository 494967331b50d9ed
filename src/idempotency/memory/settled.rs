//! Settled events, oldest first.
//!
//! A record takes a node of 64 bytes, and 10 to 21 bytes in the hash table; `tests/store/size.rs`
//! measures a million.
//! Ids are not stored. A 128-bit hash with keys that are random for each process replaces them.
//! Among a million events in memory the chance of a collision is one in 10^26, and without the keys
//! no attacker can search for one.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use hashlink::LinkedHashMap;
use tokio::time::Instant;

use crate::event::{ContentHash, EventId, StepSet};
use crate::idempotency::{ClaimToken, Handled, HandledAs};

/// How an event was settled in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettledAs {
    Handled(HandledAs),
    /// Given up, with these steps done.
    GivenUp(StepSet),
}

/// The record of a settled event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) hash: ContentHash,
    /// The token that settled the event; it identifies a repeated completion.
    pub(super) token: ClaimToken,
    pub(super) end: SettledAs,
    /// Seconds from the creation of the list.
    at_s: u32,
}

/// The hash that replaces an event's id.
type Fingerprint = [u64; 2];

/// The list of settled events; it forgets the oldest first, by number and by age.
#[derive(Debug)]
pub(super) struct SettledEvents {
    /// In the order of the last settlement.
    events: LinkedHashMap<Fingerprint, Settled, ahash::RandomState>,
    keys: [RandomState; 2],
    began: Instant,
    capacity: usize,
    time_to_live: Duration,
}

impl SettledEvents {
    /// Remembers up to `capacity` events, each for `time_to_live`, with a precision of one second.
    pub(super) fn new(capacity: usize, time_to_live: Duration) -> Self {
        Self {
            events: LinkedHashMap::default(),
            keys: [RandomState::new(), RandomState::new()],
            began: Instant::now(),
            capacity,
            time_to_live,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn get(&self, id: &EventId) -> Option<&Settled> {
        self.events.get(&self.fingerprint(id)).filter(|settled| !self.is_too_old(settled))
    }

    /// Returns when and how the event was handled.
    pub(super) fn handled(&self, settled: &Settled, how: HandledAs) -> Handled {
        let now = SystemTime::now();
        Handled { how, at: now.checked_sub(self.age(settled)).unwrap_or(now) }
    }

    /// Adds an event as the newest, and replaces its previous record. Removes expired events, and
    /// the oldest above the capacity.
    pub(super) fn push(
        &mut self,
        id: &EventId,
        hash: ContentHash,
        token: ClaimToken,
        end: SettledAs,
    ) {
        let at_s = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.events.insert(self.fingerprint(id), Settled { hash, token, end, at_s });
        while self.events.len() > self.capacity || self.is_oldest_too_old() {
            self.events.pop_front();
        }
    }

    fn is_oldest_too_old(&self) -> bool {
        self.events.front().is_some_and(|(_, settled)| self.is_too_old(settled))
    }

    fn is_too_old(&self, settled: &Settled) -> bool {
        self.age(settled) >= self.time_to_live
    }

    fn age(&self, settled: &Settled) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_secs(settled.at_s.into()))
    }

    fn fingerprint(&self, id: &EventId) -> Fingerprint {
        self.keys.each_ref().map(|keys| keys.hash_one(id.as_str()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::event::{Step, decode};

    fn id(number: usize) -> EventId {
        EventId::new(&format!("evt_{number}")).unwrap()
    }

    fn hash() -> ContentHash {
        let body = r#"{"id":"e","type":"payment.failed","reservation_id":"r","event_id":"s"}"#;
        decode(body, "m").unwrap().content_hash()
    }

    const APPLIED: SettledAs = SettledAs::Handled(HandledAs::Applied);

    #[test]
    fn the_newest_events_are_kept_and_the_oldest_dropped() {
        const CAPACITY: usize = 2_055;
        const PUSHED: usize = 5_120;
        let (mut events, hash) = (SettledEvents::new(CAPACITY, Duration::from_secs(60)), hash());
        for number in 0..PUSHED {
            events.push(&id(number), hash, ClaimToken::unique(), APPLIED);
            assert_eq!(events.len(), CAPACITY.min(number + 1));
        }
        for number in 0..PUSHED {
            let is_kept = number >= PUSHED - CAPACITY;
            assert_eq!(events.get(&id(number)).is_some(), is_kept, "{number}");
        }
    }

    #[test]
    fn a_lookup_does_not_renew_an_event() {
        let (mut events, hash) = (SettledEvents::new(2, Duration::from_secs(60)), hash());
        events.push(&id(1), hash, ClaimToken::unique(), APPLIED);
        events.push(&id(2), hash, ClaimToken::unique(), APPLIED);
        assert!(events.get(&id(1)).is_some());
        events.push(&id(3), hash, ClaimToken::unique(), APPLIED);
        assert!(events.get(&id(1)).is_none());
        assert!(events.get(&id(2)).is_some());
    }

    #[test]
    fn the_latest_settlement_of_an_event_counts() {
        let (mut events, hash) = (SettledEvents::new(3, Duration::from_secs(60)), hash());
        let mut done = StepSet::EMPTY;
        done.insert(Step::ReservationStatus);
        events.push(&id(1), hash, ClaimToken::unique(), SettledAs::GivenUp(done));
        events.push(&id(1), hash, ClaimToken::unique(), APPLIED);
        assert_eq!(events.len(), 1);
        assert_eq!(events.get(&id(1)).unwrap().end, APPLIED);
        // Its position is that of the last settlement.
        events.push(&id(2), hash, ClaimToken::unique(), APPLIED);
        events.push(&id(3), hash, ClaimToken::unique(), APPLIED);
        assert_eq!(events.get(&id(1)).unwrap().end, APPLIED);
        events.push(&id(4), hash, ClaimToken::unique(), APPLIED);
        assert!(events.get(&id(1)).is_none());
        assert_eq!(events.len(), 3);
    }

    #[test]
    fn repeated_releases_of_one_event_displace_no_other() {
        let (mut events, hash) = (SettledEvents::new(100, Duration::from_secs(60)), hash());
        for number in 0..99 {
            events.push(&id(number), hash, ClaimToken::unique(), APPLIED);
        }
        for _ in 0..1_000 {
            events.push(&id(100), hash, ClaimToken::unique(), SettledAs::GivenUp(StepSet::EMPTY));
        }
        assert_eq!(events.len(), 100);
        assert!((0..99).all(|number| events.get(&id(number)).is_some()));
        assert_eq!(events.get(&id(100)).unwrap().end, SettledAs::GivenUp(StepSet::EMPTY));
        events.push(&id(101), hash, ClaimToken::unique(), APPLIED);
        assert!(events.get(&id(0)).is_none(), "the oldest event must be dropped");
        assert!(events.get(&id(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_is_kept_for_its_time_to_live() {
        let (mut events, hash) = (SettledEvents::new(100, Duration::from_secs(60)), hash());
        events.push(&id(1), hash, ClaimToken::unique(), APPLIED);
        tokio::time::advance(Duration::from_secs(40)).await;
        events.push(&id(2), hash, ClaimToken::unique(), APPLIED);
        let settled = *events.get(&id(1)).unwrap();
        let ago = events.handled(&settled, HandledAs::Applied).at.elapsed().unwrap();
        assert!((40..42).contains(&ago.as_secs()), "{ago:?}");
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(events.get(&id(1)).is_none());
        events.push(&id(3), hash, ClaimToken::unique(), APPLIED);
        assert_eq!(events.len(), 2, "the expired event must be dropped");
    }
}
