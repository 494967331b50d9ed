//! A store that can be away, lose its answers, or be asked by somebody else. Otherwise it is the one in memory.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{ContentHash, EventId, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{Claim, HandledAs, Store, StoreError, Token};

/// See the module.
pub(crate) struct FlakyStore {
    store: RwLock<Arc<MemoryStore>>,
    down: AtomicBool,
    completions_lost: AtomicU32,
    asked: AtomicU32,
}

impl FlakyStore {
    pub(crate) fn new() -> Self {
        Self {
            store: RwLock::new(empty()),
            down: AtomicBool::new(false),
            completions_lost: AtomicU32::new(0),
            asked: AtomicU32::new(0),
        }
    }

    /// Whether it is away: nothing is done, and no answer is given.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The next answers to a completion are lost, after it was done.
    pub(crate) fn lose_completions(&self, count: u32) {
        self.completions_lost.store(count, Ordering::SeqCst);
    }

    /// All that it knew is gone.
    pub(crate) fn lose_everything(&self) {
        *self.store.write().unwrap() = empty();
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store.read().unwrap())
    }

    /// How often it was asked for anything.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    fn ask(&self) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) { Err(gone()) } else { Ok(()) }
    }
}

fn empty() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(1_000, Duration::from_secs(3600)))
}

fn gone() -> StoreError {
    StoreError::Unavailable("connection refused".to_owned())
}

#[async_trait]
impl Store for FlakyStore {
    async fn claim(
        &self,
        id: &EventId,
        hash: ContentHash,
        token: Token,
        lasts: Duration,
    ) -> Result<Claim, StoreError> {
        self.ask()?;
        self.store().claim(id, hash, token, lasts).await
    }

    async fn renew(&self, id: &EventId, token: Token, lasts: Duration) -> Result<(), StoreError> {
        self.ask()?;
        self.store().renew(id, token, lasts).await
    }

    async fn record(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError> {
        self.ask()?;
        self.store().record(id, token, done).await
    }

    async fn complete(&self, id: &EventId, token: Token, how: HandledAs) -> Result<(), StoreError> {
        self.ask()?;
        self.store().complete(id, token, how).await?;
        let lose = |left: u32| left.checked_sub(1);
        match self.completions_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose) {
            Ok(_) => Err(gone()),
            Err(_none) => Ok(()),
        }
    }

    async fn release(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError> {
        self.ask()?;
        self.store().release(id, token, done).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask()
    }
}
