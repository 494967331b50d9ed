//! A stand-in for the Reservation API: HTTP/1.1 on 127.0.0.1 with real state and rules, a
//! [`Ledger`] of all calls, and settings for faults.
//!
//! `state` has the rules, `http` the wire protocol.

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

/// The running stand-in. Clones share it; the server stops when the last clone is dropped.
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
        self.state.lock().expect("no code panics under this lock")
    }
}

impl ReservationApi {
    /// Starts on a free port with its own ledger.
    ///
    /// # Panics
    ///
    /// If 127.0.0.1 has no free port.
    pub async fn start() -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::start_on(addr, Ledger::default()).await.expect("127.0.0.1 has a free port")
    }

    /// Starts on `addr` and writes to `ledger`.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub async fn start_on(addr: SocketAddr, ledger: Ledger) -> io::Result<Self> {
        let inner = Arc::new(Inner { ledger, knobs: Knobs::new(), state: Mutex::default() });
        let shared = Arc::clone(&inner);
        let server =
            Server::start(addr, move |stream, _| http::serve(stream, Arc::clone(&shared))).await?;
        Ok(Self { server, inner })
    }

    /// Returns `http://127.0.0.1:PORT`, for `RESERVATION_API_BASE`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// Returns the ledger of all calls.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Sets whether an unknown reservation is created as `PENDING` at its first use (default: on).
    pub fn set_auto_create(&self, auto_create: bool) {
        self.inner.state().auto_create = auto_create;
    }

    /// Sets the status of a reservation.
    pub fn set_status(&self, reservation_id: &str, status: ReservationStatus) {
        self.inner.state().set(reservation_id, status);
    }

    /// Sets further members of the response to `GET` and `PATCH`, such as `event_id`.
    pub fn set_details(&self, reservation_id: &str, details: Value) {
        self.inner.state().set_details(reservation_id, details);
    }

    /// Returns a reservation's status; `None` if it is unknown.
    #[must_use]
    pub fn status(&self, reservation_id: &str) -> Option<ReservationStatus> {
        self.inner.state().status(reservation_id)
    }

    /// Sets the course of the next calls, one entry per call, for any reservation.
    pub fn script(&self, answers: impl IntoIterator<Item = Scripted<Reply>>) {
        self.inner.knobs.script(answers);
    }

    /// Sets the course of the next calls for this reservation. Overrides
    /// [`ReservationApi::script`].
    pub fn script_for(
        &self,
        reservation_id: &str,
        answers: impl IntoIterator<Item = Scripted<Reply>>,
    ) {
        self.inner.knobs.script_for(reservation_id, answers);
    }

    /// Removes the remaining scripts.
    pub fn clear_script(&self) {
        self.inner.knobs.clear_script();
    }

    /// Returns the number of scripted responses not yet given. A test should end with zero.
    #[must_use]
    pub fn script_left(&self) -> usize {
        self.inner.knobs.script_left()
    }

    /// Sets rules for calls without a script: the first matching rule applies. Without a match,
    /// random faults apply.
    pub fn set_rules(&self, rules: impl IntoIterator<Item = Rule<Reply>>) {
        self.inner.knobs.set_rules(rules);
    }

    /// Sets the rate limit. Calls above it are refused at once, with a retry after one second.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.inner.knobs.set_rate_limit(limit);
    }

    /// Sets the number of calls processed concurrently and the duration of each. Without it there
    /// is no limit.
    pub fn set_capacity(&self, capacity: Option<Capacity>) {
        self.inner.knobs.set_capacity(capacity);
    }

    /// Sets the latency of all calls and the random faults of calls without a script.
    pub fn set_faults(&self, faults: Faults<Reply>) {
        self.inner.knobs.set_faults(faults);
    }

    /// Refuses new connections and closes open ones until [`ReservationApi::come_back`].
    ///
    /// # Errors
    ///
    /// If the port cannot be kept.
    pub async fn go_down(&self) -> io::Result<()> {
        self.server.down().await
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the port.
    pub async fn come_back(&self) -> io::Result<()> {
        self.server.up().await
    }
}
