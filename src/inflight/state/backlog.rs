//! Backlog limit per reservation: messages beyond its share of the room are handed back.
//!
//! They stay hidden until their turn is near. A lane may grow while more room is left than it uses.
//! So one such reservation takes half of the room, two take a third each, and some room always
//! remains for others. The time of a message's turn is estimated from the lane's speed so far. Each
//! hand-back spends a receive, so a message without a spare receive is held anyway. A message is
//! also held if its lane waits for a service that is down: an outage must cost time, not receives.
//! Where the lane waits for its turn after another process, a message keeps one more spare receive:
//! the other process may wait for a service in its turn. With three receives it is held.

use std::time::Duration;

use super::{JobState, Placement, TableState, WaitReason};
use crate::inflight::job::{Job, Lane, OriginalMessage, Receipt};
use crate::queue::BATCH_MAX;

/// Divisor of the room: a lane may take this part even if little is left.
/// A few events of one reservation are normal.
const SHARE_MIN: usize = 16;

/// Minimum number of messages that a lane may hold: one receive may bring as many.
const HELD_MIN: usize = BATCH_MAX;

/// Maximum time that a message is hidden.
/// It is as long as the longest release, so that a recovery is noticed soon.
const HIDDEN_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a message is handed back for.
pub(super) struct Deferral {
    after: Duration,
    /// Whether no message of the lane was handed back before.
    is_first: bool,
}

impl Deferral {
    pub(super) fn of(self, job: Box<Job>, receipt: Receipt) -> Placement {
        let Self { after, is_first } = self;
        Placement::Deferred { job, receipt, after, is_first }
    }
}

impl TableState {
    /// Returns a deferral if a message with `before` others ahead of it must be handed back.
    /// A message of a FIFO group is held: handing it back would close the group for as long.
    pub(super) fn deferral(
        &mut self,
        lane: &Lane,
        before: usize,
        original: &OriginalMessage,
        receipt: &Receipt,
    ) -> Option<Deferral> {
        // Assumes that the lane's messages are as large as this one.
        let memory = receipt.permit.alike();
        let left = self.messages_max.saturating_sub(self.receipts_held()).min(memory.left);
        let share = left.max(self.messages_max.min(memory.all) / SHARE_MIN).max(HELD_MIN);
        if before < share
            || original.ordered_group().is_some()
            || !self
                .limits
                .receives_max
                .is_spare(receipt.receive_count.saturating_add(self.kept_back(lane)))
            || self.waits_for_service(lane)
        {
            return None;
        }
        let is_new = receipt.receive_count == 1;
        let (after, is_first) = self.lanes.turn(lane, receipt.leased_at, HIDDEN_MAX, is_new)?;
        let after = self.limits.hidden(receipt, after, receipt.leased_at);
        Some(Deferral { after, is_first })
    }

    /// Returns how many spare receives a message of this lane keeps for itself.
    fn kept_back(&self, lane: &Lane) -> u32 {
        let first = self.lanes.first(lane).and_then(|key| self.entries.get(&key));
        u32::from(first.is_some_and(|entry| entry.waits_for_turn))
    }

    /// Returns whether the first job of a lane waits for a service that is not called.
    fn waits_for_service(&self, lane: &Lane) -> bool {
        let first = self.lanes.first(lane).and_then(|key| self.entries.get(&key));
        first.is_some_and(|entry| match &entry.state {
            JobState::Idle(_, WaitReason::Parked(dependency, how)) => {
                self.parked[dependency.index()].is_parked(*how)
            }
            JobState::Idle(..) | JobState::Running => false,
        })
    }
}
