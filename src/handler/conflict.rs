//! Resolves a refused change of status (409 or 412) by the reservation's current status.

use crate::client::{ReservationStatus, TargetStatus};

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
pub fn resolve(target: TargetStatus, found: &ReservationStatus) -> Resolution {
    match (target, found) {
        (TargetStatus::Expired, ReservationStatus::Expired | ReservationStatus::Cancelled)
        | (TargetStatus::Cancelled, ReservationStatus::Cancelled | ReservationStatus::Expired)
        | (TargetStatus::Confirmed, ReservationStatus::Confirmed) => Resolution::Done,
        (TargetStatus::Expired | TargetStatus::Cancelled, ReservationStatus::Confirmed) => {
            Resolution::Superseded
        }
        (TargetStatus::Confirmed, ReservationStatus::Expired | ReservationStatus::Cancelled) => {
            Resolution::MoneyWithoutSeat
        }
        (
            TargetStatus::Expired | TargetStatus::Cancelled | TargetStatus::Confirmed,
            ReservationStatus::Other(_),
        ) => Resolution::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_and_status_has_its_resolution() {
        let other = || ReservationStatus::Other("PENDING".to_owned());
        for (target, found, resolution) in [
            (TargetStatus::Expired, ReservationStatus::Expired, Resolution::Done),
            (TargetStatus::Expired, ReservationStatus::Confirmed, Resolution::Superseded),
            (TargetStatus::Expired, ReservationStatus::Cancelled, Resolution::Done),
            (TargetStatus::Expired, other(), Resolution::Unclear),
            (TargetStatus::Cancelled, ReservationStatus::Cancelled, Resolution::Done),
            (TargetStatus::Cancelled, ReservationStatus::Confirmed, Resolution::Superseded),
            (TargetStatus::Cancelled, ReservationStatus::Expired, Resolution::Done),
            (TargetStatus::Cancelled, other(), Resolution::Unclear),
            (TargetStatus::Confirmed, ReservationStatus::Confirmed, Resolution::Done),
            (TargetStatus::Confirmed, ReservationStatus::Expired, Resolution::MoneyWithoutSeat),
            (TargetStatus::Confirmed, ReservationStatus::Cancelled, Resolution::MoneyWithoutSeat),
            (TargetStatus::Confirmed, other(), Resolution::Unclear),
        ] {
            assert_eq!(resolve(target, &found), resolution, "{target:?} {found:?}");
        }
    }
}
