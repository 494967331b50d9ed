//! Services with a breaker each. The store has one breaker per shard.

use std::fmt;

use crate::metrics::Service;

/// Maximum number of store shards with a breaker of their own.
pub const SHARDS_MAX: usize = 16;

/// A part of the store that can fail alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// Returns the shard of `part` of `whole`, which is divided into [`SHARDS_MAX`] equal shards.
    #[must_use]
    pub fn new(part: u16, whole: u16) -> Self {
        let shard = u32::from(part) * 16 / u32::from(whole.max(1));
        Self(u8::try_from(shard.min(15)).expect("at most 15"))
    }
}

/// Shows the shard as its number, from 1.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0 + 1)
    }
}

/// A service that can be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// The Reservation API: calls that change a reservation.
    ReservationApi,
    /// The Inventory service.
    Inventory,
    /// The Reservation API: queries. A token may allow queries and not changes, or the reverse.
    ReservationQuery,
    /// A shard of the idempotency store.
    Store(Shard),
}

impl Dependency {
    /// Number of all dependencies.
    pub const COUNT: usize = 3 + SHARDS_MAX;

    /// Returns all dependencies.
    pub fn all() -> impl Iterator<Item = Self> {
        let shards = (0..16).map(|n| Self::Store(Shard(n)));
        [Self::ReservationApi, Self::Inventory, Self::ReservationQuery].into_iter().chain(shards)
    }

    /// Returns the service, whose name is the one in metrics and logs.
    #[must_use]
    pub const fn service(self) -> Service {
        match self {
            Self::ReservationApi | Self::ReservationQuery => Service::Reservation,
            Self::Inventory => Service::Inventory,
            Self::Store(_) => Service::Store,
        }
    }

    /// Returns which of the service's calls are meant; `None` if there is no distinction in logs.
    #[must_use]
    pub const fn calls(self) -> Option<&'static str> {
        match self {
            Self::ReservationQuery => Some("GET"),
            Self::ReservationApi | Self::Inventory | Self::Store(_) => None,
        }
    }

    /// Returns the index in an array of all dependencies.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_a_cluster_are_divided_into_equal_shards() {
        let shards = |whole: u16, parts: &[u16]| -> Vec<u8> {
            parts.iter().map(|part| Shard::new(*part, whole).0).collect()
        };
        assert_eq!(shards(16_384, &[0, 1_023, 1_024, 8_192, 16_383]), [0, 0, 1, 8, 15]);
        assert_eq!(shards(3, &[0, 1, 2]), [0, 5, 10]);
        assert_eq!(shards(0, &[0, 9]), [0, 15]);
    }
}
