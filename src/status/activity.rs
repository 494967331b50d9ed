//! Throughput and failures of the last minutes, in buckets.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::EventTotals;

/// Time that a bucket covers.
pub const BUCKET: Duration = Duration::from_secs(5);

/// Buckets kept: five minutes.
pub const BUCKETS: usize = 60;

/// Events by outcome in each of the last buckets.
#[derive(Debug)]
pub struct Activity {
    before: EventTotals,
    buckets: VecDeque<EventTotals>,
}

impl Activity {
    /// Starts at these totals.
    #[must_use]
    pub fn new(total: EventTotals) -> Self {
        Self { before: total, buckets: VecDeque::with_capacity(BUCKETS) }
    }

    /// Closes a bucket: it has what was counted since the last one.
    pub fn close_bucket(&mut self, total: EventTotals) {
        if self.buckets.len() == BUCKETS {
            self.buckets.pop_front();
        }
        self.buckets.push_back(total - self.before);
        self.before = total;
    }

    /// Returns the closed buckets, the oldest first.
    #[must_use]
    pub fn buckets(&self) -> Vec<EventTotals> {
        self.buckets.iter().copied().collect()
    }
}
