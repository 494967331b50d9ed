//! A whole worker on paused time. Its queue and services answer at once or as a test sets it, so
//! every delay is the test's own. The store is in `late`.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::app::{App, AppSettings};
use reservation_worker::client::{
    CallContext, CallError, Class, Commit, Inventory, Load, ReleaseHold, Reservation,
    ReservationApi, ReservationStatus, TargetStatus,
};
use reservation_worker::event::{Event, ReservationId, decode};
use reservation_worker::handler::{ServiceEndpoints, Services};
use reservation_worker::health::Health;
use reservation_worker::idempotency::IdempotencyClient;
use reservation_worker::metrics::Metrics;
use reservation_worker::outage::Outages;
use reservation_worker::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, MessageId, Queue, QueueError, QueueErrorKind,
    ReceiptHandle,
};
use reservation_worker::retry::Backoff;
use tokio::time::sleep;

use crate::late::Late;
use crate::support::{expired, limits, settings, untraced};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The duration of a failing call, so that time passes even if a loop does not wait.
const FAILS_AFTER: Duration = Duration::from_millis(1);

/// The outcome of calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Course {
    #[default]
    Well,
    /// The call fails.
    Fails,
    /// The call succeeds, and each entry of the batch fails with a retryable error.
    EntriesFail,
    /// The next call is never answered; those after it succeed.
    HangsOnce,
}

/// The kinds of calls that have a [`Course`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Receive,
    Delete,
    Change,
    DeadLetter,
}

/// A queue that answers at once unless a test sets a [`Course`].
#[derive(Default)]
pub(crate) struct Line {
    waiting: Mutex<VecDeque<Message>>,
    /// Receipts whose lease is lost.
    pub(crate) lost: Mutex<HashSet<ReceiptHandle>>,
    /// All visibility changes: the receipt and the new timeout.
    pub(crate) shown: Mutex<Vec<(ReceiptHandle, Duration)>>,
    pub(crate) deleted: Mutex<Vec<ReceiptHandle>>,
    courses: Mutex<[Course; 4]>,
    calls: Mutex<[u32; 4]>,
}

impl Line {
    pub(crate) fn with(messages: impl IntoIterator<Item = (String, String)>) -> Arc<Self> {
        let line = Arc::new(Self::default());
        messages.into_iter().for_each(|message| line.send(&message, 1));
        line
    }

    /// Adds a message with this receive count; each count has another receipt.
    pub(crate) fn send(&self, (id, body): &(String, String), receive_count: u32) {
        let handle = if receive_count == 1 { id.clone() } else { format!("{id}/{receive_count}") };
        self.waiting.lock().unwrap().push_back(Message {
            id: MessageId(id.as_str().into()),
            handle: ReceiptHandle(handle.into()),
            body: body.clone(),
            receive_count,
            sent_at: None,
            group: None,
            trace_header: None,
            source_arn: None,
            attributes: Vec::new(),
        });
    }

    pub(crate) fn set(&self, action: Action, course: Course) {
        self.courses.lock().unwrap()[action as usize] = course;
    }

    /// Returns the number of calls of that kind.
    pub(crate) fn calls(&self, action: Action) -> u32 {
        self.calls.lock().unwrap()[action as usize]
    }

    async fn begin(&self, action: Action) -> Result<Course, QueueError> {
        self.calls.lock().unwrap()[action as usize] += 1;
        let course = self.courses.lock().unwrap()[action as usize];
        match course {
            Course::Well => {}
            Course::Fails => {
                sleep(FAILS_AFTER).await;
                let (kind, detail) = (QueueErrorKind::Other, "on purpose".to_owned());
                return Err(QueueError { kind, detail });
            }
            Course::EntriesFail => sleep(FAILS_AFTER).await,
            Course::HangsOnce => {
                self.set(action, Course::Well);
                std::future::pending::<()>().await;
            }
        }
        Ok(course)
    }

    fn take(&self, max: usize) -> Vec<Message> {
        let mut waiting = self.waiting.lock().unwrap();
        (0..max).map_while(|_| waiting.pop_front()).collect()
    }
}

fn refused() -> Result<(), EntryError> {
    Err(EntryError::Retry("on purpose".to_owned()))
}

#[async_trait]
impl Queue for Line {
    async fn receive(&self, max: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
        self.begin(Action::Receive).await?;
        let got = self.take(max);
        if !got.is_empty() {
            return Ok(got);
        }
        sleep(SECOND).await;
        Ok(self.take(max))
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        if self.begin(Action::Delete).await? == Course::EntriesFail {
            return Ok(handles.iter().map(|_| refused()).collect());
        }
        self.deleted.lock().unwrap().extend(handles.iter().cloned());
        Ok(handles.iter().map(|_| Ok(())).collect())
    }

    async fn extend(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        if self.begin(Action::Change).await? == Course::EntriesFail {
            return Ok(changes.iter().map(|_| refused()).collect());
        }
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

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.extend(messages).await
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        self.begin(Action::DeadLetter).await.map(drop)
    }
}

/// Both services. A call for a reservation `slow-<ms>...` is answered after that time; one for
/// `paced-<ms>` is told to retry after it; one for `away...` fails as an outage; all others fail as
/// transient.
#[derive(Default)]
pub(crate) struct Api {
    calls: Mutex<Vec<String>>,
    /// Whether every call fails as an outage.
    pub(crate) is_away: AtomicBool,
}

impl Api {
    /// Returns the number of calls for a reservation.
    pub(crate) fn calls(&self, reservation: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|id| *id == reservation).count()
    }
}

fn failed(class: Class, retry_after: Option<Duration>) -> CallError {
    let (code, detail) = ("on_purpose".into(), "on purpose".to_owned());
    CallError { class, code, detail, retry_after, load: Load::Unknown }
}

#[async_trait]
impl ReservationApi for Api {
    async fn set_status(
        &self,
        _: &CallContext<'_>,
        id: &ReservationId,
        _: TargetStatus,
        _: Option<&str>,
    ) -> Result<(), CallError> {
        self.calls.lock().unwrap().push(id.as_str().to_owned());
        if self.is_away.load(Ordering::SeqCst) || id.as_str().starts_with("away") {
            return Err(failed(Class::Outage, None));
        }
        let ms = |prefix| id.as_str().strip_prefix(prefix)?.split('-').next()?.parse().ok();
        if let Some(ms) = ms("paced-") {
            return Err(failed(Class::Paced, Some(Duration::from_millis(ms))));
        }
        let Some(ms) = ms("slow-") else { return Err(failed(Class::Transient, None)) };
        sleep(Duration::from_millis(ms)).await;
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

/// A running worker and what its tests inspect.
pub(crate) struct Running {
    pub(crate) app: App,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) api: Arc<Api>,
}

/// Starts a worker with a backoff of hours and a visibility timeout of `visibility_s` seconds.
pub(crate) fn start(line: &Arc<Line>, store: &Arc<Late>, visibility_s: u32) -> (App, Arc<Metrics>) {
    let long = Backoff { base: 9_000 * SECOND, cap: 9_000 * SECOND };
    let running = start_with(line, store, |settings| {
        settings.visibility = visibility_s * SECOND;
        settings.policy.backoff = long;
    });
    (running.app, running.metrics)
}

pub(crate) fn start_with(
    line: &Arc<Line>,
    store: &Arc<Late>,
    change: impl FnOnce(&mut AppSettings),
) -> Running {
    let metrics = Arc::new(Metrics::new(&[]));
    let outages = Arc::new(Outages::new(limits(), Arc::clone(&metrics)));
    let api = Arc::new(Api::default());
    let services = Services {
        reservations: Arc::clone(&api) as _,
        inventory: Arc::clone(&api) as _,
        idempotency: IdempotencyClient {
            store: Arc::clone(store) as _,
            is_ordered: false,
            outages: Arc::clone(&outages),
            metrics: Arc::clone(&metrics),
            health: Arc::new(Health::new()),
        },
        outages,
        metrics: Arc::clone(&metrics),
        endpoints: Arc::new(ServiceEndpoints::default()),
    };
    let mut settings = settings();
    settings.visibility = 30 * SECOND;
    change(&mut settings);
    let queue = Arc::clone(line) as _;
    let app = App::start(untraced(queue, services), settings);
    Running { app, metrics, api }
}

/// Returns a message and its event.
pub(crate) fn message(id: &str, reservation: &str) -> ((String, String), Event) {
    let body = expired(&format!("evt-{id}"), reservation).to_string();
    let event = decode(&body, "m").unwrap();
    ((format!("m-{id}"), body), event)
}

/// Returns a message whose event has one step only, and the event.
pub(crate) fn paid(id: &str, reservation: &str) -> ((String, String), Event) {
    let payload = serde_json::json!({"payment_intent_id": "pay_1"});
    let event =
        crate::support::event(&format!("evt-{id}"), "payment.approved", reservation, payload);
    let body = event.to_string();
    let event = decode(&body, "m").unwrap();
    ((format!("m-{id}"), body), event)
}
