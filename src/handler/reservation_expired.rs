//! `reservation.expired`: expires the reservation and releases the seats of its hold.

use super::AttemptOutcome;
use super::attempt::Attempt;
use crate::client::{ReleaseReason, TargetStatus};

/// Sets the status first: this prevents a late payment from being confirmed for released seats.
pub(super) async fn handle(attempt: &mut Attempt<'_>) -> Result<(), AttemptOutcome> {
    attempt.reservation_status(TargetStatus::Expired, None).await?;
    attempt.inventory_release(ReleaseReason::Expired).await
}
