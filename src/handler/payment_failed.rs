//! `payment.failed`: cancels the reservation and releases the seats.

use super::AttemptOutcome;
use super::attempt::Attempt;
use crate::client::{ReleaseReason, TargetStatus};
use crate::event::Payment;

/// Calls the Inventory service only if the event names the seats that were held.
pub(super) async fn handle(
    attempt: &mut Attempt<'_>,
    payment: &Payment,
) -> Result<(), AttemptOutcome> {
    let payment_intent_id = payment.payment_intent_id.as_deref();
    attempt.reservation_status(TargetStatus::Cancelled, payment_intent_id).await?;
    if payment.seats.is_none() {
        return Ok(());
    }
    attempt.inventory_release(ReleaseReason::FailedPayment).await
}
