//! `payment.approved`: confirms the reservation and commits the seats.

use super::End;
use super::attempt::Attempt;
use crate::client::Target;
use crate::event::Payment;

/// Calls the Inventory service only if the event names the seats that were bought.
pub(super) async fn handle(attempt: &mut Attempt<'_>, payment: &Payment) -> Result<(), End> {
    let payment_intent_id = payment.payment_intent_id.as_deref();
    attempt.reservation_status(Target::Confirmed, payment_intent_id).await?;
    match &payment.seats {
        Some(seats) => attempt.inventory_commit(seats, payment).await,
        None => Ok(()),
    }
}
