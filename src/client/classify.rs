//! Classifies the answers of the two services: pure tables, one row for each answer.
//!
//! The clients read the answers. A time that an answer names (`Retry-After`, gRPC's `RetryInfo`)
//! counts only with an answer that is worth a retry. With `INVALID_ARGUMENT` it would keep a bad
//! event for ever.
//!
//! Two decisions that the contract leaves open:
//! - An answer on the gRPC port that is not gRPC is classified by its HTTP status. It cannot have
//!   the API's error body, so a 4xx is [`Class::Outage`]. A success is one too: another server
//!   answered. A status that HTTP does not define is handled as gRPC's `UNKNOWN`.
//! - `OK` without a message is [`Class::Transient`]: the status alone does not prove success.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use tonic::Code;

use super::error::{Class, Failure};
use super::proto::reservation::v1::{CommitStatus, ReleaseStatus};

/// Call of the Reservation API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpCall {
    /// `PATCH`: sets the status.
    SetStatus,
    /// `GET`: reads the status.
    Status,
}

/// Call of the Inventory service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// `ReleaseHold`.
    ReleaseHold,
    /// `CommitReservation`.
    Commit,
}

/// Classifies an HTTP status.
///
/// `from_api`: the body was the API's own error, so the answer comes from the API and not from a
/// proxy in between.
///
/// # Errors
/// Every status but 2xx.
pub fn classify_http(
    status: StatusCode,
    from_api: bool,
    retry_after: Option<Duration>,
    call: HttpCall,
) -> Result<(), Failure> {
    let class = match (status.as_u16(), call) {
        (200..=299, _) => return Ok(()),
        (300..=399 | 401 | 502..=504, _) => Class::Outage,
        (403, _) => Class::Forbidden,
        (408 | 425 | 500 | 501 | 505..=599, _) => Class::Transient,
        (409 | 412, HttpCall::SetStatus) => Class::Conflict,
        (429, _) => Class::Paced,
        _ if !from_api => Class::Outage,
        _ => Class::Permanent,
    };
    Err(failure(class, http_code(status), retry_after))
}

/// Classifies a 2xx whose body is not JSON: another server answered.
pub fn classify_not_json(retry_after: Option<Duration>) -> Failure {
    failure(Class::Outage, "not_json", retry_after)
}

/// Returns the failure of this class; a retryable one becomes paced if the answer named a time.
fn failure(class: Class, code: impl Into<Cow<'static, str>>, named: Option<Duration>) -> Failure {
    match class {
        Class::Paced => Failure::paced(code, named),
        Class::Outage | Class::Transient if named.is_some() => Failure::paced(code, named),
        Class::Outage
        | Class::Transient
        | Class::Conflict
        | Class::Forbidden
        | Class::Permanent
        | Class::MoneyWithoutSeat => Failure::new(class, code),
    }
}

/// Returns the error code of an HTTP status: `http_503`.
///
/// All statuses outside 100 to 599 have one code, so that the set of codes stays small.
fn http_code(status: StatusCode) -> Cow<'static, str> {
    match status.as_u16() {
        known @ 100..=599 => Cow::Owned(format!("http_{known}")),
        _ => Cow::Borrowed("http_other"),
    }
}

/// Classifies a gRPC status that the server sent, with the retry delay that it named.
///
/// # Errors
/// Every status but `NOT_FOUND` of `ReleaseHold`, which means that nothing is held any more.
pub fn classify_grpc(code: Code, retry_after: Option<Duration>, rpc: Rpc) -> Result<(), Failure> {
    let class = match (code, rpc) {
        (Code::NotFound, Rpc::ReleaseHold) => return Ok(()),
        (Code::NotFound, Rpc::Commit) => Class::Permanent,
        (Code::DeadlineExceeded, _) if retry_after.is_none() => {
            return Err(Failure::timed_out(grpc_code(code)));
        }
        (
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unauthenticated
            | Code::Unimplemented,
            _,
        ) => Class::Outage,
        (Code::Internal | Code::Unknown | Code::Aborted | Code::Ok, _) => Class::Transient,
        (Code::ResourceExhausted, _) => Class::Paced,
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
    Err(failure(class, grpc_code(code), retry_after))
}

/// Classifies an answer that is not gRPC, by its HTTP status.
pub fn classify_not_grpc(status: StatusCode, retry_after: Option<Duration>) -> Failure {
    let class = match status.as_u16() {
        403 => Class::Forbidden,
        429 => Class::Paced,
        408 | 425 | 500 | 501 | 505..=599 => Class::Transient,
        200..=499 | 502..=504 => Class::Outage,
        _ => Class::Transient,
    };
    failure(class, "not_grpc", retry_after)
}

/// Classifies the status inside the answer to `ReleaseHold`.
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

/// Classifies the status inside the answer to `CommitReservation`.
///
/// # Errors
/// `FAILED_*` are [`Class::MoneyWithoutSeat`]. `UNSPECIFIED`, and numbers that this version does
/// not know, are permanent.
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

/// Returns the error code of a gRPC code: its name in the protocol, in lower case.
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
