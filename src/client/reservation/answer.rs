//! Reads what the Reservation API answers, as little of it as is needed and never more than a bound. What it means is left
//! to `classify`.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::Response;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Found, JSON, Reservation};
use crate::client::{ANSWER_BYTES_MAX, retry_after};
use crate::event::{Seats, ShowId};
use crate::excerpt::Excerpt;

/// How long a success may take to end before its connection is given up: the step is done, and reuse is only a saving.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(250);

/// UTF-8's byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// An answer that is not success.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What the API says in its own words; none where something else answered.
    pub(super) api_error: Option<ApiError>,
    pub(super) retry_after: Option<Duration>,
    /// Set where the body did not come to its end.
    pub(super) broken: Option<reqwest::Error>,
}

/// The API's own error, its values quoted, escaped and cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    code: String,
    message: String,
    trace_id: String,
}

impl Answer {
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

    /// One line for the log.
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
    /// The error that `body` holds: `code` and `message` are what makes it one. A `trace_id` is only told to people.
    fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(plain(body)).ok()?;
        let error = body.get("error")?;
        let short = |text: &str| Excerpt(text).to_string();
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

/// When the answer says that it wants to be called again.
pub(super) fn named(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?;
    retry_after::parse(value.as_bytes(), SystemTime::now())
}

/// What the body of a success of `GET` holds.
pub(super) enum Body {
    /// A reservation.
    Reservation(Reservation),
    /// JSON that names no status.
    NoStatus,
    /// What begins like JSON and is longer than [`ANSWER_BYTES_MAX`].
    TooLong,
    /// Something else, or nothing.
    NotJson,
}

/// Reads what the answer to a `GET` says of the reservation. Only the status must be there.
///
/// # Errors
/// Where the body does not come to its end.
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
        "CONFIRMED" => Found::Confirmed,
        "EXPIRED" => Found::Expired,
        "CANCELLED" => Found::Cancelled,
        other => Found::Other(Excerpt(other).to_string()),
    };
    let show_id = body.get("event_id").and_then(Value::as_str);
    let show_id = show_id.and_then(|text| ShowId::new(text).ok());
    Ok(Body::Reservation(Reservation { status, show_id, seats: seats(&body) }))
}

/// The seats that the reservation names, or their number. Names that cannot be read are not made up for by a number.
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

/// Whether a success has a body of JSON, or none, as this API's have. It is read to its end, so that its connection can serve
/// again; one that is long or slow, or breaks off, is judged by how it begins, and one that does not begin by its content type.
///
/// # Errors
/// Where the body does not begin, and is not called JSON.
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

/// By the content type: `application/json`, or `application/...+json`.
fn is_called_json(response: &Response) -> bool {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(JSON) || essence.to_ascii_lowercase().ends_with("+json")
}

/// Reads to the body's end, or to [`ANSWER_BYTES_MAX`]; whether the end was reached. Where it was not, the connection closes.
async fn read_rest(response: &mut Response, body: &mut Vec<u8>) -> Result<bool, reqwest::Error> {
    while body.len() <= ANSWER_BYTES_MAX {
        if !read_chunk(response, body).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads what comes next, up to one byte more than [`ANSWER_BYTES_MAX`] in all; whether anything did.
async fn read_chunk(response: &mut Response, body: &mut Vec<u8>) -> Result<bool, reqwest::Error> {
    let Some(chunk) = response.chunk().await? else { return Ok(false) };
    let room = (ANSWER_BYTES_MAX + 1).saturating_sub(body.len());
    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    Ok(true)
}

/// A text without the byte order mark that some servers put before it.
fn plain(body: &[u8]) -> &[u8] {
    body.strip_prefix(BOM).unwrap_or(body)
}

/// The first byte that says something.
fn first(body: &[u8]) -> Option<u8> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r') || BOM.contains(byte);
    body.iter().copied().find(|byte| !is_blank(byte))
}

/// Whether an object or a list may begin so.
fn opens_json(first: u8) -> bool {
    matches!(first, b'{' | b'[')
}

/// Whether any other value may begin so. Texts do, too: it has to be read whole.
fn opens_scalar(first: u8) -> bool {
    matches!(first, b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}
