//! Tells calls that the service has not begun from those that it may have begun: the former may be
//! sent again at once, and say nothing about the service.
//!
//! `h2` is named here, and only here, as neither tonic nor hyper shows the reason of an HTTP/2
//! error.

use std::error::Error;

use super::connect::ConnectionEnded;

/// Whether the service is known not to have begun the call: it never left, or it came after the
/// last stream that the server still answers on a connection that it ends in good order (RFC 9113,
/// 6.8), or it was refused unread (8.7).
pub(super) fn is_unbegun(error: &(dyn Error + 'static)) -> bool {
    is_connection_ended(error)
        || cause::<h2::Error>(error).is_some_and(|error| {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            error.is_remote() && error.is_reset() && is_refused
        })
}

/// Whether, besides, the connection takes no more calls.
pub(super) fn is_connection_ended(error: &(dyn Error + 'static)) -> bool {
    if cause::<ConnectionEnded>(error).is_some() {
        return true;
    }
    // Hyper drops what it has not handed to HTTP/2 when the connection ends (`is_canceled`), and
    // what waits there for the server to take one more call at a time (of the errors that hyper
    // lays to its user, the only one that calls with a whole body can meet).
    if cause::<hyper::Error>(error).is_some_and(|error| error.is_canceled() || error.is_user()) {
        return true;
    }
    cause::<h2::Error>(error).is_some_and(|error| {
        error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// The first error of type `E` in a chain of causes.
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
