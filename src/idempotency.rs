//! Which events were handled, and which steps of the others: the store's contract.
//!
//! ```text
//!              claim                        complete
//!   (nothing) ───────▶ IN PROGRESS ─────────────────────▶ HANDLED ── its time to live ──▶ (nothing)
//!                        ▲   │ release, or the claim runs out
//!                  claim │   ▼
//!                      GIVEN UP: the steps that are done stay known
//! ```
//!
//! An event is *claimed* before its first step, for as long as its message's lease lasts; the claim
//! is renewed when the lease is. It is fenced by its [`Token`]: only its owner renews it, records
//! steps, completes or releases it. A completed event is *handled*, and a further delivery of it
//! does nothing. A released one is not, but the steps that it finished stay known, so that whoever
//! claims it next starts after them.
//!
//! Each operation may be repeated with the same token, as its answer may be lost: the second time it
//! says what the first would have said.

pub mod memory;
mod records;
pub mod redis;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use self::records::Records;
use crate::event::{ContentHash, EventId, StepSet};
use crate::outage::Shard;

/// Who holds a claim: one delivery of one event in one process. Never the same twice, in no process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// A new one: a keyed hash of a counter, the key drawn by the operating system.
    #[must_use]
    pub fn unique() -> Self {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(KEYS.get_or_init(RandomState::new).hash_one(count))
    }

    /// Its bytes, to be stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// Not shown: it differs from run to run.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody else handles the event now: it is ours, with the steps that were finished earlier.
    Ours(StepSet),
    /// It is handled.
    Handled(Handled),
    /// An event with this id and another content, which has this hash, was claimed or handled before.
    IdReused(ContentHash),
    /// Somebody else has it, until so much later unless that claim is renewed.
    Elsewhere(Duration),
}

/// How and when an event was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled {
    /// How.
    pub how: HandledAs,
    /// When, by the store's clock.
    pub at: SystemTime,
}

/// How an event was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandledAs {
    /// Its effects are applied.
    Applied,
    /// The reservation had gone past it.
    Superseded,
}

impl HandledAs {
    /// Its name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
        }
    }
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The claim is not ours any more, or the record is gone.
    #[error("the claim is not ours any more")]
    NotOwner,
    /// No answer, or none that says anything about the event: whether it was done is not known.
    #[error("{0}")]
    Unavailable(String),
    /// What is stored under the event's key is no record that this version can read.
    #[error("the record cannot be read: {0}")]
    Unreadable(String),
    /// The store was not asked, as it is known to be away. Only [`Records`] says so.
    #[error("the idempotency store is away")]
    Away {
        /// Which part of it.
        shard: Shard,
        /// The event has not found it away before.
        is_fresh: bool,
    },
}

/// Remembers events by id. Its implementations bound each operation in time.
///
/// Dropping one of these futures leaves it open whether the operation took place.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Claims an event for `lasts`. A claim that is ours already is renewed, and never shortened: of
    /// two requests the earlier may arrive last.
    async fn claim(
        &self,
        id: &EventId,
        hash: ContentHash,
        token: Token,
        lasts: Duration,
    ) -> Result<Claim, StoreError>;

    /// The claim ends `lasts` from now, or later, if it would have. One that has run out is ours still
    /// if nobody took it.
    async fn renew(&self, id: &EventId, token: Token, lasts: Duration) -> Result<(), StoreError>;

    /// Records which steps are done, before the next one begins.
    async fn record(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError>;

    /// The event is handled; its claim ends.
    async fn complete(&self, id: &EventId, token: Token, how: HandledAs) -> Result<(), StoreError>;

    /// The event is given up in this delivery; its claim ends, the steps that are done stay known.
    async fn release(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError>;

    /// The part of the store that knows this event, where parts can be away alone.
    fn shard(&self, id: &EventId) -> Shard {
        let _ = id;
        Shard::default()
    }

    /// Whether the store can be reached.
    async fn ping(&self) -> Result<(), StoreError>;
}
