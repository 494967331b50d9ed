//! The routes: which path has which answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use super::{JSON, status};
use crate::clock::rfc3339;
use crate::config::StatusPage;
use crate::controls::Controls;
use crate::health::{Health, Problem};
use crate::metrics::{BreakerState, Metrics, Service};
use crate::status::{Status, StatusReport};

const METRICS_TEXT: HeaderValue = HeaderValue::from_static(Metrics::CONTENT_TYPE);

/// The parts that the answers come from.
#[derive(Debug)]
pub struct Routes {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Liveness and readiness.
    pub health: Arc<Health>,
    /// The levers.
    pub controls: Arc<Controls>,
    /// The status.
    pub status: Arc<Status>,
    /// Who may see the status.
    pub status_page: StatusPage,
}

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Builds the router; `HEAD` is answered as `GET` without the body.
pub(super) fn router(routes: Arc<Routes>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(liveness))
        .route("/health", get(liveness))
        .route("/readyz", get(readiness))
        .route("/ready", get(readiness))
        .route("/status", get(status_page))
        .route("/status.json", get(status_json))
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .with_state(routes)
}

async fn not_found() -> Response {
    reason(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /status")
}

async fn not_allowed() -> Response {
    let mut response = reason(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

async fn liveness(State(routes): State<Arc<Routes>>) -> Response {
    match routes.health.alive() {
        Ok(()) => answer(StatusCode::OK, JSON, "{\"status\":\"ok\"}\n"),
        Err(problem) => unavailable(problem),
    }
}

/// Returns readiness. Circuit breakers are listed but do not count: an outage of a service is no
/// reason to take the worker out of service.
async fn readiness(State(routes): State<Arc<Routes>>) -> Response {
    let Routes { health, metrics, .. } = &*routes;
    let ready = health.ready();
    let needs = health
        .parts_ready()
        .into_iter()
        .map(|(name, works)| (name.to_owned(), if works { "ok" } else { "failing" }.into()));
    let services = [Service::Reservation, Service::Inventory].into_iter().map(|service| {
        let state = metrics.breaker_state(service).map(BreakerState::as_str);
        (service.as_str().to_owned(), state.into())
    });
    let queue = health.queue_actions().into_iter();
    let queue = queue.map(|(action, why)| (action.as_str().to_owned(), why.unwrap_or("ok").into()));
    let mut body = serde_json::json!({
        "status": if ready.is_ok() { "ok" } else { "error" },
        "needs": needs.collect::<serde_json::Map<_, _>>(),
        "queue": queue.collect::<serde_json::Map<_, _>>(),
        "services": services.collect::<serde_json::Map<_, _>>(),
    });
    if let Some((pause, scope)) = routes.controls.paused() {
        body["paused"] = serde_json::json!({
            "until": rfc3339(pause.until), "reason": pause.reason, "scope": scope.as_str(),
        });
    }
    let status = match ready {
        Ok(()) => StatusCode::OK,
        Err(problem) => {
            body["reason"] = problem.to_string().into();
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    answer(status, JSON, format!("{body}\n"))
}

async fn metrics(State(routes): State<Arc<Routes>>) -> Response {
    let Routes { health, metrics, .. } = &*routes;
    metrics.health(health.alive().is_ok(), health.ready().is_ok());
    let mut text = Vec::new();
    match metrics.render(&mut text) {
        Ok(()) => answer(StatusCode::OK, METRICS_TEXT, text),
        Err(error) => {
            tracing::error!(error = %error, "Metrics cannot be rendered");
            reason(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be rendered")
        }
    }
}

async fn status_page(
    state: State<Arc<Routes>>,
    peer: Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    show(&state, *peer, &uri, &headers, status::html)
}

async fn status_json(
    state: State<Arc<Routes>>,
    peer: Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    show(&state, *peer, &uri, &headers, status::json)
}

fn show(
    routes: &Routes,
    Peer(peer): Peer,
    uri: &Uri,
    headers: &HeaderMap,
    as_shown: fn(&StatusReport) -> Response,
) -> Response {
    if status::is_allowed(routes.status_page, peer, uri, headers) {
        as_shown(&routes.status.report())
    } else {
        reason(StatusCode::FORBIDDEN, status::refusal(routes.status_page))
    }
}

fn unavailable(problem: Problem) -> Response {
    reason(StatusCode::SERVICE_UNAVAILABLE, &problem.to_string())
}

/// Builds an error response with its reason.
fn reason(status: StatusCode, reason: &str) -> Response {
    let body = serde_json::json!({ "status": "error", "reason": reason });
    answer(status, JSON, format!("{body}\n"))
}

fn answer(status: StatusCode, kind: HeaderValue, body: impl IntoResponse) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    (status, [(CONTENT_TYPE, kind), (CACHE_CONTROL, no_store)], body).into_response()
}
