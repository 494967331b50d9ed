//! `reservation.expired`: a hold ran out, so its seats are free again.

use super::End;
use super::attempt::Attempt;
use crate::client::{ReleaseReason, Target};

/// The status first: it is what stops a late payment from being confirmed on seats that are free.
pub(super) async fn handle(attempt: &mut Attempt<'_>) -> Result<(), End> {
    attempt.reservation_status(Target::Expired, None).await?;
    attempt.inventory_release(ReleaseReason::Expired).await
}
