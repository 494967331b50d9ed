//! `payment.failed`: the reservation is off, and what it held is free again.

use super::End;
use super::attempt::Attempt;
use crate::client::{ReleaseReason, Target};
use crate::event::Payment;

/// The inventory is told only where the event names what was held.
pub(super) async fn handle(attempt: &mut Attempt<'_>, payment: &Payment) -> Result<(), End> {
    let payment_intent_id = payment.payment_intent_id.as_deref();
    attempt.reservation_status(Target::Cancelled, payment_intent_id).await?;
    if payment.seats.is_none() {
        return Ok(());
    }
    attempt.inventory_release(ReleaseReason::FailedPayment).await
}
