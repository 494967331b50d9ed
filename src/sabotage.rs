//! Deliberate faults, to verify that the simulation detects them.
//!
//! Without the feature `simulation`, which no image enables, [`on`] is `false` at compile time, and
//! the compiler removes every hook. `tests/simulation` defines which faults are detected and how
//! soon; `tests/partial` does so for the judgement of services.

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Does not serialize the events of one reservation.
    ReservationLockDropped,
    /// Does not park an event whose service is away; the event spends its retries.
    BreakerSpendsRetries,
    /// Counts a failure of a reservation that failed before as fresh evidence.
    SuspectCounted,
    /// Probes a service with the event that has waited longest.
    ProbesOldestFirst,
    /// Treats a permanent error as final although the service is not called.
    PermanentUngated,
    /// Ignores refusals as evidence about the service, however many there are.
    RefusalsUnseen,
    /// Counts calls that began before a decrease of the limit as samples after it.
    SamplesBeforeDecrease,
    /// Raises a limit that is not reached.
    IncreaseUnreached,
    /// Restores the full limit at once when a service is back.
    RampAtOnce,
    /// Tries any number of suspects at once.
    SuspectsUnbounded,
    /// Does not count jobs that wait for room at a service as buffered.
    HoardsAtLimit,
}

#[cfg(feature = "simulation")]
mod active {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        /// Thread-local: each simulated run has its own thread, so the fault needs no parameter.
        static ACTIVE: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Sets the fault on this thread, or none.
    pub fn set(sabotage: Option<Sabotage>) {
        ACTIVE.set(sabotage);
    }

    /// Returns whether this fault is active.
    pub(crate) fn on(sabotage: Sabotage) -> bool {
        ACTIVE.get() == Some(sabotage)
    }
}

#[cfg(feature = "simulation")]
pub(crate) use active::on;
#[cfg(feature = "simulation")]
pub use active::set;

/// Returns whether this fault is active: never without the feature.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn on(_: Sabotage) -> bool {
    false
}
