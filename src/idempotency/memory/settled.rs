//! Events that nobody has in progress, oldest first, in little memory: a record is 48 bytes, and what finds it by its event takes
//! 12 to 22 more. `tests/store/size.rs` measures a million.
//!
//! Ids are not kept: 128 bits of a hash whose keys this process has drawn stand for one. That two of a million events
//! in memory share them has a chance of one in 10^26, and nobody outside can look for such a pair.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::time::{Duration, SystemTime};

use hashbrown::HashTable;
use tokio::time::Instant;

use crate::event::{ContentHash, EventId, StepSet};
use crate::idempotency::{Handled, HandledAs, Token};

/// How an event ended, as far as this process is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Handled(HandledAs),
    /// Given up, with these steps done.
    GivenUp(StepSet),
}

/// What is known of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) hash: ContentHash,
    /// By whom, so that a repeated completion is told from a stranger's.
    pub(super) token: Token,
    pub(super) end: End,
    /// Seconds after the list's beginning.
    at_s: u32,
}

/// What stands for an event's id.
type Fingerprint = [u64; 2];

#[derive(Clone, Copy, Debug)]
struct Record {
    fingerprint: Fingerprint,
    settled: Settled,
}

/// The list. Its records have numbers, one after the other; those that count around at 2^32 do no harm, as there are never so many.
#[derive(Debug)]
pub(super) struct SettledEvents {
    records: Chunks,
    /// The number of the oldest.
    first: u32,
    /// The number of each event's latest record.
    latest: HashTable<u32>,
    keys: [RandomState; 2],
    began: Instant,
    capacity: usize,
    time_to_live: Duration,
}

impl SettledEvents {
    /// Remembers up to `capacity`, each for `time_to_live`, to the second.
    pub(super) fn new(capacity: usize, time_to_live: Duration) -> Self {
        Self {
            records: Chunks::default(),
            first: 0,
            latest: HashTable::new(),
            keys: [RandomState::new(), RandomState::new()],
            began: Instant::now(),
            capacity,
            time_to_live,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.latest.len()
    }

    pub(super) fn get(&self, id: &EventId) -> Option<&Settled> {
        let fingerprint = self.fingerprint(id);
        let number = self
            .latest
            .find(fingerprint[0], |number| self.record(*number).fingerprint == fingerprint)?;
        let settled = &self.record(*number).settled;
        (!self.is_too_old(settled)).then_some(settled)
    }

    /// When and how it was handled.
    pub(super) fn handled(&self, settled: &Settled, how: HandledAs) -> Handled {
        let now = SystemTime::now();
        Handled { how, at: now.checked_sub(self.age(settled)).unwrap_or(now) }
    }

    /// Remembers one more, and forgets those whose time is over, and the oldest of too many.
    pub(super) fn push(&mut self, id: &EventId, hash: ContentHash, token: Token, end: End) {
        let fingerprint = self.fingerprint(id);
        let at_s = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        let settled = Settled { hash, token, end, at_s };
        let number = numbered(self.first, self.records.len);
        self.records.push(Record { fingerprint, settled });
        let Self { records, first, latest, .. } = self;
        let record = |number: u32| records.get(index(*first, number));
        let entry = latest.entry(
            fingerprint[0],
            |other| record(*other).fingerprint == fingerprint,
            |other| record(*other).fingerprint[0],
        );
        // What was known of it before stays in the list for now, and is not found any more.
        entry.insert(number);
        while self.latest.len() > self.capacity || self.is_oldest_too_old() {
            self.pop();
        }
        // An event that is given up again and again costs no other its place.
        if self.records.len > 2 * self.capacity {
            self.compact();
        }
    }

    /// Leaves the records out that are not found any more.
    fn compact(&mut self) {
        let old = mem::take(&mut self.records);
        let fresh = HashTable::with_capacity(self.latest.len());
        let latest = mem::replace(&mut self.latest, fresh);
        let first = mem::take(&mut self.first);
        for (number, record) in (0..old.len).map(|at| (numbered(first, at), *old.get(at))) {
            let hash = record.fingerprint[0];
            if latest.find(hash, |it| *it == number).is_some() {
                let number = numbered(0, self.records.len);
                self.records.push(record);
                let records = &self.records;
                let hasher = |it: &u32| records.get(index(0, *it)).fingerprint[0];
                self.latest.insert_unique(hash, number, hasher);
            }
        }
    }

    fn pop(&mut self) {
        let Some(Record { fingerprint, .. }) = self.records.pop() else { return };
        let oldest = self.first;
        self.first = self.first.wrapping_add(1);
        if let Ok(entry) = self.latest.find_entry(fingerprint[0], |number| *number == oldest) {
            entry.remove();
        }
    }

    fn is_oldest_too_old(&self) -> bool {
        self.records.len > 0 && self.is_too_old(&self.records.get(0).settled)
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

    fn record(&self, number: u32) -> &Record {
        self.records.get(index(self.first, number))
    }
}

/// The number of the record at this place.
fn numbered(first: u32, index: usize) -> u32 {
    first.wrapping_add(u32::try_from(index).expect("fewer than 2^32 are remembered"))
}

fn index(first: u32, number: u32) -> usize {
    usize::try_from(number.wrapping_sub(first)).expect("32 bits fit")
}

/// Records in a chunk: 48 KiB.
const CHUNK: usize = 1_024;

/// A queue that grows by a chunk at a time. One that grows by doubling has for a moment three times the memory that it needs.
#[derive(Debug, Default)]
struct Chunks {
    /// All but the last are full.
    chunks: VecDeque<Vec<Record>>,
    /// So many of the first chunk are gone.
    gone: usize,
    len: usize,
}

impl Chunks {
    fn push(&mut self, record: Record) {
        match self.chunks.back_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push(record),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(record);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    /// The record at this place, which is one of `len`.
    fn get(&self, index: usize) -> &Record {
        let place = self.gone + index;
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    /// Takes the oldest out.
    fn pop(&mut self) -> Option<Record> {
        let oldest = *self.chunks.front()?.get(self.gone)?;
        self.gone += 1;
        self.len -= 1;
        if self.gone == CHUNK {
            self.chunks.pop_front();
            self.gone = 0;
        }
        Some(oldest)
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

    const APPLIED: End = End::Handled(HandledAs::Applied);

    #[test]
    fn the_newest_are_found_and_the_oldest_are_gone_wherever_the_numbers_begin() {
        let (capacity, hash) = (2 * CHUNK + 7, hash());
        for first in [0, u32::MAX - 1_000] {
            let mut events = SettledEvents::new(capacity, Duration::from_secs(60));
            events.first = first;
            for number in 0..5 * CHUNK {
                events.push(&id(number), hash, Token::unique(), APPLIED);
                assert_eq!(events.len(), capacity.min(number + 1));
            }
            for number in 0..5 * CHUNK {
                let is_kept = number >= 5 * CHUNK - capacity;
                assert_eq!(events.get(&id(number)).is_some(), is_kept, "{number}");
            }
            assert!(events.records.chunks.len() <= capacity.div_ceil(CHUNK) + 1);
        }
    }

    #[test]
    fn of_an_event_that_is_settled_again_the_latest_counts() {
        let (mut events, hash) = (SettledEvents::new(3, Duration::from_secs(60)), hash());
        let mut done = StepSet::EMPTY;
        done.insert(Step::ReservationStatus);
        events.push(&id(1), hash, Token::unique(), End::GivenUp(done));
        events.push(&id(1), hash, Token::unique(), APPLIED);
        assert_eq!(events.len(), 1);
        assert_eq!(events.get(&id(1)).unwrap().end, APPLIED);
        // The first record goes, the second stays.
        events.push(&id(2), hash, Token::unique(), APPLIED);
        events.push(&id(3), hash, Token::unique(), APPLIED);
        assert_eq!(events.get(&id(1)).unwrap().end, APPLIED);
        events.push(&id(4), hash, Token::unique(), APPLIED);
        assert!(events.get(&id(1)).is_none());
        assert_eq!(events.len(), 3);
    }

    #[test]
    fn an_event_that_is_given_up_again_and_again_costs_no_other_its_place() {
        let (mut events, hash) = (SettledEvents::new(100, Duration::from_secs(60)), hash());
        events.first = u32::MAX - 250;
        for number in 0..99 {
            events.push(&id(number), hash, Token::unique(), APPLIED);
        }
        for _ in 0..1_000 {
            events.push(&id(100), hash, Token::unique(), End::GivenUp(StepSet::EMPTY));
            assert!(events.records.len <= 201);
        }
        assert_eq!(events.len(), 100);
        assert!((0..99).all(|number| events.get(&id(number)).is_some()));
        assert_eq!(events.get(&id(100)).unwrap().end, End::GivenUp(StepSet::EMPTY));
        events.push(&id(101), hash, Token::unique(), APPLIED);
        assert!(events.get(&id(0)).is_none(), "the oldest goes, as ever");
        assert!(events.get(&id(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_known_for_its_time() {
        let (mut events, hash) = (SettledEvents::new(100, Duration::from_secs(60)), hash());
        events.push(&id(1), hash, Token::unique(), APPLIED);
        tokio::time::advance(Duration::from_secs(40)).await;
        events.push(&id(2), hash, Token::unique(), APPLIED);
        let settled = *events.get(&id(1)).unwrap();
        let ago = events.handled(&settled, HandledAs::Applied).at.elapsed().unwrap();
        assert!((40..42).contains(&ago.as_secs()), "{ago:?}");
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(events.get(&id(1)).is_none());
        events.push(&id(3), hash, Token::unique(), APPLIED);
        assert_eq!(events.len(), 2, "the first is thrown out");
    }
}
