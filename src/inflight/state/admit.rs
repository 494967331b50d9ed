//! Placement of an incoming message: as a new job, or joined to the job of the same event.

use std::mem;
use std::time::SystemTime;

use tokio::time::Instant;

use super::{JobEntry, JobState, Placement, TableState, WaitReason};
use crate::inflight::job::{Job, JobKey, Lane, OriginalMessage, Receipt};
use crate::metrics::HeldState;

impl TableState {
    pub(in crate::inflight) fn admit(
        &mut self,
        mut job: Box<Job>,
        original: OriginalMessage,
        receipt: Receipt,
    ) -> Placement {
        if let Some(&key) = self.by_event.get(&job.event.id) {
            let entry = self.entries.get_mut(&key).expect("an indexed event is held");
            if entry.hash.contradicts(job.hash) {
                return Placement::IdReused(job, Box::new((original, receipt)), entry.hash);
            }
            let copies = entry.receipts.len();
            let is_known = entry.holds(&receipt.message_id);
            let lane = entry.lane.clone();
            if !is_known && let Some(deferral) = self.deferral(&lane, copies, &original, &receipt) {
                return deferral.of(job, receipt);
            }
            let (replaced, is_earlier) = self.join(key, receipt);
            return Placement::Joined { job, replaced, is_earlier };
        }
        let lane = Lane::Reservation(job.event.reservation_id.clone());
        let before = self.lanes.len(&lane);
        if let Some(deferral) = self.deferral(&lane, before, &original, &receipt) {
            return deferral.of(job, receipt);
        }
        let key = JobKey(self.next_number());
        job.key = key;
        self.by_event.insert(job.event.id.clone(), key);
        let group = original.ordered_group().map(|name| Lane::Group(name.into()));
        let order = job.order.filter(|_| group.is_none());
        self.enter_by_order(&lane, key, receipt.leased_at, order);
        if let Some(group) = &group {
            self.lanes.enter(group, key, receipt.leased_at, None, false);
        }
        let entry = JobEntry {
            event_id: job.event.id.clone(),
            lane,
            group,
            hash: job.hash,
            lease: job.lease.clone(),
            original,
            receipts: Vec::with_capacity(1),
            state: JobState::Idle(job, WaitReason::InLane),
            tried_at: None,
            waits_for_turn: false,
        };
        let is_first = self.is_first(&entry, key);
        self.entries.insert(key, entry);
        let is_earlier = self.add_receipt(key, receipt);
        Placement::New { key, is_first, is_earlier }
    }

    /// Adds a job to its reservation's lane. The first job gives way if it has not begun.
    fn enter_by_order(
        &mut self,
        lane: &Lane,
        key: JobKey,
        now: Instant,
        order: Option<SystemTime>,
    ) {
        let first = order.and_then(|_| self.lanes.first(lane)).filter(|first| {
            self.entries.get(first).is_some_and(|entry| match &entry.state {
                // Those of one receive are in their lane until all of them are.
                JobState::Idle(job, WaitReason::Ready | WaitReason::InLane) => job.has_not_begun(),
                JobState::Idle(job, WaitReason::Waiting { .. }) => gives_way(job),
                JobState::Idle(..) | JobState::Running => false,
            })
        });
        self.lanes.enter(lane, key, now, order, first.is_some());
        if let Some(displaced) = first.filter(|first| !self.lanes.is_first(lane, *first)) {
            self.displace(displaced);
        }
    }

    /// Lets a job wait in its lane. A key in the channel is ignored: a worker starts only a job
    /// that is ready.
    fn displace(&mut self, key: JobKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let JobState::Idle(job, reason) = &mut entry.state else { return };
        job.held.set(HeldState::Buffered);
        let was = mem::replace(reason, WaitReason::InLane);
        self.stop_idling(key, was);
    }

    /// Lets a job that has not begun wait in its lane, if one behind it was sent earlier. Returns
    /// that one, to be made ready.
    pub(in crate::inflight) fn give_way(&mut self, key: JobKey) -> Option<JobKey> {
        let entry = self.entries.get(&key)?;
        let JobState::Idle(job, _) = &entry.state else { return None };
        let lane = entry.lane.clone();
        if !gives_way(job) || !self.lanes.is_first(&lane, key) {
            return None;
        }
        let next = self.lanes.give_way(&lane)?;
        self.displace(key);
        Some(next)
    }

    /// Adds a receipt to a job.
    /// Returns whether it replaced an older receipt of the same message, and whether it is now the
    /// first to be extended.
    fn join(&mut self, key: JobKey, receipt: Receipt) -> (bool, bool) {
        let entry = self.entries.get_mut(&key).expect("held");
        let same = entry.receipts.iter().position(|h| h.receipt.message_id == receipt.message_id);
        let Some(at) = same else { return (false, self.add_receipt(key, receipt)) };
        // An older handle would delete nothing. Responses may overtake each other, and SQS's
        // receive count is approximate: a receipt with an equal or lower count may still be newer.
        // So both are kept, and SQS decides which one is valid.
        if receipt.receive_count <= entry.receipts[at].receipt.receive_count {
            return (false, self.add_receipt(key, receipt));
        }
        // If the old receipt is being extended, the result is ignored.
        let old = entry.receipts.swap_remove(at);
        self.stop_renewing(&old);
        (true, self.add_receipt(key, receipt))
    }

    /// Joins another receipt of a held message, whatever its event.
    /// Returns as [`TableState::join`], or the receipt as the error if the message is not held.
    pub(in crate::inflight) fn rejoin(
        &mut self,
        receipt: Receipt,
    ) -> Result<(bool, bool), Receipt> {
        let holds = |entry: &JobEntry| entry.holds(&receipt.message_id);
        match self.entries.iter().find(|(_, entry)| holds(entry)).map(|(key, _)| *key) {
            Some(key) => Ok(self.join(key, receipt)),
            None => Err(receipt),
        }
    }
}

/// Returns whether a job that was put aside gives way: it found another process at its
/// reservation, and has not begun.
fn gives_way(job: &Job) -> bool {
    fail_point!("inflight::waiting-keeps-its-place", |_| false);
    job.has_not_begun()
}
