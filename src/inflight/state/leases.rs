//! Each receipt's lease: when it is to be extended, what an answer means for it, and when it is lost.

use std::time::Duration;

use tokio::time::Instant;

use super::{HeldReceipt, Place, Promoted, State};
use crate::event::EventId;
use crate::inflight::job::{Job, Key, Lease, Receipt, ReceiptKey};
use crate::queue::{BATCH_MAX, ReceiptHandle};

/// How long a message is held at most. SQS allows 12 hours from its receipt (AWS:
/// `ChangeMessageVisibility`), whatever is asked for.
const HOLD_MAX: Duration = Duration::from_secs((11 * 60 + 50) * 60);

/// No extension reaches beyond this, counted from the receipt.
const VISIBLE_BY: Duration = Duration::from_secs((11 * 60 + 59) * 60);

/// How soon a message that has been held for too long is looked at again while an attempt runs.
const RECHECK: Duration = Duration::from_secs(1);

/// What became of one extension.
#[derive(Debug)]
pub enum Renewal {
    /// It lasts for so long since it was asked for.
    Extended {
        /// When it was asked for.
        called_at: Instant,
        /// What was asked for.
        visibility: Duration,
    },
    /// It failed for now; to be tried again then.
    RetryAt(Instant),
    /// The receipt does not stand any more.
    Lost,
}

/// A receipt that is to be extended.
#[derive(Debug)]
pub struct DueRenewal {
    /// Its name.
    pub key: ReceiptKey,
    /// What SQS knows it by.
    pub handle: ReceiptHandle,
    /// When it is too late.
    pub deadline: Instant,
    /// For how long; cut where SQS's limit of 12 hours is near.
    pub visibility: Duration,
}

/// What is to be done about leases now.
#[derive(Debug, Default)]
pub struct Renewals {
    /// Up to ten receipts to be extended.
    pub due: Vec<DueRenewal>,
    /// Receipts that were held for as long as SQS allows: to be made visible at once.
    pub overdue: Vec<Receipt>,
    /// Idle jobs whose last receipt that was.
    pub ended: Vec<Box<Job>>,
    /// The lanes that move on.
    pub(in crate::inflight) promoted: Vec<Promoted>,
}

/// What follows from a round of extensions.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Receipts that were released while they were being extended: to be made visible now.
    pub released: Vec<(Receipt, Duration)>,
    /// Idle jobs whose last receipt was lost: out of the table, to be forgotten.
    pub lost: Vec<Box<Job>>,
    /// Receipts that were lost, of whatever job.
    pub receipts_lost: usize,
    /// Events whose messages were extended: their claims are to be renewed.
    pub claims: Vec<(EventId, Lease)>,
}

impl State {
    pub(super) fn add_receipt(&mut self, key: Key, receipt: Receipt) -> bool {
        let receipt_key = ReceiptKey(self.next_number());
        let renew_at = renew_at(receipt.received_at, &receipt);
        let entry = self.entries.get_mut(&key).expect("held");
        entry.receipts.push(HeldReceipt { receipt, key: receipt_key, renew_at: Some(renew_at) });
        entry.set_lease();
        let earlier = self.next_renewal().is_none_or(|first| renew_at < first);
        self.renewals.insert((renew_at, receipt_key), key);
        earlier
    }

    pub(in crate::inflight) fn next_renewal(&self) -> Option<Instant> {
        self.renewals.keys().next().map(|(at, _)| *at)
    }

    pub(in crate::inflight) fn renewals_due(&mut self, now: Instant) -> Renewals {
        let mut renewals = Renewals::default();
        if self.next_renewal().is_none_or(|first| first > now) {
            return renewals;
        }
        // What is due within a tenth of the timeout shares the call: still well before its deadline.
        let soon = now + self.visibility / 10;
        let mut rechecks = Vec::new();
        while renewals.due.len() < BATCH_MAX
            && let Some((&(at, receipt_key), &key)) = self.renewals.first_key_value()
            && at <= soon
        {
            self.renewals.pop_first();
            let entry = self.entries.get_mut(&key).expect("a renewal's job is in the table");
            let position = entry.receipts.iter().position(|held| held.key == receipt_key);
            let position = position.expect("a renewal's receipt is held");
            let held = &mut entry.receipts[position];
            let receipt = &held.receipt;
            if now < receipt.received_at + HOLD_MAX {
                held.renew_at = None;
                self.extending.insert(receipt_key, key);
                renewals.due.push(DueRenewal {
                    key: receipt_key,
                    handle: receipt.handle.clone(),
                    deadline: receipt.deadline,
                    visibility: self.visibility.min(receipt.received_at + VISIBLE_BY - now),
                });
            } else if matches!(entry.place, Place::Running) && now + RECHECK < receipt.deadline {
                // Made visible now, it could be handled twice at once. The attempt ends soon.
                held.renew_at = Some(now + RECHECK);
                rechecks.push(((now + RECHECK, receipt_key), key));
            } else {
                let held = entry.receipts.swap_remove(position);
                entry.set_lease();
                renewals.overdue.push(held.receipt);
                if let Some((job, promoted)) = self.drop_if_lost(key) {
                    renewals.promoted.push(promoted);
                    renewals.ended.extend(job);
                }
            }
        }
        self.renewals.extend(rechecks);
        renewals
    }

    /// The lease keeper is gone: gives what was to be released after its extension.
    pub(in crate::inflight) fn end_extensions(&mut self) -> Vec<(Receipt, Duration)> {
        self.extensions_ended = true;
        let mut released: Vec<_> = self.released.drain().collect();
        released.sort_unstable_by_key(|(key, _)| *key);
        released.into_iter().map(|(_, release)| release).collect()
    }

    pub(in crate::inflight) fn renewed(
        &mut self,
        answers: Vec<(ReceiptKey, Renewal)>,
        now: Instant,
    ) -> (Renewed, Vec<Promoted>) {
        let mut renewed = Renewed::default();
        let mut promoted = Vec::new();
        for (receipt_key, answer) in answers {
            if let Some(released) = self.released.remove(&receipt_key) {
                renewed.released.push(released);
            }
            let Some(key) = self.extending.remove(&receipt_key) else { continue };
            let extended = matches!(answer, Renewal::Extended { .. });
            let lost = self.book(key, receipt_key, answer, now);
            if extended
                && let Some(entry) = self.entries.get(&key)
                && entry.lease.may_be_claimed()
                && renewed.claims.iter().all(|(id, _)| *id != entry.event_id)
            {
                renewed.claims.push((entry.event_id.clone(), entry.lease.clone()));
            }
            renewed.receipts_lost += usize::from(lost);
            if lost && let Some((job, next)) = self.drop_if_lost(key) {
                promoted.push(next);
                renewed.lost.extend(job);
            }
        }
        (renewed, promoted)
    }

    /// Books one answer; says whether the receipt is lost.
    fn book(&mut self, key: Key, receipt_key: ReceiptKey, answer: Renewal, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        let Some(at) = entry.receipts.iter().position(|held| held.key == receipt_key) else {
            return false;
        };
        let held = &mut entry.receipts[at];
        held.renew_at = match answer {
            Renewal::Extended { called_at, visibility } => {
                held.receipt.deadline = called_at + visibility;
                Some(renew_at(called_at, &held.receipt).max(now))
            }
            Renewal::RetryAt(retry_at) if retry_at < held.receipt.deadline => Some(retry_at),
            Renewal::RetryAt(_) | Renewal::Lost => None,
        };
        let lost = match held.renew_at {
            Some(renew_at) => {
                self.renewals.insert((renew_at, receipt_key), key);
                false
            }
            None => {
                entry.receipts.swap_remove(at);
                true
            }
        };
        entry.set_lease();
        lost
    }

    /// Takes a job that nobody has in hand out, if no receipt of it stands any more. Whoever has
    /// one in hand sees it by its lease.
    fn drop_if_lost(&mut self, key: Key) -> Option<(Option<Box<Job>>, Promoted)> {
        let entry = self.entries.get(&key)?;
        if !entry.receipts.is_empty() || matches!(entry.place, Place::Running) {
            return None;
        }
        let (entry, promoted) = self.take_unsettled(key);
        match entry.place {
            Place::Idle(job, _) => Some((Some(job), promoted)),
            Place::Running => None,
        }
    }

    pub(super) fn stop_renewing(&mut self, held: &HeldReceipt) {
        match held.renew_at {
            Some(at) => {
                self.renewals.remove(&(at, held.key));
            }
            None => {
                self.extending.remove(&held.key);
            }
        }
    }
}

/// Half of its time since it was asked for, however long the answer took: early enough to try again
/// several times before it is too late. Not beyond the longest hold.
fn renew_at(since: Instant, receipt: &Receipt) -> Instant {
    let half = since + receipt.deadline.saturating_duration_since(since) / 2;
    half.min(receipt.received_at + HOLD_MAX)
}
