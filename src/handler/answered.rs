//! Response status for call spans: the HTTP status or the gRPC code. The clients and
//! [`super::attempt`] decide what follows from a response.

use crate::client::{Answered, CallError};
use crate::outage::Dependency;
use crate::telemetry::CallStatus;

/// Returns the response status, if the service responded.
pub(super) fn status(
    dependency: Dependency,
    answered: &Answered,
    error: Option<&CallError>,
) -> CallStatus {
    match dependency {
        Dependency::ReservationApi | Dependency::ReservationQuery => {
            answered.http_status().map_or(CallStatus::None, CallStatus::Http)
        }
        Dependency::Store(_) => CallStatus::None,
        Dependency::Inventory => error
            .map_or(Some("OK"), |error| grpc_code(&error.code))
            .map_or(CallStatus::None, CallStatus::Rpc),
    }
}

/// Maps an error code of the client to the gRPC code in the protocol's spelling. Returns `None`
/// without a gRPC response. An error inside the response message itself came with `OK`.
fn grpc_code(word: &str) -> Option<&'static str> {
    match word.strip_prefix("grpc_") {
        Some("ok") => Some("OK"),
        Some("cancelled") => Some("CANCELLED"),
        Some("unknown") => Some("UNKNOWN"),
        Some("invalid_argument") => Some("INVALID_ARGUMENT"),
        Some("deadline_exceeded") => Some("DEADLINE_EXCEEDED"),
        Some("not_found") => Some("NOT_FOUND"),
        Some("already_exists") => Some("ALREADY_EXISTS"),
        Some("permission_denied") => Some("PERMISSION_DENIED"),
        Some("resource_exhausted") => Some("RESOURCE_EXHAUSTED"),
        Some("failed_precondition") => Some("FAILED_PRECONDITION"),
        Some("aborted") => Some("ABORTED"),
        Some("out_of_range") => Some("OUT_OF_RANGE"),
        Some("unimplemented") => Some("UNIMPLEMENTED"),
        Some("internal") => Some("INTERNAL"),
        Some("unavailable") => Some("UNAVAILABLE"),
        Some("data_loss") => Some("DATA_LOSS"),
        Some("unauthenticated") => Some("UNAUTHENTICATED"),
        Some(_) => None,
        None if is_unanswered(word) => None,
        None => Some("OK"),
    }
}

fn is_unanswered(word: &str) -> bool {
    matches!(word, "timeout" | "connect" | "transport" | "bad_answer" | "not_grpc")
        || word.starts_with("http_")
}
