//! The parts of event handling that only compute, each as a function that runs it once.
//!
//! The command `instructions` counts their instructions, and `benches/pure.rs` measures their time.

use std::hint::black_box;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use reservation_worker::event::{ContentHash, Event, EventId, Step, decode, idempotency_key};
use reservation_worker::handler::AttemptOutcome;
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{Claim, ClaimRequest, ClaimToken, HandledAs, Store};
use reservation_worker::retry::Backoff;
use reservation_worker::settle::{EventHistory, RetryPolicy, decide};
use reservation_worker::telemetry::TraceParent;

/// A part that only computes.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name in the table of counts.
    pub name: &'static str,
    /// Runs it once.
    pub once: fn(),
}

/// All parts.
pub const PARTS: [Part; 9] = [
    Part { name: "decode-approved", once: || seen(decode(black_box(APPROVED), "m")) },
    Part { name: "decode-expired", once: || seen(decode(black_box(EXPIRED), "m")) },
    Part { name: "decode-in-sns", once: || seen(decode(black_box(&IN_SNS), "m")) },
    Part { name: "decode-500-seats", once: || seen(decode(black_box(&MANY_SEATS), "m")) },
    Part { name: "content-hash", once: || seen(black_box(&*EVENT).content_hash()) },
    Part { name: "idempotency-key", once: || seen(key()) },
    Part { name: "traceparent", once: || seen(TraceParent::parse(black_box(TRACEPARENT))) },
    Part { name: "decide", once: verdict },
    Part { name: "memory-store", once: claim_and_complete },
];

const APPROVED: &str = r#"{"id":"evt_0190f3c2-7a1b-7c3d-9e4f-5a6b7c8d9e0f","type":"payment.approved","reservation_id":"rsv_abc123","event_id":"evt_2025_1001","ts":"2024-01-01T12:05:00Z","payload":{"payment_intent_id":"pay_xyz789","amount":120000,"seat_ids":["A-12","A-13"]}}"#;
const EXPIRED: &str = r#"{"id":"evt_123456","type":"reservation.expired","reservation_id":"rsv_abc123","event_id":"evt_2025_1001","ts":"2024-01-01T12:00:00Z","payload":{"qty":2,"seat_ids":["A-12","A-13"]}}"#;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

static EVENT: LazyLock<Event> = LazyLock::new(|| decode(APPROVED, "m").expect("a valid input"));

/// The event in an EventBridge envelope in an SNS notification: two layers, JSON text inside JSON
/// text.
static IN_SNS: LazyLock<String> = LazyLock::new(|| {
    let inner = format!(
        r#"{{"version":"0","id":"6a7e8feb-b491-4cf7-a9f1-bf3703467718","detail-type":"reservation.expired","source":"ticketing","time":"2024-01-01T12:00:00Z","detail":{EXPIRED}}}"#
    );
    let message = serde_json::to_string(&inner).expect("text has a JSON form");
    format!(
        r#"{{"Type":"Notification","MessageId":"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324","Message":{message}}}"#
    )
});

static MANY_SEATS: LazyLock<String> = LazyLock::new(|| {
    let seats: Vec<String> = (0..500).map(|seat| format!(r#""A-{seat}""#)).collect();
    EXPIRED.replace(r#""qty":2,"#, "").replace(r#""A-12","A-13""#, &seats.join(","))
});

static STORE: LazyLock<MemoryStore> =
    LazyLock::new(|| MemoryStore::new(1_000, Duration::from_secs(3_600)));

/// More ids than the store remembers.
static IDS: LazyLock<Vec<EventId>> = LazyLock::new(|| {
    let id = |number| EventId::new(&format!("evt_0190f3c2-7a1b-7c3d-9e4f-{number:012}"));
    (0..2_000).map(|number| id(number).expect("a valid input")).collect()
});

static HASH: LazyLock<ContentHash> = LazyLock::new(|| EVENT.content_hash());

/// Keeps the compiler from removing the computation.
fn seen<T>(made: T) {
    black_box(made);
}

fn key() -> impl Copy {
    idempotency_key(black_box(&EVENT.id), Step::ReservationStatus)
}

fn verdict() {
    let record = EventHistory { retries: 0, failures: 0, receive_count: 1 };
    let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
    let policy = RetryPolicy { retries_max: 3, backoff };
    let mut random = fastrand::Rng::with_seed(1);
    black_box(decide(black_box(&AttemptOutcome::Applied), record, &policy, &mut random));
}

/// Claims an event that the store has forgotten and completes it, which evicts the oldest record.
fn claim_and_complete() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let id = &IDS[NEXT.fetch_add(1, Ordering::Relaxed) % IDS.len()];
    let (token, minute) = (ClaimToken::unique(), Duration::from_secs(60));
    let request =
        ClaimRequest { hash: *HASH, token, lasts: minute, sent_at: SystemTime::UNIX_EPOCH };
    let claim = STORE.claim(id.into(), request).now_or_never();
    assert!(matches!(claim, Some(Ok(Claim::Ours(_)))), "{claim:?}");
    let completed = STORE.complete(id.into(), token, HandledAs::Applied).now_or_never();
    assert!(matches!(completed, Some(Ok(()))), "{completed:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_inputs_decode_and_only_one_part_stores_a_record() {
        for body in [APPROVED, EXPIRED, IN_SNS.as_str()] {
            assert_eq!(
                decode(body, "m").expect("a valid input").reservation_id.as_str(),
                "rsv_abc123"
            );
        }
        let many = decode(&MANY_SEATS, "m").expect("a valid input");
        assert_eq!(many.seats().expect("the event has seats").quantity, 500);
        assert!(TraceParent::parse(TRACEPARENT).is_some());
        for part in PARTS {
            (part.once)();
        }
        assert_eq!(STORE.len(), 1, "exactly one part stores a record");
    }
}
