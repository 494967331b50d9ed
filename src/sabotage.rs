//! Deliberate faults of the engine, for the simulation's own test: a check that catches none of
//! them proves nothing. Without the feature `simulation`, which no image is built with, [`on`] is
//! `false` at compile time, and every hook with it is gone.
//!
//! Which faults are caught, and how soon, is for `tests/simulation` and, for how services are judged, `tests/partial`.

/// One way of breaking the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Messages are deleted as they come in.
    DeleteBeforeHandling,
    /// No lease is ever extended.
    LeaseNotExtended,
    /// The receipt of a copy that joins an event in flight is dropped.
    JoinDropped,
    /// Each attempt begins at the first step.
    RetryFromStepOne,
    /// A batch names its first message twice.
    HandlesNotDistinct,
    /// What the shutdown finds idle is not handed back.
    ReleaseForgotten,
    /// Events of one reservation do not wait for each other.
    ReservationLockDropped,
    /// An attempt goes on though its message is not held any more.
    LeaseLossIgnored,
    /// Messages are deleted as dead-lettered without a copy.
    CopyNotSent,
    /// A reservation that is sold counts as one that is over.
    SupersededIgnored,
    /// The shutdown drops a receive that is open.
    ReceiveAborted,
    /// An event that finds its service away is not parked, and spends its retries.
    BreakerSpendsRetries,
    /// A receive asks for ten messages whatever room there is.
    RoomIgnored,
    /// An event whose claim the store does not answer is handled all the same.
    UnclaimedHandled,
    /// An event that somebody else has claimed is handled all the same.
    ElsewhereIgnored,
    /// A step begins though the store has not been told of those before it.
    RecordSkipped,
    /// Claims are believed to be renewed, and are not.
    ClaimNotRenewed,
    /// A message is deleted before the store is told that its event is handled.
    CompletedAfterDelete,
    /// What is given up keeps its claim.
    ClaimNotReleased,
    /// A failure of a reservation that has failed before is fresh evidence.
    SuspectCounted,
    /// The event that has waited longest finds out whether a service serves again.
    ProbesOldestFirst,
    /// A permanent answer is final though the service is not called.
    PermanentUngated,
    /// However many are refused, that says nothing about the service.
    RefusalsUnseen,
    /// Calls that began before a decrease are samples after it.
    SamplesBeforeDecrease,
    /// A limit rises though it is not reached.
    IncreaseUnreached,
    /// The outage class uses up retries.
    OutageCharged,
    /// One event that is told to come later pauses its service for all.
    PauseForOne,
    /// A service that is back is given as many calls as before.
    RampAtOnce,
    /// Any number of suspects is tried at once.
    SuspectsUnbounded,
    /// What waits for room at a service does not count as buffered.
    HoardsAtLimit,
}

#[cfg(feature = "simulation")]
mod active {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        /// A simulated run has a thread to itself, so no part has to carry this about.
        static ACTIVE: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    impl Sabotage {
        /// Those that break what holds of each event, whatever happens.
        pub const ENGINE: [Self; 19] = [
            Self::DeleteBeforeHandling,
            Self::LeaseNotExtended,
            Self::JoinDropped,
            Self::RetryFromStepOne,
            Self::HandlesNotDistinct,
            Self::ReleaseForgotten,
            Self::ReservationLockDropped,
            Self::LeaseLossIgnored,
            Self::CopyNotSent,
            Self::SupersededIgnored,
            Self::ReceiveAborted,
            Self::BreakerSpendsRetries,
            Self::RoomIgnored,
            Self::UnclaimedHandled,
            Self::ElsewhereIgnored,
            Self::RecordSkipped,
            Self::ClaimNotRenewed,
            Self::CompletedAfterDelete,
            Self::ClaimNotReleased,
        ];

        /// Those that break how services are judged.
        pub const JUDGING: [Self; 11] = [
            Self::SuspectCounted,
            Self::ProbesOldestFirst,
            Self::PermanentUngated,
            Self::RefusalsUnseen,
            Self::SamplesBeforeDecrease,
            Self::IncreaseUnreached,
            Self::OutageCharged,
            Self::PauseForOne,
            Self::RampAtOnce,
            Self::SuspectsUnbounded,
            Self::HoardsAtLimit,
        ];
    }

    /// Breaks the engine on this thread in that way, or in none.
    pub fn set(sabotage: Option<Sabotage>) {
        ACTIVE.set(sabotage);
    }

    /// Whether the engine is to be broken in that way.
    pub(crate) fn on(sabotage: Sabotage) -> bool {
        ACTIVE.get() == Some(sabotage)
    }
}

#[cfg(feature = "simulation")]
pub(crate) use active::on;
#[cfg(feature = "simulation")]
pub use active::set;

/// Whether the engine is to be broken in that way: never.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn on(_: Sabotage) -> bool {
    false
}
