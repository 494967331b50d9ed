//! The addresses of the Inventory service and the connections to them: written by the `resolver`,
//! read by the `channel`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct NoConnection(Arc<dyn std::error::Error + Send + Sync>);

impl NoConnection {
    pub(super) fn new(why: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(why))
    }
}

impl fmt::Display for NoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")
    }
}

impl std::error::Error for NoConnection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// A connection to one address. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct InventoryConnection {
    pub(super) channel: Channel,
    /// Cancelled when the connection takes no more calls. Calls under way may still finish.
    pub(super) ended: CancellationToken,
    /// A call was made on it.
    pub(super) was_used: Arc<AtomicBool>,
    /// Each call under way holds a clone.
    open_calls: Arc<()>,
}

impl InventoryConnection {
    pub(super) fn new(channel: Channel, ended: CancellationToken) -> Self {
        Self { channel, ended, was_used: Arc::default(), open_calls: Arc::default() }
    }
}

/// What is known of an address.
#[derive(Debug)]
enum EndpointState {
    /// Not connected, until the next attempt.
    Waiting,
    /// An attempt is under way.
    Connecting,
    /// Connected, or just ended.
    Connected(InventoryConnection),
}

/// The addresses that the name leads to, and the connections to them.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    addresses: Vec<(SocketAddr, EndpointState)>,
    is_resolving: bool,
    /// A failure that calls are told of when nothing else is under way.
    untold: Option<NoConnection>,
    /// How often all that was under way ended without a connection, and why it did the last time.
    pub(super) failed_rounds: u64,
    pub(super) failure: Option<NoConnection>,
}

impl Endpoints {
    /// A call finds nothing connected: all that is not under way is due now. Whether there was any
    /// such.
    pub(super) fn want(&mut self) -> bool {
        let mut is_news = !self.is_resolving;
        self.is_resolving = true;
        for (_, state) in &mut self.addresses {
            if !matches!(state, EndpointState::Connecting) {
                *state = EndpointState::Connecting;
                is_news = true;
            }
        }
        is_news
    }

    /// The name is asked for its addresses.
    pub(super) fn resolving(&mut self) {
        self.is_resolving = true;
    }

    /// `found` is all that the name leads to. Returns the new ones among them, to each of which an
    /// attempt to connect is under way from now on.
    pub(super) fn resolved(&mut self, found: &[SocketAddr]) -> Vec<SocketAddr> {
        self.is_resolving = false;
        self.addresses.retain(|(address, _)| found.contains(address));
        let is_known =
            |address: &SocketAddr| self.addresses.iter().any(|(known, _)| known == address);
        let new: Vec<_> = found.iter().copied().filter(|address| !is_known(address)).collect();
        self.addresses.extend(new.iter().map(|address| (*address, EndpointState::Connecting)));
        self.settle();
        new
    }

    /// The name could not be resolved. What was known stays: where DNS fails, the service may be
    /// well.
    pub(super) fn not_resolved(&mut self, why: NoConnection) {
        self.is_resolving = false;
        if self.addresses.is_empty() {
            self.untold = Some(why);
        }
        self.settle();
    }

    /// An attempt begins.
    pub(super) fn connecting(&mut self, address: SocketAddr) {
        self.set(address, EndpointState::Connecting);
    }

    /// An attempt succeeded.
    pub(super) fn connected(&mut self, address: SocketAddr, connection: InventoryConnection) {
        self.set(address, EndpointState::Connected(connection));
    }

    /// A connection ended.
    pub(super) fn ended(&mut self, address: SocketAddr) {
        self.set(address, EndpointState::Waiting);
    }

    /// An attempt failed.
    pub(super) fn not_connected(&mut self, address: SocketAddr, why: NoConnection) {
        self.untold = Some(why);
        self.set(address, EndpointState::Waiting);
        self.settle();
    }

    /// The address may be gone from the name meanwhile.
    fn set(&mut self, address: SocketAddr, state: EndpointState) {
        if let Some((_, old)) = self.addresses.iter_mut().find(|(known, _)| *known == address) {
            *old = state;
        }
    }

    /// Where nothing is under way any more, nor connected, calls that wait are to be told why.
    fn settle(&mut self) {
        let is_connecting = |(_, state): &_| matches!(state, EndpointState::Connecting);
        if self.is_resolving || self.addresses.iter().any(is_connecting) {
            return;
        }
        let untold = self.untold.take();
        if untold.is_some() && self.least_busy(0).is_none() {
            self.failed_rounds += 1;
            self.failure = untold;
        }
    }

    /// The connection with the fewest calls under way; of equals, the first from the place `turn`
    /// on.
    pub(super) fn least_busy(&self, turn: usize) -> Option<InventoryConnection> {
        let (before, from) = self.addresses.split_at(turn % self.addresses.len().max(1));
        let usable = from.iter().chain(before).filter_map(|(_, state)| match state {
            EndpointState::Connected(connection) if !connection.ended.is_cancelled() => {
                Some(connection)
            }
            EndpointState::Connected(_) | EndpointState::Connecting | EndpointState::Waiting => {
                None
            }
        });
        usable.min_by_key(|connection| Arc::strong_count(&connection.open_calls)).cloned()
    }
}
