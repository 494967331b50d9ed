//! A stand-in for the Inventory service: gRPC on 127.0.0.1, real state, wrong transitions refused, every call
//! in a [`Ledger`], and knobs for everything that may go wrong.
//!
//! The rules of its state are in `state`, the wire in `grpc`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::ledger::Ledger;
use crate::script::{Capacity, Faults, Knobs, RateLimit, Rule, Scripted};
use crate::server::Server;

mod grpc;
mod reply;
mod state;
#[cfg(test)]
mod tests;

pub use reply::Reply;
pub use state::HoldState;

/// How long the server keeps a connection, before it says GOAWAY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLife {
    /// For so many calls.
    pub calls_max: Option<u32>,
    /// For so long.
    pub age_max: Option<Duration>,
}

/// The running stand-in. Clones share it; the server ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Inventory {
    server: Server,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    knobs: Knobs<Reply>,
    state: Mutex<state::State>,
    life: Mutex<ConnectionLife>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, state::State> {
        self.state.lock().expect("no one panics while holding the state")
    }

    fn connection_life(&self) -> ConnectionLife {
        *self.life.lock().expect("no one panics while holding it")
    }
}

impl Inventory {
    /// Starts on a free port, with a ledger of its own.
    ///
    /// # Panics
    ///
    /// Where 127.0.0.1 has no free port.
    pub async fn start() -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::start_on(addr, Ledger::default()).await.expect("127.0.0.1 has a free port")
    }

    /// Starts on `addr`, writing to `ledger`.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on.
    pub async fn start_on(addr: SocketAddr, ledger: Ledger) -> io::Result<Self> {
        let (state, life) = (Mutex::default(), Mutex::default());
        let inner = Arc::new(Inner { ledger, knobs: Knobs::new(), state, life });
        let shared = Arc::clone(&inner);
        let server = Server::start(addr, move |stream, hang_up| {
            grpc::serve(stream, hang_up, Arc::clone(&shared))
        })
        .await?;
        Ok(Self { server, inner })
    }

    /// `127.0.0.1:PORT`, for `INVENTORY_GRPC_ADDR`.
    #[must_use]
    pub fn addr(&self) -> String {
        self.server.addr().to_string()
    }

    /// Every call so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Whether a hold that is not known springs into being, held, when it is first named (on unless told).
    pub fn set_auto_create(&self, auto_create: bool) {
        self.inner.state().auto_create = auto_create;
    }

    /// Puts a reservation's hold into a state, whatever it was before.
    pub fn set_hold(&self, reservation_id: &str, hold: HoldState) {
        self.inner.state().set(reservation_id, hold);
    }

    /// The state of a reservation's hold; `None` where it is not known.
    #[must_use]
    pub fn hold(&self, reservation_id: &str) -> Option<HoldState> {
        self.inner.state().hold(reservation_id)
    }

    /// The next calls go like this, one entry a call, whatever they ask.
    pub fn script(&self, answers: impl IntoIterator<Item = Scripted<Reply>>) {
        self.inner.knobs.script(answers);
    }

    /// The next calls for this reservation go like this. Comes before [`Inventory::script`].
    pub fn script_for(
        &self,
        reservation_id: &str,
        answers: impl IntoIterator<Item = Scripted<Reply>>,
    ) {
        self.inner.knobs.script_for(reservation_id, answers);
    }

    /// Forgets what is scripted and has not happened.
    pub fn clear_script(&self) {
        self.inner.knobs.clear_script();
    }

    /// How many scripted answers have not been given yet: a test that ends with some proved less than it thinks.
    #[must_use]
    pub fn script_left(&self) -> usize {
        self.inner.knobs.script_left()
    }

    /// Calls that are not scripted go as the first of these says that fits, from now on; without any, as chance says.
    pub fn set_rules(&self, rules: impl IntoIterator<Item = Rule<Reply>>) {
        self.inner.knobs.set_rules(rules);
    }

    /// How many calls are let in; what comes beyond it is refused at once, to be tried again after a second.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.inner.knobs.set_rate_limit(limit);
    }

    /// How many calls are processed at once, and how long each takes; without it all are, at once.
    pub fn set_capacity(&self, capacity: Option<Capacity>) {
        self.inner.knobs.set_capacity(capacity);
    }

    /// Latency and random faults of all calls that are not scripted (latency: of all calls).
    pub fn set_faults(&self, faults: Faults<Reply>) {
        self.inner.knobs.set_faults(faults);
    }

    /// How long connections that are made from now on are kept (for ever unless told).
    pub fn set_connection_life(&self, life: ConnectionLife) {
        *self.inner.life.lock().expect("no one panics while holding it") = life;
    }

    /// Refuses connections and cuts those that are open, until [`Inventory::come_back`].
    ///
    /// # Errors
    ///
    /// Where the port could not be kept.
    pub async fn go_down(&self) -> io::Result<()> {
        self.server.down().await
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    ///
    /// Where the port cannot be listened on any more.
    pub async fn come_back(&self) -> io::Result<()> {
        self.server.up().await
    }
}
