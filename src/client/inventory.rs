//! The Inventory service: gives held seats back, and turns held seats into sold ones. What a refusal means for an event is left to the handlers.

mod connect;
mod connection;
mod failure;
mod not_grpc;
mod probe;
mod spread;
mod subchannel;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use http::uri::Parts;
use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};
use url::Url;

use super::addresses::Lookup;
use super::classify::{Rpc, classify_commit_status, classify_release_status};
use super::error::{CallError, ClientError, Failure, chain};
use super::proto::common::v1::Error;
use super::proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use super::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
use super::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT_MAX, CallContext, tls};
use crate::credentials::{Credentials, Token};
use crate::deadline::within;
use crate::event::{ReservationId, Seats, ShowId};
use crate::excerpt::Excerpt;
use connect::Target;
use not_grpc::GrpcOnly;
use spread::Spread;
use subchannel::Settings;

/// A connection on which calls were made and nothing arrives for this long, or for an attempt's time where that is longer, is asked
/// whether it still lives. Hardly ever while no call is made, or in the midst of an attempt: servers close connections that ping
/// too much (`too_many_pings`).
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// How long it may take to say so.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where gRPC looks for a call's timeout.
const TIMEOUT_KEY: &str = "grpc-timeout";

/// How often a call is sent that the service does not begin: connections that are ended one after the other are an outage.
const SENT_MAX: u32 = 3;

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
    /// `http://host:port`, or `https://...` for TLS.
    pub uri: String,
    /// Whom to trust, and who the worker is.
    pub credentials: Credentials,
    /// For a whole attempt: connecting, sending, and reading the answer to its end.
    pub timeout: Duration,
}

/// The Inventory service over gRPC: HTTP/2 connections, made when they are first needed and again when they are lost.
#[derive(Debug, Clone)]
pub struct GrpcInventory {
    connections: Spread,
    token: Option<Arc<Token>>,
    timeout: Duration,
    /// As it is told to the service.
    timeout_value: MetadataValue<Ascii>,
}

impl GrpcInventory {
    /// Builds the client. Connects to nothing.
    ///
    /// # Errors
    /// Where the address is not a URL that gRPC can use, or, for `https`, there are no root certificates.
    pub fn new(settings: GrpcSettings) -> Result<Self, ClientError> {
        Self::with_lookup(settings, Lookup::system())
    }

    /// As [`new`](Self::new), with another way to find addresses.
    pub(super) fn with_lookup(settings: GrpcSettings, lookup: Lookup) -> Result<Self, ClientError> {
        let GrpcSettings { uri, credentials, timeout } = settings;
        let wrong = |reason| ClientError::Grpc { address: Excerpt(&uri).to_string(), reason };
        let subchannel = subchannel_settings(&uri, timeout).map_err(wrong)?;
        let target = target(&uri, lookup, &credentials, timeout).map_err(wrong)?;
        let connections = Spread::new(&subchannel, target);
        let timeout_value = timeout_value(timeout);
        Ok(Self { connections, token: credentials.token, timeout, timeout_value })
    }

    /// Asks the service's health, to see whether a gRPC server answers at all.
    ///
    /// # Errors
    /// One line: what is wrong, and what to do about it.
    pub async fn probe(&self) -> Result<String, String> {
        probe::probe(self.channel(), self.timeout).await
    }

    fn channel(&self) -> GrpcOnly {
        let authorization = self.token.as_ref().map(|token| token.current());
        GrpcOnly { subchannel: self.connections.next(), authorization }
    }

    fn client(&self) -> InventoryServiceClient<GrpcOnly> {
        InventoryServiceClient::new(self.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
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
    /// What the service is known not to have begun, as the connection was just being ended (servers do so by age), is sent
    /// again at once: it says nothing about the service.
    async fn call<T, F>(
        &self,
        rpc: Rpc,
        send: impl Fn(InventoryServiceClient<GrpcOnly>) -> F,
    ) -> Result<Option<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = async {
            let mut sent = 1;
            loop {
                let answer = send(self.client()).await;
                let is_unbegun = answer.as_ref().err().is_some_and(failure::is_unbegun);
                if !is_unbegun || sent == SENT_MAX {
                    return answer;
                }
                sent += 1;
            }
        };
        match within(Instant::now() + self.timeout, answer).await {
            Some(Ok(response)) => Ok(Some(response.into_inner())),
            Some(Err(status)) => failure::read(&status, rpc).map(|()| None),
            None => Err(failure::timed_out(self.timeout)),
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

/// What is said over a connection, and how it is watched.
///
/// # Errors
/// What is wrong with the address.
fn subchannel_settings(uri: &str, timeout: Duration) -> Result<Settings, String> {
    let uri: Uri = uri.parse().map_err(|error: http::uri::InvalidUri| chain(&error))?;
    let Parts { scheme: Some(scheme), authority: Some(authority), .. } = uri.into_parts() else {
        return Err("it is not a URL with a host".to_owned());
    };
    Ok(Settings {
        scheme,
        authority,
        keepalive_interval: timeout.max(KEEPALIVE_INTERVAL_MIN),
        keepalive_timeout: KEEPALIVE_TIMEOUT,
    })
}

/// Where connections lead.
///
/// # Errors
/// What is wrong with the address; for `https`, with the roots.
fn target(
    uri: &str,
    lookup: Lookup,
    credentials: &Credentials,
    timeout: Duration,
) -> Result<Target, String> {
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
    let timeout = timeout.min(CONNECT_TIMEOUT_MAX);
    Ok(Target { host, port, lookup, tls, timeout })
}
