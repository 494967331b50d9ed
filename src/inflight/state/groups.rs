//! FIFO groups: whose turn it is, and which jobs go back to the queue with an earlier one.
//!
//! Going back spends a receive. So while there is room, the group waits in the table for its head.
//! If the head used up its last receive, it is not delivered again, and the later ones continue.

use std::mem;

use tokio::time::Instant;

use super::{JobEntry, Promoted, TableState};
use crate::inflight::job::{Job, JobKey, Lane};

/// What a job's FIFO group requires when the job has to go back to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFate {
    /// Go back: it has no group, nothing later of the group is held, or room is short.
    Release,
    /// It is not delivered again: dead-letter it; its group continues.
    LastReceive,
    /// Later ones of its group are held and would spend a receive: wait in the table.
    Wait,
}

impl JobEntry {
    /// Returns how often its message was received.
    fn receives(&self) -> u32 {
        let newest = self.receipts.iter().map(|held| held.receipt.receive_count).max();
        newest.unwrap_or_default().max(self.original.receive_count)
    }
}

impl TableState {
    /// Decides about a running job that used up its attempts in this delivery.
    pub(in crate::inflight) fn group_fate(&self, job: &Job) -> GroupFate {
        let entry = self.entries.get(&job.key).expect("a job in hand is in the table");
        let Some(group) = &entry.group else { return GroupFate::Release };
        if self.limits.receives_max.is_used_up(entry.receives().saturating_add(job.rounds)) {
            return GroupFate::LastReceive;
        }
        let memory = entry.receipts.first().map(|held| held.receipt.permit.alike());
        let is_room_short = self.receipts_held() > self.messages_max / 2
            || memory.is_some_and(|memory| memory.left < memory.all / 2);
        if is_room_short || self.stopped || self.lanes.after(group, job.key).is_empty() {
            return GroupFate::Release;
        }
        GroupFate::Wait
    }

    /// Returns whether a job that leaves unsettled is delivered again.
    pub(super) fn comes_again(&self, entry: &JobEntry) -> bool {
        !self.limits.receives_max.is_used_up(entry.receives())
    }

    /// Ends the turn of an unsettled message with `receives` receives.
    pub(in crate::inflight) fn leave_group_unsettled(
        &mut self,
        lane: &Lane,
        key: JobKey,
        receives: u32,
    ) -> Promoted {
        self.leave_group(lane, key, !self.limits.receives_max.is_used_up(receives))
    }

    /// Enters a message that is not an event into its group's lane.
    /// Later ones wait for it.
    pub(in crate::inflight) fn enter_group(
        &mut self,
        group_id: &str,
        now: Instant,
    ) -> (Lane, JobKey) {
        let (lane, key) = (Lane::Group(group_id.into()), JobKey(self.next_number()));
        self.lanes.enter(&lane, key, now, None, false);
        (lane, key)
    }

    /// Ends the turn of a message in its group. `abandon`: later jobs are handed back too.
    pub(in crate::inflight) fn leave_group(
        &mut self,
        lane: &Lane,
        key: JobKey,
        abandon: bool,
    ) -> Promoted {
        if abandon {
            self.abandon_after(lane, key);
        }
        Promoted([self.lanes.leave(lane, key), None, None])
    }

    /// Abandons the later jobs of the group: they must not be handled before the one handed back.
    fn abandon_after(&mut self, lane: &Lane, key: JobKey) {
        for later in self.lanes.after(lane, key) {
            // A later message that is not an event has no entry and is settled separately.
            let job = self.take_in_hand(later);
            self.abandoned.extend(job);
        }
    }

    /// Takes the jobs to hand back at once.
    pub(in crate::inflight) fn take_abandoned(&mut self) -> Vec<Box<Job>> {
        mem::take(&mut self.abandoned)
    }
}
