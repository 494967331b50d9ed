//! Clients of the two services: the Reservation API (HTTP) and the Inventory service (gRPC).
//!
//! One call is one attempt, on a pooled connection, within a deadline. The callers own retries,
//! pacing, outages, and what an answer means for the event. A call returns what happened
//! ([`CallError`]) and keeps no state.
//!
//! Neither client uses a proxy: `HTTP_PROXY` and the like are ignored. Both services are internal,
//! and the worker's own configuration is the only source of its settings.

pub mod classify;
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz_api;
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
pub use reservation::{
    HttpReservationApi, Reservation, ReservationApi, ReservationStatus, TargetStatus,
};

/// `User-Agent` of both clients.
const USER_AGENT: &str = concat!("reservation-worker/", env!("CARGO_PKG_VERSION"));

/// Maximum bytes read of an answer. The contract's answers have a few hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Maximum connect timeout; the attempt's timeout applies where it is shorter.
///
/// Two seconds survive one lost SYN, which is sent again after one second.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// Metadata sent with a call.
#[derive(Debug, Clone, Copy)]
pub struct CallContext<'a> {
    /// Idempotency key of the step: the same for each attempt, in every process.
    pub idempotency_key: uuid::Uuid,
    /// W3C `traceparent`, where trace context is propagated.
    ///
    /// An invalid header value is omitted: a trace is no reason to fail a call.
    pub traceparent: Option<&'a str>,
    /// W3C `tracestate`. An invalid header value is omitted.
    pub tracestate: Option<&'a str>,
    /// W3C `baggage`. An invalid header value is omitted.
    pub baggage: Option<&'a str>,
    /// X-Ray's `x-amzn-trace-id`. An invalid header value is omitted.
    pub xray: Option<&'a str>,
    /// Receives the HTTP status of the answer, if set.
    pub answered: Option<&'a Answered>,
}

impl<'a> CallContext<'a> {
    /// Returns the trace headers that have a value; the names are in lower case.
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

/// HTTP status of the answer to a call, whether the call succeeded or failed.
#[derive(Debug, Default)]
pub struct Answered(AtomicU16);

impl Answered {
    /// Returns the status; `None` before an answer arrived.
    #[must_use]
    pub fn http_status(&self) -> Option<u16> {
        Some(self.0.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    fn note(&self, status: http::StatusCode) {
        self.0.store(status.as_u16(), Ordering::Relaxed);
    }
}
