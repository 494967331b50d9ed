//! Engines that are broken on purpose. The simulation must catch each of them.
//!
//! Where possible, a fault is a decorator of the queue, the store or the services: it behaves as a
//! broken engine would use them. Otherwise it is a fail point in `src/`.

mod queue;
mod services;
mod store;

use std::sync::Arc;

use reservation_worker::client::ReservationApi;
use reservation_worker::idempotency::Store;
use reservation_worker::queue::Queue;

use self::queue::{BrokenQueue, QueueFault};
use self::services::SupersededIgnored;
use self::store::{BrokenStore, StoreFault};
use super::world::Sim;

/// The way in which the engine is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// It uses the queue wrongly.
    Queue(QueueFault),
    /// It uses the store wrongly.
    Store(StoreFault),
    /// It treats a sold reservation as an expired or cancelled one.
    SupersededIgnored,
    /// It has an internal fault, at this fail point.
    Engine(&'static str),
}

impl Sabotage {
    pub(crate) const ALL: [Self; 19] = [
        Self::Queue(QueueFault::DeleteBeforeHandling),
        Self::Queue(QueueFault::LeaseNotExtended),
        Self::Queue(QueueFault::JoinDropped),
        Self::Queue(QueueFault::HandlesNotDistinct),
        Self::Queue(QueueFault::ReleaseForgotten),
        Self::Queue(QueueFault::LeaseLossIgnored),
        Self::Queue(QueueFault::CopyNotSent),
        Self::Queue(QueueFault::ReceiveAborted),
        Self::Queue(QueueFault::RoomIgnored),
        Self::Store(StoreFault::RetryFromStepOne),
        Self::Store(StoreFault::UnclaimedHandled),
        Self::Store(StoreFault::ElsewhereIgnored),
        Self::Store(StoreFault::RecordSkipped),
        Self::Store(StoreFault::ClaimNotRenewed),
        Self::Store(StoreFault::CompletedAfterDelete),
        Self::Store(StoreFault::ClaimNotReleased),
        Self::SupersededIgnored,
        Self::Engine("inflight::reservations-not-serialized"),
        Self::Engine("attribution::outage-spends-retries"),
    ];

    /// The fail point, if the fault is one.
    pub(crate) fn point(self) -> Option<&'static str> {
        match self {
            Self::Engine(point) => Some(point),
            Self::Queue(_) | Self::Store(_) | Self::SupersededIgnored => None,
        }
    }
}

/// The queue with the fault, or unchanged.
pub(crate) fn queue(
    sabotage: Option<Sabotage>,
    whole: Arc<dyn Queue>,
    sim: &Arc<Sim>,
) -> Arc<dyn Queue> {
    let Some(Sabotage::Queue(fault)) = sabotage else { return whole };
    Arc::new(BrokenQueue { whole, fault, sim: Arc::clone(sim) })
}

/// The store with the fault, or unchanged.
pub(crate) fn store(sabotage: Option<Sabotage>, whole: Arc<dyn Store>) -> Arc<dyn Store> {
    let Some(Sabotage::Store(fault)) = sabotage else { return whole };
    Arc::new(BrokenStore { whole, fault })
}

/// The Reservation API with the fault, or unchanged.
pub(crate) fn reservations(
    sabotage: Option<Sabotage>,
    whole: Arc<dyn ReservationApi>,
) -> Arc<dyn ReservationApi> {
    if sabotage != Some(Sabotage::SupersededIgnored) {
        return whole;
    }
    Arc::new(SupersededIgnored { whole })
}
