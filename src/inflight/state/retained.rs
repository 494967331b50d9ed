//! Receipts without a job: they could not be settled yet.
//!
//! Their leases are extended like those of jobs, until they are taken back for another attempt.

use std::collections::BTreeSet;

use ahash::HashMap;
use tokio::time::Instant;

use super::TableState;
use super::leases::{DueRenewal, HOLD_MAX, Renewal, extension};
use crate::inflight::job::{Receipt, ReceiptKey};
use crate::queue::BATCH_MAX;

/// Divisor of the lease: below this share, a receipt is extended before it is tried again.
/// So a call that hangs does not cost the lease.
const SHARE_MIN: u32 = 3;

/// All kept receipts.
#[derive(Debug, Default)]
pub(super) struct KeptReceipts {
    receipts: HashMap<ReceiptKey, KeptReceipt>,
    renewals: BTreeSet<(Instant, ReceiptKey)>,
}

#[derive(Debug)]
struct KeptReceipt {
    receipt: Receipt,
    standing: LeaseStanding,
}

/// State of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseStanding {
    /// To be extended at this time.
    RenewAt(Instant),
    /// Being extended.
    Extending,
    /// No longer extended: held for the maximum time, no time for a retry, or keeper ended.
    Ending,
    /// SQS reports that the receipt is not valid.
    Lost,
}

/// Result of taking a receipt back.
#[derive(Debug)]
pub enum TakenBack {
    /// It can be tried again now.
    Ready(Receipt),
    /// Not now: it is being extended, or must be extended first.
    Busy,
    /// It is no longer valid.
    Lost(Receipt),
}

impl TableState {
    /// Keeps a receipt. Returns its key and whether it is now the first to be extended.
    pub(in crate::inflight) fn keep(
        &mut self,
        receipt: Receipt,
        now: Instant,
    ) -> (ReceiptKey, bool) {
        let key = ReceiptKey(self.next_number());
        let standing = if self.extensions_ended {
            LeaseStanding::Ending
        } else {
            let at = half_way(now, &receipt);
            self.kept.renewals.insert((at, key));
            LeaseStanding::RenewAt(at)
        };
        let is_earlier = standing != LeaseStanding::Ending
            && self.kept.renewals.first().is_some_and(|(_, first)| *first == key)
            && self
                .renewals
                .keys()
                .next()
                .is_none_or(|(first, _)| half_way(now, &receipt) < *first);
        self.kept.receipts.insert(key, KeptReceipt { receipt, standing });
        (key, is_earlier)
    }

    /// Takes a kept receipt back. One with little time left is extended first, unless `urgent`.
    pub(in crate::inflight) fn take_back(
        &mut self,
        key: ReceiptKey,
        now: Instant,
        urgent: bool,
    ) -> TakenBack {
        let kept = self.kept.receipts.get(&key).expect("a receipt is taken back once");
        let left = kept.receipt.deadline.saturating_duration_since(now);
        let is_short = left < self.visibility / SHARE_MIN;
        let standing = kept.standing;
        match standing {
            LeaseStanding::Extending => return TakenBack::Busy,
            LeaseStanding::RenewAt(_) if is_short && !left.is_zero() && !urgent => {
                return TakenBack::Busy;
            }
            LeaseStanding::RenewAt(at) => {
                self.kept.renewals.remove(&(at, key));
            }
            LeaseStanding::Ending | LeaseStanding::Lost => {}
        }
        let kept = self.kept.receipts.remove(&key).expect("just seen");
        match standing {
            LeaseStanding::Lost => TakenBack::Lost(kept.receipt),
            LeaseStanding::RenewAt(_) | LeaseStanding::Extending | LeaseStanding::Ending => {
                TakenBack::Ready(kept.receipt)
            }
        }
    }

    /// Makes one receipt due now, to test whether extensions work. `false`: nothing is held.
    pub(in crate::inflight) fn renew_one(&mut self, now: Instant) -> bool {
        if let Some(((_, receipt_key), key)) = self.renewals.pop_first() {
            let entry = self.entries.get_mut(&key).expect("a renewal's job is in the table");
            if let Some(held) = entry.receipts.iter_mut().find(|held| held.key == receipt_key) {
                held.renew_at = Some(now);
            }
            self.renewals.insert((now, receipt_key), key);
            return true;
        }
        let Some((_, key)) = self.kept.renewals.pop_first() else {
            return !self.extending.is_empty();
        };
        self.kept.renewals.insert((now, key));
        if let Some(kept) = self.kept.receipts.get_mut(&key) {
            kept.standing = LeaseStanding::RenewAt(now);
        }
        true
    }

    pub(in crate::inflight) fn kept_len(&self) -> usize {
        self.kept.receipts.len()
    }

    pub(super) fn next_kept_renewal(&self) -> Option<Instant> {
        self.kept.renewals.first().map(|(at, _)| *at)
    }

    /// Adds the receipts due until `soon`, up to the size of a batch.
    pub(super) fn kept_due(&mut self, now: Instant, soon: Instant, due: &mut Vec<DueRenewal>) {
        while due.len() < BATCH_MAX
            && let Some(&(at, key)) = self.kept.renewals.first()
            && at <= soon
        {
            self.kept.renewals.pop_first();
            let kept = self.kept.receipts.get_mut(&key).expect("a renewal's receipt is kept");
            if now >= kept.receipt.leased_at + HOLD_MAX {
                kept.standing = LeaseStanding::Ending;
                continue;
            }
            kept.standing = LeaseStanding::Extending;
            let receipt = &kept.receipt;
            due.push(DueRenewal {
                key,
                handle: receipt.handle.clone(),
                deadline: receipt.deadline,
                visibility: extension(self.visibility, receipt, now),
            });
        }
    }

    /// Records the result of an extension. Returns `false` if the receipt is not a kept one.
    pub(super) fn book_kept(&mut self, key: ReceiptKey, answer: &Renewal, now: Instant) -> bool {
        let Some(kept) = self.kept.receipts.get_mut(&key) else { return false };
        kept.standing = match answer {
            Renewal::Extended { called_at, visibility } => {
                kept.receipt.deadline = *called_at + *visibility;
                LeaseStanding::RenewAt(half_way(*called_at, &kept.receipt).max(now))
            }
            Renewal::RetryAt(at) if *at < kept.receipt.deadline => LeaseStanding::RenewAt(*at),
            Renewal::RetryAt(_) => LeaseStanding::Ending,
            Renewal::Lost => LeaseStanding::Lost,
        };
        if let LeaseStanding::RenewAt(at) = kept.standing {
            self.kept.renewals.insert((at, key));
        }
        true
    }

    /// Stops all extensions of kept receipts.
    pub(super) fn end_kept_extensions(&mut self) {
        self.kept.renewals.clear();
        for kept in self.kept.receipts.values_mut() {
            if kept.standing != LeaseStanding::Lost {
                kept.standing = LeaseStanding::Ending;
            }
        }
    }
}

/// Returns the middle between `since` and the deadline, not after the maximum hold.
fn half_way(since: Instant, receipt: &Receipt) -> Instant {
    let half = since + receipt.deadline.saturating_duration_since(since) / 2;
    half.min(receipt.leased_at + HOLD_MAX)
}
