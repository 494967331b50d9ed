//! A store in memory that can be down, as a whole or in part, and can lose its answers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{EventId, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};
use reservation_worker::outage::Shard;

/// The number of parts of a divided store.
const PARTS: u16 = 16;

/// The store; see the module.
pub(crate) struct FlakyStore {
    store: RwLock<Arc<MemoryStore>>,
    down: AtomicBool,
    completions_lost: AtomicU32,
    asked: AtomicU32,
    parts: u16,
    third_down: AtomicBool,
}

impl FlakyStore {
    pub(crate) fn new() -> Self {
        Self::divided(1)
    }

    /// Makes a store whose parts can be down separately.
    pub(crate) fn of_parts() -> Self {
        Self::divided(PARTS)
    }

    fn divided(parts: u16) -> Self {
        Self {
            store: RwLock::new(empty()),
            down: AtomicBool::new(false),
            completions_lost: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            parts,
            third_down: AtomicBool::new(false),
        }
    }

    /// Sets whether the store is down: it does nothing and every request fails.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Sets whether every third part is down.
    pub(crate) fn set_third_down(&self, down: bool) {
        self.third_down.store(down, Ordering::SeqCst);
    }

    /// Loses the answers to the next completions; they are carried out.
    pub(crate) fn lose_completions(&self, count: u32) {
        self.completions_lost.store(count, Ordering::SeqCst);
    }

    /// Drops all records.
    pub(crate) fn lose_everything(&self) {
        *self.store.write().unwrap() = empty();
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.read().unwrap())
    }

    /// Returns the number of requests so far.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn ask(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) { Err(gone()) } else { Ok(()) }
    }

    fn ask_about(&self, id: &EventId) -> Result<(), StoreError> {
        self.ask()?;
        let is_away = self.third_down.load(Ordering::SeqCst) && self.part(id).is_multiple_of(3);
        if is_away { Err(gone()) } else { Ok(()) }
    }

    fn part(&self, id: &EventId) -> u16 {
        let mix = |sum: u16, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte));
        id.as_str().bytes().fold(7, mix) % self.parts
    }
}

fn empty() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(10_000, Duration::from_secs(3600)))
}

fn gone() -> StoreError {
    StoreError::unavailable("connection refused")
}

#[async_trait]
impl Store for FlakyStore {
    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        self.ask_about(key.id)?;
        self.store().claim(key, request).await
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.ask_about(key.id)?;
        self.store().renew(key, token, lasts).await
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.ask_about(key.id)?;
        self.store().record(key, token, done).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.ask_about(key.id)?;
        self.store().complete(key, token, how).await?;
        let lose = |left: u32| left.checked_sub(1);
        match self.completions_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose) {
            Ok(_) => Err(gone()),
            Err(_none) => Ok(()),
        }
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.ask_about(key.id)?;
        self.store().release(key, token, done).await
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        self.ask().map(|()| Notice::none())
    }

    fn shard(&self, id: &EventId) -> Shard {
        Shard::new(self.part(id), self.parts)
    }
}
