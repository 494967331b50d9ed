//! Each receipt's lease: when it is to be extended, what an answer means for it, and when it is lost.

use std::time::Duration;

use tokio::time::Instant;

use super::{HeldReceipt, Place, Promoted, State};
use crate::event::EventId;
use crate::inflight::job::{Job, Key, Lease, Receipt, ReceiptKey};
use crate::inflight::redrive::Limits;
use crate::queue::{BATCH_MAX, ReceiptHandle};

/// How long a message is held at most. SQS allows 12 hours from its receipt (AWS:
/// `ChangeMessageVisibility`), whatever is asked for.
pub(super) const HOLD_MAX: Duration = Duration::from_secs((11 * 60 + 50) * 60);

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
    /// Idle jobs whose messages SQS drops soon: to be copied to the dead-letter queue.
    pub ending: Vec<Box<Job>>,
    /// The lanes that move on.
    pub(in crate::inflight) promoted: Vec<Promoted>,
}

impl Renewals {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
            && self.overdue.is_empty()
            && self.ended.is_empty()
            && self.ending.is_empty()
    }
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
        let copy_at = self.limits.copy_at(&receipt);
        let renew_at = renew_at(receipt.leased_at, &receipt, copy_at);
        let entry = self.entries.get_mut(&key).expect("held");
        entry.receipts.push(HeldReceipt { receipt, key: receipt_key, renew_at: Some(renew_at) });
        entry.set_lease();
        let earlier = self.next_renewal().is_none_or(|first| renew_at < first);
        self.renewals.insert((renew_at, receipt_key), key);
        earlier
    }

    pub(in crate::inflight) fn extended(&self) -> usize {
        self.renewals.len() + self.extending.len() + self.kept_len()
    }

    pub(in crate::inflight) fn next_renewal(&self) -> Option<Instant> {
        let of_jobs = self.renewals.keys().next().map(|(at, _)| *at);
        [of_jobs, self.next_kept_renewal()].into_iter().flatten().min()
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
            if now < receipt.leased_at + HOLD_MAX {
                held.renew_at = None;
                self.extending.insert(receipt_key, key);
                renewals.due.push(DueRenewal {
                    key: receipt_key,
                    handle: receipt.handle.clone(),
                    deadline: receipt.deadline,
                    visibility: extension(self.visibility, receipt, now),
                });
                renewals.ending.extend(self.take_ending(key, now));
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
        self.kept_due(now, soon, &mut renewals.due);
        renewals
    }

    /// Renewals that come after a message is to be copied come when it is.
    pub(in crate::inflight) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let mut moved = Vec::new();
        for (&(at, receipt_key), &key) in &self.renewals {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let held = entry.receipts.iter_mut().find(|held| held.key == receipt_key);
            let Some(held) = held else { continue };
            if let Some(copy_at) = limits.copy_at(&held.receipt)
                && copy_at < at
            {
                held.renew_at = Some(copy_at);
                moved.push((at, copy_at, receipt_key, key));
            }
        }
        for (at, copy_at, receipt_key, key) in moved {
            self.renewals.remove(&(at, receipt_key));
            self.renewals.insert((copy_at, receipt_key), key);
        }
    }

    /// The shortest of the times for which the job's messages may be hidden.
    pub(in crate::inflight) fn hidden_job(
        &self,
        key: Key,
        after: Duration,
        now: Instant,
    ) -> Duration {
        let receipts = self.entries.get(&key).into_iter().flat_map(|entry| &entry.receipts);
        let hidden = receipts.map(|held| self.limits.hidden(&held.receipt, after, now));
        hidden.min().unwrap_or(after)
    }

    /// Whether SQS drops the messages of a job soon, all of them.
    pub(in crate::inflight) fn is_ending(&self, key: Key, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&key) else { return false };
        let ends =
            |held: &HeldReceipt| self.limits.copy_at(&held.receipt).is_some_and(|at| at <= now);
        !entry.receipts.is_empty() && entry.receipts.iter().all(ends)
    }

    /// The job, in hand from now on, where nobody has it and its messages end soon.
    fn take_ending(&mut self, key: Key, now: Instant) -> Option<Box<Job>> {
        if self.stopped || !self.is_ending(key, now) {
            return None;
        }
        self.take_in_hand(key)
    }

    /// The lease keeper is gone: gives what was to be released after its extension.
    pub(in crate::inflight) fn end_extensions(&mut self) -> Vec<(Receipt, Duration)> {
        self.extensions_ended = true;
        self.end_kept_extensions();
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
            if self.book_kept(receipt_key, &answer, now) {
                continue;
            }
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
                let copy_at = self.limits.copy_at(&held.receipt);
                Some(renew_at(called_at, &held.receipt, copy_at).max(now))
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

/// For how long a lease is extended: no less than is left of it. Where the answer is lost, it lasts as long as is
/// known then, whether SQS carried the call out or not.
pub(super) fn extension(visibility: Duration, receipt: &Receipt, now: Instant) -> Duration {
    let left = receipt.deadline.saturating_duration_since(now);
    visibility.max(left).min(receipt.leased_at + VISIBLE_BY - now)
}

/// Half of its time since it was asked for, however long the answer took: early enough to try again
/// several times before it is too late. Not beyond the longest hold, nor the time at which it is to be copied.
fn renew_at(since: Instant, receipt: &Receipt, copy_at: Option<Instant>) -> Instant {
    let half = since + receipt.deadline.saturating_duration_since(since) / 2;
    let half = half.min(receipt.leased_at + HOLD_MAX);
    copy_at.filter(|at| *at > since).map_or(half, |at| half.min(at))
}
