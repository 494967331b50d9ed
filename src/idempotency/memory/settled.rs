//! Events that nobody has in progress, oldest first, in little memory: a record is 48 bytes, and what finds it by its event takes
//! six to eleven more. A million of them are measured in `tests/it/store/size.rs`.
//!
//! Ids are not kept: 128 bits of a hash whose keys this process has drawn stand for one. That two of a million events
//! in memory share them has a chance of one in 10^26, and nobody outside can look for such a pair.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
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

#[derive(Debug)]
struct Record {
    fingerprint: Fingerprint,
    settled: Settled,
}

/// The list. Its records have numbers, one after the other; those that count around at 2^32 do no harm, as there are never so many.
#[derive(Debug)]
pub(super) struct SettledEvents {
    records: VecDeque<Record>,
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
            records: VecDeque::new(),
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
        let number = self.number(self.records.len());
        self.records.push_back(Record { fingerprint, settled });
        let Self { records, first, latest, .. } = self;
        let record = |number: u32| &records[index(*first, number)];
        let entry = latest.entry(
            fingerprint[0],
            |other| record(*other).fingerprint == fingerprint,
            |other| record(*other).fingerprint[0],
        );
        // What was known of it before stays in the list until its turn comes, and is not found any more.
        entry.insert(number);
        while self.records.len() > self.capacity || self.is_oldest_too_old() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(Record { fingerprint, .. }) = self.records.front() else { return };
        let oldest = self.first;
        if let Ok(entry) = self.latest.find_entry(fingerprint[0], |number| *number == oldest) {
            entry.remove();
        }
        self.records.pop_front();
        self.first = self.first.wrapping_add(1);
    }

    fn is_oldest_too_old(&self) -> bool {
        self.records.front().is_some_and(|oldest| self.is_too_old(&oldest.settled))
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
        &self.records[index(self.first, number)]
    }

    fn number(&self, index: usize) -> u32 {
        self.first.wrapping_add(u32::try_from(index).expect("fewer than 2^32 are remembered"))
    }
}

fn index(first: u32, number: u32) -> usize {
    usize::try_from(number.wrapping_sub(first)).expect("32 bits fit")
}
