//! `payment.approved`: confirms the reservation and commits the seats.

use super::AttemptOutcome;
use super::attempt::Attempt;
use crate::client::TargetStatus;
use crate::event::Payment;

/// Calls the Inventory service only if the event names the seats that were bought.
pub(super) async fn handle(
    attempt: &mut Attempt<'_>,
    payment: &Payment,
) -> Result<(), AttemptOutcome> {
    let payment_intent_id = payment.payment_intent_id.as_deref();
    attempt.reservation_status(TargetStatus::Confirmed, payment_intent_id).await?;
    match &payment.seats {
        Some(seats) => attempt.inventory_commit(seats, payment).await,
        None => Ok(()),
    }
}
