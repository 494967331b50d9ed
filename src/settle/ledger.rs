//! The process's own account of its messages: what came in, and each way in which it went out.
//!
//! Every term is counted where it happens, none by subtraction; the last log line says whether
//! they balance.

use std::sync::atomic::{AtomicU64, Ordering};

/// The ways in which a message can leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// SQS acknowledged its deletion.
    Deleted,
    /// The dead-letter queue has a copy, and SQS acknowledged the deletion.
    DeadLettered,
    /// SQS made it visible again, now or later.
    HandedBack,
    /// Its lease was lost while it was held: SQS shows it again, or already did.
    LeaseLost,
    /// It came in again with a newer receipt, which took this one's place.
    Replaced,
    /// It could not be settled before its lease ended.
    Unsettled,
}

impl Left {
    /// Every way.
    pub const ALL: [Self; 6] = [
        Self::Deleted,
        Self::DeadLettered,
        Self::HandedBack,
        Self::LeaseLost,
        Self::Replaced,
        Self::Unsettled,
    ];

    const fn index(self) -> usize {
        match self {
            Self::Deleted => 0,
            Self::DeadLettered => 1,
            Self::HandedBack => 2,
            Self::LeaseLost => 3,
            Self::Replaced => 4,
            Self::Unsettled => 5,
        }
    }
}

/// The account. Counts receipts: a message that comes in twice counts twice.
#[derive(Debug, Default)]
pub struct Ledger {
    received: AtomicU64,
    left: [AtomicU64; Left::ALL.len()],
}

impl Ledger {
    /// So many messages came in.
    pub fn received(&self, messages: usize) {
        add(&self.received, messages);
    }

    /// So many messages went out in that way.
    pub fn left(&self, how: Left, messages: usize) {
        add(&self.left[how.index()], messages);
    }

    /// How many came in.
    #[must_use]
    pub fn received_total(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How many went out in that way.
    #[must_use]
    pub fn left_total(&self, how: Left) -> u64 {
        self.left[how.index()].load(Ordering::Relaxed)
    }

    /// Whether all that came in went out.
    #[must_use]
    pub fn balances(&self) -> bool {
        let left: u64 = Left::ALL.iter().map(|how| self.left_total(*how)).sum();
        self.received_total() == left
    }
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).expect("usize has at most 64 bits here"), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_only_when_all_that_came_in_went_out() {
        let ledger = Ledger::default();
        assert!(ledger.balances());
        ledger.received(6);
        for (n, how) in Left::ALL.into_iter().enumerate() {
            assert!(!ledger.balances(), "after {n}");
            ledger.left(how, 1);
            assert_eq!(ledger.left_total(how), 1);
        }
        assert!(ledger.balances());
    }
}
