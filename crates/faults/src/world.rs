//! The world of a case: stand-ins with a proxy before each, sent messages, injected faults, and the
//! environment of its workers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use sandbox::inventory::Inventory;
use sandbox::ledger::Ledger;
use sandbox::redis::{Redis, RedisOptions};
use sandbox::reservation_api::ReservationApi;
use sandbox::sqs::{NewMessage, QueueSpec, Redrive, Sqs};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use crate::account::{Expected, Harm, Sent};
use crate::events::Event;
use crate::failed::Failed;
use crate::proxy::{Course, Proxy};
use crate::worker::{Launch, Output, Variables, Worker};

/// Distinguishes the logs of all workers.
static WORKERS: AtomicU32 = AtomicU32::new(0);

/// The settings of a case's worlds.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The worker's binary.
    pub program: PathBuf,
    /// The folder for logs.
    pub folder: PathBuf,
    /// Whether to run fewer rounds with shorter waits.
    pub is_short: bool,
}

/// A Redis with its proxy.
#[derive(Debug)]
pub struct Store {
    /// The server.
    pub redis: Redis,
    /// The proxy before it.
    pub proxy: Proxy,
}

/// The stand-ins, proxies and workers' environment of a case.
#[derive(Debug)]
pub struct World {
    setting: Setting,
    /// When the server of the queues started: its ledgers count from then.
    pub began: Instant,
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
    /// The proxy before SQS.
    pub to_sqs: Proxy,
    /// The proxy before the Reservation API.
    pub to_api: Proxy,
    /// The proxy before the Inventory service.
    pub to_inventory: Proxy,
    /// The shared store, if the case has one.
    pub store: Option<Store>,
    /// The environment of new workers, without the admin port.
    pub variables: Variables,
    /// The sent messages.
    pub sent: Vec<Sent>,
    /// The injected faults with their times.
    pub harm: Harm,
}

impl World {
    /// Starts both services and a queue that redrives messages after 100 receives.
    ///
    /// # Errors
    /// If a port is not available.
    pub async fn start(setting: &Setting) -> io::Result<Self> {
        Self::redriving(setting, 100).await
    }

    /// Starts a world with this `maxReceiveCount`.
    ///
    /// # Errors
    /// If a port is not available.
    pub async fn redriving(setting: &Setting, max_receive_count: u32) -> io::Result<Self> {
        Self::of_kind(setting, max_receive_count, false).await
    }

    /// Starts a world with FIFO queues.
    ///
    /// # Errors
    /// If a port is not available.
    pub async fn fifo(setting: &Setting) -> io::Result<Self> {
        Self::fifo_redriving(setting, 100).await
    }

    /// Starts a world with FIFO queues and this `maxReceiveCount`.
    ///
    /// # Errors
    /// If a port is not available.
    pub async fn fifo_redriving(setting: &Setting, max_receive_count: u32) -> io::Result<Self> {
        Self::of_kind(setting, max_receive_count, true).await
    }

    async fn of_kind(setting: &Setting, max_receive_count: u32, fifo: bool) -> io::Result<Self> {
        let sqs = Sqs::start().await;
        let began = Instant::now();
        let spec = QueueSpec { fifo, content_based_deduplication: fifo, ..QueueSpec::default() };
        let [events_name, dlq_name] =
            if fifo { ["events.fifo", "dlq.fifo"] } else { ["events", "dlq"] };
        let dlq = sqs.create_queue(dlq_name, spec.clone());
        let redrive = Some(Redrive { dlq: dlq_name.to_owned(), max_receive_count });
        let queue = sqs.create_queue(events_name, QueueSpec { redrive, ..spec });
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ledger = Ledger::default();
        let api = ReservationApi::start_on(here, ledger.clone()).await?;
        let inventory = Inventory::start_on(here, ledger.clone()).await?;
        let to_sqs = Proxy::start(address(&sqs.endpoint_url())?).await?;
        let to_api = Proxy::start(address(&api.base_url())?).await?;
        let to_inventory = Proxy::start(address(&inventory.addr())?).await?;
        let mut world = Self {
            setting: setting.clone(),
            began,
            sqs,
            queue,
            dlq,
            api,
            inventory,
            ledger,
            to_sqs,
            to_api,
            to_inventory,
            store: None,
            variables: Variables::new(),
            sent: Vec::new(),
            harm: Harm::default(),
        };
        world.variables = world.variables();
        Ok(world)
    }

    /// Adds a Redis as shared store.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn with_redis(mut self, options: RedisOptions) -> io::Result<Self> {
        let redis = options.start().await?;
        let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()))).await?;
        self.variables.insert("IDEMPOTENCY_STORE", format!("redis://{}", proxy.addr()));
        self.store = Some(Store { redis, proxy });
        Ok(self)
    }

    fn variables(&self) -> Variables {
        Variables::from([
            ("SQS_QUEUE_URL", self.queue.clone()),
            ("SQS_WAIT_TIME", "1".to_owned()),
            ("SQS_VISIBILITY_TIMEOUT", "5".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.to_sqs.addr())),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIDFAULTS".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "sandbox".to_owned()),
            ("INVENTORY_GRPC_ADDR", self.to_inventory.addr().to_string()),
            ("RESERVATION_API_BASE", format!("http://{}", self.to_api.addr())),
            ("OTEL_SDK_DISABLED", "true".to_owned()),
            ("BACKOFF_BASE_MS", "100".to_owned()),
            ("BACKOFF_MAX_MS", "1000".to_owned()),
        ])
    }

    /// Sets a variable of new workers.
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.variables.insert(name, value.to_string());
    }

    /// Uses the default leases and backoffs for new workers.
    pub fn use_defaults(&mut self) {
        for name in ["SQS_VISIBILITY_TIMEOUT", "BACKOFF_BASE_MS", "BACKOFF_MAX_MS"] {
            self.variables.remove(name);
        }
    }

    /// Connects new workers without proxies: the proxies' cost would distort measurements.
    pub fn use_no_proxies(&mut self) {
        self.set("AWS_ENDPOINT_URL", self.sqs.endpoint_url());
        self.set("RESERVATION_API_BASE", self.api.base_url());
        self.set("INVENTORY_GRPC_ADDR", self.inventory.addr());
    }

    /// Returns whether the case runs in its short form.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.setting.is_short
    }

    /// Prepares a worker with its own admin port.
    ///
    /// # Errors
    /// If no port is free.
    pub fn launch(&self) -> io::Result<(Launch, ReservedPort)> {
        let port = ReservedPort::reserve()?;
        let mut variables = self.variables.clone();
        variables.insert("SERVER_PORT", port.number.to_string());
        let program = self.setting.program.clone();
        let launch = Launch { program, variables, output: Output::Kept, before: String::new() };
        Ok((launch, port))
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn worker(&self) -> io::Result<Started> {
        let (launch, port) = self.launch()?;
        self.start_worker(&launch, port)
    }

    /// Starts a worker with these settings.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_worker(&self, launch: &Launch, port: ReservedPort) -> io::Result<Started> {
        let number = WORKERS.fetch_add(1, Ordering::Relaxed);
        let log = self.setting.folder.join(format!("worker-{number}.log"));
        Ok(Started { worker: Worker::start(launch, &log)?, _port: port })
    }

    /// Starts a worker and waits until it logs its start.
    ///
    /// # Errors
    /// If it does not log it in time.
    pub async fn started(&self) -> Result<Started, Failed> {
        let started = self.worker()?;
        started.says("Worker started").await?;
        Ok(started)
    }

    /// Sends an event.
    pub fn send(&mut self, event: Event) {
        let message_id = self.sqs.send(&self.queue, event.body());
        self.sent.push(Sent::event(event, message_id));
    }

    /// Sends an event whose outcome the case itself checks.
    pub fn send_judged(&mut self, event: Event) {
        let queue = self.queue.clone();
        self.send_judged_to(&queue, event);
    }

    /// Sends such an event to another queue.
    pub fn send_judged_to(&mut self, queue: &str, event: Event) {
        let message_id = self.sqs.send(queue, event.body());
        let expected = Expected::Judged;
        self.sent.push(Sent { expected, ..Sent::event(event, message_id) });
    }

    /// Sends an event with a message group: of a FIFO queue, or a tenant of a standard queue.
    pub fn send_in(&mut self, group: &str, event: Event, expected: Expected) {
        let message = NewMessage { group: Some(group.to_owned()), ..NewMessage::new(event.body()) };
        let sent = self.sqs.send_message(&self.queue, message);
        let message_id = sent.expect("both kinds of queues accept a message group");
        self.sent.push(Sent { expected, ..Sent::event(event, message_id) });
    }

    /// Sends all these events.
    pub fn send_all(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.send(event));
    }

    /// Sends a body that is not an event and must be dead-lettered.
    pub fn send_poison(&mut self, body: &str) {
        let message_id = self.sqs.send(&self.queue, body);
        self.sent.push(Sent::poison(message_id));
    }

    /// Returns all proxies, including the store's.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        let store = self.store.as_ref().map(|store| &store.proxy);
        [&self.to_sqs, &self.to_api, &self.to_inventory].into_iter().chain(store)
    }

    /// Forwards all bytes from now on, including held ones.
    pub fn let_pass(&self) {
        self.proxies().for_each(|proxy| proxy.set_both(Course::Pass));
    }

    /// Drops held bytes, for example those of a dead worker, and forwards all bytes from now on.
    pub fn forget(&self) {
        self.proxies().for_each(Proxy::forget);
    }
}

/// A started worker with its admin port.
#[derive(Debug)]
pub struct Started {
    worker: Worker,
    _port: ReservedPort,
}

impl std::ops::Deref for Started {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl std::ops::DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Worker {
        &mut self.worker
    }
}

/// A reserved port for the admin server. It is bound but not listened on, so the system does not
/// assign it. The worker can bind it too, because both sockets allow address reuse.
#[derive(Debug)]
pub struct ReservedPort {
    /// The port number.
    pub number: u16,
    _bound: TcpSocket,
}

impl ReservedPort {
    /// Reserves a free port.
    ///
    /// # Errors
    /// If no port is free.
    pub fn reserve() -> io::Result<Self> {
        let (socket, any) = match TcpSocket::new_v6() {
            Ok(socket) => (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
            Err(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        };
        socket.set_reuseaddr(true)?;
        socket.bind(any)?;
        Ok(Self { number: socket.local_addr()?.port(), _bound: socket })
    }
}

/// Parses the address in a URL, or a plain address.
pub(crate) fn address(text: &str) -> io::Result<SocketAddr> {
    text.rsplit('/').next().unwrap_or(text).parse().map_err(io::Error::other)
}
