//! The process's account of its messages: how many were received, and how each left.
//!
//! Each counter is incremented where the event happens; none is calculated by subtraction. The last
//! log line reports whether they balance.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::info;

/// The ways in which a message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// SQS acknowledged the delete.
    Deleted,
    /// The dead-letter queue has a copy, and SQS acknowledged the delete.
    DeadLettered,
    /// Handed back: SQS makes it visible again, at once or later.
    HandedBack,
    /// The lease was lost while the message was held: SQS delivers it again.
    LeaseLost,
    /// The message was received again, and the newer receipt replaced this one.
    Replaced,
    /// The message could not be settled before its lease ended.
    Unsettled,
}

impl Disposition {
    /// All ways.
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

/// The account. It counts receipts: a message that is received twice counts twice.
#[derive(Debug, Default)]
pub struct MessageAccount {
    received: AtomicU64,
    left: [AtomicU64; Disposition::ALL.len()],
}

impl MessageAccount {
    /// Logs where each message went, in one line.
    pub fn log(&self) {
        info!(
            received = self.received_total(),
            deleted = self.left_total(Disposition::Deleted),
            dead_lettered = self.left_total(Disposition::DeadLettered),
            handed_back = self.left_total(Disposition::HandedBack),
            lease_lost = self.left_total(Disposition::LeaseLost),
            replaced = self.left_total(Disposition::Replaced),
            unsettled = self.left_total(Disposition::Unsettled),
            balanced = self.balances(),
            "Stopped"
        );
    }

    /// Counts received messages.
    pub fn received(&self, messages: usize) {
        add(&self.received, messages);
    }

    /// Counts messages that left in this way.
    pub fn left(&self, how: Disposition, messages: usize) {
        add(&self.left[how.index()], messages);
    }

    /// Returns the number of received messages.
    #[must_use]
    pub fn received_total(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that left in this way.
    #[must_use]
    pub fn left_total(&self, how: Disposition) -> u64 {
        self.left[how.index()].load(Ordering::Relaxed)
    }

    /// Whether all received messages have left.
    #[must_use]
    pub fn balances(&self) -> bool {
        let left: u64 = Disposition::ALL.iter().map(|how| self.left_total(*how)).sum();
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
    fn the_account_balances_only_when_every_message_has_left() {
        let account = MessageAccount::default();
        assert!(account.balances());
        account.received(6);
        for (n, how) in Disposition::ALL.into_iter().enumerate() {
            assert!(!account.balances(), "after {n}");
            account.left(how, 1);
            assert_eq!(account.left_total(how), 1);
        }
        assert!(account.balances());
    }
}
