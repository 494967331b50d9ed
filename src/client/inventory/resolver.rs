//! Resolves the Inventory service's name, and keeps a connection to each of its addresses.
//!
//! This task feeds the `channel`. `connect` opens the connections.
//!
//! The name is resolved every [`RESOLVE_INTERVAL`], and at once when a connection fails. New
//! addresses are connected to; removed ones get no more calls. An address whose connection fails
//! gets no calls until it is connected again, which is tried with random exponential backoff. A
//! call without a connection skips the backoff: all addresses are tried at once.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::connect::ChannelConnector;
use super::endpoints::{Endpoints, InventoryConnection, NoConnection};
use crate::client::lookup::Lookup;
use crate::retry::Backoff;

/// Interval of resolution in normal operation: new pods get calls within this time.
pub(super) const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

/// Minimum time between two resolutions that no call waits for.
const RESOLVE_SPACING: Duration = Duration::from_secs(1);

/// Maximum addresses to connect to, chosen at random.
///
/// Each pod of a larger service still has connections from many workers.
const ADDRESSES_MAX: usize = 64;

/// Backoff between two attempts to connect to an address that no call waits for.
///
/// A removed pod may stay in DNS for 30 s (CoreDNS answers from a cache).
const RECONNECT: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(10) };

/// A connection that lasted this long is opened again without backoff.
///
/// It did not end for the reason that made other attempts fail.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The service's name, with its resolver and connector.
pub(super) struct ServiceName {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) lookup: Lookup,
    /// Timeout of a resolution.
    pub(super) timeout: Duration,
    pub(super) connector: ChannelConnector,
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl ServiceName {
    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found = timeout(self.timeout, self.lookup.find(&self.host, self.port));
        found.await.unwrap_or_else(|_elapsed| {
            let ms = self.timeout.as_millis();
            let text = format!("{} was not resolved within {ms} ms", self.host);
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// Opens a connection. A panic counts as a failed attempt.
    async fn connect(&self, address: SocketAddr) -> io::Result<InventoryConnection> {
        let made = AssertUnwindSafe(self.connector.connect(address)).catch_unwind().await;
        made.unwrap_or_else(|_panic| Err(io::Error::other("connecting panicked")))
    }
}

/// State that the channel and its feeding tasks share.
#[derive(Debug)]
pub(super) struct EndpointFeed {
    pub(super) name: ServiceName,
    pub(super) endpoints: watch::Sender<Endpoints>,
    /// Changes when a call finds no connection.
    pub(super) wanted: watch::Sender<()>,
    /// Signals a connection that ended or failed: the name may have other addresses by now.
    failed: Notify,
}

impl EndpointFeed {
    pub(super) fn new(name: ServiceName) -> Self {
        let (endpoints, wanted) = (watch::Sender::default(), watch::Sender::default());
        Self { name, endpoints, wanted, failed: Notify::new() }
    }
}

/// Resolves the name repeatedly, with one task per address that keeps a connection to it.
///
/// If this future is dropped, these tasks end too.
pub(super) async fn resolve(feed: Arc<EndpointFeed>) {
    let mut wanted = feed.wanted.subscribe();
    let mut keepers: HashMap<SocketAddr, JoinSet<()>> = HashMap::new();
    loop {
        feed.endpoints.send_modify(Endpoints::resolving);
        let found = feed.name.resolve().await;
        // This result also serves the calls that began to wait in the meantime.
        wanted.mark_unchanged();
        match found {
            Ok(found) => {
                let found = chosen(found, &keepers);
                keepers.retain(|address, _| found.contains(address));
                let mut new = Vec::new();
                feed.endpoints.send_modify(|endpoints| new = endpoints.resolved(&found));
                for address in new {
                    let mut keeper = JoinSet::new();
                    keeper.spawn(keep_connected(Arc::clone(&feed), address));
                    keepers.insert(address, keeper);
                }
            }
            Err(error) => {
                debug!(%error, host = feed.name.host, "Cannot resolve the Inventory service");
                let why = NoConnection::new(error);
                feed.endpoints.send_modify(|endpoints| endpoints.not_resolved(why));
                feed.failed.notify_one();
            }
        }
        let spacing = Instant::now() + RESOLVE_SPACING;
        tokio::select! {
            () = sleep(RESOLVE_INTERVAL) => {}
            () = async { feed.failed.notified().await; sleep_until(spacing).await } => {}
            _ = wanted.changed() => {}
        }
    }
}

/// Returns at most [`ADDRESSES_MAX`] addresses; those that have a keeper are preferred.
fn chosen(
    mut found: Vec<SocketAddr>,
    keepers: &HashMap<SocketAddr, JoinSet<()>>,
) -> Vec<SocketAddr> {
    fastrand::shuffle(&mut found);
    found.sort_by_key(|address| !keepers.contains_key(address));
    found.truncate(ADDRESSES_MAX);
    found
}

/// Connects to an address, and again whenever the connection has ended.
async fn keep_connected(feed: Arc<EndpointFeed>, address: SocketAddr) {
    let mut wanted = feed.wanted.subscribe();
    let (mut failures, mut rng) = (0, Rng::new());
    loop {
        let made = feed.name.connect(address).await;
        // This result also serves the calls that began to wait in the meantime.
        wanted.mark_unchanged();
        let delay = match made {
            Ok(connection) => {
                let InventoryConnection { ended, was_used, .. } = connection.clone();
                let since = Instant::now();
                feed.endpoints.send_modify(|endpoints| endpoints.connected(address, connection));
                ended.cancelled().await;
                feed.endpoints.send_modify(|endpoints| {
                    if was_used.load(Ordering::Relaxed) {
                        endpoints.ended(address);
                    } else {
                        // Otherwise calls could wait for ever at a server that closes each
                        // connection at once.
                        let why = io::Error::other("the connection ended before its first call");
                        endpoints.not_connected(address, NoConnection::new(why));
                    }
                });
                if since.elapsed() >= STABLE_AFTER {
                    failures = 0;
                    Duration::ZERO
                } else {
                    RECONNECT.delay(failures, &mut rng)
                }
            }
            Err(error) => {
                debug!(%error, %address, "Cannot connect to an address of the Inventory service");
                let why = NoConnection::new(error);
                feed.endpoints.send_modify(|endpoints| endpoints.not_connected(address, why));
                RECONNECT.delay(failures, &mut rng)
            }
        };
        feed.failed.notify_one();
        failures = failures.saturating_add(1);
        tokio::select! {
            () = sleep(delay) => {}
            _ = wanted.changed() => {}
        }
        feed.endpoints.send_modify(|endpoints| endpoints.connecting(address));
    }
}
