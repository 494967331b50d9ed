//! The Inventory service: gives held seats back, and turns held seats into sold ones. What a
//! refusal means for an event is left to the handlers.

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
use crate::credentials::{Credentials, Token};
use crate::event::{ReservationId, Seats, ShowId};
use crate::excerpt::Excerpt;
use channel::BalancedChannel;
use connect::ChannelConnector;
use grpc_only::GrpcOnly;
use resolver::ServiceName;

/// A connection on which calls are made and nothing arrives for this long, or for an attempt's time
/// where that is longer, is pinged. Never while no call is open, and hardly ever in the midst of an
/// attempt: servers close connections that ping too much (`too_many_pings`).
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Where gRPC looks for a call's timeout.
const TIMEOUT_KEY: &str = "grpc-timeout";

/// How often a call is tried that the service does not begin: connections that are ended one after
/// the other are an outage.
const TRIES_MAX: u32 = 5;

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
    /// Gives held seats back; done too where nothing is held any more. Safe to repeat with the same
    /// key.
    ///
    /// # Errors
    /// As the tables of [`classify`](super::classify) have it, and
    /// [`Class::Outage`](super::Class::Outage) where no whole answer came in time.
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

/// What the gRPC client needs to know. Checked where the configuration is.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// `http://host:port`, or `https://...` for TLS.
    pub uri: String,
    /// Whom to trust, and who the worker is.
    pub credentials: Credentials,
    /// For a whole attempt: connecting, sending, and reading the answer to its end.
    pub timeout: Duration,
}

/// The Inventory service over gRPC: a connection to each address of its name, made from the first
/// call on, and again when one is lost.
#[derive(Debug, Clone)]
pub struct GrpcInventory {
    channel: BalancedChannel,
    token: Option<Arc<Token>>,
    timeout: Duration,
    /// As it is told to the service.
    timeout_value: MetadataValue<Ascii>,
}

impl GrpcInventory {
    /// Builds the client. Connects to nothing.
    ///
    /// # Errors
    /// Where the address is not a URL that gRPC can use, or, for `https`, there are no root
    /// certificates.
    pub fn new(settings: GrpcSettings) -> Result<Self, ClientError> {
        Self::with_lookup(settings, Lookup::system())
    }

    /// As [`new`](Self::new), with another way to find addresses.
    pub(super) fn with_lookup(settings: GrpcSettings, lookup: Lookup) -> Result<Self, ClientError> {
        let GrpcSettings { uri, credentials, timeout } = settings;
        let name = service_name(&uri, lookup, &credentials, timeout)
            .map_err(|reason| ClientError::Grpc { address: Excerpt(&uri).to_string(), reason })?;
        let channel = BalancedChannel::new(name);
        let timeout_value = timeout_value(timeout);
        Ok(Self { channel, token: credentials.token, timeout, timeout_value })
    }

    /// Asks the service's health, to see whether a gRPC server answers at all.
    ///
    /// # Errors
    /// One line: what is wrong, and what to do about it.
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

    /// A message with what goes along with each call.
    fn request<T>(&self, call: &CallContext<'_>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // The server learns the deadline too, and need not work for nobody.
        request.metadata_mut().insert(TIMEOUT_KEY, self.timeout_value.clone());
        for (name, value) in call.trace_headers() {
            if let Ok(value) = MetadataValue::<Ascii>::try_from(value) {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }

    /// Calls, and awaits the answer's message; none where a refusal means that the step is done.
    ///
    /// What the service is known not to have begun, as the connection was just being ended (servers
    /// do so by age), is sent again at once: it says nothing about the service.
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

/// A timeout as gRPC spells it.
fn timeout_value(timeout: Duration) -> MetadataValue<Ascii> {
    let mut request = Request::new(());
    request.set_timeout(timeout);
    request.metadata().get(TIMEOUT_KEY).expect("it was just set").clone()
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

/// Where the service is, and how it is connected to.
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
