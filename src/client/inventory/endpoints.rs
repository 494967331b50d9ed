//! The addresses of the Inventory service and the connections to them.
//!
//! `resolver` writes them, `channel` reads them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Error of a call without a connection; its source is the reason.
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
    /// Cancelled when the connection accepts no more calls. Open calls may still finish.
    pub(super) ended: CancellationToken,
    /// Whether a call was made on it.
    pub(super) was_used: Arc<AtomicBool>,
    /// Each open call holds a clone.
    open_calls: Arc<()>,
}

impl InventoryConnection {
    pub(super) fn new(channel: Channel, ended: CancellationToken) -> Self {
        Self { channel, ended, was_used: Arc::default(), open_calls: Arc::default() }
    }
}

/// State of an address.
#[derive(Debug)]
enum EndpointState {
    /// Not connected; waits for the next attempt.
    Waiting,
    /// An attempt to connect is in progress.
    Connecting,
    /// Connected, or just closed.
    Connected(InventoryConnection),
}

/// The addresses of the name, and the connections to them.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    addresses: Vec<(SocketAddr, EndpointState)>,
    is_resolving: bool,
    /// Failure that waiting calls get when no other attempt is in progress.
    untold: Option<NoConnection>,
    /// Number of times that all attempts ended without a connection; `failure` is the last reason.
    pub(super) failed_rounds: u64,
    pub(super) failure: Option<NoConnection>,
}

impl Endpoints {
    /// Marks every address that is not connecting as due now, because a call has no connection.
    ///
    /// Returns whether anything was not yet in progress.
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

    /// Records that resolving starts.
    pub(super) fn resolving(&mut self) {
        self.is_resolving = true;
    }

    /// Records the addresses `found` of the name, and returns the new ones among them.
    ///
    /// The new ones are marked as connecting.
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

    /// Records that resolving failed. Known addresses stay: the service may be healthy.
    pub(super) fn not_resolved(&mut self, why: NoConnection) {
        self.is_resolving = false;
        if self.addresses.is_empty() {
            self.untold = Some(why);
        }
        self.settle();
    }

    /// Records that an attempt to connect starts.
    pub(super) fn connecting(&mut self, address: SocketAddr) {
        self.set(address, EndpointState::Connecting);
    }

    /// Records that an attempt succeeded.
    pub(super) fn connected(&mut self, address: SocketAddr, connection: InventoryConnection) {
        self.set(address, EndpointState::Connected(connection));
    }

    /// Records that a connection ended.
    pub(super) fn ended(&mut self, address: SocketAddr) {
        self.set(address, EndpointState::Waiting);
    }

    /// Records that an attempt failed.
    pub(super) fn not_connected(&mut self, address: SocketAddr, why: NoConnection) {
        self.untold = Some(why);
        self.set(address, EndpointState::Waiting);
        self.settle();
    }

    /// Sets the state of an address, unless it is no longer an address of the name.
    fn set(&mut self, address: SocketAddr, state: EndpointState) {
        if let Some((_, old)) = self.addresses.iter_mut().find(|(known, _)| *known == address) {
            *old = state;
        }
    }

    /// Gives waiting calls the failure, if there is no attempt in progress and no connection.
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

    /// Returns the connection with the fewest open calls; of equals, the first from `turn` on.
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
