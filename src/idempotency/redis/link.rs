//! The connection: opened when first needed, shared by all operations, closed when it is suspect.
//!
//! A failed operation is not retried here; the caller retries it, and the next operation
//! reconnects.
//!
//! A connection that is due for renewal (because of its age, or because a certificate has changed)
//! is replaced by a new one. Operations under way end on the old one. Where no new one can be made,
//! the old one stays in use, so that a renewal is never a fault.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Cmd, ConnectionInfo, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::access::{AccessError, CertificatesInUse, StoreAccess};
use super::deadline::within;
use super::fault::{is_no_script, is_of_the_connection, unavailable};
use super::script::Call;
use super::server::{self, ServerInfo};
use crate::idempotency::StoreError;

/// Timeout of one operation, including the connection. A healthy Redis answers in a few
/// milliseconds, and a TLS handshake across zones takes tens; a longer wait of a claim uses a fifth
/// of the shortest lease (5 s).
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for connecting to one cluster node: a dead node must leave time for the others.
const NODE_CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// Maximum time without a TCP acknowledgement before the connection is closed (`TCP_USER_TIMEOUT`,
/// RFC 5482). Without it, a lost peer is detected only after a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(3);

/// Maximum redirections (MOVED, ASK) of one cluster operation. The cluster client counts a lost
/// connection as one: only there may an operation be sent twice, at once and within its timeout.
/// Every operation allows that.
const CLUSTER_REDIRECTIONS_MAX: u32 = 2;

/// Wait of the cluster client before a retry that a node requests (TRYAGAIN), in ms.
const CLUSTER_PAUSE_MS: std::ops::Range<u64> = 10..20;

/// Consecutive failures of any kind before a reconnect: the connection may lead to a server that
/// will never work. A cluster client repairs the connections to single nodes itself, and other
/// nodes work meanwhile; within this many operations, some reach another node.
const FAILURES_MAX: u32 = 16;

/// Pause after a failed renewal. The old connection stays in use.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// Timeout of a renewal: half of an operation's, so that the operation that renews can still use
/// the old connection.
const RENEWAL_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Clone)]
enum RedisConnection {
    Standalone(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl RedisConnection {
    async fn query(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Standalone(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Returns how many consecutive connection errors close the connection.
    const fn failures_max(&self) -> u32 {
        match self {
            Self::Standalone(_) => 1,
            Self::Cluster(_) => FAILURES_MAX,
        }
    }
}

/// A connection and its failure counter.
#[derive(Clone)]
struct RedisLink {
    connection: RedisConnection,
    failures: Arc<AtomicU32>,
    opened: Instant,
    certificates: CertificatesInUse,
}

impl RedisLink {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.failures, &other.failures)
    }
}

/// Time and error of the last failed connection attempt.
type ConnectFailure = Option<(Instant, StoreError)>;

/// The server's address, and the connection to it.
pub(super) struct RedisConnector {
    info: ConnectionInfo,
    access: StoreAccess,
    /// `host:port`, for messages.
    server: String,
    link: Mutex<Option<RedisLink>>,
    /// Held while connecting: one attempt at a time.
    connecting: tokio::sync::Mutex<ConnectFailure>,
    /// Whether the last connection was to a cluster.
    is_cluster: AtomicBool,
    /// Whether there ever was a connection.
    was_connected: AtomicBool,
}

impl RedisConnector {
    pub(super) fn new(info: ConnectionInfo, access: StoreAccess) -> Self {
        let server = info.addr().to_string();
        let info = info.set_tcp_settings(tcp_settings());
        Self {
            info,
            access,
            server,
            link: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            is_cluster: AtomicBool::default(),
            was_connected: AtomicBool::default(),
        }
    }

    /// Whether the server is a cluster, as far as is known.
    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster.load(Ordering::Relaxed)
    }

    /// Returns `host:port`.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Returns whether the server is a cluster. Connects, if there never was a connection.
    pub(super) async fn is_known_cluster(&self) -> Result<bool, StoreError> {
        if !self.was_connected.load(Ordering::Relaxed) {
            self.link(Instant::now() + OPERATION_TIMEOUT).await?;
        }
        Ok(self.is_cluster())
    }

    /// Returns the connection to the cluster; `None` if the server is none.
    pub(super) async fn cluster_connection(&self) -> Result<Option<ClusterConnection>, StoreError> {
        match self.link(Instant::now() + OPERATION_TIMEOUT).await?.connection {
            RedisConnection::Standalone(_) => Ok(None),
            RedisConnection::Cluster(connection) => Ok(Some(connection)),
        }
    }

    /// Runs a script by its SHA-1, or in full if the server does not know it; then reads the
    /// answer.
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
                    Err(StoreError::Unavailable { .. } | StoreError::Away { .. }) => {
                        self.doubt(&link, FAILURES_MAX);
                    }
                    Ok(_) | Err(StoreError::NotOwner(_) | StoreError::Unreadable(_)) => {
                        link.failures.store(0, Ordering::Relaxed);
                    }
                }
                answer
            }
            Some(Err(error)) => {
                let is_its_own = is_of_the_connection(&error);
                let own_max = link.connection.failures_max();
                self.doubt(&link, if is_its_own { own_max } else { FAILURES_MAX });
                Err(self.unavailable(&error))
            }
            None => {
                // The peer may have disappeared silently: only a new connection shows it.
                self.doubt(&link, link.connection.failures_max());
                Err(self.silent("has not answered", OPERATION_TIMEOUT))
            }
        }
    }

    /// Reads the server's facts on a separate connection.
    pub(super) async fn server_info(&self) -> Result<ServerInfo, StoreError> {
        let certificates = self.access.certificates();
        let asked = timeout_at(Instant::now() + OPERATION_TIMEOUT, self.open(&certificates));
        match asked.await {
            Ok(opened) => opened.map(|(_, info)| info),
            Err(_) => Err(self.silent("could not be connected to", OPERATION_TIMEOUT)),
        }
    }

    async fn link(&self, deadline: Instant) -> Result<RedisLink, StoreError> {
        let current = self.current().clone();
        if let Some(link) = current {
            return Ok(if self.is_due(&link) { self.renewed(link).await } else { link });
        }
        let came = Instant::now();
        let late = |_| self.silent("could not be connected to", OPERATION_TIMEOUT);
        let mut failure = timeout_at(deadline, self.connecting.lock()).await.map_err(late)?;
        if let Some(link) = self.current().clone() {
            return Ok(link);
        }
        // The attempt that this call waited for has failed. A second attempt for each waiting call
        // would not help.
        if let Some((at, why)) = &*failure
            && *at >= came
        {
            return Err(why.clone());
        }
        let connected = timeout_at(deadline, self.connect()).await.map_err(late).flatten();
        match connected {
            Ok(link) => {
                *failure = None;
                Ok(link)
            }
            Err(why) => {
                *failure = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn is_due(&self, link: &RedisLink) -> bool {
        let is_old = self.access.renew_after.is_some_and(|age| link.opened.elapsed() >= age);
        is_old || !self.access.are_current(&link.certificates)
    }

    /// Replaces a connection that is due. Returns the old one if another operation is at it, or if
    /// no new one can be made now.
    async fn renewed(&self, old: RedisLink) -> RedisLink {
        let Ok(mut failure) = self.connecting.try_lock() else { return old };
        let replaced = self.current().clone().filter(|current| !current.is(&old));
        if let Some(current) = replaced {
            return current;
        }
        if failure.as_ref().is_some_and(|(at, _)| at.elapsed() < RENEWAL_PAUSE) {
            return old;
        }
        let deadline = Instant::now() + RENEWAL_TIMEOUT;
        let late = |_| self.silent("could not be connected to", RENEWAL_TIMEOUT);
        match timeout_at(deadline, self.connect()).await.map_err(late).flatten() {
            Ok(link) => {
                *failure = None;
                link
            }
            Err(why) => {
                warn!(server = self.server, error = %why, "The connection to the shared store could not be renewed yet: the old one is used");
                *failure = Some((Instant::now(), why));
                old
            }
        }
    }

    /// Makes a connection, which is the current one from then on.
    async fn connect(&self) -> Result<RedisLink, StoreError> {
        let opened = Instant::now();
        let certificates = self.access.certificates();
        let connection = self.connected(&certificates).await?;
        let link = RedisLink { connection, failures: Arc::default(), opened, certificates };
        *self.current() = Some(link.clone());
        Ok(link)
    }

    async fn connected(
        &self,
        certificates: &CertificatesInUse,
    ) -> Result<RedisConnection, StoreError> {
        let (connection, info) = self.open(certificates).await?;
        if info.is_sentinel() {
            return Err(StoreError::unavailable(format!(
                "{} is a Sentinel, which keeps no records: name the master, or a cluster, in IDEMPOTENCY_STORE",
                self.server
            )));
        }
        self.is_cluster.store(info.is_cluster(), Ordering::Relaxed);
        self.was_connected.store(true, Ordering::Relaxed);
        let connection = if info.is_cluster() {
            let connected = self.cluster(certificates).await;
            RedisConnection::Cluster(connected.map_err(|error| self.unavailable(&error))?)
        } else {
            RedisConnection::Standalone(connection)
        };
        info!(server = self.server, facts = %info, "Connected to the shared store");
        if let Some(advice) = info.advice() {
            warn!(server = self.server, "The shared store may forget: {advice}");
        }
        Ok(connection)
    }

    async fn open(
        &self,
        certificates: &CertificatesInUse,
    ) -> Result<(MultiplexedConnection, ServerInfo), StoreError> {
        // No timeouts of the client itself: `OPERATION_TIMEOUT` covers the whole operation.
        let unlimited =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let opened = async {
            let client = self.access.client(&self.info, certificates).await?;
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&unlimited).await?;
            let info = server::ask(&mut connection).await?;
            Result::<_, AccessError>::Ok((connection, info))
        };
        opened.await.map_err(|error| match error {
            AccessError::Redis(error) => self.unavailable(&error),
            AccessError::NoPassword(why) => StoreError::unavailable(format!(
                "Redis at {} cannot be logged in to: {why}",
                self.server
            )),
        })
    }

    async fn cluster(&self, certificates: &CertificatesInUse) -> RedisResult<ClusterConnection> {
        let builder = ClusterClientBuilder::new([self.info.clone()])
            .tcp_settings(tcp_settings())
            .connection_timeout(NODE_CONNECT_TIMEOUT)
            .response_timeout(OPERATION_TIMEOUT)
            .retries(CLUSTER_REDIRECTIONS_MAX)
            .min_retry_wait(CLUSTER_PAUSE_MS.start)
            .max_retry_wait(CLUSTER_PAUSE_MS.end);
        let client = self.access.for_cluster(builder, &self.info, certificates).build()?;
        client.get_async_connection().await
    }

    pub(super) fn unavailable(&self, error: &RedisError) -> StoreError {
        unavailable(&self.server, &self.access.check, error)
    }

    /// Counts a failure, and closes the connection after too many.
    fn doubt(&self, link: &RedisLink, failures_max: u32) {
        let failures = link.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < failures_max {
            return;
        }
        let mut current = self.current();
        // Another operation may have replaced the connection already.
        if current.as_ref().is_some_and(|it| it.is(link)) {
            *current = None;
        }
    }

    fn silent(&self, what: &str, limit: Duration) -> StoreError {
        let limit_ms = limit.as_millis();
        StoreError::unavailable(format!("Redis at {} {what} within {limit_ms} ms", self.server))
    }

    fn current(&self) -> MutexGuard<'_, Option<RedisLink>> {
        self.link.lock().expect("no panic happens under this lock")
    }
}

fn tcp_settings() -> TcpSettings {
    // Commands are small and awaited one by one: Nagle's algorithm would delay them.
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_MAX);
    settings
}
