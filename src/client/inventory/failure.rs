//! Reads a gRPC status: who made it, the service or this end of the wire, and what it says. What it means is left to `classify`.

use std::error::Error;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use tonic::Status;
use tonic_types::StatusExt;

use super::not_grpc::{NotGrpc, is_from_server};
use super::subchannel::{ConnectError, Unsent};
use crate::client::classify::{Rpc, classify_grpc, classify_not_grpc};
use crate::client::error::{CallError, Class, Failure, chain};
use crate::client::retry_after;
use crate::excerpt::Excerpt;

/// Reads a status that is not success.
///
/// `tonic` makes statuses of its own, with codes that mean something else when a service sends them: a connection that is reset is
/// `UNKNOWN`. For what goes wrong on the wire they carry the error that they were made of as their source. Without one, and not sent
/// by the server, they mean an answer that could not be read.
pub(super) fn read(status: &Status, rpc: Rpc) -> Result<(), CallError> {
    if let Some(answer) = cause::<NotGrpc>(status) {
        return Err(
            classify_not_grpc(answer.status, answer.retry_after).explain(&answer.to_string())
        );
    }
    if let Some(source) = status.source() {
        let code = if cause::<ConnectError>(status).is_some() { "connect" } else { "transport" };
        return Err(Failure::new(Class::Outage, code).explain(&chain(source)));
    }
    let detail = format!("{:?}, message {}", status.code(), Excerpt(status.message()));
    if !is_from_server(status) {
        return Err(Failure::new(Class::Transient, "bad_answer").explain(&detail));
    }
    classify_grpc(status.code(), named(status), rpc).map_err(|failure| failure.explain(&detail))
}

/// When to call again, in gRPC's words, or else in those of a proxy that answered for the service.
fn named(status: &Status) -> Option<Duration> {
    let retry_info = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry_info.or_else(|| {
        let value = status.metadata().get(RETRY_AFTER.as_str())?;
        retry_after::parse(value.as_encoded_bytes(), SystemTime::now())
    })
}

/// Whether the service is known not to have begun the call: it never left, or it came after the last stream that the server still
/// answers on a connection that it ends in good order (RFC 9113, 6.8), or was refused unread (8.7).
pub(super) fn is_unbegun(status: &Status) -> bool {
    if cause::<Unsent>(status).is_some() {
        return true;
    }
    cause::<h2::Error>(status).is_some_and(|error| {
        let is_ended = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (is_ended || is_refused)
    })
}

/// The attempt's time ran out.
pub(super) fn timed_out(timeout: Duration) -> CallError {
    let detail = format!("no whole answer within {} ms", timeout.as_millis());
    Failure::timed_out("timeout").explain(&detail)
}

/// The first error of type `E` among a status's causes.
fn cause<E: Error + 'static>(status: &Status) -> Option<&E> {
    let mut next = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
