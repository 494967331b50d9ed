//! An engine for unit tests: table, batches and settler, on a queue and a store that do as they are
//! told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::told::{ToldQueue, ToldStore};
use crate::event::decode;
use crate::health::Health;
use crate::idempotency::{IdempotencyClient, Store};
use crate::inflight::capacity::InFlightLimiter;
use crate::inflight::{Admitted, InFlight, Job, JobKey, Receipt, SuspectBounds};
use crate::metrics::{HeldState, Metrics};
use crate::outage::{OutageSettings, Outages};
use crate::queue::actions::QueueActions;
use crate::queue::instrumented::InstrumentedQueue;
use crate::queue::{Message, MessageGroup, MessageId, Queue, ReceiptHandle};
use crate::retry::Backoff;
use crate::settle::account::{Disposition, MessageAccount};
use crate::settle::batch::Batcher;
use crate::settle::{RetryPolicy, Settler};
use crate::telemetry::{EventStart, QueueSpans, Tracing};

/// The visibility timeout of each receipt.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The engine. Its batches run; nothing else does.
pub(crate) struct Engine {
    pub(crate) queue: Arc<ToldQueue>,
    /// The queue as the engine calls it.
    pub(crate) instrumented: Arc<dyn Queue>,
    pub(crate) store: Arc<ToldStore>,
    pub(crate) table: Arc<InFlight>,
    pub(crate) ready: mpsc::Receiver<JobKey>,
    pub(crate) settler: Settler,
    pub(crate) actions: Arc<QueueActions>,
    pub(crate) health: Arc<Health>,
    pub(crate) limiter: InFlightLimiter,
    batcher: JoinHandle<()>,
    serial: u32,
    /// The FIFO group of the messages admitted next.
    pub(crate) group: Option<&'static str>,
    /// The receive count of the messages admitted next.
    pub(crate) receive_count: u32,
    /// The age of the messages admitted next.
    pub(crate) age: Option<Duration>,
    /// The lease of the messages admitted next.
    pub(crate) lease: Duration,
}

impl Engine {
    pub(crate) fn new() -> Self {
        let (queue, store) = (Arc::new(ToldQueue::new()), Arc::new(ToldStore::default()));
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new(&[])));
        let actions = Arc::new(QueueActions::new(Arc::clone(&health), Arc::clone(&metrics), LEASE));
        let asked = Arc::clone(&queue) as Arc<dyn Queue>;
        let instrumented: Arc<dyn Queue> =
            Arc::new(InstrumentedQueue::new(asked, Arc::clone(&metrics), Arc::clone(&actions)));
        let suspects = SuspectBounds { held_max: 2, tried_max: 1 };
        let (table, ready) = InFlight::new(100, 100, suspects, LEASE);
        let (table, account) = (Arc::new(table), Arc::new(MessageAccount::default()));
        let settings = OutageSettings {
            calls_max: 10,
            calls_min: 1,
            reservation_target: None,
            inventory_target: None,
        };
        let outages = Arc::new(Outages::new(settings, Arc::clone(&metrics)));
        let (batches, batcher) = Batcher::new(
            Arc::clone(&instrumented),
            Arc::clone(&metrics),
            Arc::clone(&account),
            QueueSpans::new(Tracing::disabled(), "q"),
            Arc::clone(&table),
            Arc::clone(&actions),
            100,
        );
        let idempotency = IdempotencyClient {
            store: Arc::clone(&store) as Arc<dyn Store>,
            is_ordered: true,
            outages: Arc::clone(&outages),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
        };
        let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
        let policy = RetryPolicy { retries_max: 2, backoff };
        let inflight = Arc::clone(&table);
        let settler = Settler {
            inflight,
            idempotency,
            batches,
            policy,
            metrics,
            outages,
            account,
            failures: Arc::default(),
        };
        let (limiter, batcher) = (InFlightLimiter::new(100, 1 << 40), tokio::spawn(batcher.run()));
        Self {
            queue,
            instrumented,
            store,
            table,
            ready,
            settler,
            actions,
            health,
            limiter,
            batcher,
            serial: 0,
            group: None,
            receive_count: 1,
            age: None,
            lease: LEASE,
        }
    }

    /// Returns a message with an approved payment of the reservation.
    pub(crate) fn message(&mut self, id: &str, reservation: &str) -> Message {
        self.serial += 1;
        Message {
            id: MessageId(format!("message-{id}").into()),
            handle: ReceiptHandle(format!("{id}#{}", self.serial).into()),
            body: format!(
                r#"{{"id":"{id}","type":"payment.approved","reservation_id":"{reservation}","event_id":"show","payload":{{}}}}"#
            ),
            receive_count: self.receive_count,
            sent_at: self.age.map(|age| SystemTime::now() - age),
            group: self.group.map(|name| MessageGroup::Ordered(name.into())),
            trace_header: None,
            source_arn: None,
            attributes: Vec::new(),
        }
    }

    /// Admits the event `id` of `reservation`.
    pub(crate) async fn admit(&mut self, id: &str, reservation: &str) -> Admitted {
        let message = self.message(id, reservation);
        let now = Instant::now();
        let span = Tracing::disabled().start_event(EventStart {
            queue_name: "queue",
            message_id: id,
            parent: None,
            baggage: None,
            received_at: SystemTime::now(),
        });
        let event = decode(&message.body, "m").expect("an event");
        let held = self.settler.metrics.held(HeldState::Buffered);
        let job = Box::new(Job::new(event, &message, now, span, held));
        let permit = self.limiter.reserve().await.take(message.body.len()).expect("room");
        self.settler.account.received(1);
        let (receipt, original) = Receipt::split(message, now, now + self.lease, permit);
        self.table.admission().event(job, original, receipt)
    }

    /// Starts the next ready job.
    pub(crate) fn start(&mut self) -> Option<Box<Job>> {
        while let Ok(key) = self.ready.try_recv() {
            if let Some(job) = self.table.start(key) {
                return Some(job);
            }
        }
        None
    }

    /// Admits an event and starts it; it is claimed.
    pub(crate) async fn begun(&mut self, id: &str) -> Box<Job> {
        self.admit(id, &format!("reservation-{id}")).await;
        let mut job = self.start().expect("ready");
        job.lease.claim_asked();
        job.lease.claimed(Instant::now() + self.lease);
        job.attempt = 1;
        job
    }

    /// Waits until all that was handed to the batches is settled.
    pub(crate) async fn settled(&self) {
        let outstanding = self.settler.batches.outstanding();
        let settled = async {
            while outstanding.count() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(4 * LEASE, settled).await.expect("all is settled");
    }

    /// Returns the number of messages that have left in this way.
    pub(crate) fn left(&self, how: Disposition) -> u64 {
        self.settler.account.left_total(how)
    }

    /// Returns whether the metrics have this line.
    pub(crate) fn shows(&self, line: &str) -> bool {
        let mut text = Vec::new();
        self.settler.metrics.render(&mut text).unwrap();
        String::from_utf8(text).unwrap().lines().any(|found| found == line)
    }

    /// Ends the engine. Waits until the batches have settled what they kept.
    pub(crate) async fn close(self) -> Closed {
        let Self { queue, batcher, settler, .. } = self;
        let account = Arc::clone(&settler.account);
        drop(settler);
        batcher.await.unwrap();
        Closed { queue, account }
    }
}

/// What is left of an engine that has ended.
pub(crate) struct Closed {
    pub(crate) queue: Arc<ToldQueue>,
    pub(crate) account: Arc<MessageAccount>,
}
