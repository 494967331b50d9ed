//! Leases of the receipts: when to extend them, how results are recorded, and when they are lost.

use std::time::Duration;

use tokio::time::Instant;

use super::{HeldReceipt, JobState, Promoted, TableState};
use crate::event::{EventId, ReservationId};
use crate::inflight::job::{Job, JobKey, Lane, Receipt, ReceiptKey};
use crate::inflight::lease::Lease;
use crate::inflight::redrive::RedriveLimits;
use crate::queue::{BATCH_MAX, ReceiptHandle};

/// Maximum time that a message is held.
/// SQS allows 12 hours from the receive, whatever timeout is requested (AWS:
/// `ChangeMessageVisibility`).
pub(super) const HOLD_MAX: Duration = Duration::from_secs((11 * 60 + 50) * 60);

/// Latest end of an extension, counted from the receive.
const VISIBLE_BY: Duration = Duration::from_secs((11 * 60 + 59) * 60);

/// When to check a message held for the maximum time again, while an attempt runs.
const RECHECK: Duration = Duration::from_secs(1);

/// Result of one extension.
#[derive(Debug)]
pub enum Renewal {
    /// Extended, from the time of the call.
    Extended {
        /// When the call was made.
        called_at: Instant,
        /// The requested visibility timeout.
        visibility: Duration,
    },
    /// Failed; retry at this time.
    RetryAt(Instant),
    /// The receipt is no longer valid.
    Lost,
}

/// A receipt to extend.
#[derive(Debug)]
pub struct DueRenewal {
    /// The key of the receipt in the table.
    pub key: ReceiptKey,
    /// The receipt handle.
    pub handle: ReceiptHandle,
    /// The end of its current visibility timeout.
    pub deadline: Instant,
    /// The visibility timeout to request; shortened near SQS's limit of 12 hours.
    pub visibility: Duration,
}

/// Actions that the leases need now.
#[derive(Debug, Default)]
pub struct Renewals {
    /// Up to ten receipts to extend.
    pub due: Vec<DueRenewal>,
    /// Receipts held for the maximum time: to be made visible at once.
    pub overdue: Vec<Receipt>,
    /// Idle jobs that lost their last receipt in this way.
    pub ended: Vec<Box<Job>>,
    /// Idle jobs whose messages SQS soon drops: to be copied to the dead-letter queue.
    pub ending: Vec<Box<Job>>,
    /// Jobs that may now start in the lanes of the removed jobs.
    pub(in crate::inflight) promoted: Vec<Promoted>,
}

impl Renewals {
    /// Returns whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
            && self.overdue.is_empty()
            && self.ended.is_empty()
            && self.ending.is_empty()
    }
}

/// The claim of a held event, and its lane.
#[derive(Clone, Debug)]
pub struct HeldClaim {
    /// The event.
    pub id: EventId,
    /// The reservation whose lane it is.
    pub reservation_id: ReservationId,
    /// The lease that the claim follows.
    pub lease: Lease,
}

/// Consequences of an extension call.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Receipts released during their extension: to be made visible now.
    pub released: Vec<(Receipt, Duration)>,
    /// Idle jobs that lost their last receipt; they are already out of the table.
    pub lost: Vec<Box<Job>>,
    /// Number of lost receipts, of any job.
    pub receipts_lost: usize,
    /// Events whose messages were extended: their claims must be renewed.
    pub claims: Vec<HeldClaim>,
}

impl TableState {
    pub(super) fn add_receipt(&mut self, key: JobKey, receipt: Receipt) -> bool {
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
        // Receipts due within a tenth of the timeout share the call; that is well before their
        // deadline.
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
            } else if matches!(entry.state, JobState::Running) && now + RECHECK < receipt.deadline {
                // If made visible now, it could be handled twice at the same time. The attempt ends
                // soon.
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

    /// Sets the limits. Renewals after the time of the copy are moved to that time.
    pub(in crate::inflight) fn set_limits(&mut self, limits: RedriveLimits) {
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

    /// Returns the shortest time for which the job's messages may be hidden.
    pub(in crate::inflight) fn hidden_job(
        &self,
        key: JobKey,
        after: Duration,
        now: Instant,
    ) -> Duration {
        let receipts = self.entries.get(&key).into_iter().flat_map(|entry| &entry.receipts);
        let hidden = receipts.map(|held| self.limits.hidden(&held.receipt, after, now));
        hidden.min().unwrap_or(after)
    }

    /// Returns whether SQS soon drops all messages of a job.
    pub(in crate::inflight) fn is_ending(&self, key: JobKey, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&key) else { return false };
        let ends =
            |held: &HeldReceipt| self.limits.copy_at(&held.receipt).is_some_and(|at| at <= now);
        !entry.receipts.is_empty() && entry.receipts.iter().all(ends)
    }

    /// Takes an idle job whose messages SQS soon drops.
    fn take_ending(&mut self, key: JobKey, now: Instant) -> Option<Box<Job>> {
        if self.stopped || !self.is_ending(key, now) {
            return None;
        }
        self.take_in_hand(key)
    }

    /// Records that the lease keeper has ended. Returns the receipts whose release waited for it.
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
                && let Lane::Reservation(reservation_id) = &entry.lane
                && renewed.claims.iter().all(|claim| claim.id != entry.event_id)
            {
                let (id, reservation_id) = (entry.event_id.clone(), reservation_id.clone());
                renewed.claims.push(HeldClaim { id, reservation_id, lease: entry.lease.clone() });
            }
            renewed.receipts_lost += usize::from(lost);
            if lost && let Some((job, next)) = self.drop_if_lost(key) {
                promoted.push(next);
                renewed.lost.extend(job);
            }
        }
        (renewed, promoted)
    }

    /// Records one result and returns whether the receipt is lost.
    fn book(
        &mut self,
        key: JobKey,
        receipt_key: ReceiptKey,
        answer: Renewal,
        now: Instant,
    ) -> bool {
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

    /// Removes an idle job that has no valid receipt left.
    /// The owner of a running job checks its lease.
    fn drop_if_lost(&mut self, key: JobKey) -> Option<(Option<Box<Job>>, Promoted)> {
        let entry = self.entries.get(&key)?;
        if !entry.receipts.is_empty() || matches!(entry.state, JobState::Running) {
            return None;
        }
        let (entry, promoted) = self.take_unsettled(key);
        match entry.state {
            JobState::Idle(job, _) => Some((Some(job), promoted)),
            JobState::Running => None,
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

/// Returns the visibility timeout to request, at least the time left of the lease.
/// So if the answer is lost, the known deadline is valid whether or not SQS carried out the call.
pub(super) fn extension(visibility: Duration, receipt: &Receipt, now: Instant) -> Duration {
    let left = receipt.deadline.saturating_duration_since(now);
    visibility.max(left).min(receipt.leased_at + VISIBLE_BY - now)
}

/// Returns the middle between `since`, when the lease was requested, and the deadline.
/// The duration of the call does not matter. This leaves time for several retries. The result is
/// not after the maximum hold, nor after the time of the copy.
fn renew_at(since: Instant, receipt: &Receipt, copy_at: Option<Instant>) -> Instant {
    let half = since + receipt.deadline.saturating_duration_since(since) / 2;
    let half = half.min(receipt.leased_at + HOLD_MAX);
    copy_at.filter(|at| *at > since).map_or(half, |at| half.min(at))
}
