//! The connection: made when it is first needed, shared by all operations, given up when it is in doubt. Repeats nothing: a
//! failed operation is the caller's to repeat, and the next one connects anew.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, RedisResult, Value};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::deadline::within;
use super::fault::{is_no_script, is_of_the_connection, unavailable};
use super::script::Call;
use super::server::{self, ServerFacts};
use crate::idempotency::StoreError;

/// For one operation, connecting included. A Redis that is well answers within a few milliseconds, a TLS handshake across zones
/// within tens; and a claim that waits for longer has spent a fifth of the shortest lease (5 s).
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);

/// For connecting to one node of a cluster: a dead one must leave an operation time for the others.
const NODE_CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// A write that the other end's kernel does not acknowledge for this long means that nobody is there (`TCP_USER_TIMEOUT`,
/// RFC 5482). Without it a peer that vanished is noticed after a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(3);

/// Redirections (MOVED, ASK) that an operation on a cluster may follow. The cluster client counts a lost connection among
/// them: there alone an operation may be sent again, at once and within its time, which every operation allows.
const CLUSTER_REDIRECTIONS_MAX: u32 = 2;

/// How long the cluster client waits before it asks again, where a node says to (TRYAGAIN), in ms.
const CLUSTER_PAUSE_MS: std::ops::Range<u64> = 10..20;

/// Failures in a row, in whatever way, after which the server is connected to anew: the connection may lead to one that will
/// never do what it is asked. A cluster's client repairs connections to single nodes by itself, and other nodes are well
/// meanwhile; in this many, some operation reaches another node.
const FAILURES_MAX: u32 = 16;

#[derive(Clone)]
enum Connection {
    Standalone(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn query(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Standalone(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Failures in a row that it takes to give it up, where they seem to be its own.
    const fn failures_max(&self) -> u32 {
        match self {
            Self::Standalone(_) => 1,
            Self::Cluster(_) => FAILURES_MAX,
        }
    }
}

/// A connection, and how it fares.
#[derive(Clone)]
struct Link {
    connection: Connection,
    failures: Arc<AtomicU32>,
}

/// When connecting failed last, and why.
type Failure = Option<(Instant, StoreError)>;

/// Where the server is, and the connection to it.
pub(super) struct Connector {
    info: ConnectionInfo,
    /// `host:port`, to be shown.
    server: String,
    link: Mutex<Option<Link>>,
    /// Held while connecting: one attempt at a time.
    connecting: tokio::sync::Mutex<Failure>,
    /// What was connected to last was a cluster.
    is_cluster: AtomicBool,
}

impl Connector {
    pub(super) fn new(info: ConnectionInfo) -> Self {
        let server = info.addr().to_string();
        let info = info.set_tcp_settings(tcp_settings());
        Self {
            info,
            server,
            link: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            is_cluster: AtomicBool::default(),
        }
    }

    /// Whether it is a cluster, as far as is known.
    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster.load(Ordering::Relaxed)
    }

    /// `host:port`.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Runs a script, by its name, or in full where the server does not know it; and reads its answer.
    pub(super) async fn run<T>(
        &self,
        call: &Call<'_>,
        read: impl Fn(&Value) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + OPERATION_TIMEOUT;
        let mut link = self.link(deadline).await?;
        let connection = &mut link.connection;
        let answer = within(deadline, async {
            match connection.query(&call.by_name()).await {
                Err(error) if is_no_script(&error) => connection.query(&call.in_full()).await,
                answer => answer,
            }
        })
        .await;
        match answer {
            Some(Ok(answer)) => {
                let answer = read(&answer);
                match &answer {
                    Err(StoreError::Unavailable(_) | StoreError::Away { .. }) => {
                        self.doubt(&link, FAILURES_MAX);
                    }
                    Ok(_) | Err(StoreError::NotOwner | StoreError::Unreadable(_)) => {
                        link.failures.store(0, Ordering::Relaxed);
                    }
                }
                answer
            }
            Some(Err(error)) => {
                let is_its_own = is_of_the_connection(&error);
                let own_max = link.connection.failures_max();
                self.doubt(&link, if is_its_own { own_max } else { FAILURES_MAX });
                Err(unavailable(&self.server, &error))
            }
            None => {
                // Perhaps the other end is gone without a word: a new connection would show it.
                self.doubt(&link, link.connection.failures_max());
                Err(self.silent("has not answered"))
            }
        }
    }

    /// Asks the server about itself, on a connection of its own.
    pub(super) async fn facts(&self) -> Result<ServerFacts, StoreError> {
        let asked = timeout_at(Instant::now() + OPERATION_TIMEOUT, self.open());
        match asked.await {
            Ok(opened) => opened.map(|(_, facts)| facts),
            Err(_) => Err(self.silent("could not be connected to")),
        }
    }

    async fn link(&self, deadline: Instant) -> Result<Link, StoreError> {
        if let Some(link) = self.current().clone() {
            return Ok(link);
        }
        let came = Instant::now();
        let late = |_| self.silent("could not be connected to");
        let mut failure = timeout_at(deadline, self.connecting.lock()).await.map_err(late)?;
        if let Some(link) = self.current().clone() {
            return Ok(link);
        }
        // What we waited for has failed: to try it again at once, each in turn, helps nobody.
        if let Some((at, why)) = &*failure
            && *at >= came
        {
            return Err(why.clone());
        }
        let connected = timeout_at(deadline, self.connect()).await.map_err(late).flatten();
        match connected {
            Ok(connection) => {
                let link = Link { connection, failures: Arc::default() };
                *self.current() = Some(link.clone());
                *failure = None;
                Ok(link)
            }
            Err(why) => {
                *failure = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        let (connection, facts) = self.open().await?;
        if facts.is_sentinel() {
            return Err(StoreError::Unavailable(format!(
                "{} is a Sentinel, which keeps no records: name the master, or a cluster, in IDEMPOTENCY_STORE",
                self.server
            )));
        }
        self.is_cluster.store(facts.is_cluster(), Ordering::Relaxed);
        let connection = if facts.is_cluster() {
            let cluster = self.cluster().map_err(|error| unavailable(&self.server, &error))?;
            let connected = cluster.get_async_connection().await;
            Connection::Cluster(connected.map_err(|error| unavailable(&self.server, &error))?)
        } else {
            Connection::Standalone(connection)
        };
        info!(server = self.server, facts = %facts, "Connected to the shared store");
        if let Some(advice) = facts.advice() {
            warn!(server = self.server, "The shared store may forget: {advice}");
        }
        Ok(connection)
    }

    async fn open(&self) -> Result<(MultiplexedConnection, ServerFacts), StoreError> {
        // No time limits of its own: ours holds for the whole operation.
        let unlimited =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opened = async {
            let client = Client::open(self.info.clone())?;
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&unlimited).await?;
            let facts = server::ask(&mut connection).await?;
            RedisResult::Ok((connection, facts))
        };
        opened.await.map_err(|error| unavailable(&self.server, &error))
    }

    fn cluster(&self) -> RedisResult<ClusterClient> {
        ClusterClientBuilder::new([self.info.clone()])
            .tcp_settings(tcp_settings())
            .connection_timeout(NODE_CONNECT_TIMEOUT)
            .response_timeout(OPERATION_TIMEOUT)
            .retries(CLUSTER_REDIRECTIONS_MAX)
            .min_retry_wait(CLUSTER_PAUSE_MS.start)
            .max_retry_wait(CLUSTER_PAUSE_MS.end)
            .build()
    }

    /// Counts a failure, and gives the connection up where it has too many.
    fn doubt(&self, link: &Link, failures_max: u32) {
        let failures = link.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < failures_max {
            return;
        }
        let mut current = self.current();
        // Unless somebody has put another in its place meanwhile.
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(&it.failures, &link.failures)) {
            *current = None;
        }
    }

    fn silent(&self, what: &str) -> StoreError {
        let limit_ms = OPERATION_TIMEOUT.as_millis();
        StoreError::Unavailable(format!("Redis at {} {what} within {limit_ms} ms", self.server))
    }

    fn current(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().expect("no panic happens under this lock")
    }
}

fn tcp_settings() -> TcpSettings {
    // Small commands, each waited for: they must not wait to be sent.
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_MAX);
    settings
}
