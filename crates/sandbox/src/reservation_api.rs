//! A stand-in for the Reservation API: HTTP/1.1 on 127.0.0.1, real state, wrong transitions refused, every call
//! in a [`Ledger`], and knobs for everything that may go wrong.
//!
//! The rules of its state are in `state`, the wire in `http`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use crate::ledger::Ledger;
use crate::script::{Capacity, Faults, Knobs, RateLimit, Rule, Scripted};
use crate::server::Server;

mod http;
#[cfg(test)]
mod partial_tests;
mod reply;
mod state;
#[cfg(test)]
mod tests;

pub use reply::Reply;
pub use state::ReservationStatus;

/// The running stand-in. Clones share it; the server ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct ReservationApi {
    server: Server,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    knobs: Knobs<Reply>,
    state: Mutex<state::State>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, state::State> {
        self.state.lock().expect("no one panics while holding the state")
    }
}

impl ReservationApi {
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
        let inner = Arc::new(Inner { ledger, knobs: Knobs::new(), state: Mutex::default() });
        let shared = Arc::clone(&inner);
        let server =
            Server::start(addr, move |stream, _| http::serve(stream, Arc::clone(&shared))).await?;
        Ok(Self { server, inner })
    }

    /// `http://127.0.0.1:PORT`, for `RESERVATION_API_BASE`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// Every call so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Whether a reservation that is not known springs into being, `PENDING`, when it is first named (on unless told).
    pub fn set_auto_create(&self, auto_create: bool) {
        self.inner.state().auto_create = auto_create;
    }

    /// Puts a reservation into a status, whatever it was before.
    pub fn set_status(&self, reservation_id: &str, status: ReservationStatus) {
        self.inner.state().set(reservation_id, status);
    }

    /// What else `GET` and `PATCH` say of a reservation: members of an object, such as `event_id`, `seat_ids`, `quantity`.
    pub fn set_details(&self, reservation_id: &str, details: Value) {
        self.inner.state().set_details(reservation_id, details);
    }

    /// A reservation's status; `None` where it is not known.
    #[must_use]
    pub fn status(&self, reservation_id: &str) -> Option<ReservationStatus> {
        self.inner.state().status(reservation_id)
    }

    /// The next calls go like this, one entry a call, whatever they ask.
    pub fn script(&self, answers: impl IntoIterator<Item = Scripted<Reply>>) {
        self.inner.knobs.script(answers);
    }

    /// The next calls for this reservation go like this. Comes before [`ReservationApi::script`].
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

    /// Refuses connections and cuts those that are open, until [`ReservationApi::come_back`].
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
