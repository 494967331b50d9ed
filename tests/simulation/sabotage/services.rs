//! The Reservation API of an engine that uses it wrongly.

use std::sync::Arc;

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Class, Reservation, ReservationApi, ReservationStatus, TargetStatus,
};
use reservation_worker::event::ReservationId;

/// A sold reservation counts as expired or cancelled, whichever was requested.
pub(super) struct SupersededIgnored {
    pub(super) whole: Arc<dyn ReservationApi>,
}

#[async_trait]
impl ReservationApi for SupersededIgnored {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        let answer = self.whole.set_status(call, id, target, payment_intent_id).await;
        let is_refused = answer.as_ref().is_err_and(|error| error.class == Class::Conflict);
        if is_refused && target != TargetStatus::Confirmed {
            let found = self.whole.reservation(call, id).await?;
            if found.status == ReservationStatus::Confirmed {
                return Ok(());
            }
        }
        answer
    }

    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        self.whole.reservation(call, id).await
    }
}
