//! The two services as the handlers see them: the Reservation API over HTTP, the Inventory service over gRPC.
//!
//! One call is one attempt, on a pooled connection, within a deadline. Retries, pacing, outages and what an answer means for
//! the event are left to the callers: a call says what happened ([`CallError`]) and remembers nothing.
//!
//! Neither client goes through a proxy, whatever `HTTP_PROXY` and its like say: both services are internal ones, and the
//! configuration names every variable that counts.

pub mod classify;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod doors;
pub mod error;
pub mod inventory;
mod lookup;
mod proto;
pub mod reservation;
mod retry_after;
#[cfg(test)]
mod test_server;
mod tls;

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use error::{CallError, Class, ClientError, Load};
pub use inventory::{Commit, GrpcInventory, Inventory, ReleaseHold, ReleaseReason};
pub(crate) use reservation::path_segment;
pub use reservation::{Found, HttpReservationApi, Reservation, ReservationApi, Target};

/// How both clients name themselves.
const USER_AGENT: &str = concat!("reservation-worker/", env!("CARGO_PKG_VERSION"));

/// Bytes of an answer that are read at most. The contract's answers have a few hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection is given this long, or the whole attempt's time where that is shorter: one lost SYN, which is sent again
/// after a second, is survived.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// What goes along with a call, beside what it says.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// The step's key: the same for each attempt, in every process.
    pub idempotency_key: uuid::Uuid,
    /// W3C `traceparent`, where trace context is passed on. One that cannot be sent is left out: a
    /// trace is no reason to fail a call.
    pub traceparent: Option<&'a str>,
    /// W3C `tracestate`, treated likewise.
    pub tracestate: Option<&'a str>,
    /// W3C `baggage`, treated likewise.
    pub baggage: Option<&'a str>,
    /// X-Ray's header, treated likewise.
    pub xray: Option<&'a str>,
    /// Where the answer's HTTP status is noted, if anybody wants to know.
    pub answered: Option<&'a Answered>,
}

impl<'a> CallContext<'a> {
    /// The headers that carry the trace, in lower case, with those values that are there.
    fn trace_headers(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let headers = [
            ("traceparent", self.traceparent),
            ("tracestate", self.tracestate),
            ("baggage", self.baggage),
            ("x-amzn-trace-id", self.xray),
        ];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The HTTP status that a call was answered with, whatever followed from it.
#[derive(Debug, Default)]
pub struct Answered(AtomicU16);

impl Answered {
    /// The status; `None` before an answer came.
    #[must_use]
    pub fn http_status(&self) -> Option<u16> {
        Some(self.0.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    fn note(&self, status: http::StatusCode) {
        self.0.store(status.as_u16(), Ordering::Relaxed);
    }
}
