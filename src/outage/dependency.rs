//! The services that are judged, each alone: the store is as many as it has shards.

use crate::metrics::Service;

/// Shards of the store that are told apart at most.
pub const SHARDS_MAX: usize = 16;

/// A part of the store that can be away alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// The shard of a part of a whole that is divided into [`SHARDS_MAX`] equal ones.
    #[must_use]
    pub fn new(part: u16, whole: u16) -> Self {
        let shard = u32::from(part) * 16 / u32::from(whole.max(1));
        Self(u8::try_from(shard.min(15)).expect("at most 15"))
    }
}

/// A service that can be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// The Reservation API, where it changes a reservation.
    ReservationApi,
    /// The Inventory service.
    Inventory,
    /// The Reservation API, where it is asked what a reservation is: a token may allow the one and not the other.
    ReservationQuery,
    /// A shard of the idempotency store.
    Store(Shard),
}

impl Dependency {
    /// How many there are at most.
    pub const COUNT: usize = 3 + SHARDS_MAX;

    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        let shards = (0..16).map(|n| Self::Store(Shard(n)));
        [Self::ReservationApi, Self::Inventory, Self::ReservationQuery].into_iter().chain(shards)
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn service(self) -> Service {
        match self {
            Self::ReservationApi | Self::ReservationQuery => Service::Reservation,
            Self::Inventory => Service::Inventory,
            Self::Store(_) => Service::Store,
        }
    }

    /// Which of the service's calls are meant, where they are not all.
    #[must_use]
    pub const fn calls(self) -> Option<&'static str> {
        match self {
            Self::ReservationQuery => Some("GET"),
            Self::ReservationApi | Self::Inventory | Self::Store(_) => None,
        }
    }

    /// Its place in an array of all.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::ReservationApi => 0,
            Self::Inventory => 1,
            Self::ReservationQuery => 2,
            Self::Store(Shard(n)) => 3 + usize::from(n),
        }
    }
}
