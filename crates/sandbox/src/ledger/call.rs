//! An entry of the ledger: request, effect and response of one call.

use tokio::time::Instant;

use crate::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
use crate::reservation_api::ReservationStatus;

/// The stand-in that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// The REST service that owns a reservation's status.
    ReservationApi,
    /// The gRPC service that owns seats.
    Inventory,
}

/// The request of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `GET /internal/reservations/{id}`.
    GetReservation,
    /// `PATCH /internal/reservations/{id}`, with its body (`Null` if it was not JSON).
    PatchReservation(serde_json::Value),
    /// `ReleaseHold`.
    ReleaseHold(ReleaseHoldRequest),
    /// `CommitReservation`.
    CommitReservation(CommitReservationRequest),
    /// An unknown path or method.
    Unknown(String),
}

/// A change of state by a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The reservation got this status.
    Status(ReservationStatus),
    /// Held seats were released.
    SeatsReleased,
    /// Held seats were sold.
    SeatsCommitted,
}

/// The response to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not answered yet.
    Pending,
    /// An HTTP status.
    Http(u16),
    /// A gRPC code other than OK.
    Grpc(tonic::Code),
    /// A gRPC response with this value in its status field, which may be unknown to the enum.
    GrpcStatus(i32),
    /// An HTTP status; the connection was closed in the middle of the body.
    CutShort(u16),
    /// The connection was closed without a response.
    Lost,
}

/// One call, as the service received it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The position in the order of arrival, from 0.
    pub sequence: u64,
    /// The time of arrival.
    pub at: Instant,
    /// The service that was called.
    pub service: Service,
    /// The decoded reservation id; empty without one.
    pub reservation_id: String,
    /// The path as received.
    pub raw_path: String,
    /// `Idempotency-Key` or `idempotency_key`.
    pub key: Option<String>,
    /// The received W3C `traceparent`.
    pub traceparent: Option<String>,
    /// The received W3C `tracestate`.
    pub tracestate: Option<String>,
    /// The received W3C `baggage`.
    pub baggage: Option<String>,
    /// The received X-Ray header.
    pub xray: Option<String>,
    /// The request.
    pub request: Request,
    /// Whether this service has received the key before.
    pub repeated_key: bool,
    /// The effect with its time; `None` for a refusal, a repetition or a read.
    pub effect: Option<(Effect, Instant)>,
    /// The response.
    pub answer: Answer,
    /// The time of the response.
    pub answered_at: Option<Instant>,
    /// Whether a scripted or random fault changed the response.
    pub fault: bool,
    /// Whether the client disconnected before the response; the call still ran to its end.
    pub abandoned: bool,
}

impl Call {
    /// Returns whether this call changed the service's state.
    #[must_use]
    pub fn applied(&self) -> bool {
        self.effect.is_some()
    }

    /// Returns the rpc or HTTP method, for log lines.
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

/// The known facts when a call arrives.
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
