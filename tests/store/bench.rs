//! Shared by the store's tests: stores of both kinds, events, and waiting.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use reservation_worker::event::{ContentHash, EventId, Step, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::redis::{RedisStore, StoreAccess};
use reservation_worker::idempotency::{Claim, ClaimRequest, ClaimToken, Store};

/// The longest wait for a condition on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The duration of a claim that does not expire within a test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// A duration or a time to live that ends while a test waits.
pub(crate) const SHORT: Duration = Duration::from_millis(700);

/// A time to live that does not end within a test.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// The source of a case's stores.
pub(crate) enum Bench {
    /// Each store is a new one.
    Memory,
    /// All stores share the Redis at this URL.
    Redis(String),
}

impl Bench {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store_that_keeps(TTL)
    }

    pub(crate) fn store_that_keeps(&self, time_to_live: Duration) -> Arc<dyn Store> {
        match self {
            Self::Memory => Arc::new(MemoryStore::new(100_000, time_to_live)),
            Self::Redis(url) => Arc::new(redis_store(url, "test:", time_to_live)),
        }
    }
}

pub(crate) fn redis_store(url: &str, prefix: &str, time_to_live: Duration) -> RedisStore {
    RedisStore::new(&url.parse().unwrap(), prefix, time_to_live).unwrap()
}

/// Returns a store that gets in by `access`.
pub(crate) fn store_with(url: &str, access: StoreAccess) -> RedisStore {
    RedisStore::with_access(&url.parse().unwrap(), access, "p:", TTL).unwrap()
}

/// A temporary folder, removed on drop.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rw-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, or replaces it atomically.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (draft, path) = (self.0.join(".draft"), self.0.join(name));
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A failed cleanup does not matter.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn id(text: &str) -> EventId {
    EventId::new(text).unwrap()
}

pub(crate) const HASH: ContentHash = ContentHash::from_bytes(*b"\0one\r\n\"content\xff\x80");
pub(crate) const OTHER_HASH: ContentHash = ContentHash::from_bytes(*b"another content.");

pub(crate) fn steps(steps: &[Step]) -> StepSet {
    let mut set = StepSet::EMPTY;
    for step in steps {
        set.insert(*step);
    }
    set
}

/// Returns a claim of a message that was sent at the epoch.
pub(crate) fn request(hash: ContentHash, token: ClaimToken, lasts: Duration) -> ClaimRequest {
    ClaimRequest { hash, token, lasts, sent_at: SystemTime::UNIX_EPOCH }
}

/// Claims an event that must be free; returns the token and the steps done.
pub(crate) async fn claimed(
    store: &dyn Store,
    id: &EventId,
    lasts: Duration,
) -> (ClaimToken, StepSet) {
    let token = ClaimToken::unique();
    let claim = store.claim(id.into(), request(HASH, token, lasts)).await.unwrap();
    let Claim::Ours(done) = claim else { panic!("{id}: {claim:?}") };
    (token, done)
}

/// Claims an event with another token.
pub(crate) async fn asked(store: &dyn Store, id: &EventId) -> Claim {
    store.claim(id.into(), request(HASH, ClaimToken::unique(), LONG)).await.unwrap()
}

/// Returns the rest of a claim, as another process is told.
pub(crate) async fn left(store: &dyn Store, id: &EventId) -> Duration {
    let claim = asked(store, id).await;
    let Claim::Elsewhere(left) = claim else { panic!("{id}: {claim:?}") };
    left
}

/// Repeats `ask` until it returns an answer.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking)
        .await
        .unwrap_or_else(|_| panic!("{what} not within {LIMIT:?}"))
}
