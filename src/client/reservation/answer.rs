//! Reads the answers of the Reservation API, up to a size limit.
//!
//! `classify` decides what an answer means.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::Response;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{JSON, Reservation, ReservationStatus};
use crate::client::{ANSWER_BYTES_MAX, retry_after};
use crate::escaped::Escaped;
use crate::event::{Seats, ShowId};

/// Maximum time to read the rest of a success before its connection is closed.
///
/// The step is done by then: reading on only saves a new connection.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(250);

/// UTF-8's byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// An answer that is not success.
pub(super) struct ErrorAnswer {
    pub(super) status: StatusCode,
    /// The API's own error; `None` where another server answered.
    pub(super) api_error: Option<ApiError>,
    pub(super) retry_after: Option<Duration>,
    /// Set where the body is incomplete.
    pub(super) broken: Option<reqwest::Error>,
}

/// The API's own error; its values are quoted, escaped and cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    code: String,
    message: String,
    trace_id: String,
}

impl ErrorAnswer {
    pub(super) async fn read(mut response: Response) -> Self {
        let mut body = Vec::new();
        let (is_whole, broken) = match read_rest(&mut response, &mut body).await {
            Ok(is_whole) => (is_whole, None),
            Err(error) => (false, Some(error)),
        };
        let api_error = if is_whole { ApiError::parse(&body) } else { None };
        let retry_after = named(&response);
        Self { status: response.status(), api_error, retry_after, broken }
    }

    /// Returns one line for the log.
    pub(super) fn describe(&self) -> String {
        let status = self.status.as_u16();
        match &self.api_error {
            Some(ApiError { code, message, trace_id }) => {
                format!("HTTP {status}, code {code}, trace_id {trace_id}, message {message}")
            }
            None => format!("HTTP {status} without the API's error body"),
        }
    }
}

impl ApiError {
    /// Parses the API's error. `code` and `message` are required; `trace_id` is only logged.
    fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(plain(body)).ok()?;
        let error = body.get("error")?;
        let short = |text: &str| Escaped(text).to_string();
        let code = error.get("code")?;
        let code =
            code.as_str().map(short).or_else(|| code.as_i64().map(|number| number.to_string()))?;
        let message = error.get("message")?.as_str().map(short)?;
        let trace_id = error
            .get("trace_id")
            .and_then(Value::as_str)
            .map(short)
            .unwrap_or_else(|| "none".into());
        Some(Self { code, message, trace_id })
    }
}

/// Returns the delay of the `Retry-After` header.
pub(super) fn named(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?;
    retry_after::parse(value.as_bytes(), SystemTime::now())
}

/// Body of a success of `GET`.
pub(super) enum Body {
    /// A reservation.
    Reservation(Reservation),
    /// JSON without a status.
    NoStatus,
    /// Begins like JSON, but is longer than [`ANSWER_BYTES_MAX`].
    TooLong,
    /// Not JSON, or empty.
    NotJson,
}

/// Reads the reservation from the answer to a `GET`. Only the status is required.
///
/// # Errors
/// Where the body is incomplete.
pub(super) async fn found(response: &mut Response) -> Result<Body, reqwest::Error> {
    let mut body = Vec::new();
    if !read_rest(response, &mut body).await? {
        let is_like_json = first(&body).is_some_and(opens_json);
        return Ok(if is_like_json { Body::TooLong } else { Body::NotJson });
    }
    let Ok(body) = serde_json::from_slice::<Value>(plain(&body)) else {
        return Ok(Body::NotJson);
    };
    let Some(status) = body.get("status").and_then(Value::as_str) else {
        return Ok(Body::NoStatus);
    };
    let status = match status {
        "CONFIRMED" => ReservationStatus::Confirmed,
        "EXPIRED" => ReservationStatus::Expired,
        "CANCELLED" => ReservationStatus::Cancelled,
        other => ReservationStatus::Other(Escaped(other).to_string()),
    };
    let show_id = body.get("event_id").and_then(Value::as_str);
    let show_id = show_id.and_then(|text| ShowId::new(text).ok());
    Ok(Body::Reservation(Reservation { status, show_id, seats: seats(&body) }))
}

/// Returns the seats of the reservation, or their number.
///
/// `None` if the seat names cannot be read: the number does not replace them.
fn seats(reservation: &Value) -> Option<Seats> {
    let given = |key| reservation.get(key).filter(|value| !value.is_null());
    let seat_ids: Vec<&str> = match given("seat_ids") {
        None => Vec::new(),
        Some(list) => list.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?,
    };
    let quantity = match given("quantity") {
        None => None,
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) => return None,
    };
    Seats::known(&seat_ids, quantity.as_deref())
}

/// Whether the body of a success is JSON or empty, as this API's are.
///
/// The body is read to its end, so that the connection can be reused. A body that is too long, slow
/// or incomplete is judged by its first byte; if not even that arrives, by the content type.
///
/// # Errors
/// Where no part of the body arrives and the content type is not JSON.
pub(super) async fn is_json_or_empty(response: &mut Response) -> Result<bool, reqwest::Error> {
    let mut body = Vec::new();
    let first = loop {
        let blank = body.len();
        match read_chunk(response, &mut body).await {
            Ok(true) => {}
            Ok(false) => return Ok(body.is_empty()),
            Err(_) if is_called_json(response) => return Ok(true),
            Err(error) => return Err(error),
        }
        if let Some(first) = first(&body[blank..]) {
            break first;
        }
        if body.len() >= ANSWER_BYTES_MAX {
            return Ok(false);
        }
    };
    if !opens_json(first) && !opens_scalar(first) {
        return Ok(false);
    }
    match tokio::time::timeout(DRAIN_TIME_MAX, read_rest(response, &mut body)).await {
        Ok(Ok(true)) => Ok(serde_json::from_slice::<IgnoredAny>(plain(&body)).is_ok()),
        Ok(Ok(false) | Err(_)) | Err(_) => Ok(opens_json(first)),
    }
}

/// Whether the content type is `application/json` or `application/...+json`.
fn is_called_json(response: &Response) -> bool {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(JSON) || essence.to_ascii_lowercase().ends_with("+json")
}

/// Reads up to the end of the body or [`ANSWER_BYTES_MAX`]. Returns whether it reached the end.
///
/// If it did not, the connection is closed.
async fn read_rest(response: &mut Response, body: &mut Vec<u8>) -> Result<bool, reqwest::Error> {
    while body.len() <= ANSWER_BYTES_MAX {
        if !read_chunk(response, body).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the next chunk. Returns `false` at the end of the body.
///
/// At most one byte more than [`ANSWER_BYTES_MAX`] is kept in total.
async fn read_chunk(response: &mut Response, body: &mut Vec<u8>) -> Result<bool, reqwest::Error> {
    let Some(chunk) = response.chunk().await? else { return Ok(false) };
    let left = (ANSWER_BYTES_MAX + 1).saturating_sub(body.len());
    body.extend_from_slice(&chunk[..chunk.len().min(left)]);
    Ok(true)
}

/// Removes the byte order mark that some servers send.
fn plain(body: &[u8]) -> &[u8] {
    body.strip_prefix(BOM).unwrap_or(body)
}

/// Returns the first byte that is not whitespace and not part of a byte order mark.
fn first(body: &[u8]) -> Option<u8> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r') || BOM.contains(byte);
    body.iter().copied().find(|byte| !is_blank(byte))
}

/// Whether an object or a list can begin with this byte.
fn opens_json(first: u8) -> bool {
    matches!(first, b'{' | b'[')
}

/// Whether any other JSON value can begin with this byte.
///
/// Plain text can too, so the body must be parsed.
fn opens_scalar(first: u8) -> bool {
    matches!(first, b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}
