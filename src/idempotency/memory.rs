//! The in-memory store of one process, bounded in number and in time.
//!
//! Events in progress are never forgotten; their number is bounded by the messages that are held.
//! Of the handled and given-up events the newest are remembered for a time: see `settled`. Old ones
//! are removed when new ones are added, so an idle process needs no timer.

mod settled;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use ahash::RandomState;
use async_trait::async_trait;
use tokio::time::Instant;

use self::settled::{Settled, SettledAs, SettledEvents};
use super::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Lost, Notice, RecordKey, Store, StoreError,
};
use crate::event::{ContentHash, EventId, StepSet};

/// A [`Store`] in this process's memory. It has no lanes: the in-flight table already works on one
/// event of a reservation at a time.
#[derive(Debug)]
pub struct MemoryStore {
    records: Mutex<Records>,
}

#[derive(Debug)]
struct Records {
    in_progress: HashMap<EventId, Claimed, RandomState>,
    settled: SettledEvents,
}

#[derive(Debug)]
struct Claimed {
    token: ClaimToken,
    until: Instant,
    hash: ContentHash,
    done: StepSet,
}

impl MemoryStore {
    /// Creates a store that remembers up to `capacity` settled events, each for `time_to_live`.
    #[must_use]
    pub fn new(capacity: u64, time_to_live: Duration) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let settled = SettledEvents::new(capacity, time_to_live);
        Self { records: Mutex::new(Records { in_progress: HashMap::default(), settled }) }
    }

    /// Returns the number of records: in progress and settled.
    #[must_use]
    pub fn len(&self) -> usize {
        let records = self.lock();
        records.settled.len() + records.in_progress.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a claim. `again` checks whether the settled state equals the requested one (a repeated
    /// call).
    fn end(
        &self,
        id: &EventId,
        token: ClaimToken,
        end: SettledAs,
        again: impl Fn(&SettledAs) -> bool,
    ) -> Result<(), StoreError> {
        let mut records = self.lock();
        let Some(claimed) = records.in_progress.get(id) else {
            let settled = records.settled.get(id);
            let is_done = settled.is_some_and(|it| it.token == token && again(&it.end));
            return if is_done { Ok(()) } else { Err(StoreError::NotOwner(Lost::Claim)) };
        };
        if claimed.token != token {
            return Err(StoreError::NotOwner(Lost::Claim));
        }
        let hash = claimed.hash;
        records.in_progress.remove(id);
        records.settled.push(id, hash, token, end);
        Ok(())
    }

    fn owned(
        &self,
        id: &EventId,
        token: ClaimToken,
        change: impl FnOnce(&mut Claimed),
    ) -> Result<(), StoreError> {
        match self.lock().in_progress.get_mut(id) {
            Some(claimed) if claimed.token == token => {
                change(claimed);
                Ok(())
            }
            Some(_) | None => Err(StoreError::NotOwner(Lost::Claim)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().expect("no panic happens under this lock")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(
        &self,
        RecordKey { id, .. }: RecordKey<'_>,
        ClaimRequest { hash, token, lasts, .. }: ClaimRequest,
    ) -> Result<Claim, StoreError> {
        let mut records = self.lock();
        let now = Instant::now();
        if let Some(claimed) = records.in_progress.get_mut(id) {
            if claimed.hash.contradicts(hash) {
                return Ok(Claim::IdReused(claimed.hash));
            }
            if claimed.token != token && claimed.until > now {
                return Ok(Claim::Elsewhere(claimed.until - now));
            }
            let until = now + lasts;
            let is_ours = claimed.token == token;
            claimed.until = if is_ours { claimed.until.max(until) } else { until };
            claimed.token = token;
            return Ok(Claim::Ours(claimed.done));
        }
        let done = match records.settled.get(id) {
            Some(settled) if settled.hash.contradicts(hash) => {
                return Ok(Claim::IdReused(settled.hash));
            }
            Some(settled @ Settled { end: SettledAs::Handled(how), .. }) => {
                return Ok(Claim::Handled(records.settled.handled(settled, *how)));
            }
            Some(Settled { end: SettledAs::GivenUp(done), .. }) => *done,
            None => StepSet::EMPTY,
        };
        records.in_progress.insert(id.clone(), Claimed { token, until: now + lasts, hash, done });
        Ok(Claim::Ours(done))
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        let until = Instant::now() + lasts;
        self.owned(key.id, token, |claimed| claimed.until = claimed.until.max(until))
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.owned(key.id, token, |claimed| claimed.done = claimed.done.union(done))
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.end(key.id, token, SettledAs::Handled(how), |end| matches!(end, SettledAs::Handled(_)))
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        let known =
            self.lock().in_progress.get(key.id).map_or(StepSet::EMPTY, |claimed| claimed.done);
        let given_up = SettledAs::GivenUp(known.union(done));
        self.end(key.id, token, given_up, |end| matches!(end, SettledAs::GivenUp(_)))
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        Ok(Notice::none())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::event::decode;

    const TTL: Duration = Duration::from_secs(60);
    const LASTS: Duration = Duration::from_secs(30);

    fn event(id: &str) -> (EventId, ContentHash) {
        let body = format!(
            r#"{{"id":"{id}","type":"payment.approved","reservation_id":"rsv",
                "event_id":"show","payload":{{}}}}"#
        );
        let event = decode(&body, "m").unwrap();
        let hash = event.content_hash();
        (event.id, hash)
    }

    fn request(hash: ContentHash, token: ClaimToken) -> ClaimRequest {
        ClaimRequest { hash, token, lasts: LASTS, sent_at: SystemTime::UNIX_EPOCH }
    }

    async fn claim(store: &MemoryStore, id: &EventId, hash: ContentHash) -> ClaimToken {
        let token = ClaimToken::unique();
        let claim = store.claim(id.into(), request(hash, token)).await.unwrap();
        assert_eq!(claim, Claim::Ours(StepSet::EMPTY));
        token
    }

    #[tokio::test]
    async fn handled_events_are_limited_and_claimed_ones_are_kept() {
        let store = MemoryStore::new(100, TTL);
        let mut kept = Vec::new();
        for n in 0..500 {
            let (id, hash) = event(&format!("held_{n}"));
            kept.push((claim(&store, &id, hash).await, id));
            let (id, hash) = event(&format!("done_{n}"));
            let token = claim(&store, &id, hash).await;
            store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
        }
        assert!(store.len() <= 600, "{}", store.len());
        for n in 410..500 {
            let (id, hash) = event(&format!("done_{n}"));
            let again =
                store.claim((&id).into(), request(hash, ClaimToken::unique())).await.unwrap();
            assert!(matches!(again, Claim::Handled(_)), "the newest events must be kept: {n}");
        }
        for (token, id) in kept {
            store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_handled_event_is_forgotten_after_its_time_to_live() {
        let store = MemoryStore::new(10, Duration::ZERO);
        let (id, hash) = event("evt_1");
        let token = claim(&store, &id, hash).await;
        store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
        claim(&store, &id, hash).await;
    }
}
