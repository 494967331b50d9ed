//! A TCP proxy that does harm on request, while it runs: delays, throttles, holds back, swallows, resets, half-closes,
//! refuses, and leads elsewhere. It knows nothing of what it carries.
//!
//! Faults act on the bytes of a *way* (to the server, to the client) of all connections at once. How one connection is
//! carried is in `pump`.

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

/// Bytes of each way that [`Proxy::held`] can show; of what is held beyond it, only the beginning is seen.
const HELD_SHOWN_MAX: usize = 1 << 20;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected to who was connected to.
    ToServer,
    /// The other way round.
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

/// What happens to bytes under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// They arrive.
    Pass,
    /// Each arrives so much later; how many arrive in a second stays the same.
    Delay(Duration),
    /// So many arrive in a second, on each connection.
    Throttle(u32),
    /// None arrives. They are kept, and arrive, in their order, once the course is another.
    Hold,
    /// None arrives, nor does the end of the connection: a black hole. A connection that has lost bytes so loses all
    /// that follow on that way too, whatever the course is then.
    Drop,
}

/// What passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were accepted.
    pub opened: u64,
    /// Connections that are open.
    pub open: u64,
    /// Bytes that came in, by way.
    taken: [u64; 2],
    /// Bytes that were sent on, by way.
    passed: [u64; 2],
}

impl Traffic {
    /// Bytes that came in on this way.
    #[must_use]
    pub const fn taken(&self, way: Way) -> u64 {
        self.taken[way.index()]
    }

    /// Bytes that were sent on, on this way.
    #[must_use]
    pub const fn passed(&self, way: Way) -> u64 {
        self.passed[way.index()]
    }
}

/// What all connections obey.
#[derive(Clone, Copy, Debug)]
struct Orders {
    courses: [Course; 2],
    /// Connections that were open when this went up are reset.
    resets: u64,
    /// Those that were open when this went up hear the end of this way.
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
        *self.target.lock().expect("no panic happens under this lock")
    }

    fn held(&self) -> MutexGuard<'_, [Vec<u8>; 2]> {
        self.held.lock().expect("no panic happens under this lock")
    }
}

/// The running proxy. Clones share it; it ends, with its connections, when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Proxy {
    server: Server,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts on a free port of 127.0.0.1, leading to `target`.
    ///
    /// # Errors
    /// Where there is no free port.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), target).await
    }

    /// Starts on `here`, leading to `target`.
    ///
    /// # Errors
    /// Where it cannot listen there.
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

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Connections that are made from now on lead there.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().expect("no panic happens under this lock") = target;
    }

    /// From now on bytes on this way take that course.
    pub fn set(&self, way: Way, course: Course) {
        self.shared.held()[way.index()].clear();
        self.shared.orders.send_modify(|orders| orders.courses[way.index()] = course);
    }

    /// The same for both ways.
    pub fn set_both(&self, course: Course) {
        self.set(Way::ToServer, course);
        self.set(Way::ToClient, course);
    }

    /// Resets (RST) every connection that is open, on both sides. What is held on them is lost.
    pub fn reset(&self) {
        self.shared.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Ends this way of every connection that is open (FIN); the other way goes on.
    pub fn half_close(&self, way: Way) {
        self.shared.orders.send_modify(|orders| orders.ends[way.index()] += 1);
    }

    /// Loses what is held, with the connections, and lets everything pass from now on: what a dead client has sent and
    /// nobody has got yet never arrives.
    pub fn forget(&self) {
        self.reset();
        self.set_both(Course::Pass);
    }

    /// Closes the port, and every connection: new ones are refused until [`Proxy::accept`].
    ///
    /// # Errors
    /// Where the port could not be kept.
    pub async fn refuse(&self) -> io::Result<()> {
        self.server.down().await
    }

    /// Opens the port again.
    ///
    /// # Errors
    /// Where that is not possible.
    pub async fn accept(&self) -> io::Result<()> {
        self.server.up().await
    }

    /// What passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        *self.shared.traffic.borrow()
    }

    /// What came in on this way while it was held, all connections together.
    #[must_use]
    pub fn held(&self, way: Way) -> Vec<u8> {
        self.shared.held()[way.index()].clone()
    }

    /// Whether these bytes came in on this way while it was held.
    #[must_use]
    pub fn holds(&self, way: Way, what: &[u8]) -> bool {
        self.shared.held()[way.index()].windows(what.len()).any(|window| window == what)
    }

    /// Waits until `what` holds, looking again whenever bytes come in or are sent on; `false` if `limit` passes first.
    /// Dropping the future is safe.
    pub async fn wait_until(&self, what: impl Fn(&Self) -> bool, limit: Duration) -> bool {
        let mut changes = self.shared.traffic.subscribe();
        let met = async {
            while !what(self) {
                changes.changed().await.expect("the proxy holds the sender");
            }
        };
        timeout(limit, met).await.is_ok() || what(self)
    }
}
