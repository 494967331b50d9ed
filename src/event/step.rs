//! The steps of events, sets of steps, and the idempotency key of each step.
//!
//! The handlers decide which steps an event has.

use std::fmt;

use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::EventId;

/// One effect on one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Sets the new status of the reservation in the Reservation API.
    ReservationStatus,
    /// Releases held seats in the inventory.
    InventoryRelease,
    /// Commits held seats as sold in the inventory.
    InventoryCommit,
}

impl Step {
    /// Every step, in a fixed order.
    pub const ALL: [Self; 3] =
        [Self::ReservationStatus, Self::InventoryRelease, Self::InventoryCommit];

    /// Returns the name in idempotency keys, stored records and logs.
    ///
    /// It must never change: keys of events in flight are derived from it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReservationStatus => "reservation-status",
            Self::InventoryRelease => "inventory-release",
            Self::InventoryCommit => "inventory-commit",
        }
    }

    /// Returns the bit of the step in a [`StepSet`].
    ///
    /// It must never change: stored sets are read by later versions.
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

/// The completed steps of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepSet(u8);

impl StepSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Returns whether the set contains `step`.
    #[must_use]
    pub const fn contains(self, step: Step) -> bool {
        self.0 & step.bit() != 0
    }

    /// Adds `step`; returns true if it is new in the set.
    pub const fn insert(&mut self, step: Step) -> bool {
        let is_new = !self.contains(step);
        self.0 |= step.bit();
        is_new
    }

    /// Returns the union of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the bits, for storage.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Builds the set from stored bits; `None` if a bit belongs to no step of this version.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        let known = Step::ALL.iter().fold(0, |all, step| all | step.bit());
        (bits & !known == 0).then_some(Self(bits))
    }
}

/// Returns the idempotency key of `step` for event `id`.
///
/// It is the same for every attempt, process and version: UUIDv5 (RFC 9562, section 5.5) in the URL
/// namespace of `urn:reservation-worker:<id>/<step>`.
#[must_use]
pub fn idempotency_key(id: &EventId, step: Step) -> Uuid {
    // Not `Uuid::new_v5`: it does not use the processor's SHA-1 instructions, which need a tenth of
    // the time.
    let mut name = Sha1::new_with_prefix(Uuid::NAMESPACE_URL.as_bytes());
    for part in ["urn:reservation-worker:", id.as_str(), "/", step.as_str()] {
        name.update(part);
    }
    let digest = name.finalize();
    let (first, _) = digest.split_first_chunk::<16>().expect("SHA-1 has 20 bytes");
    uuid::Builder::from_sha1_bytes(*first).into_uuid()
}
