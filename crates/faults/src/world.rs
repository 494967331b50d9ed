//! One case's world: the stand-ins, a proxy before each of them, what was sent, what harm was done, and the environment
//! of the workers that are started in it.

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

use crate::account::{Expected, Harm, Sent};
use crate::events::Event;
use crate::failed::Failed;
use crate::proxy::{Course, Proxy};
use crate::worker::{Launch, Output, Variables, Worker};

/// Tells the logs of all workers apart.
static WORKERS: AtomicU32 = AtomicU32::new(0);

/// Where a case's worlds are made.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The worker.
    pub program: PathBuf,
    /// For logs.
    pub folder: PathBuf,
    /// Fewer rounds, shorter waits.
    pub is_short: bool,
}

/// A Redis and the way to it.
#[derive(Debug)]
pub struct Store {
    /// The server.
    pub redis: Redis,
    /// What stands before it.
    pub proxy: Proxy,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    setting: Setting,
    /// The server of both queues.
    pub sqs: Sqs,
    /// What the worker consumes.
    pub queue: String,
    /// Where poison goes.
    pub dlq: String,
    /// The Reservation API.
    pub api: ReservationApi,
    /// The Inventory service.
    pub inventory: Inventory,
    /// Of both services.
    pub ledger: Ledger,
    /// Before the queue.
    pub to_sqs: Proxy,
    /// Before the Reservation API.
    pub to_api: Proxy,
    /// Before the Inventory service.
    pub to_inventory: Proxy,
    /// The shared store, where the case has one.
    pub store: Option<Store>,
    /// What workers are started with, but for the side port.
    pub variables: Variables,
    /// What was sent.
    pub sent: Vec<Sent>,
    /// What was done to whom, and when.
    pub harm: Harm,
}

impl World {
    /// A queue whose messages go to a dead-letter queue after 100 receives, and both services.
    ///
    /// # Errors
    /// Where a port is not to be had.
    pub async fn start(setting: &Setting) -> io::Result<Self> {
        Self::redriving(setting, 100).await
    }

    /// The same, after so many receives.
    ///
    /// # Errors
    /// Where a port is not to be had.
    pub async fn redriving(setting: &Setting, max_receive_count: u32) -> io::Result<Self> {
        Self::of_kind(setting, max_receive_count, false).await
    }

    /// With FIFO queues.
    ///
    /// # Errors
    /// Where a port is not to be had.
    pub async fn fifo(setting: &Setting) -> io::Result<Self> {
        Self::fifo_redriving(setting, 100).await
    }

    /// The same, after so many receives.
    ///
    /// # Errors
    /// Where a port is not to be had.
    pub async fn fifo_redriving(setting: &Setting, max_receive_count: u32) -> io::Result<Self> {
        Self::of_kind(setting, max_receive_count, true).await
    }

    async fn of_kind(setting: &Setting, max_receive_count: u32, fifo: bool) -> io::Result<Self> {
        let sqs = Sqs::start().await;
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

    /// With a Redis that has written to disk what it has acknowledged.
    ///
    /// # Errors
    /// Where it cannot be started.
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

    /// Sets a variable of the workers that are started from now on.
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.variables.insert(name, value.to_string());
    }

    /// Leases and backoffs of the workers that are started from now on are those of nobody who has set them.
    pub fn use_defaults(&mut self) {
        for name in ["SQS_VISIBILITY_TIMEOUT", "BACKOFF_BASE_MS", "BACKOFF_MAX_MS"] {
            self.variables.remove(name);
        }
    }

    /// The workers that are started from now on are led past the proxies: what these cost would count as the workers'.
    pub fn use_no_proxies(&mut self) {
        self.set("AWS_ENDPOINT_URL", self.sqs.endpoint_url());
        self.set("RESERVATION_API_BASE", self.api.base_url());
        self.set("INVENTORY_GRPC_ADDR", self.inventory.addr());
    }

    /// Whether fewer rounds and shorter waits are asked for.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.setting.is_short
    }

    /// A worker that can be started, with a side port of its own.
    ///
    /// # Errors
    /// Where there is no port.
    pub fn launch(&self) -> io::Result<(Launch, SidePort)> {
        let port = SidePort::reserve()?;
        let mut variables = self.variables.clone();
        variables.insert("SERVER_PORT", port.number.to_string());
        let program = self.setting.program.clone();
        let launch = Launch { program, variables, output: Output::Kept, before: String::new() };
        Ok((launch, port))
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn worker(&self) -> io::Result<Started> {
        let (launch, port) = self.launch()?;
        self.start_worker(&launch, port)
    }

    /// Starts a worker that way.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_worker(&self, launch: &Launch, port: SidePort) -> io::Result<Started> {
        let number = WORKERS.fetch_add(1, Ordering::Relaxed);
        let log = self.setting.folder.join(format!("worker-{number}.log"));
        Ok(Started { worker: Worker::start(launch, &log)?, _port: port })
    }

    /// Starts a worker, and waits until it says so.
    ///
    /// # Errors
    /// Where it does not.
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

    /// Sends an event whose end is the case's own business.
    pub fn send_judged(&mut self, event: Event) {
        let message_id = self.sqs.send(&self.queue, event.body());
        let expected = Expected::Judged;
        self.sent.push(Sent { expected, ..Sent::event(event, message_id) });
    }

    /// Sends an event in a message group: of a FIFO queue, or of a tenant on a standard one.
    pub fn send_in(&mut self, group: &str, event: Event, expected: Expected) {
        let message = NewMessage { group: Some(group.to_owned()), ..NewMessage::new(event.body()) };
        let sent = self.sqs.send_message(&self.queue, message);
        let message_id = sent.expect("both kinds of queues take a message of a group");
        self.sent.push(Sent { expected, ..Sent::event(event, message_id) });
    }

    /// Sends all of them.
    pub fn send_all(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.send(event));
    }

    /// Sends what is no event, and must be set aside.
    pub fn send_poison(&mut self, body: &str) {
        let message_id = self.sqs.send(&self.queue, body);
        self.sent.push(Sent::poison(message_id));
    }

    /// All proxies, the store's too.
    pub fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        let store = self.store.as_ref().map(|store| &store.proxy);
        [&self.to_sqs, &self.to_api, &self.to_inventory].into_iter().chain(store)
    }

    /// Everything passes from now on, what is held too.
    pub fn let_pass(&self) {
        self.proxies().for_each(|proxy| proxy.set_both(Course::Pass));
    }

    /// Everything passes from now on, and what a dead worker had under way never arrives.
    pub fn forget(&self) {
        self.proxies().for_each(Proxy::forget);
    }
}

/// A worker that was started, and its side port.
#[derive(Debug)]
pub struct Started {
    worker: Worker,
    _port: SidePort,
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

/// A port that the system gives to nobody who does not ask for this one: it is bound, and nobody listens yet. The worker
/// can, as both allow the address to be used again.
#[derive(Debug)]
pub struct SidePort {
    /// The port.
    pub number: u16,
    _bound: TcpSocket,
}

impl SidePort {
    /// One that is free.
    ///
    /// # Errors
    /// Where there is none.
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

/// The address in a URL, or as it is.
pub(crate) fn address(text: &str) -> io::Result<SocketAddr> {
    text.rsplit('/').next().unwrap_or(text).parse().map_err(io::Error::other)
}
