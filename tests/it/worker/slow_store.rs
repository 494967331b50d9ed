//! A store that is slow, or gives no answer at the wrong moment: what it must not spoil. On paused time, with a queue
//! and services that answer at once, so that every delay is the store's.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::app::{App, Parts};
use reservation_worker::client::{
    CallContext, CallError, Class, Commit, Found, Inventory, ReleaseHold, ReservationApi, Target,
};
use reservation_worker::event::{ContentHash, Event, EventId, ReservationId, StepSet, decode};
use reservation_worker::handler::{Peers, Services};
use reservation_worker::health::Health;
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{Claim, HandledAs, Records, Store, StoreError, Token};
use reservation_worker::metrics::Metrics;
use reservation_worker::outage::Outages;
use reservation_worker::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, MessageId, Queue, QueueError, ReceiptHandle,
};
use reservation_worker::retry::Backoff;
use reservation_worker::settle::ledger::Left;
use reservation_worker::telemetry::Tracing;
use tokio::time::{Instant, sleep};

use crate::support::{expired, metric, settings};

const SECOND: Duration = Duration::from_secs(1);
/// Just within what the store is given.
const SLOW_MS: u64 = 999;
const LOST: &str = "worker_leases_lost_total";

/// A queue whose every answer is immediate.
#[derive(Default)]
struct Line {
    waiting: Mutex<Vec<Message>>,
    /// Receipts that are not ours any more.
    lost: Mutex<HashSet<ReceiptHandle>>,
    /// When each was made visible again: the handle and the time.
    shown: Mutex<Vec<(ReceiptHandle, Duration)>>,
}

impl Line {
    fn with(messages: impl IntoIterator<Item = (String, String)>) -> Arc<Self> {
        let message = |(id, body): (String, String)| Message {
            id: MessageId(id.as_str().into()),
            handle: ReceiptHandle(id.into()),
            body,
            receive_count: 1,
            sent_at: None,
            group_id: None,
            trace_header: None,
            attributes: Vec::new(),
        };
        let mut waiting: Vec<_> = messages.into_iter().map(message).collect();
        waiting.reverse();
        Arc::new(Self { waiting: Mutex::new(waiting), ..Self::default() })
    }
}

#[async_trait]
impl Queue for Line {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        let got: Vec<_> = {
            let mut waiting = self.waiting.lock().unwrap();
            (0..max).map_while(|_| waiting.pop()).collect()
        };
        if got.is_empty() {
            sleep(SECOND).await;
        }
        Ok(got)
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        Ok(handles.iter().map(|_| Ok(())).collect())
    }

    async fn change_visibility(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let lost = self.lost.lock().unwrap();
        let change = |(handle, after): &(ReceiptHandle, Duration)| {
            if lost.contains(handle) {
                return Err(EntryError::Lost("MessageNotInflight".to_owned()));
            }
            self.shown.lock().unwrap().push((handle.clone(), *after));
            Ok(())
        };
        Ok(changes.iter().map(change).collect())
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        Ok(())
    }
}

/// Answers each call about a reservation that is called `slow-<ms>...` so late, and fails each other one.
struct Api;

#[async_trait]
impl ReservationApi for Api {
    async fn set_status(
        &self,
        _: &CallContext<'_>,
        id: &ReservationId,
        _: Target,
        _: Option<&str>,
    ) -> Result<(), CallError> {
        let ms = id.as_str().strip_prefix("slow-").and_then(|ms| ms.parse().ok());
        let Some(ms) = ms else {
            let (code, detail) = ("http_500".into(), "on purpose".to_owned());
            return Err(CallError { class: Class::Transient, code, detail, retry_after: None });
        };
        sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    async fn status(&self, _: &CallContext<'_>, _: &ReservationId) -> Result<Found, CallError> {
        Ok(Found::Expired)
    }
}

#[async_trait]
impl Inventory for Api {
    async fn release_hold(&self, _: &CallContext<'_>, _: ReleaseHold<'_>) -> Result<(), CallError> {
        Ok(())
    }

    async fn commit(&self, _: &CallContext<'_>, _: Commit<'_>) -> Result<(), CallError> {
        Ok(())
    }
}

/// The store in memory, with answers that come late or not at all.
struct Late {
    store: MemoryStore,
    claim_ms: AtomicU64,
    release_ms: AtomicU64,
    renewals_lost: AtomicU32,
    /// Claims are made, and their answers are lost.
    claims_mute: AtomicBool,
}

impl Late {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::new(10_000, 3_600 * SECOND),
            claim_ms: AtomicU64::new(0),
            release_ms: AtomicU64::new(0),
            renewals_lost: AtomicU32::new(0),
            claims_mute: AtomicBool::new(false),
        })
    }

    /// What another process is told that asks for the event. Where the event is its, it lets go at once.
    async fn asked_by_another(&self, event: &Event) -> Claim {
        let claim = self.store.claim(&event.id, event.content_hash(), Token::unique(), SECOND);
        claim.await.unwrap()
    }
}

async fn wait(ms: &AtomicU64) {
    sleep(Duration::from_millis(ms.load(Ordering::SeqCst))).await;
}

fn silence() -> StoreError {
    StoreError::Unavailable("no answer".to_owned())
}

#[async_trait]
impl Store for Late {
    async fn claim(
        &self,
        id: &EventId,
        hash: ContentHash,
        token: Token,
        lasts: Duration,
    ) -> Result<Claim, StoreError> {
        let claim = self.store.claim(id, hash, token, lasts).await;
        wait(&self.claim_ms).await;
        if self.claims_mute.load(Ordering::SeqCst) { Err(silence()) } else { claim }
    }

    async fn renew(&self, id: &EventId, token: Token, lasts: Duration) -> Result<(), StoreError> {
        let lose = |left: u32| left.checked_sub(1);
        if self.renewals_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Err(silence());
        }
        self.store.renew(id, token, lasts).await
    }

    async fn record(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError> {
        self.store.record(id, token, done).await
    }

    async fn complete(&self, id: &EventId, token: Token, how: HandledAs) -> Result<(), StoreError> {
        self.store.complete(id, token, how).await
    }

    async fn release(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), StoreError> {
        wait(&self.release_ms).await;
        self.store.release(id, token, done).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A worker whose failed attempts wait for hours, with a visibility timeout of so many seconds.
fn start(line: &Arc<Line>, store: &Arc<Late>, visibility_s: u32) -> (App, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(&[]));
    let outages = Arc::new(Outages::new(20, Arc::clone(&metrics)));
    let services = Services {
        reservations: Arc::new(Api),
        inventory: Arc::new(Api),
        records: Records {
            store: Arc::clone(store) as _,
            outages: Arc::clone(&outages),
            metrics: Arc::clone(&metrics),
            health: Arc::new(Health::new()),
        },
        outages,
        metrics: Arc::clone(&metrics),
        peers: Arc::new(Peers::default()),
    };
    let mut settings = settings();
    settings.visibility = visibility_s * SECOND;
    settings.policy.backoff = Backoff { base: 9_000 * SECOND, cap: 9_000 * SECOND };
    let queue = Arc::clone(line) as _;
    (App::start(Parts { queue, services, tracing: Tracing::disabled() }, settings), metrics)
}

/// A message, and the event that it carries.
fn message(id: &str, reservation: &str) -> ((String, String), Event) {
    let body = expired(&format!("evt-{id}"), reservation).to_string();
    let event = decode(&body).unwrap();
    ((format!("m-{id}"), body), event)
}

fn crowd(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| message(&n.to_string(), &format!("r{n}")).0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_does_not_keep_the_leases_of_others_from_being_extended() {
    let line = Line::with(crowd(100));
    let store = Late::new();
    store.release_ms.store(SLOW_MS, Ordering::SeqCst);
    // Forty of a hundred slip away: each claim is to be released.
    let slipped = (0..40).map(|n| ReceiptHandle(format!("m-{n}").into()));
    line.lost.lock().unwrap().extend(slipped);
    let (app, metrics) = start(&line, &store, 30);
    sleep(120 * SECOND).await;
    assert_eq!(metric(&metrics, LOST), 40.0, "only those that slipped away");
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn leaving_ends_by_its_deadline_though_the_store_is_slow() {
    let line = Line::with(crowd(900));
    let store = Late::new();
    let (app, _metrics) = start(&line, &store, 600);
    sleep(20 * SECOND).await;
    store.release_ms.store(SLOW_MS, Ordering::SeqCst);
    let deadline = Instant::now() + 5 * SECOND;
    let account = app.drain(deadline).await;
    assert!(Instant::now() <= deadline, "{:?} late", deadline.elapsed());
    assert_eq!(account.left_total(Left::HandedBack), 900, "{account:?}");
    assert!(account.balances());
}

/// Looks every few milliseconds, for two minutes.
async fn assert_never_taken(store: &Late, event: &Event) {
    let until = Instant::now() + 120 * SECOND;
    let begun = Instant::now();
    while Instant::now() < until {
        let claim = store.asked_by_another(event).await;
        assert!(matches!(claim, Claim::Elsewhere(_)), "{claim:?} after {:?}", begun.elapsed());
        sleep(SECOND / 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_once_does_not_open_a_running_event_to_others() {
    let (sent, event) = message("1", "slow-200000");
    let (line, store) = (Line::with([sent]), Late::new());
    let (app, _metrics) = start(&line, &store, 30);
    sleep(SECOND).await;
    store.renewals_lost.store(1, Ordering::SeqCst);
    assert_never_taken(&store, &event).await;
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_lease_is_extended_while_it_is_claimed_stays_claimed() {
    // Of one reservation: the second is claimed when the first is done, just before the extension.
    let (first, _) = message("1", "slow-14400");
    let (second, event) = message("2", "slow-14400");
    let (line, store) = (Line::with([first, second]), Late::new());
    let (app, metrics) = start(&line, &store, 30);
    sleep(SECOND).await;
    store.claim_ms.store(SLOW_MS, Ordering::SeqCst);
    sleep(14 * SECOND).await;
    for _ in 0..292 {
        let claim = store.asked_by_another(&event).await;
        assert!(matches!(claim, Claim::Elsewhere(_)), "{claim:?}");
        sleep(SECOND / 20).await;
    }
    sleep(5 * SECOND).await;
    let retried = "worker_events_total{outcome=\"retried\",type=\"reservation.expired\"}";
    assert_eq!(metric(&metrics, retried), 0.0);
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_given_back_too() {
    let (sent, event) = message("1", "r1");
    let (line, store) = (Line::with([sent]), Late::new());
    store.claims_mute.store(true, Ordering::SeqCst);
    let (app, _metrics) = start(&line, &store, 600);
    sleep(10 * SECOND).await;
    assert!(matches!(store.asked_by_another(&event).await, Claim::Elsewhere(_)));
    app.drain(Instant::now() + 20 * SECOND).await;
    assert_eq!(store.asked_by_another(&event).await, Claim::Ours(StepSet::EMPTY));
}

#[tokio::test(start_paused = true)]
async fn many_events_that_somebody_else_has_do_not_keep_the_workers_from_the_others() {
    let (line, store) = (Line::with(crowd(900)), Late::new());
    for n in 0..900 {
        let (_, event) = message(&n.to_string(), &format!("r{n}"));
        let (hash, hours) = (event.content_hash(), 9_000 * SECOND);
        store.store.claim(&event.id, hash, Token::unique(), hours).await.unwrap();
    }
    store.claim_ms.store(SLOW_MS, Ordering::SeqCst);
    let (app, metrics) = start(&line, &store, 600);
    // Each was asked for, and has told how slow the store is.
    sleep(300 * SECOND).await;
    let (mine, _) = message("mine", "slow-10");
    line.waiting.lock().unwrap().extend(Line::with([mine]).waiting.lock().unwrap().drain(..));
    sleep(30 * SECOND).await;
    let done = "worker_events_total{outcome=\"success\",type=\"reservation.expired\"}";
    assert_eq!(metric(&metrics, done), 1.0);
    drop(app);
}
