//! Shared by the in-process tests: a worker built from the app's own parts, and the stand-ins
//! around it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use reservation_worker::app::{App, AppParts, AppSettings};
use reservation_worker::client::inventory::GrpcSettings;
use reservation_worker::client::reservation::HttpSettings;
use reservation_worker::client::{GrpcInventory, HttpReservationApi, ReservationApi};
use reservation_worker::controls::Controls;
use reservation_worker::event::{ContentHash, EventId, Step, idempotency_key};
use reservation_worker::handler::{ServiceEndpoints, Services};
use reservation_worker::health::Health;
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{ClaimRequest, ClaimToken, IdempotencyClient};
use reservation_worker::metrics::Metrics;
use reservation_worker::outage::{OutageSettings, Outages};
use reservation_worker::queue::Queue;
use reservation_worker::queue::sqs::{SqsQueue, SqsSettings};
use reservation_worker::retry::Backoff;
use reservation_worker::settle::account::{Disposition, MessageAccount as Account};
use reservation_worker::settle::{DeadLetterReason, RetryPolicy};
use reservation_worker::telemetry::Tracing;
use tokio::time::{Instant, timeout};

use sandbox::sqs::QueueSpec;
use sandbox::testing::world;
pub(crate) use sandbox::testing::world::{LIMIT, approved, event, eventually, expired, failed};

use crate::seams::{Gate, Spy};

/// The stand-ins, and constructors for workers that use them.
pub(crate) struct World(world::World);

impl Deref for World {
    type Target = world::World;

    fn deref(&self) -> &world::World {
        &self.0
    }
}

impl World {
    /// Starts with a queue that redrives to a dead-letter queue.
    pub(crate) async fn start() -> Self {
        Self(world::World::start().await)
    }

    /// Starts with such a queue that redrives after so many receives.
    pub(crate) async fn redriving(max_receive_count: u32) -> Self {
        Self(world::World::redriving(max_receive_count).await)
    }

    /// Starts with a FIFO queue that redrives to a FIFO dead-letter queue.
    pub(crate) async fn fifo() -> Self {
        Self(world::World::fifo().await)
    }

    /// Starts with such a FIFO queue that redrives after so many receives.
    pub(crate) async fn fifo_redriving(max_receive_count: u32) -> Self {
        Self(world::World::fifo_redriving(max_receive_count).await)
    }

    pub(crate) async fn with(spec: QueueSpec) -> Self {
        Self(world::World::with(spec).await)
    }

    /// Returns a client of the source queue.
    pub(crate) async fn sqs_queue(&self, settings: &AppSettings) -> SqsQueue {
        self.sqs_queue_to(settings, None).await
    }

    /// Returns a client of the source queue with `SQS_DLQ_URL`.
    pub(crate) async fn sqs_queue_to(
        &self,
        settings: &AppSettings,
        dlq_url: Option<String>,
    ) -> SqsQueue {
        let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(self.sqs.endpoint_url())
            .credentials_provider(SharedCredentialsProvider::new(credentials));
        let settings = SqsSettings { queue_url: self.queue.clone(), dlq_url, wait: settings.wait };
        SqsQueue::load(loader, settings).await
    }

    /// Returns the app's own clients, and a store in memory.
    pub(crate) fn services(&self) -> Services {
        self.services_with(Duration::from_secs(10))
    }

    pub(crate) fn services_with(&self, timeout: Duration) -> Services {
        // The provider may be installed by another test.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = HttpSettings {
            base: self.api.base_url().parse().unwrap(),
            credentials: Default::default(),
            timeout,
            idle_connections_max: 20,
        };
        let uri = format!("http://{}", self.inventory.addr());
        let grpc = GrpcSettings { uri, credentials: Default::default(), timeout };
        let reasons: Vec<_> = DeadLetterReason::all().map(DeadLetterReason::as_str).collect();
        let metrics = Arc::new(Metrics::new(&reasons));
        let outages = Arc::new(Outages::new(limits(), Arc::clone(&metrics)));
        Services {
            reservations: Arc::new(HttpReservationApi::new(http).unwrap()),
            inventory: Arc::new(GrpcInventory::new(grpc).unwrap()),
            idempotency: IdempotencyClient {
                store: Arc::new(MemoryStore::new(10_000, Duration::from_secs(3600))),
                is_ordered: false,
                outages: Arc::clone(&outages),
                metrics: Arc::clone(&metrics),
                health: Arc::new(Health::new()),
            },
            outages,
            metrics,
            endpoints: Arc::new(ServiceEndpoints::default()),
        }
    }

    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(|_| {}).await
    }

    pub(crate) async fn worker_with(&self, change: impl FnOnce(&mut AppSettings)) -> Worker {
        self.worker_of(self.services(), change).await
    }

    /// Starts a worker whose calls for these reservations (`*`: all) wait at a gate.
    pub(crate) async fn gated(
        &self,
        closed: &[&str],
        change: impl FnOnce(&mut AppSettings),
    ) -> (Worker, Arc<Gate>) {
        self.gated_of(self.services(), closed, change).await
    }

    pub(crate) async fn gated_of(
        &self,
        mut services: Services,
        closed: &[&str],
        change: impl FnOnce(&mut AppSettings),
    ) -> (Worker, Arc<Gate>) {
        let gate = Gate::closed(Arc::clone(&services.reservations), closed);
        services.reservations = Arc::clone(&gate) as Arc<dyn ReservationApi>;
        (self.worker_of(services, change).await, gate)
    }

    /// Starts a worker with the given services, which outlive it if the test keeps a clone.
    pub(crate) async fn worker_of(
        &self,
        services: Services,
        change: impl FnOnce(&mut AppSettings),
    ) -> Worker {
        self.worker_traced(services, Tracing::disabled(), change).await
    }

    /// Starts a worker that exports its spans.
    pub(crate) async fn traced(&self, tracing: Tracing) -> Worker {
        self.worker_traced(self.services(), tracing, |_| {}).await
    }

    pub(crate) async fn worker_traced(
        &self,
        services: Services,
        tracing: Tracing,
        change: impl FnOnce(&mut AppSettings),
    ) -> Worker {
        let mut settings = settings();
        change(&mut settings);
        let queue = Arc::new(Spy::new(self.sqs_queue(&settings).await));
        let spy = Arc::clone(&queue);
        let metrics = Arc::clone(&services.metrics);
        let health = Arc::clone(&services.idempotency.health);
        let parts = AppParts { tracing, ..untraced(queue, services) };
        let worker = Worker { app: App::start(parts, settings), metrics, health, spy };
        // Faults that a test sets for the next calls must not hit the probes of the start.
        eventually("the actions were probed", || worker.spy.probes() >= ACTIONS_ASKED).await;
        worker
    }

    /// Waits until the message is released: hidden, and neither extended nor handed back at once.
    pub(crate) async fn released(&self, message_id: &str) -> u32 {
        let visibility = u32::try_from(settings().visibility.as_secs()).unwrap();
        let found =
            || self.hidden_for(message_id).into_iter().find(|s| ![0, visibility].contains(s));
        eventually("the message is released", || found().is_some()).await;
        found().unwrap()
    }
}

/// Returns the parts of a worker without traces, of which no lever is pulled.
pub(crate) fn untraced(queue: Arc<dyn Queue>, services: Services) -> AppParts {
    let controls = Arc::new(Controls::new(Arc::clone(&services.metrics)));
    AppParts { queue, services, tracing: Tracing::disabled(), controls }
}

/// Returns limits above the number of workers of any test.
pub(crate) fn limits() -> OutageSettings {
    let (calls_max, calls_min) = (1_000, 2);
    OutageSettings { calls_max, calls_min, reservation_target: None, inventory_target: None }
}
/// The number of queue actions that a worker probes at its start.
const ACTIONS_ASKED: usize = 4;

/// Returns settings like those of production, with short waits.
pub(crate) fn settings() -> AppSettings {
    AppSettings {
        queue_name: "events".to_owned(),
        wait: Duration::from_secs(1),
        visibility: Duration::from_secs(100),
        concurrency: 20,
        in_flight_max: 1_000,
        in_flight_bytes_max: 64 << 20,
        policy: RetryPolicy {
            retries_max: 2,
            backoff: Backoff { base: Duration::from_millis(5), cap: Duration::from_millis(20) },
        },
        call_timeout_max: Duration::from_secs(10),
    }
}

/// A running app. Dropping it simulates a crash.
pub(crate) struct Worker {
    pub(crate) app: App,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) spy: Arc<Spy>,
}

impl Worker {
    /// Drains without haste and returns the message account.
    pub(crate) async fn drain(self) -> Arc<Account> {
        let left = timeout(LIMIT, self.app.drain(Instant::now() + LIMIT / 2)).await;
        left.expect("the worker drains by its deadline")
    }

    /// Drains, and checks that the account balances and agrees with the ledger of SQS.
    pub(crate) async fn finish(self, world: &World) -> Arc<Account> {
        let account = self.drain().await;
        let sqs = world.sqs.ledger(&world.queue);
        assert!(account.balances(), "{account:?}");
        assert_eq!(account.received_total(), sqs.delivered, "{account:?}");
        let deleted = account.left_total(Disposition::Deleted)
            + account.left_total(Disposition::DeadLettered);
        assert_eq!(deleted, sqs.deletes_effective + sqs.deletes_stale, "{account:?}");
        account
    }

    /// Returns the value of one series, by its full name.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.metrics, series)
    }

    /// Returns the state of a service's circuit breaker: 0 closed, 1 half-open, 2 open.
    pub(crate) fn breaker(&self, service: &str) -> f64 {
        self.metric(&format!("worker_breaker_state{{service=\"{service}\"}}"))
    }

    /// Returns the number of events that wait for a service.
    pub(crate) fn parked(&self) -> f64 {
        self.metric("worker_messages_in_flight{state=\"parked\"}")
    }

    /// Returns the number of events that wait for a worker or for the concurrency limit.
    pub(crate) fn buffered(&self) -> f64 {
        self.metric("worker_messages_in_flight{state=\"buffered\"}")
    }

    /// Returns the number of events that wait for a time of their own.
    pub(crate) fn waiting(&self) -> f64 {
        self.metric("worker_messages_in_flight{state=\"waiting\"}")
    }

    /// Returns the number of events that fail at a service while others succeed there.
    pub(crate) fn suspects(&self, service: &str) -> f64 {
        self.metric(&format!("worker_suspects{{service=\"{service}\"}}"))
    }

    /// Returns `worker_events_total` of a type: success, failed, dropped, retried.
    pub(crate) fn outcomes(&self, event_type: &str) -> [f64; 4] {
        ["success", "failed", "dropped", "retried"].map(|outcome| {
            self.metric(&format!(
                "worker_events_total{{outcome=\"{outcome}\",type=\"{event_type}\"}}"
            ))
        })
    }
}

/// Returns the whole text of `/metrics`.
pub(crate) fn metrics_text(metrics: &Metrics) -> String {
    let mut text = Vec::new();
    metrics.render(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

pub(crate) fn metric(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics_text(metrics);
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().unwrap()
}

/// Returns the idempotency key of the calls of a step.
pub(crate) fn key(event_id: &str, step: Step) -> String {
    idempotency_key(&EventId::new(event_id).unwrap(), step).to_string()
}

/// Returns a claim of a message that was sent at the epoch.
pub(crate) fn request(hash: ContentHash, token: ClaimToken, lasts: Duration) -> ClaimRequest {
    ClaimRequest { hash, token, lasts, sent_at: SystemTime::UNIX_EPOCH }
}
