//! Shared parts of all integration tests: a world of stand-ins, events, and waits for conditions.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::inventory::Inventory;
use crate::ledger::{Call, Ledger, Request};
use crate::reservation_api::ReservationApi;
use crate::sqs::{Entry, NewMessage, Outcome, QueueSpec, Redrive, Sqs, StoredMessage};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// A time limit that only a hanging test exceeds, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The show of all seats.
pub const SHOW: &str = "evt_2025_1001";

/// The stand-ins, with one ledger for both services.
pub struct World {
    /// The server of both queues.
    pub sqs: Sqs,
    /// The URL of the source queue.
    pub queue: String,
    /// The URL of the dead-letter queue.
    pub dlq: String,
    /// The Reservation API.
    pub api: ReservationApi,
    /// The Inventory service.
    pub inventory: Inventory,
    /// The ledger of both services.
    pub ledger: Ledger,
}

impl World {
    /// Starts a world with a standard queue and its dead-letter queue.
    pub async fn start() -> Self {
        Self::redriving(100).await
    }

    /// Starts a world with this `maxReceiveCount`.
    pub async fn redriving(max_receive_count: u32) -> Self {
        let redrive = Some(Redrive { dlq: "dlq".to_owned(), max_receive_count });
        Self::with(QueueSpec { redrive, ..QueueSpec::default() }).await
    }

    /// Starts a world with a FIFO queue and its dead-letter queue.
    pub async fn fifo() -> Self {
        Self::fifo_redriving(100).await
    }

    /// Starts a world with FIFO queues and this `maxReceiveCount`.
    pub async fn fifo_redriving(max_receive_count: u32) -> Self {
        let redrive = Some(Redrive { dlq: "dlq.fifo".to_owned(), max_receive_count });
        Self::with(QueueSpec { fifo: true, redrive, ..QueueSpec::default() }).await
    }

    /// Starts a world with this kind of queue. `spec` defines whether it redrives to `dlq`.
    pub async fn with(spec: QueueSpec) -> Self {
        let sqs = Sqs::start().await;
        let fifo = spec.fifo;
        let name = |name: &str| format!("{name}{}", if fifo { ".fifo" } else { "" });
        let dlq = sqs.create_queue(&name("dlq"), QueueSpec { fifo, ..QueueSpec::default() });
        let queue = sqs.create_queue(&name("events"), spec);
        let ledger = Ledger::default();
        let port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let api = ReservationApi::start_on(port, ledger.clone()).await.unwrap();
        let inventory = Inventory::start_on(port, ledger.clone()).await.unwrap();
        Self { sqs, queue, dlq, api, inventory, ledger }
    }

    /// Sends an event and returns the message id.
    pub fn send(&self, event: &Value) -> String {
        self.sqs.send(&self.queue, event.to_string())
    }

    /// Sends a message and returns its id.
    pub fn send_message(&self, message: NewMessage) -> String {
        self.sqs.send_message(&self.queue, message).unwrap()
    }

    /// Waits until the queue is empty.
    pub async fn emptied(&self) {
        let empty = self.sqs.wait_until(&self.queue, |counts| counts.total() == 0, LIMIT).await;
        assert!(empty, "left in the queue: {:?}", self.sqs.counts(&self.queue));
    }

    /// Returns the calls for a reservation, one line each.
    pub fn calls(&self, reservation: &str) -> Vec<String> {
        self.ledger.calls_for(reservation).iter().map(line).collect()
    }

    /// Returns the methods called for a reservation.
    pub fn methods(&self, reservation: &str) -> Vec<&'static str> {
        self.ledger.calls_for(reservation).iter().map(Call::method).collect()
    }

    /// Returns the messages in the dead-letter queue.
    pub fn dead_letters(&self) -> Vec<StoredMessage> {
        self.sqs.peek_all(&self.dlq)
    }

    /// Returns the outcomes recorded for a message of the queue.
    pub fn history(&self, message_id: &str) -> Vec<Outcome> {
        let of_it = |entry: &&Entry| entry.message_id.as_deref() == Some(message_id);
        self.sqs.ledger(&self.queue).entries.iter().filter(of_it).map(|e| e.outcome).collect()
    }

    /// Returns how often a message was delivered.
    pub fn deliveries(&self, message_id: &str) -> usize {
        let delivered = |outcome: &&Outcome| matches!(outcome, Outcome::Delivered { .. });
        self.history(message_id).iter().filter(delivered).count()
    }

    /// Returns the visibility timeouts set for a message, in seconds.
    pub fn hidden_for(&self, message_id: &str) -> Vec<u32> {
        let mut seconds = Vec::new();
        for outcome in self.history(message_id) {
            if let Outcome::VisibilitySet { timeout_s } = outcome {
                seconds.push(timeout_s);
            }
        }
        seconds
    }
}

/// The longest time between two looks at a condition.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(40);

/// Checks a condition until it holds: every few milliseconds at first, then more rarely.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        let mut pause = Duration::from_millis(5);
        while !holds() {
            sleep(pause).await;
            // A look at all metrics is not cheap, and dozens of tests wait at once.
            pause = (pause * 6 / 5).min(LOOK_EVERY_MAX);
        }
    };
    assert!(timeout(LIMIT, looking).await.is_ok(), "not in time: {what}");
}

/// Builds an event with these fields.
pub fn event(id: &str, event_type: &str, reservation: &str, payload: Value) -> Value {
    json!({
        "id": id, "type": event_type, "reservation_id": reservation, "event_id": SHOW,
        "ts": "2024-01-01T12:00:00Z", "payload": payload,
    })
}

/// Builds a `reservation.expired` of two seats.
pub fn expired(id: &str, reservation: &str) -> Value {
    event(id, "reservation.expired", reservation, json!({"qty": 2, "seat_ids": ["A-12", "A-13"]}))
}

/// Builds a `payment.approved` that names two seats.
pub fn approved(id: &str, reservation: &str) -> Value {
    let payload = json!({"payment_intent_id": "pay_1", "amount": 120_000, "qty": 2, "seat_ids": ["A-12", "A-13"]});
    event(id, "payment.approved", reservation, payload)
}

/// Builds a `payment.failed` that names two seats.
pub fn failed(id: &str, reservation: &str) -> Value {
    let payload = json!({"payment_intent_id": "pay_1", "amount": 120_000, "qty": 2, "seat_ids": ["A-12", "A-13"]});
    event(id, "payment.failed", reservation, payload)
}

/// Formats a call as one line.
pub fn line(call: &Call) -> String {
    match &call.request {
        Request::GetReservation => format!("GET {}", call.raw_path),
        Request::PatchReservation(body) => format!("PATCH {} {body}", call.raw_path),
        Request::ReleaseHold(r) => format!(
            "ReleaseHold {} {} {:?} {} {}",
            r.reservation_id, r.event_id, r.seat_ids, r.quantity, r.reason
        ),
        Request::CommitReservation(r) => format!(
            "CommitReservation {} {} {:?} {} {:?} {:?}",
            r.reservation_id, r.event_id, r.seat_ids, r.quantity, r.payment_intent_id, r.user_id
        ),
        Request::Unknown(what) => format!("unknown {what}"),
    }
}
