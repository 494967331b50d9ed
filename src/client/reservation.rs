//! Client of the Reservation API. The handlers decide what a conflict means for an event.

mod answer;
mod connections;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{ClientBuilder, RequestBuilder, Response, Url};
use serde::Serialize;
use uuid::Uuid;

use super::classify::{HttpCall, classify_http, classify_not_json};
use super::error::{CallError, Class, ClientError, Failure, chain};
use super::lookup::Lookup;
use super::{CONNECT_TIMEOUT_MAX, CallContext, USER_AGENT, tls};
use crate::credentials::{BearerToken, Credentials};
use crate::escaped::Escaped;
use crate::event::{ReservationId, Seats, ShowId};
use answer::{Body, ErrorAnswer, found, is_json_or_empty, named};
use connections::Connections;

/// Characters to encode in a path segment: all but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const JSON: &str = "application/json";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Reservation that `check` reads. It need not exist.
const PROBE_ID: &str = "reservation-worker-check";

/// Returns an id as one percent-encoded path segment (RFC 3986, section 3.3).
pub(crate) fn path_segment(id: &str) -> impl fmt::Display {
    utf8_percent_encode(id, SEGMENT)
}

/// Returns `{base}/internal/reservations/{id}`. `prefix` is the base's path without an end slash.
pub(super) fn url(base: &Url, prefix: &str, id: &str) -> Url {
    let segment = path_segment(id);
    let mut url = base.clone();
    url.set_path(&format!("{prefix}/internal/reservations/{segment}"));
    url
}

/// Status that an event requests for its reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetStatus {
    /// The hold expired.
    Expired,
    /// The reservation is paid.
    Confirmed,
    /// The payment failed.
    Cancelled,
}

impl TargetStatus {
    /// Returns the API's name of the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "EXPIRED",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// Status of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReservationStatus {
    /// The seats are sold.
    Confirmed,
    /// The hold expired.
    Expired,
    /// The reservation was cancelled.
    Cancelled,
    /// Any other status, quoted, escaped and cut. For logs only.
    Other(String),
}

/// A reservation as the API returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The status.
    pub status: ReservationStatus,
    /// The show, if the answer names one.
    pub show_id: Option<ShowId>,
    /// The seats or their number, if the answer names them and they are valid for an event.
    pub seats: Option<Seats>,
}

/// Calls of the Reservation API.
///
/// If the future of a call is dropped, the call is abandoned: whether it took effect is unknown.
#[async_trait]
pub trait ReservationApi: Send + Sync {
    /// Sets the status, with the payment if there is one. Safe to repeat with the same key.
    ///
    /// # Errors
    /// [`Class::Conflict`] where the state of the reservation does not allow it; else the class of
    /// [`classify_http`]. [`Class::Outage`] where no complete answer came in time, or a success has
    /// a body that is not JSON.
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), CallError>;

    /// Reads the reservation. Changes nothing.
    ///
    /// # Errors
    /// As [`set_status`](Self::set_status), without the conflict. A success without a status is
    /// [`Class::Transient`].
    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError>;
}

/// Settings of the HTTP client. The configuration validates them.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Base URL. Its path is a prefix; query and fragment are ignored.
    pub base: Url,
    /// Trusted roots, client certificate and token.
    pub credentials: Credentials,
    /// Timeout of a whole attempt: connect, send, and read the complete answer.
    pub timeout: Duration,
    /// Maximum idle connections: as many as there are concurrent calls.
    pub idle_connections_max: usize,
}

/// HTTP/1.1 client of the Reservation API.
#[derive(Debug, Clone)]
pub struct HttpReservationApi {
    connections: Connections,
    token: Option<Arc<BearerToken>>,
    /// The base without query and fragment; its path is `prefix`.
    base: Url,
    /// The path of the base without a slash at its end.
    prefix: String,
    timeout: Duration,
}

impl HttpReservationApi {
    /// Builds the client. Opens no connection.
    ///
    /// # Errors
    /// Where TLS is not available: no crypto provider, or, for an `https` base, no root
    /// certificates.
    pub fn new(settings: HttpSettings) -> Result<Self, ClientError> {
        Self::with_lookup(settings, Lookup::system())
    }

    /// As [`new`](Self::new), with another resolver.
    pub(super) fn with_lookup(settings: HttpSettings, lookup: Lookup) -> Result<Self, ClientError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ClientError::NoCryptoProvider);
        }
        let HttpSettings { mut base, credentials, timeout, idle_connections_max } = settings;
        base.set_query(None);
        base.set_fragment(None);
        let prefix = base.path().trim_end_matches('/').to_owned();
        let tls = match base.scheme() {
            "http" => None,
            _ => Some(tls::client_config(&credentials, b"http/1.1").map_err(ClientError::Http)?),
        };
        let build = move || client_builder(timeout, lookup.clone(), tls.clone());
        let connections = Connections::new(build, idle_connections_max, timeout)
            .map_err(|error| ClientError::Http(chain(&error)))?;
        Ok(Self { connections, token: credentials.token, base, prefix, timeout })
    }

    /// Reads a reservation that need not exist, to check that the Reservation API answers.
    ///
    /// # Errors
    /// One line: the problem and its remedy.
    pub async fn probe(&self) -> Result<String, String> {
        let request = self.to(Method::GET, PROBE_ID);
        let mut response = self.send(request).await.map_err(|error| {
            format!("{error}; see that RESERVATION_API_BASE is right and that the service is up and can be reached from here")
        })?;
        let status = response.status();
        let location = response
            .headers()
            .get(LOCATION)
            .map(|to| Escaped(&String::from_utf8_lossy(to.as_bytes())).to_string());
        let from_api = if status.is_success() {
            matches!(found(&mut response).await, Ok(Body::Reservation(_)))
        } else {
            ErrorAnswer::read(response).await.api_error.is_some()
        };
        match status.as_u16() {
            300..=399 => Err(format!(
                "redirects (HTTP {status}) to {}; redirects are not followed: set RESERVATION_API_BASE to where the API is",
                location.as_deref().unwrap_or("nowhere")
            )),
            401 | 403 => Err(format!("refuses this client (HTTP {status}); see what it asks for")),
            429 | 500..=599 => {
                Err(format!("is reached but not well (HTTP {status}); see its own logs"))
            }
            _ if from_api => Ok(format!("answers as the Reservation API (HTTP {status})")),
            _ => Err(format!(
                "answers (HTTP {status}), but not as the Reservation API; check the path of RESERVATION_API_BASE"
            )),
        }
    }

    fn url(&self, id: &str) -> Url {
        url(&self.base, &self.prefix, id)
    }

    /// Returns a request with the token, if there is one.
    fn to(&self, method: Method, id: &str) -> RequestBuilder {
        let request = self.connections.client().request(method, self.url(id));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, HeaderValue::clone(&token.current())),
            None => request,
        }
    }

    /// Returns a request with the headers that every call has.
    fn request(
        &self,
        method: Method,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> RequestBuilder {
        let mut request =
            self.to(method, id.as_str()).header(ACCEPT, HeaderValue::from_static(JSON));
        for (name, value) in call.trace_headers() {
            if let Ok(value) = HeaderValue::from_str(value) {
                request = request.header(HeaderName::from_static(name), value);
            }
        }
        request
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        self.connections.send(request).await.map_err(|error| self.broken(error))
    }

    async fn send_noted(
        &self,
        request: RequestBuilder,
        call: &CallContext<'_>,
    ) -> Result<Response, CallError> {
        let response = self.send(request).await?;
        if let Some(answered) = call.answered {
            answered.note(response.status());
        }
        Ok(response)
    }

    /// Returns the error of a call without a complete answer.
    fn broken(&self, error: reqwest::Error) -> CallError {
        if error.is_timeout() {
            let detail = format!("no whole answer within {} ms", self.timeout.as_millis());
            // A connect timeout shows nothing about the load of the service.
            let failure = if error.is_connect() {
                Failure::new(Class::Outage, "timeout")
            } else {
                Failure::timed_out("timeout")
            };
            return failure.explain(&detail);
        }
        let code = if error.is_connect() { "connect" } else { "transport" };
        Failure::new(Class::Outage, code).explain(&chain(&error.without_url()))
    }

    /// Returns the error of an answer that is not success.
    async fn refused(&self, response: Response, call: HttpCall) -> CallError {
        let answer = ErrorAnswer::read(response).await;
        let read = |from_api| {
            classify_http(answer.status, from_api, answer.retry_after, call)
                .expect_err("asked only about answers that are not success")
        };
        let failure = read(answer.api_error.is_some());
        let would_be_final = matches!(read(true).class, Class::Permanent | Class::Forbidden);
        let detail = answer.describe();
        match answer.broken {
            // An incomplete answer does not show whether the API sent it, so it is never permanent.
            Some(error) if would_be_final => self.broken(error),
            Some(_) | None => failure.explain(&detail),
        }
    }
}

/// Returns a client builder without the idle settings. `tls` is `None` for plain HTTP.
fn client_builder(
    timeout: Duration,
    lookup: Lookup,
    tls: Option<rustls::ClientConfig>,
) -> ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .timeout(timeout)
        .connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX))
        .tcp_nodelay(true)
        .http1_only()
        .referer(false)
        // A redirect is a misconfiguration, and could turn a `PATCH` into another method.
        .redirect(reqwest::redirect::Policy::none())
        // The worker owns the retries.
        .retry(reqwest::retry::never())
        .dns_resolver(lookup)
        // The default reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
        .no_proxy();
    match tls {
        // Plain HTTP needs no root certificates, so the machine's are not loaded.
        None => builder.tls_certs_only([]),
        Some(config) => builder.tls_backend_preconfigured(config),
    }
}

/// Body of the `PATCH`.
#[derive(Serialize)]
struct SetStatus<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_intent_id: Option<&'a str>,
}

#[async_trait]
impl ReservationApi for HttpReservationApi {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        let body = SetStatus { status: target.as_str(), payment_intent_id };
        let body = serde_json::to_vec(&body).expect("strings always have a JSON form");
        let mut key = Uuid::encode_buffer();
        let key = call.idempotency_key.hyphenated().encode_lower(&mut key);
        let request = self
            .request(Method::PATCH, call, id)
            .header(CONTENT_TYPE, HeaderValue::from_static(JSON))
            .header(IDEMPOTENCY_KEY, &*key)
            .body(body);
        let mut response = self.send_noted(request, call).await?;
        if !response.status().is_success() {
            return Err(self.refused(response, HttpCall::SetStatus).await);
        }
        match is_json_or_empty(&mut response).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(not_json(&response)),
            Err(error) => Err(self.broken(error)),
        }
    }

    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        let mut response = self.send_noted(self.request(Method::GET, call, id), call).await?;
        if !response.status().is_success() {
            return Err(self.refused(response, HttpCall::Status).await);
        }
        match found(&mut response).await.map_err(|error| self.broken(error))? {
            Body::Reservation(reservation) => Ok(reservation),
            Body::NoStatus => Err(bad_answer(&response, "names no reservation status")),
            Body::TooLong => Err(bad_answer(&response, "is longer than 64 KiB")),
            Body::NotJson => Err(not_json(&response)),
        }
    }
}

/// Returns the error of a success without the reservation's status.
fn bad_answer(response: &Response, what: &str) -> CallError {
    let detail = format!("HTTP {} whose body {what}", response.status().as_u16());
    Failure::new(Class::Transient, "bad_answer").explain(&detail)
}

/// Returns the error of a success that did not come from this API.
fn not_json(response: &Response) -> CallError {
    let detail = format!("HTTP {} whose body is not JSON", response.status().as_u16());
    classify_not_json(named(response)).explain(&detail)
}
