//! The store of one process: bounded in number and in time.
//!
//! What is in progress is never forgotten (there is never more of it than messages are held); what
//! was handled, or given up half-way, lives in a cache with a capacity and a time to live. The
//! cache does its housekeeping when it is used: nothing wakes an idle process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Claim, Store, StoreError, Token};
use crate::event::{ContentHash, EventId, Step, StepSet};

/// A [`Store`] in this process's memory.
#[derive(Debug)]
pub struct MemoryStore {
    in_progress: Mutex<InProgress>,
    settled: Cache<EventId, Settled>,
}

#[derive(Debug, Default)]
struct InProgress {
    last_token: u64,
    claims: HashMap<EventId, Claimed>,
}

#[derive(Debug)]
struct Claimed {
    token: Token,
    hash: ContentHash,
    done: StepSet,
}

/// What is known of an event that nobody has in progress.
#[derive(Clone, Copy, Debug)]
struct Settled {
    hash: ContentHash,
    /// `None`: handled. Otherwise given up, with these steps done.
    given_up: Option<StepSet>,
}

impl MemoryStore {
    /// Remembers up to `capacity` events that are not in progress, each for `time_to_live`.
    #[must_use]
    pub fn new(capacity: u64, time_to_live: Duration) -> Self {
        Self {
            in_progress: Mutex::default(),
            // The newest matter: the cache's own default keeps what is asked for most, and would
            // throw away what has just been handled.
            settled: Cache::builder()
                .max_capacity(capacity)
                .time_to_live(time_to_live)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    fn end(&self, id: &EventId, token: Token, handled: bool) -> Result<(), StoreError> {
        let mut progress = self.lock();
        let claimed = owned(&mut progress, id, token)?;
        let given_up = (!handled).then_some(claimed.done);
        let settled = Settled { hash: claimed.hash, given_up };
        // Known as settled before it stops being in progress: at no instant is it unknown.
        if handled || !claimed.done.is_empty() {
            self.settled.insert(id.clone(), settled);
        }
        progress.claims.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, InProgress> {
        self.in_progress.lock().expect("no panic happens under this lock")
    }
}

fn owned<'a>(
    progress: &'a mut InProgress,
    id: &EventId,
    token: Token,
) -> Result<&'a mut Claimed, StoreError> {
    match progress.claims.get_mut(id) {
        Some(claimed) if claimed.token == token => Ok(claimed),
        Some(_) | None => Err(StoreError::NotOwner),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn claim(&self, id: &EventId, hash: ContentHash) -> Result<Claim, StoreError> {
        let mut progress = self.lock();
        if let Some(claimed) = progress.claims.get(id) {
            let same = claimed.hash == hash;
            return Ok(if same { Claim::Elsewhere } else { Claim::IdReused });
        }
        let done = match self.settled.get(id) {
            Some(settled) if settled.hash != hash => return Ok(Claim::IdReused),
            Some(Settled { given_up: None, .. }) => return Ok(Claim::Handled),
            Some(Settled { given_up: Some(done), .. }) => done,
            None => StepSet::EMPTY,
        };
        progress.last_token += 1;
        let token = Token(progress.last_token);
        progress.claims.insert(id.clone(), Claimed { token, hash, done });
        Ok(Claim::Ours(token, done))
    }

    async fn record(&self, id: &EventId, token: Token, step: Step) -> Result<(), StoreError> {
        owned(&mut self.lock(), id, token)?.done.insert(step);
        Ok(())
    }

    async fn complete(&self, id: &EventId, token: Token) -> Result<(), StoreError> {
        self.end(id, token, true)
    }

    async fn release(&self, id: &EventId, token: Token) -> Result<(), StoreError> {
        self.end(id, token, false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::event::decode;

    const TTL: Duration = Duration::from_secs(60);

    fn event(id: &str, reservation: &str) -> (EventId, ContentHash) {
        let body = format!(
            r#"{{"id":"{id}","type":"payment.approved","reservation_id":"{reservation}",
                "event_id":"show","payload":{{}}}}"#
        );
        let event = decode(&body).unwrap();
        let hash = event.content_hash();
        (event.id, hash)
    }

    async fn claim(store: &MemoryStore, id: &EventId, hash: ContentHash) -> (Token, StepSet) {
        let claim = store.claim(id, hash).await.unwrap();
        let Claim::Ours(token, done) = claim else { panic!("{claim:?}") };
        (token, done)
    }

    #[tokio::test]
    async fn a_handled_event_is_a_duplicate_from_then_on() {
        let store = MemoryStore::new(10, TTL);
        let (id, hash) = event("evt_1", "rsv_1");
        let (token, done) = claim(&store, &id, hash).await;
        assert!(done.is_empty());
        assert_eq!(store.claim(&id, hash).await, Ok(Claim::Elsewhere));
        store.complete(&id, token).await.unwrap();
        assert_eq!(store.claim(&id, hash).await, Ok(Claim::Handled));
    }

    #[tokio::test]
    async fn a_released_event_goes_on_after_the_steps_it_had_done() {
        let store = MemoryStore::new(10, TTL);
        let (id, hash) = event("evt_1", "rsv_1");
        let (token, _) = claim(&store, &id, hash).await;
        store.record(&id, token, Step::ReservationStatus).await.unwrap();
        store.release(&id, token).await.unwrap();
        let (token, done) = claim(&store, &id, hash).await;
        assert!(done.contains(Step::ReservationStatus));
        assert!(!done.contains(Step::InventoryRelease));
        store.complete(&id, token).await.unwrap();
        assert_eq!(store.claim(&id, hash).await, Ok(Claim::Handled));
    }

    #[tokio::test]
    async fn only_the_owner_writes() {
        let store = MemoryStore::new(10, TTL);
        let (id, hash) = event("evt_1", "rsv_1");
        let (old, _) = claim(&store, &id, hash).await;
        store.release(&id, old).await.unwrap();
        let (new, _) = claim(&store, &id, hash).await;
        assert_ne!(old, new);
        let step = Step::ReservationStatus;
        assert_eq!(store.record(&id, old, step).await, Err(StoreError::NotOwner));
        assert_eq!(store.complete(&id, old).await, Err(StoreError::NotOwner));
        assert_eq!(store.release(&id, old).await, Err(StoreError::NotOwner));
        store.record(&id, new, step).await.unwrap();
    }

    #[tokio::test]
    async fn an_id_with_another_content_is_no_duplicate() {
        let store = MemoryStore::new(10, TTL);
        let (id, hash) = event("evt_1", "rsv_1");
        let (_, other) = event("evt_1", "rsv_2");
        let (token, _) = claim(&store, &id, hash).await;
        assert_eq!(store.claim(&id, other).await, Ok(Claim::IdReused));
        store.complete(&id, token).await.unwrap();
        assert_eq!(store.claim(&id, other).await, Ok(Claim::IdReused));
    }

    #[tokio::test]
    async fn handled_events_are_bounded_and_those_in_progress_are_kept() {
        let store = MemoryStore::new(100, TTL);
        let mut kept = Vec::new();
        for n in 0..500 {
            let (id, hash) = event(&format!("held_{n}"), "rsv");
            kept.push((claim(&store, &id, hash).await.0, id));
            let (id, hash) = event(&format!("done_{n}"), "rsv");
            let (token, _) = claim(&store, &id, hash).await;
            store.complete(&id, token).await.unwrap();
        }
        store.settled.run_pending_tasks();
        for n in 410..500 {
            let (id, hash) = event(&format!("done_{n}"), "rsv");
            assert_eq!(
                store.claim(&id, hash).await,
                Ok(Claim::Handled),
                "the newest are kept: {n}"
            );
        }
        assert!(store.settled.entry_count() <= 100, "{}", store.settled.entry_count());
        for (token, id) in kept {
            store.complete(&id, token).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_handled_event_is_forgotten_after_its_time() {
        let store = MemoryStore::new(10, Duration::ZERO);
        let (id, hash) = event("evt_1", "rsv_1");
        let (token, _) = claim(&store, &id, hash).await;
        store.complete(&id, token).await.unwrap();
        assert!(matches!(store.claim(&id, hash).await, Ok(Claim::Ours(..))));
    }
}
