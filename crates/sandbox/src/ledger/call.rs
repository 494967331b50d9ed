//! One call in the ledger: what came in, what it changed, how it was answered.

use tokio::time::Instant;

use crate::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
use crate::reservation_api::ReservationStatus;

/// Which stand-in was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// The REST service that owns a reservation's status.
    ReservationApi,
    /// The gRPC service that owns seats.
    Inventory,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `GET /internal/reservations/{id}`.
    GetReservation,
    /// `PATCH /internal/reservations/{id}`, with its body as received (`Null` where it was not JSON).
    PatchReservation(serde_json::Value),
    /// `ReleaseHold`.
    ReleaseHold(ReleaseHoldRequest),
    /// `CommitReservation`.
    CommitReservation(CommitReservationRequest),
    /// A path or method that the service does not have.
    Unknown(String),
}

/// A change of state that a call brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The reservation took this status.
    Status(ReservationStatus),
    /// Held seats were given back.
    SeatsReleased,
    /// Held seats were sold.
    SeatsCommitted,
}

/// How a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not answered yet.
    Pending,
    /// An HTTP status.
    Http(u16),
    /// A gRPC code that is not OK.
    Grpc(tonic::Code),
    /// A gRPC answer with this value in its status field (which may be one that the enum does not have).
    GrpcStatus(i32),
    /// An HTTP status, and then the connection was closed in the middle of the body.
    CutShort(u16),
    /// The connection was closed instead of an answer.
    Lost,
}

/// One call, as the service saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Position in the order of arrival, from 0.
    pub sequence: u64,
    /// When it arrived.
    pub at: Instant,
    /// Who was called.
    pub service: Service,
    /// The reservation named, decoded; empty where there was none.
    pub reservation_id: String,
    /// The path as it came over the wire.
    pub raw_path: String,
    /// `Idempotency-Key` or `idempotency_key`.
    pub key: Option<String>,
    /// The W3C `traceparent` that came along.
    pub traceparent: Option<String>,
    /// The W3C `tracestate` that came along.
    pub tracestate: Option<String>,
    /// The W3C `baggage` that came along.
    pub baggage: Option<String>,
    /// X-Ray's header that came along.
    pub xray: Option<String>,
    /// What was asked.
    pub request: Request,
    /// The key had been seen in an earlier call to this service.
    pub repeated_key: bool,
    /// What it changed, and when; `None` for a refusal, a repetition or a read.
    pub effect: Option<(Effect, Instant)>,
    /// How it was answered.
    pub answer: Answer,
    /// When it was answered.
    pub answered_at: Option<Instant>,
    /// A scripted or random fault shaped this answer.
    pub fault: bool,
    /// The caller hung up before the answer; the call took its course all the same.
    pub abandoned: bool,
}

impl Call {
    /// Whether this call changed the service's state.
    #[must_use]
    pub fn applied(&self) -> bool {
        self.effect.is_some()
    }

    /// The rpc or HTTP method, for one-line logs.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.request {
            Request::GetReservation => "GET",
            Request::PatchReservation(_) => "PATCH",
            Request::ReleaseHold(_) => "ReleaseHold",
            Request::CommitReservation(_) => "CommitReservation",
            Request::Unknown(_) => "unknown",
        }
    }
}

/// What is known about a call when it comes in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) service: Service,
    pub(crate) reservation_id: String,
    pub(crate) raw_path: String,
    pub(crate) key: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
    pub(crate) baggage: Option<String>,
    pub(crate) xray: Option<String>,
    pub(crate) request: Request,
}
