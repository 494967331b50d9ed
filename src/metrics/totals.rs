//! Events by outcome, as numbers.

use std::ops::{Add, Sub};

use serde::Serialize;

/// Events by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventTotals {
    /// All effects were applied.
    pub succeeded: u64,
    /// Given up.
    pub failed: u64,
    /// Duplicate or superseded.
    pub dropped: u64,
    /// Attempts to be repeated.
    pub retried: u64,
}

impl Add for EventTotals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            dropped: self.dropped + other.dropped,
            retried: self.retried + other.retried,
        }
    }
}

impl Sub for EventTotals {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_sub(other.succeeded),
            failed: self.failed.saturating_sub(other.failed),
            dropped: self.dropped.saturating_sub(other.dropped),
            retried: self.retried.saturating_sub(other.retried),
        }
    }
}
