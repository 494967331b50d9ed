//! Engines that judge services wrongly on purpose. A scenario must catch each of them.
//!
//! Where possible, a fault is a decorator of the services: it behaves as a broken engine would use
//! them. Otherwise it is a fail point in `src/`.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Class, Commit, Inventory, ReleaseHold, Reservation, ReservationApi,
    TargetStatus,
};
use reservation_worker::event::ReservationId;
use tokio::time::Instant;

use super::answers;
use super::plan::{Side, Trouble};
use super::service::SimServices;

/// The way in which the engine is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// It charges retries for errors of the outage class.
    OutageCharged,
    /// It pauses a service for all events when the service tells one event to retry later.
    PauseForOne,
    /// It has an internal fault, at this fail point.
    Engine(&'static str),
}

impl Sabotage {
    /// The fail point, if the fault is one.
    pub(crate) fn point(self) -> Option<&'static str> {
        match self {
            Self::Engine(point) => Some(point),
            Self::OutageCharged | Self::PauseForOne => None,
        }
    }
}

/// Both services with the fault, or unchanged.
pub(crate) fn services(
    sabotage: Option<Sabotage>,
    whole: Arc<SimServices>,
) -> (Arc<dyn ReservationApi>, Arc<dyn Inventory>) {
    match sabotage {
        None | Some(Sabotage::Engine(_)) => (Arc::clone(&whole) as _, whole),
        Some(fault @ (Sabotage::OutageCharged | Sabotage::PauseForOne)) => {
            let broken = Arc::new(BrokenServices { whole, fault, paused: Mutex::default() });
            (Arc::clone(&broken) as _, broken)
        }
    }
}

struct BrokenServices {
    whole: Arc<SimServices>,
    fault: Sabotage,
    /// By [`Side`]: the latest time to which a service deferred an event.
    paused: Mutex<[Option<Instant>; 2]>,
}

impl BrokenServices {
    /// Fails if calls to the service are paused.
    fn enter(&self, side: Side) -> Result<(), CallError> {
        let paused = self.paused.lock().expect("no panic under it")[side.index()];
        let rest = paused.and_then(|until| until.checked_duration_since(Instant::now()));
        match rest {
            Some(rest) if !rest.is_zero() => Err(answers::error(side, Trouble::Paced(Some(rest)))),
            Some(_) | None => Ok(()),
        }
    }

    fn read(&self, side: Side, answer: Result<(), CallError>) -> Result<(), CallError> {
        let Err(mut error) = answer else { return Ok(()) };
        if self.fault == Sabotage::OutageCharged && error.class == Class::Outage {
            // Errors of this class are charged to the event.
            error.class = Class::Transient;
        }
        if self.fault == Sabotage::PauseForOne && error.class == Class::Paced {
            let until = error.retry_after.map(|after| Instant::now() + after);
            let mut paused = self.paused.lock().expect("no panic under it");
            paused[side.index()] = paused[side.index()].max(until);
        }
        Err(error)
    }
}

#[async_trait]
impl ReservationApi for BrokenServices {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        self.enter(Side::Api)?;
        self.read(Side::Api, self.whole.set_status(call, id, target, payment_intent_id).await)
    }

    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        self.whole.reservation(call, id).await
    }
}

#[async_trait]
impl Inventory for BrokenServices {
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        release: ReleaseHold<'_>,
    ) -> Result<(), CallError> {
        self.enter(Side::Inventory)?;
        self.read(Side::Inventory, self.whole.release_hold(call, release).await)
    }

    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError> {
        self.whole.commit(call, commit).await
    }
}
