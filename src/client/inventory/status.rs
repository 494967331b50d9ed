//! Reads a gRPC status: whether the service or the client made it, and its details.
//!
//! `classify` decides what it means.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use tonic::{Status, TimeoutExpired};
use tonic_types::StatusExt;

use super::endpoints::NoConnection;
use super::grpc_only::{NotGrpc, is_from_server};
use super::unbegun;
use crate::client::classify::{Rpc, classify_grpc, classify_not_grpc};
use crate::client::error::{CallError, Class, Failure, chain};
use crate::client::retry_after;
use crate::escaped::Escaped;

/// Reads a status that is not success. `timeout` is the attempt's.
///
/// `tonic` makes statuses of its own, with codes that mean something else when a service sends
/// them: a connection that is reset is `UNKNOWN`. For a network error, such a status has the
/// original error as its source. A status without a source that the server did not send means an
/// answer that could not be read.
pub(super) fn read(status: &Status, rpc: Rpc, timeout: Duration) -> Result<(), CallError> {
    // tonic also applies the timeout that is sent to the service; its timer starts a little later.
    if cause::<TimeoutExpired>(status).is_some() {
        return Err(timed_out(timeout));
    }
    if let Some(answer) = cause::<NotGrpc>(status) {
        return Err(
            classify_not_grpc(answer.status, answer.retry_after).explain(&answer.to_string())
        );
    }
    if let Some(source) = status.source() {
        let code = if cause::<NoConnection>(status).is_some() { "connect" } else { "transport" };
        return Err(Failure::new(Class::Outage, code).explain(&chain(source)));
    }
    let detail = format!("{:?}, message {}", status.code(), Escaped(status.message()));
    if !is_from_server(status) {
        return Err(Failure::new(Class::Transient, "bad_answer").explain(&detail));
    }
    classify_grpc(status.code(), named(status), rpc).map_err(|failure| failure.explain(&detail))
}

/// Returns the requested delay: gRPC's `RetryInfo`, or else a proxy's `Retry-After`.
fn named(status: &Status) -> Option<Duration> {
    let retry_info = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry_info.or_else(|| {
        let value = status.metadata().get(RETRY_AFTER.as_str())?;
        retry_after::parse(value.as_encoded_bytes(), SystemTime::now())
    })
}

/// Whether the service certainly did not process the call.
pub(super) fn is_unbegun(status: &Status) -> bool {
    status.source().is_some_and(unbegun::is_unbegun)
}

/// Returns the error of an attempt that timed out.
pub(super) fn timed_out(timeout: Duration) -> CallError {
    let detail = format!("no whole answer within {} ms", timeout.as_millis());
    Failure::timed_out("timeout").explain(&detail)
}

fn cause<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    status.source().and_then(unbegun::cause)
}
