//! The plain loop: a simple worker on the official SDK, reqwest and tonic.
//!
//! It has a multi-threaded runtime and deletes in batches. It has no logs, no retries except the
//! SDK's, no leases, no order and no idempotency records.

pub mod proto;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use aws_smithy_http_client::tls;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use self::proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use self::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};

/// Messages per batch.
const BATCH: usize = 10;
/// Concurrent receives.
const RECEIVERS: usize = 3;
/// Maximum time that a delete waits for others.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

type Failure = Box<dyn Error + Send + Sync>;

/// Addresses and the concurrency limit; the SDK reads its own settings from the environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The queue's URL.
    pub queue_url: String,
    /// The Reservation API's base URL.
    pub reservations: String,
    /// Host and port of the Inventory service.
    pub inventory: String,
    /// Events handled concurrently.
    pub concurrency: usize,
}

#[derive(Debug, Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    reservation_id: String,
    event_id: String,
    payload: Payload,
}

#[derive(Debug, Deserialize)]
struct Payload {
    payment_intent_id: Option<String>,
    user_id: Option<String>,
    #[serde(default)]
    seat_ids: Vec<String>,
    qty: Option<i32>,
}

/// State that the tasks share.
#[derive(Clone)]
struct Loop {
    sqs: Client,
    http: reqwest::Client,
    inventory: InventoryServiceClient<Channel>,
    settings: Arc<Settings>,
    deletes: mpsc::UnboundedSender<String>,
    room: Arc<Semaphore>,
}

/// Runs until a task fails.
///
/// # Errors
/// The failure.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    // The default client would add a second TLS stack.
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
    let channel =
        Endpoint::from_shared(format!("http://{}", settings.inventory))?.tcp_nodelay(true);
    let (deletes, to_delete) = mpsc::unbounded_channel();
    let shared = Loop {
        sqs: Client::new(&config),
        http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?,
        inventory: InventoryServiceClient::new(channel.connect_lazy()),
        room: Arc::new(Semaphore::new(settings.concurrency)),
        settings: Arc::new(settings),
        deletes,
    };
    let mut tasks = JoinSet::new();
    for _ in 0..RECEIVERS {
        tasks.spawn(receive(shared.clone()));
    }
    tasks.spawn(delete(shared, to_delete));
    tasks.join_next().await.ok_or("no tasks")??
}

async fn receive(shared: Loop) -> Result<(), Failure> {
    let mut events = JoinSet::new();
    loop {
        let call = shared.sqs.receive_message().queue_url(&shared.settings.queue_url);
        let reply = call
            .max_number_of_messages(10)
            .wait_time_seconds(20)
            .visibility_timeout(30)
            .send()
            .await?;
        for message in reply.messages.unwrap_or_default() {
            let room = Arc::clone(&shared.room).acquire_owned().await?;
            events.spawn(handle(shared.clone(), message, room));
        }
        while let Some(handled) = events.try_join_next() {
            handled??;
        }
    }
}

async fn handle(
    shared: Loop,
    message: Message,
    _room: OwnedSemaphorePermit,
) -> Result<(), Failure> {
    let event: Event = serde_json::from_str(message.body.as_deref().unwrap_or_default())?;
    let is_payment = event.event_type == "payment.approved";
    let status = if is_payment { "CONFIRMED" } else { "EXPIRED" };
    let url =
        format!("{}/internal/reservations/{}", shared.settings.reservations, event.reservation_id);
    let mut body = serde_json::json!({ "status": status });
    if let Some(payment) = &event.payload.payment_intent_id {
        body["payment_intent_id"] = payment.as_str().into();
    }
    let request = shared.http.patch(url).header("content-type", "application/json");
    let request = request.header("idempotency-key", format!("{}/reservation-status", event.id));
    request.body(serde_json::to_vec(&body)?).send().await?.error_for_status()?.bytes().await?;
    seats(shared.inventory, event, is_payment).await?;
    shared.deletes.send(message.receipt_handle.ok_or("no receipt handle")?)?;
    Ok(())
}

async fn seats(
    mut inventory: InventoryServiceClient<Channel>,
    event: Event,
    is_payment: bool,
) -> Result<(), Failure> {
    let Payload { payment_intent_id, user_id, seat_ids, qty } = event.payload;
    let quantity = qty.or_else(|| i32::try_from(seat_ids.len()).ok()).unwrap_or_default();
    if is_payment {
        let request = CommitReservationRequest {
            reservation_id: event.reservation_id,
            event_id: event.event_id,
            seat_ids,
            quantity,
            payment_intent_id: payment_intent_id.unwrap_or_default(),
            user_id: user_id.unwrap_or_default(),
            idempotency_key: format!("{}/inventory-commit", event.id),
        };
        inventory.commit_reservation(request).await?;
    } else {
        let request = ReleaseHoldRequest {
            reservation_id: event.reservation_id,
            event_id: event.event_id,
            seat_ids,
            quantity,
            reason: "EXPIRED".to_owned(),
            idempotency_key: format!("{}/inventory-release", event.id),
        };
        inventory.release_hold(request).await?;
    }
    Ok(())
}

async fn delete(shared: Loop, mut handles: mpsc::UnboundedReceiver<String>) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        batch.push(handles.recv().await.ok_or("nobody handles any more")?);
        let fill = async {
            while batch.len() < BATCH {
                let Some(handle) = handles.recv().await else { return };
                batch.push(handle);
            }
        };
        // A batch that is not full in time is sent as it is.
        let _ = timeout(FLUSH_AFTER, fill).await;
        let mut call = shared.sqs.delete_message_batch().queue_url(&shared.settings.queue_url);
        for (at, handle) in batch.into_iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string());
            call = call.entries(entry.receipt_handle(handle).build()?);
        }
        calls.spawn(call.send());
        while let Some(deleted) = calls.try_join_next() {
            deleted??;
        }
    }
}
