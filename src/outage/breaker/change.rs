//! Results of a breaker: admission, state changes, and releases.

use std::time::Duration;

use crate::outage::evidence::BegunCall;

/// Reason why a service is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outage) enum Trouble {
    /// The service, or the connection to it, is at fault.
    Away,
    /// All calls fail with 500 and similar status codes.
    Failing,
    /// All calls return permanent errors.
    Refusing,
}

/// State change caused by a call, to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outage) enum Change {
    Down { trouble: Trouble, reservations: usize, within: Duration },
    Back { trouble: Trouble, after: Duration },
    Paced { wait: Duration },
}

/// Result of a request for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outage) enum Entered {
    Go(BegunCall),
    /// The service is not called now.
    Away {
        is_fresh: bool,
    },
    /// The limit of the service is reached.
    Full {
        is_fresh: bool,
        is_suspect: bool,
    },
}

/// Number of waiting events that may be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// This number, in order, fresh ones first.
    Calls(usize),
    /// One event as a probe: a fresh one if there is one, else any.
    Probe,
}
