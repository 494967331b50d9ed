//! A store in memory whose answers come late or not at all, as a test sets it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{Event, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};
use tokio::time::sleep;

use crate::paused::SECOND;
use crate::support::request;

/// The store in memory with delayed or lost answers.
pub(crate) struct Late {
    store: RwLock<Arc<MemoryStore>>,
    pub(crate) claim_ms: AtomicU64,
    pub(crate) renew_ms: AtomicU64,
    pub(crate) release_ms: AtomicU64,
    pub(crate) renewals_lost: AtomicU32,
    pub(crate) completions: AtomicU32,
    /// Whether claims are made and their answers are lost.
    pub(crate) claims_mute: AtomicBool,
}

fn empty() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(10_000, 3_600 * SECOND))
}

impl Late {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: RwLock::new(empty()),
            claim_ms: AtomicU64::new(0),
            renew_ms: AtomicU64::new(0),
            release_ms: AtomicU64::new(0),
            renewals_lost: AtomicU32::new(0),
            completions: AtomicU32::new(0),
            claims_mute: AtomicBool::new(false),
        })
    }

    pub(crate) fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.read().unwrap())
    }

    /// Drops all records, and lets another process claim this event for hours.
    pub(crate) async fn taken_by_another(&self, event: &Event) -> ClaimToken {
        *self.store.write().unwrap() = empty();
        let (hash, token) = (event.content_hash(), ClaimToken::unique());
        let claim =
            self.store().claim((&event.id).into(), request(hash, token, 9_000 * SECOND)).await;
        assert_eq!(claim, Ok(Claim::Ours(StepSet::EMPTY)));
        token
    }

    /// Returns the answer to another process's claim. If it gets the claim, that lasts for a second
    /// only.
    pub(crate) async fn asked_by_another(&self, event: &Event) -> Claim {
        let store = self.store();
        store
            .claim((&event.id).into(), request(event.content_hash(), ClaimToken::unique(), SECOND))
            .await
            .unwrap()
    }
}

async fn wait(ms: &AtomicU64) {
    sleep(Duration::from_millis(ms.load(Ordering::SeqCst))).await;
}

fn silence() -> StoreError {
    StoreError::unavailable("no answer")
}

#[async_trait]
impl Store for Late {
    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        let claim = self.store().claim(key, request).await;
        wait(&self.claim_ms).await;
        if self.claims_mute.load(Ordering::SeqCst) { Err(silence()) } else { claim }
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        let lose = |left: u32| left.checked_sub(1);
        if self.renewals_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Err(silence());
        }
        let renewed = self.store().renew(key, token, lasts).await;
        wait(&self.renew_ms).await;
        renewed
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.store().record(key, token, done).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.completions.fetch_add(1, Ordering::SeqCst);
        self.store().complete(key, token, how).await
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        wait(&self.release_ms).await;
        self.store().release(key, token, done).await
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        Ok(Notice::none())
    }
}
