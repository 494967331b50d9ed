//! What an answer of the two services means: pure tables, one row for each answer. Reading the answer is left to the clients.
//!
//! Three readings that the contract leaves open:
//! - 429 that names no time is [`Class::Transient`]: the event's own backoff paces it.
//! - gRPC `RetryInfo` counts, as `Retry-After` does, only beside an answer that is worth a retry. Beside `INVALID_ARGUMENT` it
//!   would let one bad event hold the whole service back for ever.
//! - An answer over gRPC's port that is not gRPC is read by its HTTP status, as gRPC's own mapping has it
//!   (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>); a success of that kind is [`Class::Outage`]:
//!   somebody else answered.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use tonic::Code;

use super::error::{Class, Failure};
use super::proto::reservation::v1::{CommitStatus, ReleaseStatus};

/// A call of the Reservation API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpCall {
    /// `PATCH`: set the status.
    SetStatus,
    /// `GET`: ask for the status.
    Status,
}

/// A call of the Inventory service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// `ReleaseHold`.
    ReleaseHold,
    /// `CommitReservation`.
    Commit,
}

/// Reads an HTTP status.
///
/// `from_api`: the body was the API's own error, so the answer comes from the API and not from something on the way to it.
///
/// # Errors
/// Everything but 2xx.
pub fn classify_http(
    status: StatusCode,
    from_api: bool,
    retry_after: Option<Duration>,
    call: HttpCall,
) -> Result<(), Failure> {
    let code = http_code(status);
    let class = match (status.as_u16(), call) {
        (200..=299, _) => return Ok(()),
        (300..=399 | 401 | 502..=504, _) => Class::Outage,
        (404 | 405, _) if !from_api => Class::Outage,
        (403, _) => Class::Forbidden,
        (408 | 425 | 429 | 500 | 501 | 505..=599, _) => Class::Transient,
        (409 | 412, HttpCall::SetStatus) => Class::Conflict,
        _ => Class::Permanent,
    };
    if let Some(time) = retry_after
        && matches!(status.as_u16(), 429 | 500..=599)
    {
        return Err(Failure::paced(code, time));
    }
    Err(Failure::new(class, code))
}

/// The word for an HTTP status: `http_503`. One word for what no standard knows, so that the set stays small.
fn http_code(status: StatusCode) -> Cow<'static, str> {
    match status.as_u16() {
        known @ 100..=599 => Cow::Owned(format!("http_{known}")),
        _ => Cow::Borrowed("http_other"),
    }
}

/// Reads a gRPC status that the server sent.
///
/// # Errors
/// Everything but `NOT_FOUND` of `ReleaseHold`: nothing is held any more. `OK` too: as a status without a message it proves nothing.
pub fn classify_grpc(code: Code, retry_info: Option<Duration>, rpc: Rpc) -> Result<(), Failure> {
    let class = match (code, rpc) {
        (Code::NotFound, Rpc::ReleaseHold) => return Ok(()),
        (Code::NotFound, Rpc::Commit) => Class::Permanent,
        (
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unauthenticated
            | Code::Unimplemented,
            _,
        ) => Class::Outage,
        (
            Code::Internal | Code::Unknown | Code::Aborted | Code::ResourceExhausted | Code::Ok,
            _,
        ) => Class::Transient,
        (Code::PermissionDenied, _) => Class::Forbidden,
        (
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::DataLoss,
            _,
        ) => Class::Permanent,
    };
    if let Some(time) = retry_info
        && matches!(class, Class::Outage | Class::Transient)
    {
        return Err(Failure::paced(grpc_code(code), time));
    }
    Err(Failure::new(class, grpc_code(code)))
}

/// Reads an answer that was not gRPC, by its HTTP status.
pub fn classify_not_grpc(status: StatusCode, retry_after: Option<Duration>) -> Failure {
    const CODE: &str = "not_grpc";
    let status = status.as_u16();
    if let Some(time) = retry_after
        && matches!(status, 429 | 500..=599)
    {
        return Failure::paced(CODE, time);
    }
    let class = match status {
        200..=299 | 401 | 404 | 429 | 502..=504 => Class::Outage,
        403 => Class::Forbidden,
        _ => Class::Transient,
    };
    Failure::new(class, CODE)
}

/// Reads the status inside the answer to `ReleaseHold`.
///
/// # Errors
/// `FAILED`, `UNSPECIFIED`, and numbers that this version does not know.
pub fn classify_release_status(status: i32) -> Result<(), Failure> {
    let code = match ReleaseStatus::try_from(status) {
        Ok(ReleaseStatus::Success | ReleaseStatus::AlreadyReleased | ReleaseStatus::NotFound) => {
            return Ok(());
        }
        Ok(ReleaseStatus::Failed) => "release_failed",
        Ok(ReleaseStatus::Unspecified) => "release_unspecified",
        Err(_) => "release_status_unknown",
    };
    Err(Failure::new(Class::Permanent, code))
}

/// Reads the status inside the answer to `CommitReservation`.
///
/// # Errors
/// `FAILED_*` are [`Class::MoneyWithoutSeat`]; `UNSPECIFIED`, and numbers that this version does not know, are permanent.
pub fn classify_commit_status(status: i32) -> Result<(), Failure> {
    let (class, code) = match CommitStatus::try_from(status) {
        Ok(CommitStatus::Success) => return Ok(()),
        Ok(CommitStatus::FailedPayment) => (Class::MoneyWithoutSeat, "commit_failed_payment"),
        Ok(CommitStatus::FailedExpired) => (Class::MoneyWithoutSeat, "commit_failed_expired"),
        Ok(CommitStatus::FailedConflict) => (Class::MoneyWithoutSeat, "commit_failed_conflict"),
        Ok(CommitStatus::Unspecified) => (Class::Permanent, "commit_unspecified"),
        Err(_) => (Class::Permanent, "commit_status_unknown"),
    };
    Err(Failure::new(class, code))
}

/// The word for a gRPC code: its name in the protocol, in lower case.
pub(crate) fn grpc_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "grpc_ok",
        Code::Cancelled => "grpc_cancelled",
        Code::Unknown => "grpc_unknown",
        Code::InvalidArgument => "grpc_invalid_argument",
        Code::DeadlineExceeded => "grpc_deadline_exceeded",
        Code::NotFound => "grpc_not_found",
        Code::AlreadyExists => "grpc_already_exists",
        Code::PermissionDenied => "grpc_permission_denied",
        Code::ResourceExhausted => "grpc_resource_exhausted",
        Code::FailedPrecondition => "grpc_failed_precondition",
        Code::Aborted => "grpc_aborted",
        Code::OutOfRange => "grpc_out_of_range",
        Code::Unimplemented => "grpc_unimplemented",
        Code::Internal => "grpc_internal",
        Code::Unavailable => "grpc_unavailable",
        Code::DataLoss => "grpc_data_loss",
        Code::Unauthenticated => "grpc_unauthenticated",
    }
}

#[cfg(test)]
mod tests;
