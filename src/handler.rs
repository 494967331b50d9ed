//! From an event to its effects: exhaustive dispatch on the type, one file a type.
//!
//! A handler says which steps its event takes, in order; [`Attempt`] carries a step out, once: it
//! skips what is done, stops when the message is no longer held, and records what succeeded. How
//! an attempt [ended](End) is all that a handler says; what follows is decided in `settle`.
//!
//! A new event type is a variant of [`Payload`], a file here, and the arm that the compiler asks for.

mod answered;
mod attempt;
pub mod conflict;
mod payment_approved;
mod payment_failed;
mod reservation_expired;

use std::sync::Arc;
use std::time::Duration;

use crate::client::{CallError, Class, Inventory, ReservationApi};
use crate::config::Propagators;
use crate::event::{Payload, StepSet};
use crate::idempotency::{Records, StoreError};
use crate::inflight::{Job, ParkedAs};
use crate::metrics::{Metrics, RetryReason, Service};
use crate::outage::{Dependency, Outages};
use crate::sabotage::{Sabotage, on};

use self::attempt::Attempt;

/// How an event waits that failed while its service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventWait {
    /// The wait uses up a retry.
    pub is_charged: bool,
    /// It is a suspect at that service.
    pub suspect: Option<Service>,
    /// How long it waits at most after a failure of the outage class, where it is no suspect and no time was named.
    pub unless_suspect: Duration,
}

/// How one attempt at an event ended.
#[derive(Debug)]
pub enum End {
    /// Every step is done.
    Applied,
    /// The reservation has gone past this event: nothing is to be done.
    Superseded {
        /// The status that was found.
        found: &'static str,
    },
    /// A call failed; its class says what that means.
    Failed {
        /// What the service, or the way to it, said.
        error: CallError,
        /// What follows, where the class leaves it open.
        wait: EventWait,
    },
    /// The service is not called now, or has as many calls as it is given: the event waits for it.
    Parked {
        /// The service.
        dependency: Dependency,
        /// What a call was answered with, where one was made.
        error: Option<CallError>,
        /// How it waits.
        how: ParkedAs,
    },
    /// The reservation is in a state from which the event cannot be judged yet.
    Unclear {
        /// The status that was found.
        found: String,
    },
    /// Neither the event nor the Reservation API says which seats of which show are to be released.
    HoldUnknown,
    /// A payment was approved for a reservation whose seats are gone.
    MoneyWithoutSeat {
        /// What showed it.
        detail: String,
    },
    /// No receipt of the message is ours any more: somebody else may have it.
    LeaseLost,
    /// The store gave no answer, or gave the event to somebody else.
    Store(StoreError),
    /// The code failed. The attempt is spent, the process lives.
    Panicked,
}

impl End {
    /// What made the retry necessary that follows, where one does.
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

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away { shard, is_fresh } => Self::Parked {
                dependency: Dependency::Store(shard),
                error: None,
                how: ParkedAs { is_fresh, is_full: false, is_suspect: false },
            },
            StoreError::Unavailable(_) | StoreError::NotOwner | StoreError::Unreadable(_) => {
                Self::Store(error)
            }
        }
    }
}

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Owns a reservation's status.
    pub reservations: Arc<dyn ReservationApi>,
    /// Owns seats.
    pub inventory: Arc<dyn Inventory>,
    /// Knows which steps are done.
    pub records: Records,
    /// Knows whether a service may be called.
    pub outages: Arc<Outages>,
    /// Counts calls.
    pub metrics: Arc<Metrics>,
    /// Where the services are, for spans.
    pub peers: Arc<Peers>,
}

/// Where the services are, as client spans say it, and whether they are told of them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// The Reservation API's base URL, without credentials and without a slash at its end.
    pub reservation_base: String,
    /// The Reservation API's host and port.
    pub reservation: (String, u16),
    /// The Inventory service's host and port.
    pub inventory: (String, u16),
    /// Which headers tell them of the trace (`OTEL_PROPAGATORS`).
    pub propagators: Propagators,
}

/// Makes one attempt at the job's event, from its first step that is not done.
///
/// Its event is claimed. Not cancel-safe: a call that is cut off may have taken effect, and is then
/// repeated with the same key.
pub async fn handle(job: &mut Job, services: &Services) -> End {
    if let Some(found) = job.superseded {
        return End::Superseded { found };
    }
    let Job { event, reservation, done, recorded, lease, span, charges, retries, .. } = job;
    if on(Sabotage::RetryFromStepOne) {
        *done = StepSet::EMPTY;
    }
    let mut attempt =
        Attempt { event, reservation, done, recorded, lease, span, charges, retries, services };
    let ended = match &event.payload {
        Payload::ReservationExpired(_) => reservation_expired::handle(&mut attempt).await,
        Payload::PaymentApproved(payment) => payment_approved::handle(&mut attempt, payment).await,
        Payload::PaymentFailed(payment) => payment_failed::handle(&mut attempt, payment).await,
    };
    match ended {
        Ok(()) => End::Applied,
        Err(end) => {
            if let End::Superseded { found } = end {
                job.superseded = Some(found);
            }
            end
        }
    }
}
