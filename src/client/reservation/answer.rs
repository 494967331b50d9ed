//! Reads what the Reservation API answers, as little of it as is needed and never more than a bound. What it means is left
//! to `classify`.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::RETRY_AFTER;
use reqwest::Response;
use serde_json::Value;

use super::Found;
use crate::client::{ANSWER_BYTES_MAX, retry_after};
use crate::excerpt::Excerpt;

/// How long a success may take to end before its connection is given up: the step is done, and reuse is only a saving.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(250);

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
    pub(super) async fn read(response: Response) -> Self {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.as_bytes(), SystemTime::now()));
        let (body, broken) = match read_capped(response).await {
            Ok(body) => (body, None),
            Err(error) => (None, Some(error)),
        };
        let api_error = body.as_deref().and_then(ApiError::parse);
        Self { status, api_error, retry_after, broken }
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
        let body: Value = serde_json::from_slice(body).ok()?;
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

/// The status that the answer to a `GET` names; none where its body names none.
///
/// # Errors
/// Where the body does not come to its end.
pub(super) async fn found(response: Response) -> Result<Option<Found>, reqwest::Error> {
    let body: Option<Value> =
        read_capped(response).await?.and_then(|body| serde_json::from_slice(&body).ok());
    let status = body.as_ref().and_then(|body| body.get("status")?.as_str());
    Ok(status.map(|status| match status {
        "CONFIRMED" => Found::Confirmed,
        "EXPIRED" => Found::Expired,
        "CANCELLED" => Found::Cancelled,
        other => Found::Other(Excerpt(other).to_string()),
    }))
}

/// Reads a success to its end, so that its connection can serve again; gives up soon where it is long or slow.
pub(super) async fn drain(response: Response) {
    // Whatever comes of it, the step is done.
    drop(tokio::time::timeout(DRAIN_TIME_MAX, read_capped(response)).await);
}

/// The body; none where it is longer than [`ANSWER_BYTES_MAX`]. Reading stops there, which closes the connection.
async fn read_capped(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
