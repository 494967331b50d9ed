//! A TCP proxy with faults that are switched at run time: delay, throttle, hold, drop, reset,
//! half-close, refuse, and redirect. It does not interpret the bytes.
//!
//! Faults act on one *way* of all connections: to the server or to the client. `pump` carries a
//! single connection.

mod pump;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sandbox::server::Server;
use tokio::sync::watch;
use tokio::time::timeout;

/// Limit per way of the bytes that [`Proxy::held`] returns; later held bytes are not shown.
const HELD_SHOWN_MAX: usize = 1 << 20;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From client to server.
    ToServer,
    /// From server to client.
    ToClient,
}

impl Way {
    const fn index(self) -> usize {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }
}

/// The treatment of bytes in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// They are forwarded.
    Pass,
    /// Each is forwarded after this delay; the throughput stays the same.
    Delay(Duration),
    /// Bytes per second on each connection.
    Throttle(u32),
    /// None is forwarded. They are kept in order and forwarded under the next course.
    Hold,
    /// None is forwarded, nor is the end of the connection: a black hole. A connection that has
    /// lost bytes also loses all later bytes on that way, under any course.
    Drop,
}

/// Counts of connections and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Accepted connections.
    pub opened: u64,
    /// Open connections.
    pub open: u64,
    /// Received bytes by way.
    taken: [u64; 2],
    /// Forwarded bytes by way.
    passed: [u64; 2],
}

impl Traffic {
    /// Returns the bytes received on this way.
    #[must_use]
    pub const fn taken(&self, way: Way) -> u64 {
        self.taken[way.index()]
    }

    /// Returns the bytes forwarded on this way.
    #[must_use]
    pub const fn passed(&self, way: Way) -> u64 {
        self.passed[way.index()]
    }
}

/// The state that all connections follow.
#[derive(Clone, Copy, Debug)]
struct Orders {
    courses: [Course; 2],
    /// An increment resets all connections that are open then.
    resets: u64,
    /// An increment ends this way of all connections that are open then.
    ends: [u64; 2],
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    orders: watch::Sender<Orders>,
    traffic: watch::Sender<Traffic>,
    held: Mutex<[Vec<u8>; 2]>,
}

impl Shared {
    fn target(&self) -> SocketAddr {
        *self.target.lock().expect("no code panics under this lock")
    }

    fn held(&self) -> MutexGuard<'_, [Vec<u8>; 2]> {
        self.held.lock().expect("no code panics under this lock")
    }
}

/// The running proxy. Clones share it; it stops with its connections when the last clone is
/// dropped.
#[derive(Clone, Debug)]
pub struct Proxy {
    server: Server,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts on a free port of 127.0.0.1 with connections to `target`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), target).await
    }

    /// Starts on `here` with connections to `target`.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn start_on(here: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let orders = Orders { courses: [Course::Pass; 2], resets: 0, ends: [0; 2] };
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            orders: watch::Sender::new(orders),
            traffic: watch::Sender::default(),
            held: Mutex::default(),
        });
        let carried = Arc::clone(&shared);
        let server =
            Server::start(here, move |stream, _| pump::carry(stream, Arc::clone(&carried))).await?;
        Ok(Self { server, shared })
    }

    /// Returns the address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Sets the target of new connections.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().expect("no code panics under this lock") = target;
    }

    /// Sets the course of this way.
    pub fn set(&self, way: Way, course: Course) {
        self.shared.held()[way.index()].clear();
        self.shared.orders.send_modify(|orders| orders.courses[way.index()] = course);
    }

    /// Sets the course of both ways.
    pub fn set_both(&self, course: Course) {
        self.set(Way::ToServer, course);
        self.set(Way::ToClient, course);
    }

    /// Resets (RST) every open connection on both sides. Held bytes are lost.
    pub fn reset(&self) {
        self.shared.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Ends this way of every open connection (FIN); the other way continues.
    pub fn half_close(&self, way: Way) {
        self.shared.orders.send_modify(|orders| orders.ends[way.index()] += 1);
    }

    /// Drops held bytes with their connections and forwards everything from now on. Bytes of a dead
    /// client that are still held never arrive.
    pub fn forget(&self) {
        self.reset();
        self.set_both(Course::Pass);
    }

    /// Closes the port and every connection. New ones are refused until [`Proxy::accept`].
    ///
    /// # Errors
    /// If the port cannot be kept.
    pub async fn refuse(&self) -> io::Result<()> {
        self.server.down().await
    }

    /// Opens the port again.
    ///
    /// # Errors
    /// If that fails.
    pub async fn accept(&self) -> io::Result<()> {
        self.server.up().await
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        *self.shared.traffic.borrow()
    }

    /// Returns the bytes held on this way, from all connections together.
    #[must_use]
    pub fn held(&self, way: Way) -> Vec<u8> {
        self.shared.held()[way.index()].clone()
    }

    /// Returns whether these bytes are held on this way.
    #[must_use]
    pub fn holds(&self, way: Way, what: &[u8]) -> bool {
        self.shared.held()[way.index()].windows(what.len()).any(|window| window == what)
    }

    /// Waits until `what` holds, with a check whenever bytes are received or forwarded. Returns
    /// `false` if `limit` passes first. Cancel-safe.
    pub async fn wait_until(&self, what: impl Fn(&Self) -> bool, limit: Duration) -> bool {
        let mut changes = self.shared.traffic.subscribe();
        let met = async {
            while !what(self) {
                changes.changed().await.expect("the proxy keeps the sender");
            }
        };
        timeout(limit, met).await.is_ok() || what(self)
    }
}
