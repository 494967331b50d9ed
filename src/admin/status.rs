//! `/status` and `/status.json`: who may see them, and how they are answered.
//!
//! The page changes nothing, loads nothing from elsewhere, and cannot be framed. By default only
//! this machine sees it: `kubectl port-forward` arrives at loopback, so that Kubernetes' own
//! permissions decide who may look. The `Host` header is checked too: a page in a browser of this
//! machine could otherwise read it under a name of its own (DNS rebinding).

mod access;
mod page;

use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

pub(super) use self::access::{is_allowed, refusal};
use crate::status::StatusReport;

const STYLE: &str = include_str!("status/page.css");
const SCRIPT: &str = include_str!("status/page.js");

/// <https://www.w3.org/TR/CSP3/>: nothing is loaded but this style and this script.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("printable ASCII")
});

/// Answers with the page.
pub(super) fn html(report: &StatusReport) -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    (headers(html), page::page(report).into_string()).into_response()
}

/// Answers with the report as JSON.
pub(super) fn json(report: &StatusReport) -> Response {
    match serde_json::to_vec(report) {
        Ok(body) => (headers(super::JSON), body).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "The status cannot be written as JSON");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn headers(kind: HeaderValue) -> HeaderMap {
    let same_origin = HeaderName::from_static("cross-origin-resource-policy");
    [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (same_origin, HeaderValue::from_static("same-origin")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
    .into_iter()
    .collect()
}
