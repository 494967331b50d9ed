//! The idempotency store's contract: which events are handled, and which steps of the others are
//! done.
//!
//! ```text
//!              claim                       complete
//!   (nothing) ───────▶ IN PROGRESS ────────────────────▶ HANDLED ── its time to live ──▶ (nothing)
//!                        ▲   │ release, or the claim runs out
//!                  claim │   ▼
//!                      GIVEN UP: the steps that are done stay known
//! ```
//!
//! An event is *claimed* before its first step, for as long as its message's lease lasts; each
//! lease extension renews the claim. The [`ClaimToken`] fences the claim: only its owner can renew
//! it, record steps, complete or release it. A completed event is *handled*, and further deliveries
//! of it have no effect. A released event is not handled, but its finished steps stay recorded: the
//! next owner continues after them.
//!
//! Each operation may be repeated with the same token, because its answer may be lost. The
//! repetition returns what the first call would have returned.

mod client;
pub mod memory;
pub mod redis;
mod token;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use self::client::IdempotencyClient;
pub use self::token::{ClaimToken, ProcessId, StoredToken};
use crate::event::{ContentHash, Event, EventId, ReservationId, StepSet};
use crate::outage::Shard;

/// The record of an event, and the lane of its reservation.
///
/// Of the events in a lane one is worked on at a time, in all processes.
#[derive(Clone, Copy, Debug)]
pub struct RecordKey<'a> {
    /// The event.
    pub id: &'a EventId,
    /// The reservation whose lane it is; `None` if processes do not order their events.
    pub lane: Option<&'a ReservationId>,
}

/// A record with its lane.
impl<'a> From<&'a Event> for RecordKey<'a> {
    fn from(event: &'a Event) -> Self {
        Self { id: &event.id, lane: Some(&event.reservation_id) }
    }
}

/// A record without a lane.
impl<'a> From<&'a EventId> for RecordKey<'a> {
    fn from(id: &'a EventId) -> Self {
        Self { id, lane: None }
    }
}

/// What a delivery of an event says when it claims the event.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// The hash of the event's content.
    pub hash: ContentHash,
    /// The delivery.
    pub token: ClaimToken,
    /// For how long the claim is wanted.
    pub lasts: Duration,
    /// When the message was sent: of the events that wait in a lane the one sent first is next.
    pub sent_at: SystemTime,
}

/// The result of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Claimed by this token; the steps were finished earlier.
    Ours(StepSet),
    /// The event is already handled.
    Handled(Handled),
    /// Another event with this id but other content, which has this hash, was claimed or handled
    /// before.
    IdReused(ContentHash),
    /// Claimed by another process; the claim expires after this duration unless renewed.
    Elsewhere(Duration),
    /// Another event of the reservation comes first. Its turn, or its ticket, ends after this
    /// duration unless renewed. The event is not claimed.
    Behind(Duration),
}

/// How and when an event was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled {
    /// How it was handled.
    pub how: HandledAs,
    /// The time, by the store's clock.
    pub at: SystemTime,
}

/// How an event was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandledAs {
    /// Its effects are applied.
    Applied,
    /// The reservation was already past this event.
    Superseded,
}

impl HandledAs {
    /// Returns the name for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
        }
    }
}

/// Why a store operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The claim is not ours any more.
    #[error("{0}")]
    NotOwner(Lost),
    /// No answer, or no valid one: it is not known whether the operation took place.
    #[error("{why}")]
    Unavailable {
        /// Where it failed.
        at: KeyPart,
        /// The error, for logs.
        why: String,
    },
    /// The stored record has a format that this version cannot read.
    #[error("the record cannot be read: {0}")]
    Unreadable(String),
    /// The store was not called, because it is known to be away. Returned only by
    /// [`IdempotencyClient`].
    #[error("the idempotency store is away")]
    Away {
        /// The unavailable shard.
        shard: Shard,
        /// Whether this is the first time that the event finds the store away.
        is_fresh: bool,
    },
}

impl StoreError {
    /// Returns [`StoreError::Unavailable`] for the shard of the record.
    #[must_use]
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { at: KeyPart::Record, why: why.into() }
    }
}

/// What another owner has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The record, or it is gone.
    Claim,
    /// The lane. The record is as the operation leaves it.
    Lane,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "the claim is not ours any more",
            Self::Lane => "another event of the reservation has its turn",
        })
    }
}

/// The part of a [`RecordKey`] at which an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The record. Nothing is known of the lane.
    Record,
    /// The lane. The operation took place on the record.
    Lane,
    /// Both.
    Both,
}

/// A text in a shared store that all its processes read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The text; empty if there is none.
    pub text: Vec<u8>,
    /// When it was read, by the store's clock.
    pub at: SystemTime,
}

impl Notice {
    /// Creates the answer of a store that has no notice.
    #[must_use]
    pub fn none() -> Self {
        Self { text: Vec::new(), at: SystemTime::now() }
    }
}

/// Remembers events by id. Implementations apply a timeout to each operation.
///
/// Cancel-safety: if a future is dropped, it is not known whether the operation took place.
///
/// # Errors
/// [`StoreError::Unavailable`] if it is not known whether the operation took place,
/// [`StoreError::Unreadable`] if a later version wrote the record. What only the owner of a claim
/// may do returns [`StoreError::NotOwner`] if another token has the record or its lane.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Claims an event, and its lane if it has one.
    /// The event comes first: the lane of an event that cannot be claimed is left alone.
    /// A claim of the same token is renewed, and never shortened: of two requests the earlier may
    /// arrive last.
    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError>;

    /// Renews a claim, and its lane, until at least `lasts` from now; never shortens them.
    /// An expired claim can be renewed if no other token has claimed the event.
    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError>;

    /// Records the finished steps, before the next step begins. The lane must still be ours.
    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError>;

    /// Marks the event as handled; its claim ends, and its lane is free.
    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError>;

    /// Releases the claim of an event that is not handled; the finished steps stay recorded, and
    /// its lane is free.
    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError>;

    /// Returns the shard that stores this event, if shards can be away separately.
    fn shard(&self, id: &EventId) -> Shard {
        let _ = id;
        Shard::default()
    }

    /// Returns the shard that stores the lane of this reservation.
    fn lane_shard(&self, id: &ReservationId) -> Shard {
        let _ = id;
        Shard::default()
    }

    /// Checks whether the store can be reached, and returns the notice.
    async fn ping(&self) -> Result<Notice, StoreError>;

    /// Replaces the notice, if its text is still `read`. The new one lasts for `lasts`; an empty
    /// one ends it. Returns whether it was replaced.
    ///
    /// The default is for a store that is not shared: it has no notice.
    async fn post_notice(
        &self,
        read: &[u8],
        text: &[u8],
        lasts: Duration,
    ) -> Result<bool, StoreError> {
        let _ = (read, text, lasts);
        Err(StoreError::unavailable("this store is not shared"))
    }
}
