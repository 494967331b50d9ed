//! One reservation's backlog does not fill the room: what is beyond its share is handed back until its turn is near.
//!
//! A lane may grow while there is more room left than it takes itself. So one such reservation takes half of the room,
//! two take a third each, and there is always some left for others. When a message's turn comes is estimated by how fast
//! its lane has moved so far. Each hand-back spends a receive: where none is to spare, the message is held all the same.
//! So it is where the lane waits for a service that is away: an outage costs time, not receives.

use std::time::Duration;

use super::{Idle, Lane, Place, Placed, State};
use crate::inflight::job::{Job, Original, Receipt};
use crate::queue::BATCH_MAX;

/// The part of the room, one over it, that a lane may take however little is left: a few events of one reservation are
/// everyday life.
const SHARE_MIN: usize = 16;

/// And the fewest: one receive may bring as many.
const HELD_MIN: usize = BATCH_MAX;

/// The longest that a message is hidden: as long as the longest release, so that a cure is noticed soon.
const HIDDEN_MAX: Duration = Duration::from_secs(15 * 60);

/// For how long a message is to be handed back.
pub(super) struct Deferral {
    after: Duration,
    /// No message of the lane was handed back before.
    is_first: bool,
}

impl Deferral {
    pub(super) fn of(self, job: Box<Job>, receipt: Receipt) -> Placed {
        let Self { after, is_first } = self;
        Placed::Deferred { job, receipt, after, is_first }
    }
}

impl State {
    /// Whether a message is to be handed back that would come behind so many others of its reservation. In a FIFO group
    /// it is held: the group would be closed for as long.
    pub(super) fn deferral(
        &mut self,
        lane: &Lane,
        before: usize,
        original: &Original,
        receipt: &Receipt,
    ) -> Option<Deferral> {
        // The lane's messages are taken to be as large as this one.
        let memory = receipt.room.alike();
        let left = self.messages_max.saturating_sub(self.receipts_held()).min(memory.left);
        let share = left.max(self.messages_max.min(memory.all) / SHARE_MIN).max(HELD_MIN);
        if before < share
            || original.ordered_group().is_some()
            || !self.limits.receives_max.is_spare(receipt.receive_count)
            || self.waits_for_service(lane)
        {
            return None;
        }
        let is_new = receipt.receive_count == 1;
        let (after, is_first) = self.lanes.turn(lane, receipt.leased_at, HIDDEN_MAX, is_new)?;
        let after = self.limits.hidden(receipt, after, receipt.leased_at);
        Some(Deferral { after, is_first })
    }

    /// Whether the first of a lane waits for a service that is not called.
    fn waits_for_service(&self, lane: &Lane) -> bool {
        let first = self.lanes.first(lane).and_then(|key| self.entries.get(&key));
        first.is_some_and(|entry| match &entry.place {
            Place::Idle(_, Idle::Parked(dependency, how)) => {
                self.parked[dependency.index()].is_parked(*how)
            }
            Place::Idle(..) | Place::Running => false,
        })
    }
}
