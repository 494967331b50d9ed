//! FIFO groups: whose turn it is, and what goes back to the queue with an earlier one.
//!
//! What goes back spends a receive. So a group waits here for its head while there is room; and where the head does not
//! come again, as it used up its last receive, the later ones go on without it.

use std::mem;

use tokio::time::Instant;

use super::{Entry, Lane, Promoted, State};
use crate::inflight::job::{Job, Key};

/// What is best for its group where a job is to go back to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFate {
    /// It goes back: it is in no group, or nothing else of it is held, or room is short.
    Release,
    /// It does not come again: it is to be dead-lettered, and its group goes on.
    LastReceive,
    /// Later ones of its group are held, and would spend a receive: it is to wait here.
    Wait,
}

impl Entry {
    /// How often its message was received.
    fn receives(&self) -> u32 {
        let newest = self.receipts.iter().map(|held| held.receipt.receive_count).max();
        newest.unwrap_or_default().max(self.original.receive_count)
    }
}

impl State {
    /// What is to become of a job in hand that failed as often as it may in this delivery.
    pub(in crate::inflight) fn group_fate(&self, job: &Job) -> GroupFate {
        let entry = self.entries.get(&job.key).expect("a job in hand is in the table");
        let Some(group) = &entry.group else { return GroupFate::Release };
        if self.limits.receives_max.is_used_up(entry.receives().saturating_add(job.rounds)) {
            return GroupFate::LastReceive;
        }
        let memory = entry.receipts.first().map(|held| held.receipt.room.alike());
        let is_room_short = self.receipts_held() > self.messages_max / 2
            || memory.is_some_and(|memory| memory.left < memory.all / 2);
        if is_room_short || self.stopped || self.lanes.after(group, job.key).is_empty() {
            return GroupFate::Release;
        }
        GroupFate::Wait
    }

    /// Whether a job that leaves unsettled comes again.
    pub(super) fn comes_again(&self, entry: &Entry) -> bool {
        !self.limits.receives_max.is_used_up(entry.receives())
    }

    /// The turn of a message that was received so often is over, and it is not settled.
    pub(in crate::inflight) fn leave_group_unsettled(
        &mut self,
        lane: &Lane,
        key: Key,
        receives: u32,
    ) -> Promoted {
        self.leave_group(lane, key, !self.limits.receives_max.is_used_up(receives))
    }

    /// A place in a group's lane for a message that is no event: later ones wait for it too.
    pub(in crate::inflight) fn enter_group(&mut self, group_id: &str, now: Instant) -> (Lane, Key) {
        let (lane, key) = (Lane::Group(group_id.into()), Key(self.next_number()));
        self.lanes.enter(&lane, key, now);
        (lane, key)
    }

    /// The turn of a message in its group is over. What is later is handed back too where this one comes again.
    pub(in crate::inflight) fn leave_group(
        &mut self,
        lane: &Lane,
        key: Key,
        abandon: bool,
    ) -> Promoted {
        if abandon {
            self.abandon_after(lane, key);
        }
        Promoted([self.lanes.leave(lane, key), None, None])
    }

    /// What comes later in the group is not to be handled before what is handed back now.
    fn abandon_after(&mut self, lane: &Lane, key: Key) {
        for later in self.lanes.after(lane, key) {
            // A later message that is no event has no entry, and settles by itself.
            let job = self.take_in_hand(later);
            self.abandoned.extend(job);
        }
    }

    /// Jobs to be handed back at once.
    pub(in crate::inflight) fn take_abandoned(&mut self) -> Vec<Box<Job>> {
        mem::take(&mut self.abandoned)
    }
}
