//! Resolves a refused change of status (409 or 412) by the reservation's current status.

use crate::client::{Found, Target};

/// What follows from the current status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The step counts as done; the next step follows.
    Done,
    /// The seats are sold: the event is dropped and nothing is released.
    Superseded,
    /// A payment was approved for a reservation that is expired or cancelled.
    MoneyWithoutSeat,
    /// The status does not allow a decision; a later attempt follows.
    Unclear,
}

/// Returns the resolution. Each event type has its own target, so the target identifies the type.
#[must_use]
pub fn resolve(target: Target, found: &Found) -> Resolution {
    match (target, found) {
        (Target::Expired, Found::Expired | Found::Cancelled)
        | (Target::Cancelled, Found::Cancelled | Found::Expired)
        | (Target::Confirmed, Found::Confirmed) => Resolution::Done,
        (Target::Expired | Target::Cancelled, Found::Confirmed) => Resolution::Superseded,
        (Target::Confirmed, Found::Expired | Found::Cancelled) => Resolution::MoneyWithoutSeat,
        (Target::Expired | Target::Cancelled | Target::Confirmed, Found::Other(_)) => {
            Resolution::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table() {
        let other = || Found::Other("PENDING".to_owned());
        for (target, found, resolution) in [
            (Target::Expired, Found::Expired, Resolution::Done),
            (Target::Expired, Found::Confirmed, Resolution::Superseded),
            (Target::Expired, Found::Cancelled, Resolution::Done),
            (Target::Expired, other(), Resolution::Unclear),
            (Target::Cancelled, Found::Cancelled, Resolution::Done),
            (Target::Cancelled, Found::Confirmed, Resolution::Superseded),
            (Target::Cancelled, Found::Expired, Resolution::Done),
            (Target::Cancelled, other(), Resolution::Unclear),
            (Target::Confirmed, Found::Confirmed, Resolution::Done),
            (Target::Confirmed, Found::Expired, Resolution::MoneyWithoutSeat),
            (Target::Confirmed, Found::Cancelled, Resolution::MoneyWithoutSeat),
            (Target::Confirmed, other(), Resolution::Unclear),
        ] {
            assert_eq!(resolve(target, &found), resolution, "{target:?} {found:?}");
        }
    }
}
