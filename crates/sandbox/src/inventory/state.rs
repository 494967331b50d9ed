//! The rules of the Inventory service: state changes of holds, and repeated idempotency keys.

use std::collections::HashMap;

use uuid::Uuid;

use crate::ledger::Effect;
use crate::proto::common::v1::Error;
use crate::proto::reservation::v1::{
    CommitReservationRequest, CommitReservationResponse, CommitStatus, ReleaseHoldRequest,
    ReleaseHoldResponse, ReleaseStatus,
};

/// The state of a reservation's seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// Held for a buyer who has not paid.
    Held,
    /// Released.
    Released,
    /// Sold.
    Committed,
}

/// All holds, and the response to each idempotency key.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) auto_create: bool,
    holds: HashMap<String, HoldState>,
    /// Only applied changes are stored: a refused request is checked again by the state at that
    /// time.
    releases: HashMap<String, (ReleaseHoldRequest, ReleaseHoldResponse)>,
    commits: HashMap<String, (CommitReservationRequest, CommitReservationResponse)>,
}

/// A refusal as a gRPC status.
pub(crate) type Refusal = tonic::Status;

impl Default for State {
    fn default() -> Self {
        Self {
            auto_create: true,
            holds: HashMap::new(),
            releases: HashMap::new(),
            commits: HashMap::new(),
        }
    }
}

impl State {
    pub(crate) fn set(&mut self, id: &str, hold: HoldState) {
        self.holds.insert(id.to_owned(), hold);
    }

    pub(crate) fn hold(&self, id: &str) -> Option<HoldState> {
        self.holds.get(id).copied()
    }

    pub(crate) fn release(
        &mut self,
        request: &ReleaseHoldRequest,
    ) -> (Result<ReleaseHoldResponse, Refusal>, Option<Effect>) {
        if let Err(refusal) = check_release(request) {
            return (Err(refusal), None);
        }
        let key = &request.idempotency_key;
        if let Some((known, answer)) = self.releases.get(key) {
            return (if known == request { Ok(answer.clone()) } else { Err(reused()) }, None);
        }
        if self.commits.contains_key(key) {
            return (Err(reused()), None);
        }
        let (status, error) = match self.find(&request.reservation_id) {
            Some(HoldState::Held) => (ReleaseStatus::Success, None),
            Some(HoldState::Released) => (ReleaseStatus::AlreadyReleased, None),
            Some(HoldState::Committed) => {
                (ReleaseStatus::Failed, Some(error("the seats are sold")))
            }
            None => (ReleaseStatus::NotFound, None),
        };
        let answer = ReleaseHoldResponse { status: status.into(), error };
        if status != ReleaseStatus::Success {
            return (Ok(answer), None);
        }
        self.set(&request.reservation_id, HoldState::Released);
        self.releases.insert(key.clone(), (request.clone(), answer.clone()));
        (Ok(answer), Some(Effect::SeatsReleased))
    }

    pub(crate) fn commit(
        &mut self,
        request: &CommitReservationRequest,
    ) -> (Result<CommitReservationResponse, Refusal>, Option<Effect>) {
        if let Err(refusal) = check_commit(request) {
            return (Err(refusal), None);
        }
        let key = &request.idempotency_key;
        if let Some((known, answer)) = self.commits.get(key) {
            return (if known == request { Ok(answer.clone()) } else { Err(reused()) }, None);
        }
        if self.releases.contains_key(key) {
            return (Err(reused()), None);
        }
        let (status, error) = match self.find(&request.reservation_id) {
            Some(HoldState::Held) => (CommitStatus::Success, None),
            Some(HoldState::Released) => {
                (CommitStatus::FailedExpired, Some(error("the seats were given back")))
            }
            Some(HoldState::Committed) => {
                (CommitStatus::FailedConflict, Some(error("the seats are sold")))
            }
            None => {
                return (Err(Refusal::not_found("no hold for this reservation")), None);
            }
        };
        if status != CommitStatus::Success {
            let answer =
                CommitReservationResponse { order_id: String::new(), status: status.into(), error };
            return (Ok(answer), None);
        }
        let order_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string();
        let answer = CommitReservationResponse { order_id, status: status.into(), error };
        self.set(&request.reservation_id, HoldState::Committed);
        self.commits.insert(key.clone(), (request.clone(), answer.clone()));
        (Ok(answer), Some(Effect::SeatsCommitted))
    }

    fn find(&mut self, id: &str) -> Option<HoldState> {
        if self.auto_create && !self.holds.contains_key(id) {
            self.set(id, HoldState::Held);
        }
        self.hold(id)
    }
}

fn check_release(request: &ReleaseHoldRequest) -> Result<(), Refusal> {
    check(&request.reservation_id, &request.event_id, &request.idempotency_key)?;
    check_seats(&request.seat_ids, request.quantity)?;
    if matches!(request.reason.as_str(), "EXPIRED" | "FAILED_PAYMENT") {
        return Ok(());
    }
    Err(Refusal::invalid_argument("`reason` must be EXPIRED or FAILED_PAYMENT"))
}

fn check_commit(request: &CommitReservationRequest) -> Result<(), Refusal> {
    check(&request.reservation_id, &request.event_id, &request.idempotency_key)?;
    check_seats(&request.seat_ids, request.quantity)
}

fn check(reservation_id: &str, event_id: &str, key: &str) -> Result<(), Refusal> {
    for (name, value) in
        [("reservation_id", reservation_id), ("event_id", event_id), ("idempotency_key", key)]
    {
        if value.is_empty() {
            return Err(Refusal::invalid_argument(format!("`{name}` is empty")));
        }
    }
    Ok(())
}

fn check_seats(seat_ids: &[String], quantity: i32) -> Result<(), Refusal> {
    let fits = seat_ids.is_empty() || usize::try_from(quantity) == Ok(seat_ids.len());
    if quantity >= 1 && fits {
        return Ok(());
    }
    Err(Refusal::invalid_argument(
        "`quantity` must be 1 or more, and the number of `seat_ids` where there are any",
    ))
}

fn reused() -> Refusal {
    Refusal::invalid_argument("this idempotency_key was used for another request")
}

fn error(message: &str) -> Error {
    Error { code: 409, message: message.to_owned(), trace_id: String::new() }
}
