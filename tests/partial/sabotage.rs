//! Engines that judge services wrongly on purpose. A scenario must catch each of them.
//!
//! Where possible, a fault is a decorator of the services: it behaves as a broken engine would use
//! them. Otherwise it is a fail point in `src/`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Class, Commit, Inventory, ReleaseHold, Reservation, ReservationApi,
    TargetStatus,
};
use reservation_worker::event::{EventId, ReservationId, StepSet};
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};
use reservation_worker::outage::Shard;
use tokio::time::Instant;

use super::answers;
use super::plan::{Side, Trouble};
use super::service::SimServices;
use super::store::SharedStore;

/// The way in which the engine is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// It charges retries for errors of the outage class.
    OutageCharged,
    /// It pauses a service for all events when the service tells one event to retry later.
    PauseForOne,
    /// It works on an event although another one of its reservation has its turn.
    LaneIgnored,
    /// Whoever asks is next in a lane: its tickets say nothing.
    TicketIgnored,
    /// A claim that is released frees the lane, whoever has it.
    StaleRelease,
    /// It has an internal fault, at this fail point.
    Engine(&'static str),
}

impl Sabotage {
    /// The fail point, if the fault is one.
    pub(crate) fn point(self) -> Option<&'static str> {
        match self {
            Self::Engine(point) => Some(point),
            Self::OutageCharged
            | Self::PauseForOne
            | Self::LaneIgnored
            | Self::TicketIgnored
            | Self::StaleRelease => None,
        }
    }
}

/// Both services with the fault, or unchanged.
pub(crate) fn services(
    sabotage: Option<Sabotage>,
    whole: Arc<SimServices>,
) -> (Arc<dyn ReservationApi>, Arc<dyn Inventory>) {
    match sabotage {
        None
        | Some(
            Sabotage::Engine(_)
            | Sabotage::LaneIgnored
            | Sabotage::TicketIgnored
            | Sabotage::StaleRelease,
        ) => (Arc::clone(&whole) as _, whole),
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

/// The shared store as that engine uses it; a sound one uses it as it is.
pub(crate) fn store(sabotage: Option<Sabotage>, whole: Arc<SharedStore>) -> Arc<dyn Store> {
    match sabotage {
        None | Some(Sabotage::Engine(_) | Sabotage::OutageCharged | Sabotage::PauseForOne) => whole,
        Some(
            fault @ (Sabotage::LaneIgnored | Sabotage::TicketIgnored | Sabotage::StaleRelease),
        ) => Arc::new(BrokenStore { whole, fault, asked: AtomicU64::new(0) }),
    }
}

struct BrokenStore {
    whole: Arc<SharedStore>,
    fault: Sabotage,
    /// How often a claim was asked for.
    asked: AtomicU64,
}

impl BrokenStore {
    /// Frees the lane, if another token has it.
    fn free(&self, key: RecordKey<'_>, token: ClaimToken) {
        if let Some(lane) = key.lane.filter(|_| self.fault == Sabotage::StaleRelease) {
            let mut world = self.whole.sim.lock();
            let now = world.now();
            if !world.lanes.check(lane.as_str(), token, now) {
                world.lanes.free(lane.as_str());
            }
        }
    }
}

#[async_trait]
impl Store for BrokenStore {
    async fn claim(
        &self,
        key: RecordKey<'_>,
        mut request: ClaimRequest,
    ) -> Result<Claim, StoreError> {
        if self.fault == Sabotage::TicketIgnored {
            // Before all that asked before it.
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            request.sent_at =
                SystemTime::UNIX_EPOCH + Duration::from_millis(u64::MAX / 1_000_000 - asked);
        }
        match self.whole.claim(key, request).await {
            Ok(Claim::Behind(_)) if self.fault == Sabotage::LaneIgnored => {
                Ok(Claim::Ours(StepSet::EMPTY))
            }
            claim => claim,
        }
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.whole.renew(key, token, lasts).await
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.whole.record(key, token, done).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.whole.complete(key, token, how).await
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        let released = self.whole.release(key, token, done).await;
        self.free(key, token);
        released
    }

    fn shard(&self, id: &EventId) -> Shard {
        self.whole.shard(id)
    }

    fn lane_shard(&self, id: &ReservationId) -> Shard {
        self.whole.lane_shard(id)
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        self.whole.ping().await
    }
}
