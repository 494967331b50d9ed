//! One SQS action fails for an hour, on paused time. The queue follows SQS's redrive rules.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::app::{App, AppSettings};
use reservation_worker::client::{
    CallContext, CallError, Class, Commit, Inventory, Load, ReleaseHold, Reservation,
    ReservationApi, ReservationStatus, TargetStatus,
};
use reservation_worker::event::ReservationId;
use reservation_worker::handler::{ServiceEndpoints, Services};
use reservation_worker::health::Health;
use reservation_worker::idempotency::IdempotencyClient;
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::metrics::{Metrics, QueueAction};
use reservation_worker::outage::Outages;
use reservation_worker::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, MessageId, Permission, Queue, QueueError,
    QueueErrorKind, ReceiptHandle,
};
use tokio::time::{Instant, sleep};

use crate::support::{expired, limits, settings, untraced};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const RECEIVES_MAX: u32 = 3;

/// How an action fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Denied,
    Hangs,
    EveryEntry,
}
const FAILURES: [How; 3] = [How::Denied, How::Hangs, How::EveryEntry];

struct Stored {
    body: String,
    visible_at: Instant,
    receives: u32,
    handle: usize,
    is_deleted: bool,
    /// Whether SQS moved it to the dead-letter queue after too many receives.
    is_redriven: bool,
}

#[derive(Default)]
struct HalfWell {
    messages: Mutex<Vec<Stored>>,
    failing: Mutex<Option<(QueueAction, How)>>,
    copies: Mutex<HashSet<String>>,
    calls: AtomicUsize,
}

impl HalfWell {
    fn with(bodies: impl Iterator<Item = String>) -> Arc<Self> {
        let queue = Self::default();
        bodies.for_each(|body| queue.send(body));
        Arc::new(queue)
    }

    fn send(&self, body: String) {
        let (visible_at, receives, handle) = (Instant::now(), 0, 0);
        let (is_deleted, is_redriven) = (false, false);
        let stored = Stored { body, visible_at, receives, handle, is_deleted, is_redriven };
        self.messages.lock().unwrap().push(stored);
    }

    fn fail(&self, failing: Option<(QueueAction, How)>) {
        *self.failing.lock().unwrap() = failing;
    }

    fn count(&self, which: impl Fn(&Stored) -> bool) -> usize {
        self.messages.lock().unwrap().iter().filter(|stored| which(stored)).count()
    }

    fn left(&self) -> usize {
        self.count(|stored| !stored.is_deleted && !stored.is_redriven)
    }

    async fn may(&self, action: QueueAction) -> Result<(), QueueError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(10)).await;
        let failing = *self.failing.lock().unwrap();
        match failing {
            Some((failing, How::Denied)) if failing == action => {
                Err(QueueError { kind: QueueErrorKind::Denied, detail: "on purpose".to_owned() })
            }
            Some((failing, How::Hangs)) if failing == action => std::future::pending().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Applies the change to each entry whose receipt is valid.
    fn change(
        &self,
        action: QueueAction,
        handles: impl Iterator<Item = (ReceiptHandle, Duration)>,
    ) -> BatchAnswer {
        let fails = *self.failing.lock().unwrap() == Some((action, How::EveryEntry));
        let mut messages = self.messages.lock().unwrap();
        let change = |(handle, after): (ReceiptHandle, Duration)| {
            if fails {
                return Err(EntryError::Retry("InternalError".to_owned()));
            }
            let (at, number) = handle.0.split_once('-').unwrap();
            let stored = &mut messages[at.parse::<usize>().unwrap()];
            let stands = stored.handle == number.parse::<usize>().unwrap();
            let now = Instant::now();
            if !stands || stored.is_deleted || stored.is_redriven || stored.visible_at <= now {
                return Err(EntryError::Lost("MessageNotInflight".to_owned()));
            }
            stored.visible_at = now + after;
            stored.is_deleted = action == QueueAction::Delete;
            Ok(())
        };
        Ok(handles.map(change).collect())
    }

    fn take(&self, max: usize, visibility: Duration) -> Vec<Message> {
        let now = Instant::now();
        let mut taken = Vec::new();
        for (at, stored) in self.messages.lock().unwrap().iter_mut().enumerate() {
            let is_there = !stored.is_deleted && !stored.is_redriven;
            if taken.len() == max || !is_there || stored.visible_at > now {
                continue;
            }
            stored.is_redriven = stored.receives == RECEIVES_MAX;
            if stored.is_redriven {
                continue;
            }
            stored.receives += 1;
            stored.handle += 1;
            stored.visible_at = now + visibility;
            taken.push(Message {
                id: MessageId(format!("m-{at}").into()),
                handle: ReceiptHandle(format!("{at}-{}", stored.handle).into()),
                body: stored.body.clone(),
                receive_count: stored.receives,
                sent_at: None,
                group: None,
                trace_header: None,
                source_arn: None,
                attributes: Vec::new(),
            });
        }
        taken
    }
}

#[async_trait]
impl Queue for HalfWell {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        self.may(QueueAction::Receive).await?;
        let taken = self.take(max, visibility);
        if taken.is_empty() {
            sleep(SECOND).await;
        }
        Ok(taken)
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        self.may(QueueAction::Delete).await?;
        self.change(QueueAction::Delete, handles.iter().map(|h| (h.clone(), Duration::ZERO)))
    }

    async fn extend(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.may(QueueAction::Extend).await?;
        self.change(QueueAction::Extend, changes.iter().cloned())
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.extend(messages).await
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        self.may(QueueAction::DeadLetter).await?;
        self.copies.lock().unwrap().insert(dead_letter.message_id.to_string());
        Ok(())
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        match action {
            QueueAction::Receive | QueueAction::DeadLetter => Ok(Permission::CannotBeAsked),
            QueueAction::Extend | QueueAction::Delete | QueueAction::Attributes => {
                self.may(action).await.map(|()| Permission::Allowed)
            }
        }
    }
}

/// Both services; the Reservation API can be down.
#[derive(Default)]
struct Api {
    is_away: AtomicBool,
    done: AtomicUsize,
}

#[async_trait]
impl ReservationApi for Api {
    async fn set_status(
        &self,
        _: &CallContext<'_>,
        _: &ReservationId,
        _: TargetStatus,
        _: Option<&str>,
    ) -> Result<(), CallError> {
        sleep(Duration::from_millis(20)).await;
        if self.is_away.load(Ordering::SeqCst) {
            let (code, detail) = ("http_503".into(), "on purpose".to_owned());
            let load = Load::Unknown;
            return Err(CallError { class: Class::Outage, code, detail, retry_after: None, load });
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn reservation(
        &self,
        _: &CallContext<'_>,
        _: &ReservationId,
    ) -> Result<Reservation, CallError> {
        Ok(Reservation { status: ReservationStatus::Expired, show_id: None, seats: None })
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

struct Engine {
    app: App,
    queue: Arc<HalfWell>,
    api: Arc<Api>,
    health: Arc<Health>,
}

fn event(n: usize) -> String {
    expired(&format!("evt-{n}"), &format!("r{n}")).to_string()
}

fn start(queue: Arc<HalfWell>, visibility: Duration) -> Engine {
    let metrics = Arc::new(Metrics::new(&[]));
    let outages = Arc::new(Outages::new(limits(), Arc::clone(&metrics)));
    let (api, health) = (Arc::new(Api::default()), Arc::new(Health::new()));
    let services = Services {
        reservations: Arc::clone(&api) as _,
        inventory: Arc::clone(&api) as _,
        idempotency: IdempotencyClient {
            store: Arc::new(MemoryStore::new(100_000, 24 * HOUR)),
            is_ordered: false,
            outages: Arc::clone(&outages),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
        },
        outages,
        metrics,
        endpoints: Arc::new(ServiceEndpoints::default()),
    };
    let settings = AppSettings { visibility, ..settings() };
    let parts = untraced(Arc::clone(&queue) as _, services);
    Engine { app: App::start(parts, settings), queue, api, health }
}

impl Engine {
    /// Waits until the queue is empty and returns the time that took.
    async fn emptied(&self, limit: Duration) -> Duration {
        let began_at = Instant::now();
        while self.queue.left() > 0 {
            assert!(began_at.elapsed() < limit, "{} left after {limit:?}", self.queue.left());
            sleep(SECOND / 10).await;
        }
        began_at.elapsed()
    }

    /// Each event was handled once, and none was redriven by SQS.
    async fn all_went_well(self, events: usize) {
        assert_eq!(self.queue.count(|stored| stored.is_redriven), 0, "in the dead-letter queue");
        assert_eq!(self.api.done.load(Ordering::SeqCst), events);
        let account = self.app.drain(Instant::now() + 20 * SECOND).await;
        assert!(account.balances(), "{account:?}");
    }

    fn fails(&self, action: QueueAction) -> bool {
        self.health.queue_actions().into_iter().any(|(a, why)| a == action && why.is_some())
    }
}

/// In CI all, else the first: each is an hour of an engine's work.
fn failures<T, const N: usize>(all: [T; N]) -> impl Iterator<Item = T> {
    all.into_iter().take(if std::env::var_os("CI").is_some() { N } else { 1 })
}

#[tokio::test(start_paused = true)]
async fn without_extensions_an_outage_of_an_hour_dead_letters_no_event() {
    let all = [(How::Denied, 5), (How::Denied, 30), (How::Hangs, 5), (How::EveryEntry, 5)];
    for (how, seconds) in failures(all) {
        let engine = start(HalfWell::with((0..200).map(event)), seconds * SECOND);
        engine.queue.fail(Some((QueueAction::Extend, how)));
        engine.api.is_away.store(true, Ordering::SeqCst);
        sleep(HOUR).await;
        assert!(engine.fails(QueueAction::Extend), "{how:?}");
        engine.api.is_away.store(false, Ordering::SeqCst);
        engine.emptied(120 * SECOND).await;
        engine.all_went_well(200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_handled_while_extensions_fail_and_after_the_repair() {
    for how in failures(FAILURES) {
        let engine = start(HalfWell::with((0..200).map(event)), 5 * SECOND);
        engine.queue.fail(Some((QueueAction::Extend, how)));
        engine.emptied(60 * SECOND).await;
        for n in 0..3_600 {
            engine.queue.send(event(200 + n));
            sleep(SECOND).await;
        }
        engine.emptied(5 * SECOND).await;
        engine.queue.fail(None);
        sleep(10 * SECOND).await;
        assert!(!engine.fails(QueueAction::Extend), "{how:?}");
        engine.all_went_well(3_800).await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_that_cannot_be_deleted_are_held_up_to_the_limit_and_deleted_later() {
    for how in failures(FAILURES) {
        let engine = start(HalfWell::with((0..1_500).map(event)), 30 * SECOND);
        engine.emptied(60 * SECOND).await;
        engine.queue.fail(Some((QueueAction::Delete, how)));
        (1_500..3_500).for_each(|n| engine.queue.send(event(n)));
        sleep(60 * SECOND).await;
        assert!(engine.fails(QueueAction::Delete), "{how:?}");
        let (held, calls) = (
            engine.queue.count(|stored| stored.receives > 0 && !stored.is_deleted),
            engine.queue.calls.load(Ordering::SeqCst),
        );
        sleep(HOUR).await;
        assert!(held <= 1_000, "{how:?}: {held} held");
        assert_eq!(engine.queue.count(|s| s.receives > 0 && !s.is_deleted), held, "changed since");
        // Held messages are extended every fifteen seconds, ten in each call.
        let calls = engine.queue.calls.load(Ordering::SeqCst) - calls;
        assert!(calls < held.div_ceil(10) * 3 * 240 + 3_000, "{calls} calls for {held}");
        engine.queue.fail(None);
        let took = engine.emptied(20 * SECOND).await;
        assert!(took < 12 * SECOND, "{took:?}");
        assert_eq!(engine.queue.count(|stored| stored.receives > 1), 0, "{how:?}: received twice");
        engine.all_went_well(3_500).await;
    }
}

#[tokio::test(start_paused = true)]
async fn poison_that_cannot_be_copied_for_an_hour_does_not_affect_good_events() {
    for how in failures([How::Denied, How::Hangs]) {
        let poison = (0..100).map(|n| format!("poison {n}"));
        let engine = start(HalfWell::with(poison.chain((0..200).map(event))), 5 * SECOND);
        engine.queue.fail(Some((QueueAction::DeadLetter, how)));
        sleep(HOUR).await;
        assert_eq!(engine.api.done.load(Ordering::SeqCst), 200);
        let is_good = |stored: &Stored| !stored.body.starts_with("poison");
        assert_eq!(engine.queue.count(|s| is_good(s) && s.is_deleted && s.receives == 1), 200);
        assert!(engine.fails(QueueAction::DeadLetter), "{how:?}");
        engine.queue.fail(None);
        sleep(10 * SECOND).await;
        assert!(!engine.fails(QueueAction::DeadLetter), "{how:?}");
        // One copy is made by the worker; SQS redrives the others.
        assert_eq!(engine.queue.copies.lock().unwrap().len(), 1, "{how:?}");
        assert_eq!(engine.queue.left(), 0);
        assert!(engine.app.drain(Instant::now() + 20 * SECOND).await.balances());
    }
}

#[tokio::test(start_paused = true)]
async fn receives_that_failed_for_an_hour_resume_within_ten_seconds() {
    for how in failures([How::Denied, How::Hangs]) {
        let engine = start(HalfWell::with((0..100).map(event)), 5 * SECOND);
        engine.queue.fail(Some((QueueAction::Receive, how)));
        sleep(HOUR).await;
        assert!(engine.fails(QueueAction::Receive), "{how:?}");
        engine.queue.fail(None);
        let took = engine.emptied(60 * SECOND).await;
        // A hanging call times out, and the next one is sent at most ten seconds later.
        assert!(took < if how == How::Hangs { 20 } else { 11 } * SECOND, "{how:?}: {took:?}");
        engine.all_went_well(100).await;
    }
}
