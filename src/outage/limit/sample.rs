//! One answer, and what it may say about the limit.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Load;

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::outage) struct Sample {
    /// Sequence number of the call in order of beginning.
    pub(in crate::outage) number: u64,
    /// Number of calls begun by now.
    pub(in crate::outage) begun: u64,
    /// Duration of the call.
    pub(in crate::outage) took: Duration,
    /// What the answer shows about the load of the service.
    pub(in crate::outage) load: Load,
    /// In-flight calls when it was answered, this one included.
    pub(in crate::outage) in_flight: usize,
    /// Time of the answer.
    pub(in crate::outage) at: Instant,
}

impl Sample {
    /// Returns whether its call began before the limit was last decreased, at `mark`.
    pub(super) fn is_from_before(&self, mark: u64) -> bool {
        fail_point!("limit::late-samples-count", |_| false);
        self.number <= mark
    }

    /// Returns whether as many calls were in flight as the limit allows.
    pub(super) fn is_limit_reached(&self, calls: usize) -> bool {
        fail_point!("limit::raised-unreached", |_| true);
        self.in_flight >= calls
    }
}
