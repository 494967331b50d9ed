//! Which failed calls are repeated. How long, and with which pauses, each caller knows.

use crate::queue::{QueueError, QueueErrorKind};

/// Whether a failed call may succeed a little later.
pub(super) fn can_pass(why: &QueueError) -> bool {
    match why.kind {
        QueueErrorKind::Throttled
        | QueueErrorKind::Timeout
        | QueueErrorKind::Network
        | QueueErrorKind::Other => true,
        QueueErrorKind::Denied
        | QueueErrorKind::NoSuchQueue
        | QueueErrorKind::Refused
        | QueueErrorKind::NoDeadLetterQueue => false,
    }
}
