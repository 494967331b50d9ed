//! What a breaker says to those who ask it, and what of its changes is told.

use std::time::Duration;

use crate::outage::evidence::Begun;

/// Why a service is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outage) enum Trouble {
    /// It, or the way to it, is at fault.
    Away,
    /// It answers everybody with 500 and its like.
    Failing,
    /// It refuses everybody.
    Refusing,
}

/// What a call has changed, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outage) enum Change {
    Down { trouble: Trouble, reservations: usize, within: Duration },
    Back { trouble: Trouble, after: Duration },
    Paced { wait: Duration },
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outage) enum Entered {
    Go(Begun),
    /// Nobody may call now.
    Away {
        is_fresh: bool,
    },
    /// As many calls are open as the service is given.
    Full {
        is_fresh: bool,
        is_suspect: bool,
    },
}

/// How many of those who wait may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// So many, in order, fresh ones first.
    Calls(usize),
    /// One, any of them, a fresh one if there is one.
    Probe,
}
