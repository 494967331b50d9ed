//! The sandbox's control port: HTTP with JSON, for a test that runs in another place than the
//! servers. It sends events, sets how the servers behave, and returns the ledgers.
//!
//! The reader judges what the ledgers say.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::ledger::{Call, Effect, Service};
use crate::script::Faults;
use crate::servers::Servers;
use crate::sqs::{Ailment, Right};

/// Maximum number of events in one request to send.
const SEND_MAX: u32 = 100_000;

/// What the handlers share.
#[derive(Clone, Debug)]
struct Control {
    servers: Servers,
    started: Instant,
}

/// Events to send: `count` of them, for the reservations `PREFIX-0`, `PREFIX-1` and so on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    prefix: String,
    count: u32,
}

/// What to change; what is missing stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// How long each call of a service takes, in milliseconds.
    latency_ms: Option<u64>,
    /// Whether both services listen.
    services: Option<bool>,
    /// Whether the queue's attributes may be read.
    attributes: Option<bool>,
}

/// A call to a service.
#[derive(Debug, Serialize)]
struct Entry {
    sequence: u64,
    at_ms: u64,
    service: &'static str,
    reservation_id: String,
    /// What it changed.
    effect: Option<&'static str>,
    repeated_key: bool,
}

type Failed = (StatusCode, String);

/// Listens on `address`, and serves until the returned future is dropped.
///
/// # Errors
///
/// If it cannot listen on the address.
pub(super) async fn start(
    address: SocketAddr,
    servers: Servers,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/ledger", get(ledger))
        .route("/calls/{since}", get(calls))
        .route("/send", post(send))
        .route("/settings", post(set))
        .with_state(Control { servers, started: Instant::now() });
    Ok((address, async move { axum::serve(listener, router).await }))
}

async fn ledger(State(control): State<Control>) -> Json<Value> {
    let Servers { sqs, queue_url, dlq_url, ledger, .. } = &control.servers;
    let (queue, counts) = (sqs.ledger(queue_url), sqs.counts(queue_url));
    let totals = ledger.totals();
    Json(json!({
        "queue": {
            "sent": queue.sent,
            "receives": queue.receives,
            "delivered": queue.delivered,
            "deleted": queue.deletes_effective,
            "handed_back": queue.visibility_to_zero,
            "extended": queue.visibility_extended,
            "moved_to_dlq": queue.moved_to_dlq,
            "faults": queue.faults,
            "visible": counts.visible,
            "in_flight": counts.in_flight,
            "left": counts.total(),
        },
        "dead_letters": sqs.counts(dlq_url).total(),
        "services": {
            "calls": totals.calls,
            "effects": totals.effects,
            "repeated_keys": totals.repeated_keys,
            "in_progress": totals.in_progress,
        },
    }))
}

async fn calls(State(control): State<Control>, Path(since): Path<u64>) -> Json<Vec<Entry>> {
    let calls = control.servers.ledger.calls_since(since);
    Json(calls.into_iter().map(|call| entry(call, control.started)).collect())
}

fn entry(call: Call, started: Instant) -> Entry {
    let at = call.at.saturating_duration_since(started).as_millis();
    Entry {
        sequence: call.sequence,
        at_ms: u64::try_from(at).unwrap_or(u64::MAX),
        service: match call.service {
            Service::ReservationApi => "reservation-api",
            Service::Inventory => "inventory",
        },
        reservation_id: call.reservation_id,
        effect: call.effect.map(|(effect, _)| match effect {
            Effect::Status(_) => "status",
            Effect::SeatsReleased => "seats_released",
            Effect::SeatsCommitted => "seats_committed",
        }),
        repeated_key: call.repeated_key,
    }
}

async fn send(
    State(control): State<Control>,
    Json(Send { prefix, count }): Json<Send>,
) -> Result<Json<Value>, Failed> {
    if count > SEND_MAX {
        let text = format!("count is {count}; allowed: at most {SEND_MAX}");
        return Err((StatusCode::BAD_REQUEST, text));
    }
    let Servers { sqs, queue_url, .. } = &control.servers;
    for number in 0..count {
        let body = json!({
            "id": format!("evt-{prefix}-{number}"),
            "type": "reservation.expired",
            "reservation_id": format!("{prefix}-{number}"),
            "event_id": "evt_2025_1001",
            "ts": "2025-01-01T12:00:00Z",
            "payload": {"qty": 2},
        });
        sqs.send(queue_url, body.to_string());
    }
    Ok(Json(json!({"sent": count})))
}

async fn set(
    State(control): State<Control>,
    Json(settings): Json<Settings>,
) -> Result<Json<Value>, Failed> {
    let Servers { sqs, queue_url, api, inventory, .. } = &control.servers;
    if let Some(latency_ms) = settings.latency_ms {
        let latency = Duration::from_millis(latency_ms);
        api.set_faults(Faults::none().latency(latency, Duration::ZERO));
        inventory.set_faults(Faults::none().latency(latency, Duration::ZERO));
    }
    let switched = match settings.services {
        Some(true) => api.come_back().await.and(inventory.come_back().await),
        Some(false) => api.go_down().await.and(inventory.go_down().await),
        None => Ok(()),
    };
    switched.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    match settings.attributes {
        Some(true) => sqs.faults(queue_url).heal(Right::ReadAttributes),
        Some(false) => sqs.faults(queue_url).ail(Right::ReadAttributes, Ailment::Denied),
        None => {}
    }
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::servers::Ports;

    struct Remote {
        servers: Servers,
        base: String,
        client: reqwest::Client,
        _serving: AbortOnDropHandle<io::Result<()>>,
    }

    impl Remote {
        async fn start() -> Self {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let servers = Servers::start(Ports::default()).await.unwrap();
            let free = SocketAddr::from(([127, 0, 0, 1], 0));
            let (address, serving) = start(free, servers.clone()).await.unwrap();
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let _serving = AbortOnDropHandle::new(tokio::spawn(serving));
            Self { servers, base: format!("http://{address}"), client, _serving }
        }

        async fn get(&self, path: &str) -> Value {
            let answer = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
            serde_json::from_str(&answer.text().await.unwrap()).unwrap()
        }

        async fn post(&self, path: &str, body: Value) -> u16 {
            let request = self.client.post(format!("{}{path}", self.base));
            let request = request.header("Content-Type", "application/json");
            request.body(body.to_string()).send().await.unwrap().status().as_u16()
        }

        /// Makes an `EXPIRED` call to the Reservation API; `None` if nothing listens.
        async fn expire(&self, id: &str) -> Option<u16> {
            let base = self.servers.api.base_url();
            let request = self.client.patch(format!("{base}/internal/reservations/{id}"));
            let request = request.header("Content-Type", "application/json");
            let request = request.header("Idempotency-Key", id).body(r#"{"status":"EXPIRED"}"#);
            Some(request.send().await.ok()?.status().as_u16())
        }
    }

    #[tokio::test]
    async fn events_are_sent_and_counted() {
        let remote = Remote::start().await;
        assert_eq!(remote.post("/send", json!({"prefix": "a", "count": 3})).await, 200);
        let ledger = remote.get("/ledger").await;
        assert_eq!((&ledger["queue"]["sent"], &ledger["queue"]["left"]), (&json!(3), &json!(3)));
        assert_eq!(ledger["dead_letters"], 0);
        let bodies = remote.servers.sqs.peek_all(&remote.servers.queue_url);
        assert!(bodies[2].body.contains(r#""reservation_id":"a-2""#), "{}", bodies[2].body);
        assert_eq!(remote.post("/send", json!({"prefix": "a", "count": 100_001})).await, 400);
    }

    #[tokio::test]
    async fn calls_are_listed_from_a_sequence_on_with_their_effects() {
        let remote = Remote::start().await;
        for id in ["a", "a", "b"] {
            assert_eq!(remote.expire(id).await, Some(200));
        }
        let calls = remote.get("/calls/1").await;
        let told = calls.as_array().unwrap().iter().map(|call| {
            (call["reservation_id"].as_str().unwrap(), &call["effect"], &call["repeated_key"])
        });
        let expected = [("a", &Value::Null, &json!(true)), ("b", &json!("status"), &json!(false))];
        assert!(told.eq(expected), "{calls}");
    }

    #[tokio::test]
    async fn the_services_go_down_and_come_back_and_take_their_time() {
        let remote = Remote::start().await;
        assert_eq!(remote.post("/settings", json!({"services": false})).await, 200);
        assert_eq!(remote.expire("a").await, None);
        let settings = json!({"services": true, "latency_ms": 30});
        assert_eq!(remote.post("/settings", settings).await, 200);
        let began = std::time::Instant::now();
        assert_eq!(remote.expire("a").await, Some(200));
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!(remote.post("/settings", json!({"latency": 30})).await, 422);
    }

    #[tokio::test]
    async fn the_queues_attributes_can_be_denied_and_allowed_again() {
        let remote = Remote::start().await;
        let read = async || {
            let request = remote.client.post(remote.servers.sqs.endpoint_url());
            let request = request.header("X-Amz-Target", "AmazonSQS.GetQueueAttributes");
            let request = request.header("Content-Type", "application/x-amz-json-1.0");
            let body = json!({"QueueUrl": remote.servers.queue_url, "AttributeNames": ["All"]});
            request.body(body.to_string()).send().await.unwrap().status().as_u16()
        };
        assert_eq!(read().await, 200);
        assert_eq!(remote.post("/settings", json!({"attributes": false})).await, 200);
        assert_eq!(read().await, 403);
        assert_eq!(remote.post("/settings", json!({"attributes": true})).await, 200);
        assert_eq!(read().await, 200);
        assert_eq!(remote.get("/ledger").await["queue"]["faults"], 1);
    }
}
