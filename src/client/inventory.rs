//! The Inventory service: gives held seats back, and turns held seats into sold ones. What a refusal means for an event is left to the handlers.

mod failure;
mod probe;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use super::classify::{Rpc, classify_commit_status, classify_release_status};
use super::error::{CallError, ClientError, Failure, chain};
use super::not_grpc::GrpcOnly;
use super::proto::common::v1::Error;
use super::proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use super::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
use super::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT_MAX, CallContext, USER_AGENT};
use crate::event::{ReservationId, Seats, ShowId};
use crate::excerpt::Excerpt;

/// A connection with calls open on which nothing arrives for this long, or for an attempt's time where that is longer, is asked
/// whether it still lives. Never while no call is open, and never in the midst of an attempt: servers close connections that
/// ping too much (`too_many_pings`).
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// How long it may take to say so.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why seats are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseReason {
    /// The hold ran out.
    Expired,
    /// The payment failed.
    FailedPayment,
}

impl ReleaseReason {
    /// As the service spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "EXPIRED",
            Self::FailedPayment => "FAILED_PAYMENT",
        }
    }
}

/// What `ReleaseHold` says.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseHold<'a> {
    /// Whose seats.
    pub reservation_id: &'a ReservationId,
    /// The show that they belong to.
    pub show_id: &'a ShowId,
    /// Which, or how many.
    pub seats: &'a Seats,
    /// Why.
    pub reason: ReleaseReason,
}

/// What `CommitReservation` says.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// Whose seats.
    pub reservation_id: &'a ReservationId,
    /// The show that they belong to.
    pub show_id: &'a ShowId,
    /// Which, or how many.
    pub seats: &'a Seats,
    /// The payment, where the event names it.
    pub payment_intent_id: Option<&'a str>,
    /// Who pays, where the event names them.
    pub user_id: Option<&'a str>,
}

/// What the worker asks of the Inventory service.
///
/// Dropping a call's future gives up waiting for it: whether it took effect is then unknown.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Gives held seats back; done too where nothing is held any more. Safe to repeat with the same key.
    ///
    /// # Errors
    /// As the tables of [`classify`](super::classify) have it, and [`Class::Outage`](super::Class::Outage) where no whole
    /// answer came in time.
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        release: ReleaseHold<'_>,
    ) -> Result<(), CallError>;

    /// Turns held seats into sold ones. Safe to repeat with the same key.
    ///
    /// # Errors
    /// As [`release_hold`](Self::release_hold); [`Class::MoneyWithoutSeat`](super::Class::MoneyWithoutSeat) where the service
    /// refuses the seats.
    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError>;
}

/// What the gRPC client needs to know. Checked where the configuration is.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// `http://host:port`, or `https://...` for TLS with the machine's root certificates.
    pub uri: String,
    /// For a whole attempt: connecting, sending, and reading the answer to its end.
    pub timeout: Duration,
}

/// The Inventory service over gRPC: one HTTP/2 connection, made when it is first needed and again when it is lost.
#[derive(Debug, Clone)]
pub struct GrpcInventory {
    channel: GrpcOnly,
    timeout: Duration,
}

impl GrpcInventory {
    /// Builds the client. Connects to nothing. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Where the address is not a URL that gRPC can use, or, for `https`, this machine has no root certificates.
    pub fn new(settings: GrpcSettings) -> Result<Self, ClientError> {
        let GrpcSettings { uri, timeout } = settings;
        let endpoint = endpoint(&uri, timeout).map_err(|error| ClientError::Grpc {
            address: Excerpt(&uri).to_string(),
            reason: chain(&error),
        })?;
        Ok(Self { channel: GrpcOnly(endpoint.connect_lazy()), timeout })
    }

    /// Asks the service's health, to see whether a gRPC server answers at all.
    ///
    /// # Errors
    /// One line: what is wrong, and what to do about it.
    pub async fn probe(&self) -> Result<String, String> {
        probe::probe(self.channel.clone(), self.timeout).await
    }

    fn client(&self) -> InventoryServiceClient<GrpcOnly> {
        InventoryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// A message with what goes along with each call.
    fn request<T>(&self, call: &CallContext<'_>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // The server learns the deadline too, and need not work for nobody.
        request.set_timeout(self.timeout);
        let trace = [("traceparent", call.traceparent), ("tracestate", call.tracestate)];
        for (name, value) in trace {
            if let Some(Ok(value)) = value.map(MetadataValue::<Ascii>::try_from) {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }

    /// Awaits an answer's message; none where a refusal means that the step is done.
    async fn answer<T>(
        &self,
        rpc: Rpc,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, CallError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => Ok(Some(response.into_inner())),
            Ok(Err(status)) => failure::read(&status, rpc, self.timeout).map(|()| None),
            Err(_elapsed) => Err(failure::timed_out(self.timeout)),
        }
    }
}

#[async_trait]
impl Inventory for GrpcInventory {
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        release: ReleaseHold<'_>,
    ) -> Result<(), CallError> {
        let message = ReleaseHoldRequest {
            reservation_id: release.reservation_id.as_str().to_owned(),
            event_id: release.show_id.as_str().to_owned(),
            seat_ids: release.seats.seat_ids.iter().map(str::to_owned).collect(),
            quantity: release.seats.quantity,
            reason: release.reason.as_str().to_owned(),
            idempotency_key: call.idempotency_key.to_string(),
        };
        let mut client = self.client();
        let answer = client.release_hold(self.request(call, message));
        match self.answer(Rpc::ReleaseHold, answer).await? {
            Some(done) => classify_release_status(done.status)
                .map_err(|failure| explain(failure, "ReleaseStatus", done.status, done.error)),
            None => Ok(()),
        }
    }

    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError> {
        let message = CommitReservationRequest {
            reservation_id: commit.reservation_id.as_str().to_owned(),
            event_id: commit.show_id.as_str().to_owned(),
            seat_ids: commit.seats.seat_ids.iter().map(str::to_owned).collect(),
            quantity: commit.seats.quantity,
            payment_intent_id: commit.payment_intent_id.unwrap_or_default().to_owned(),
            user_id: commit.user_id.unwrap_or_default().to_owned(),
            idempotency_key: call.idempotency_key.to_string(),
        };
        let mut client = self.client();
        let answer = client.commit_reservation(self.request(call, message));
        match self.answer(Rpc::Commit, answer).await? {
            Some(done) => classify_commit_status(done.status)
                .map_err(|failure| explain(failure, "CommitStatus", done.status, done.error)),
            None => Ok(()),
        }
    }
}

/// Says what the service says about a status that is not success.
fn explain(failure: Failure, name: &str, status: i32, error: Option<Error>) -> CallError {
    let detail = match error {
        Some(Error { code, message, trace_id }) => {
            let (message, trace_id) = (Excerpt(&message), Excerpt(&trace_id));
            format!("{name} {status}, code {code}, trace_id {trace_id}, message {message}")
        }
        None => format!("{name} {status}"),
    };
    failure.explain(&detail)
}

fn endpoint(uri: &str, timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(uri.to_owned())?
        .user_agent(USER_AGENT)?
        .connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(timeout.max(KEEPALIVE_INTERVAL_MIN))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(false);
    if endpoint.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
        return endpoint.tls_config(ClientTlsConfig::new().with_native_roots());
    }
    Ok(endpoint)
}
