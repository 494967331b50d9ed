//! Client of the Inventory service: releases held seats, and turns held seats into sold ones.
//!
//! The handlers decide what a refusal means for an event.

mod channel;
mod connect;
mod endpoints;
mod grpc_only;
mod probe;
mod resolver;
mod status;
#[cfg(test)]
mod tests;
mod unbegun;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};
use url::Url;

use super::classify::{Rpc, classify_commit_status, classify_release_status};
use super::error::{CallError, ClientError, Failure, chain};
use super::lookup::Lookup;
use super::proto::common::v1::Error;
use super::proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use super::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
use super::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT_MAX, CallContext, tls};
use crate::credentials::{BearerToken, Credentials};
use crate::escaped::Escaped;
use crate::event::{ReservationId, Seats, ShowId};
use channel::BalancedChannel;
use connect::ChannelConnector;
use grpc_only::GrpcOnly;
use resolver::ServiceName;

/// Minimum keepalive interval; an attempt's timeout applies where it is longer.
///
/// A connection with open calls on which nothing arrives for this long is pinged. An idle
/// connection is never pinged, and an attempt hardly ever sees a ping: servers close connections
/// that ping too much (`too_many_pings`).
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Metadata key of gRPC's call timeout.
const TIMEOUT_KEY: &str = "grpc-timeout";

/// Maximum tries of a call that the service does not process.
///
/// Connections that are closed one after the other are an outage.
const TRIES_MAX: u32 = 5;

/// Reason of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseReason {
    /// The hold expired.
    Expired,
    /// The payment failed.
    FailedPayment,
}

impl ReleaseReason {
    /// Returns the service's name of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "EXPIRED",
            Self::FailedPayment => "FAILED_PAYMENT",
        }
    }
}

/// Arguments of `ReleaseHold`.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseHold<'a> {
    /// The reservation that holds the seats.
    pub reservation_id: &'a ReservationId,
    /// The show of the seats.
    pub show_id: &'a ShowId,
    /// The seats, or their number.
    pub seats: &'a Seats,
    /// The reason.
    pub reason: ReleaseReason,
}

/// Arguments of `CommitReservation`.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The reservation that holds the seats.
    pub reservation_id: &'a ReservationId,
    /// The show of the seats.
    pub show_id: &'a ShowId,
    /// The seats, or their number.
    pub seats: &'a Seats,
    /// The payment, if the event names it.
    pub payment_intent_id: Option<&'a str>,
    /// The user who pays, if the event names them.
    pub user_id: Option<&'a str>,
}

/// Calls of the Inventory service.
///
/// If the future of a call is dropped, the call is abandoned: whether it took effect is unknown.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Releases held seats. Safe to repeat with the same key.
    ///
    /// Succeeds too if nothing is held any more.
    ///
    /// # Errors
    /// The classes of [`classify`](super::classify), and [`Class::Outage`](super::Class::Outage)
    /// where no complete answer came in time.
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        release: ReleaseHold<'_>,
    ) -> Result<(), CallError>;

    /// Turns held seats into sold ones. Safe to repeat with the same key.
    ///
    /// # Errors
    /// As [`release_hold`](Self::release_hold);
    /// [`Class::MoneyWithoutSeat`](super::Class::MoneyWithoutSeat) where the service refuses the
    /// seats.
    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError>;
}

/// Settings of the gRPC client. The configuration validates them.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// `http://host:port`, or `https://...` for TLS.
    pub uri: String,
    /// Trusted roots, client certificate and token.
    pub credentials: Credentials,
    /// Timeout of a whole attempt: connect, send, and read the complete answer.
    pub timeout: Duration,
}

/// gRPC client of the Inventory service.
///
/// Has one connection to each address of the service's name. The first call opens them; a lost
/// connection is opened again.
#[derive(Debug, Clone)]
pub struct GrpcInventory {
    channel: BalancedChannel,
    token: Option<Arc<BearerToken>>,
    timeout: Duration,
    /// The timeout as sent to the service.
    timeout_value: MetadataValue<Ascii>,
}

impl GrpcInventory {
    /// Builds the client. Opens no connection.
    ///
    /// # Errors
    /// Where the address is not a URL that gRPC can use, or, for `https`, there are no root
    /// certificates.
    pub fn new(settings: GrpcSettings) -> Result<Self, ClientError> {
        Self::with_lookup(settings, Lookup::system())
    }

    /// As [`new`](Self::new), with another resolver.
    pub(super) fn with_lookup(settings: GrpcSettings, lookup: Lookup) -> Result<Self, ClientError> {
        let GrpcSettings { uri, credentials, timeout } = settings;
        let name = service_name(&uri, lookup, &credentials, timeout)
            .map_err(|reason| ClientError::Grpc { address: Escaped(&uri).to_string(), reason })?;
        let channel = BalancedChannel::new(name);
        let timeout_value = timeout_value(timeout);
        Ok(Self { channel, token: credentials.token, timeout, timeout_value })
    }

    /// Calls the service's health check, to check that a gRPC server answers.
    ///
    /// # Errors
    /// One line: the problem and its remedy.
    pub async fn probe(&self) -> Result<String, String> {
        probe::probe(self.grpc_only(), self.timeout).await
    }

    fn grpc_only(&self) -> GrpcOnly {
        let authorization = self.token.as_ref().map(|token| token.current());
        GrpcOnly { channel: self.channel.clone(), authorization }
    }

    fn client(&self) -> InventoryServiceClient<GrpcOnly> {
        InventoryServiceClient::new(self.grpc_only()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Returns a request with the metadata that every call has.
    fn request<T>(&self, call: &CallContext<'_>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // The server learns the deadline, so that it can stop work on an abandoned call.
        request.metadata_mut().insert(TIMEOUT_KEY, self.timeout_value.clone());
        for (name, value) in call.trace_headers() {
            if let Ok(value) = MetadataValue::<Ascii>::try_from(value) {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }

    /// Calls, and returns the message of the answer; `None` if a refusal means success.
    ///
    /// A call that the service certainly did not process, because the connection was being closed,
    /// is sent again at once. Servers close connections by age; this shows nothing about the
    /// service.
    async fn call<T, F>(
        &self,
        rpc: Rpc,
        send: impl Fn(InventoryServiceClient<GrpcOnly>) -> F,
    ) -> Result<Option<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = async {
            let mut tries = 1;
            loop {
                let answer = send(self.client()).await;
                let is_unbegun = answer.as_ref().err().is_some_and(status::is_unbegun);
                if !is_unbegun || tries == TRIES_MAX {
                    return answer;
                }
                tries += 1;
            }
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => Ok(Some(response.into_inner())),
            Ok(Err(status)) => status::read(&status, rpc, self.timeout).map(|()| None),
            Err(_elapsed) => Err(status::timed_out(self.timeout)),
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
        let message = || ReleaseHoldRequest {
            reservation_id: release.reservation_id.as_str().to_owned(),
            event_id: release.show_id.as_str().to_owned(),
            seat_ids: release.seats.seat_ids.iter().map(str::to_owned).collect(),
            quantity: release.seats.quantity,
            reason: release.reason.as_str().to_owned(),
            idempotency_key: call.idempotency_key.to_string(),
        };
        let send = |mut client: InventoryServiceClient<GrpcOnly>| {
            let request = self.request(call, message());
            async move { client.release_hold(request).await }
        };
        match self.call(Rpc::ReleaseHold, send).await? {
            Some(done) => classify_release_status(done.status)
                .map_err(|failure| explain(failure, "ReleaseStatus", done.status, done.error)),
            None => Ok(()),
        }
    }

    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError> {
        let message = || CommitReservationRequest {
            reservation_id: commit.reservation_id.as_str().to_owned(),
            event_id: commit.show_id.as_str().to_owned(),
            seat_ids: commit.seats.seat_ids.iter().map(str::to_owned).collect(),
            quantity: commit.seats.quantity,
            payment_intent_id: commit.payment_intent_id.unwrap_or_default().to_owned(),
            user_id: commit.user_id.unwrap_or_default().to_owned(),
            idempotency_key: call.idempotency_key.to_string(),
        };
        let send = |mut client: InventoryServiceClient<GrpcOnly>| {
            let request = self.request(call, message());
            async move { client.commit_reservation(request).await }
        };
        match self.call(Rpc::Commit, send).await? {
            Some(done) => classify_commit_status(done.status)
                .map_err(|failure| explain(failure, "CommitStatus", done.status, done.error)),
            None => Ok(()),
        }
    }
}

/// Returns a timeout in gRPC's format.
fn timeout_value(timeout: Duration) -> MetadataValue<Ascii> {
    let mut request = Request::new(());
    request.set_timeout(timeout);
    request.metadata().get(TIMEOUT_KEY).expect("it was just set").clone()
}

/// Returns the error of an answer whose status is not success, with the service's own error.
fn explain(failure: Failure, name: &str, status: i32, error: Option<Error>) -> CallError {
    let detail = match error {
        Some(Error { code, message, trace_id }) => {
            let (message, trace_id) = (Escaped(&message), Escaped(&trace_id));
            format!("{name} {status}, code {code}, trace_id {trace_id}, message {message}")
        }
        None => format!("{name} {status}"),
    };
    failure.explain(&detail)
}

/// Returns the service's name and its connector.
///
/// # Errors
/// What is wrong with the address; for `https`, with the roots.
fn service_name(
    uri: &str,
    lookup: Lookup,
    credentials: &Credentials,
    timeout: Duration,
) -> Result<ServiceName, String> {
    let origin: Uri = uri.parse().map_err(|error: http::uri::InvalidUri| chain(&error))?;
    if origin.scheme().is_none() || origin.authority().is_none() {
        return Err("it is not a URL with a host".to_owned());
    }
    let url = Url::parse(uri).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("it names no host")?;
    // Brackets belong to the URL, not to the address.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_or_known_default().ok_or("it names no port")?;
    let tls = if url.scheme() == "https" {
        let config = tls::client_config(credentials, b"h2")?;
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        Some((TlsConnector::from(Arc::new(config)), name))
    } else {
        None
    };
    let keepalive_interval = timeout.max(KEEPALIVE_INTERVAL_MIN);
    let connector = ChannelConnector::new(origin, tls, keepalive_interval, CONNECT_TIMEOUT_MAX);
    Ok(ServiceName { host, port, lookup, timeout: CONNECT_TIMEOUT_MAX, connector })
}
