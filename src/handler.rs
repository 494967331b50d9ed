//! Applies an event: exhaustive dispatch on the event type, one file per type.
//!
//! A handler lists the steps of its event in order. [`Attempt`] executes each step at most once: it
//! skips steps that are done, stops when the lease on the message is lost, and records what
//! succeeded. A handler returns only how the attempt [ended](AttemptOutcome); `settle` decides what
//! follows.
//!
//! A new event type needs a variant of [`Payload`], a file here, and the match arm that the
//! compiler then requires.

mod answered;
mod attempt;
pub mod conflict;
mod payment_approved;
mod payment_failed;
pub mod plan;
mod reservation_expired;

use std::sync::Arc;
use std::time::Duration;

use crate::client::{CallError, Class, Inventory, ReservationApi};
use crate::config::Propagators;
use crate::event::Payload;
use crate::idempotency::{IdempotencyClient, StoreError};
use crate::inflight::{Job, ParkedAs};
use crate::metrics::{Metrics, RetryReason, Service};
use crate::outage::{Dependency, Outages};

use self::attempt::Attempt;

/// How an event waits after it failed while its service is still called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventWait {
    /// Whether the wait consumes a retry.
    pub is_charged: bool,
    /// The service at which the event is a suspect.
    pub suspect: Option<Service>,
    /// Longest wait after an outage-class failure, for an event that is not a suspect.
    ///
    /// Not used if the service named a time.
    pub unless_suspect: Duration,
}

/// Result of one attempt at an event.
#[derive(Debug)]
pub enum AttemptOutcome {
    /// All steps are done.
    Applied,
    /// The reservation is already past this event; no step is left to do.
    Superseded {
        /// The status that was found.
        found: &'static str,
    },
    /// A call failed; the class of the error decides what follows.
    Failed {
        /// The error from the service or from the transport.
        error: CallError,
        /// How the event waits if its class allows a retry.
        wait: EventWait,
    },
    /// The service is not called now, or its in-flight limit is reached; the event waits for it.
    Parked {
        /// The service.
        dependency: Dependency,
        /// The error of the call, if a call was made.
        error: Option<CallError>,
        /// How the event waits.
        how: ParkedAs,
    },
    /// The reservation has a status from which the event cannot be judged yet.
    Unclear {
        /// The status that was found.
        found: String,
    },
    /// Neither the event nor the Reservation API names the show and the seats to release.
    HoldUnknown,
    /// A payment was approved for a reservation that no longer has its seats.
    MoneyWithoutSeat {
        /// What showed it, for the log.
        detail: String,
    },
    /// No receipt of the message is valid any more; another consumer may have the message.
    LeaseLost,
    /// The store did not answer, or another process has claimed the event.
    Store(StoreError),
    /// The handler panicked. The attempt is spent; the process continues.
    Panicked,
}

impl AttemptOutcome {
    /// Returns the reason of the retry that follows, if one follows.
    #[must_use]
    pub fn retry_reason(&self) -> RetryReason {
        match self {
            Self::Failed { error, .. } | Self::Parked { error: Some(error), .. } => {
                match error.class {
                    Class::Outage => RetryReason::Outage,
                    Class::Transient => RetryReason::Transient,
                    Class::Paced => RetryReason::Paced,
                    Class::Forbidden => RetryReason::Forbidden,
                    Class::Conflict | Class::Permanent | Class::MoneyWithoutSeat => {
                        RetryReason::Other
                    }
                }
            }
            Self::Parked { dependency: Dependency::Store(_), error: None, .. } => {
                RetryReason::Store
            }
            Self::Parked { error: None, .. } => RetryReason::Outage,
            Self::Unclear { .. } => RetryReason::Unclear,
            Self::Store(_) => RetryReason::Store,
            Self::Panicked => RetryReason::Panic,
            Self::Applied
            | Self::Superseded { .. }
            | Self::HoldUnknown
            | Self::MoneyWithoutSeat { .. }
            | Self::LeaseLost => RetryReason::Other,
        }
    }
}

impl From<StoreError> for AttemptOutcome {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away { shard, is_fresh } => Self::Parked {
                dependency: Dependency::Store(shard),
                error: None,
                how: ParkedAs { is_fresh, is_full: false, is_suspect: false },
            },
            StoreError::Unavailable { .. }
            | StoreError::NotOwner(_)
            | StoreError::Unreadable(_) => Self::Store(error),
        }
    }
}

/// Dependencies of the handlers. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The service that owns the status of a reservation.
    pub reservations: Arc<dyn ReservationApi>,
    /// The service that owns seats.
    pub inventory: Arc<dyn Inventory>,
    /// The record of completed steps.
    pub idempotency: IdempotencyClient,
    /// The circuit breakers.
    pub outages: Arc<Outages>,
    /// Call metrics.
    pub metrics: Arc<Metrics>,
    /// Service addresses for spans.
    pub endpoints: Arc<ServiceEndpoints>,
}

/// Service addresses for client spans, and the trace headers that the services receive.
#[derive(Clone, Debug, Default)]
pub struct ServiceEndpoints {
    /// Base URL of the Reservation API, without credentials and without a trailing slash.
    pub reservation_base: String,
    /// Host and port of the Reservation API.
    pub reservation: (String, u16),
    /// Host and port of the Inventory service.
    pub inventory: (String, u16),
    /// Trace headers that are sent (`OTEL_PROPAGATORS`).
    pub propagators: Propagators,
}

/// Makes one attempt at the event of the job, starting at the first step that is not done.
///
/// The event must be claimed. Not cancel-safe: a cancelled call may already have taken effect; it
/// is then repeated with the same idempotency key.
pub async fn handle(job: &mut Job, services: &Services) -> AttemptOutcome {
    if let Some(found) = job.superseded {
        return AttemptOutcome::Superseded { found };
    }
    let Job { event, reservation, done, recorded, lease, span, charges, retries, .. } = job;
    let mut attempt =
        Attempt { event, reservation, done, recorded, lease, span, charges, retries, services };
    let result = match &event.payload {
        Payload::ReservationExpired(_) => reservation_expired::handle(&mut attempt).await,
        Payload::PaymentApproved(payment) => payment_approved::handle(&mut attempt, payment).await,
        Payload::PaymentFailed(payment) => payment_failed::handle(&mut attempt, payment).await,
    };
    match result {
        Ok(()) => AttemptOutcome::Applied,
        Err(attempt_outcome) => {
            if let AttemptOutcome::Superseded { found } = attempt_outcome {
                job.superseded = Some(found);
            }
            attempt_outcome
        }
    }
}
