//! Recognizes calls that the service certainly did not process.
//!
//! They may be sent again at once, and show nothing about the service. Only this file uses `h2`:
//! neither tonic nor hyper gives the reason of an HTTP/2 error.

use std::error::Error;

use super::connect::ConnectionEnded;

/// Whether the service certainly did not process the call.
///
/// One of these holds: the call was never sent; it came after the last stream that the server
/// processes on a connection that it closes gracefully (RFC 9113, 6.8); it was refused unread
/// (8.7).
pub(super) fn is_unbegun(error: &(dyn Error + 'static)) -> bool {
    is_connection_ended(error)
        || cause::<h2::Error>(error).is_some_and(|error| {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            error.is_remote() && error.is_reset() && is_refused
        })
}

/// Whether, in addition, the connection accepts no more calls.
pub(super) fn is_connection_ended(error: &(dyn Error + 'static)) -> bool {
    if cause::<ConnectionEnded>(error).is_some() {
        return true;
    }
    // When the connection ends, hyper drops calls that it has not handed to HTTP/2 (`is_canceled`),
    // and calls that wait there for the server's stream limit (`is_user`). Calls with a complete
    // body can meet no other error that hyper attributes to its user.
    if cause::<hyper::Error>(error).is_some_and(|error| error.is_canceled() || error.is_user()) {
        return true;
    }
    cause::<h2::Error>(error).is_some_and(|error| {
        error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// Returns the first error of type `E` in a chain of causes.
pub(super) fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
