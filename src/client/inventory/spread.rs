//! The connections to the Inventory service: as many as its name has addresses, up to [`CONNECTIONS_MAX`], each used in turn. Which
//! address a connection goes to is left to `connect`.
//!
//! One address, as a Service with an IP of its own has it, means one connection. The name is resolved whenever a connection is made, so
//! that one that dies finds whoever is there by then. Pods that are added while all connections are well are seen when one of
//! those ends, for which servers have a setting (gRPC's `MAX_CONNECTION_AGE`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::connect::{Connector, Target};
use super::subchannel::{Settings, Subchannel};
use crate::client::addresses::Addresses;

/// Connections at most. Fifty workers with eight each reach every pod of a service.
const CONNECTIONS_MAX: usize = 8;

/// The connections; each is made when its first call comes, and again after it was lost.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    subchannels: Arc<[Subchannel]>,
    /// How many addresses the name had when it was last resolved.
    addresses: Arc<AtomicUsize>,
    turn: Arc<AtomicUsize>,
}

impl Spread {
    /// Connects to nothing.
    pub(super) fn new(settings: &Settings, target: Target) -> Self {
        let count = Arc::new(AtomicUsize::new(1));
        let connector = Connector {
            target: Arc::new(target),
            addresses: Arc::new(Addresses::default()),
            count: Arc::clone(&count),
        };
        let subchannel = |_| Subchannel::new(connector.clone(), settings.clone());
        let subchannels = (0..CONNECTIONS_MAX).map(subchannel).collect();
        Self { subchannels, addresses: count, turn: Arc::default() }
    }

    /// The next one's turn.
    pub(super) fn next(&self) -> Subchannel {
        let used = self.addresses.load(Ordering::Relaxed).clamp(1, self.subchannels.len());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.subchannels[turn % used].clone()
    }
}
