//! `reservation.expired`: expires the reservation and releases the seats of its hold.

use super::End;
use super::attempt::Attempt;
use crate::client::{ReleaseReason, Target};

/// Sets the status first: this prevents a late payment from being confirmed for released seats.
pub(super) async fn handle(attempt: &mut Attempt<'_>) -> Result<(), End> {
    attempt.reservation_status(Target::Expired, None).await?;
    attempt.inventory_release(ReleaseReason::Expired).await
}
