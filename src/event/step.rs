//! The steps that events are made of, sets of them, and the key that each call of a step carries. Which event takes which
//! steps is left to the handlers.

use std::fmt;

use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::EventId;

/// One effect on one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The Reservation API is told the reservation's new status.
    ReservationStatus,
    /// The inventory is told to release what is held.
    InventoryRelease,
    /// The inventory is told to sell what is held.
    InventoryCommit,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 3] =
        [Self::ReservationStatus, Self::InventoryRelease, Self::InventoryCommit];

    /// The name in idempotency keys, stored records and logs. Never changes: keys of events in flight are made from it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReservationStatus => "reservation-status",
            Self::InventoryRelease => "inventory-release",
            Self::InventoryCommit => "inventory-commit",
        }
    }

    /// The step's place in a [`StepSet`]. Never changes: sets are kept in stores that outlive a version.
    #[must_use]
    pub const fn bit(self) -> u8 {
        match self {
            Self::ReservationStatus => 1,
            Self::InventoryRelease => 1 << 1,
            Self::InventoryCommit => 1 << 2,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The steps of an event that are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepSet(u8);

impl StepSet {
    /// No step.
    pub const EMPTY: Self = Self(0);

    /// Whether `step` is in it.
    #[must_use]
    pub const fn contains(self, step: Step) -> bool {
        self.0 & step.bit() != 0
    }

    /// Adds `step`; true if it was not in it before.
    pub const fn insert(&mut self, step: Step) -> bool {
        let is_new = !self.contains(step);
        self.0 |= step.bit();
        is_new
    }

    /// The steps of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has no step.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its bits, to be stored.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set with these bits; `None` if one belongs to no step that this version knows.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        let known = Step::ALL.iter().fold(0, |all, step| all | step.bit());
        (bits & !known == 0).then_some(Self(bits))
    }
}

/// The key that every attempt at `step` of event `id` carries, in every process and version: UUIDv5 (RFC 9562, section 5.5) in
/// the URL namespace of `urn:reservation-worker:<id>/<step>`.
#[must_use]
pub fn idempotency_key(id: &EventId, step: Step) -> Uuid {
    // `Uuid::new_v5` knows nothing of the processor's instructions for SHA-1, which take a tenth of the time.
    let mut name = Sha1::new_with_prefix(Uuid::NAMESPACE_URL.as_bytes());
    for part in ["urn:reservation-worker:", id.as_str(), "/", step.as_str()] {
        name.update(part);
    }
    let digest = name.finalize();
    let (first, _) = digest.split_first_chunk::<16>().expect("SHA-1 has 20 bytes");
    uuid::Builder::from_sha1_bytes(*first).into_uuid()
}
