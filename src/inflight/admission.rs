//! Admission of messages into the table, one whole receive response at a time.
//!
//! A response may contain several messages of one FIFO group. If the first goes back to the queue,
//! the later ones must go back too, so they must be in the table by then.

use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::InFlight;
use super::job::{GroupTurn, Job, JobKey, OriginalMessage, Receipt, RemovedJob};
use super::state::{Placement, TableState};
use crate::event::ContentHash;

/// Result of admitting a message.
#[derive(Debug)]
pub enum Admitted {
    /// It can start.
    Ready,
    /// An earlier event of its reservation or of its group comes first.
    InLane,
    /// A copy of a held event; it is settled together with it.
    Joined {
        /// The copy; only its receipt was kept.
        job: Box<Job>,
        /// Whether it is the same SQS message, received again: the older receipt was dropped.
        replaced: bool,
    },
    /// Not held, because its reservation must leave room for others: hand it back for `after`.
    Deferred {
        /// The job, needed only for its span and its name.
        job: Box<Job>,
        /// The receipt to hand back.
        receipt: Receipt,
        /// How long to hide the message: until its turn is near.
        after: Duration,
        /// Whether it is the first deferred message of the reservation since its lane began.
        is_first: bool,
    },
    /// An event with the same id but other content is held. The hash is that of the held one.
    IdReused(Box<Job>, RemovedJob, ContentHash),
}

/// A receive response that is being admitted.
/// It locks the table, so nothing is awaited while it exists. Dropping it makes the jobs ready that
/// can start.
#[derive(Debug)]
pub struct Admission<'a> {
    pub(super) inflight: &'a Arc<InFlight>,
    pub(super) state: MutexGuard<'a, TableState>,
    pub(super) can_start: Vec<JobKey>,
    /// Whether a new receipt is now the first to be extended.
    pub(super) is_earlier: bool,
}

impl Admission<'_> {
    /// Admits an event with its receipt.
    pub fn event(
        &mut self,
        job: Box<Job>,
        original: OriginalMessage,
        receipt: Receipt,
    ) -> Admitted {
        match self.state.admit(job, original, receipt) {
            Placement::New { key, is_first, is_earlier } => {
                self.is_earlier |= is_earlier;
                if !is_first {
                    return Admitted::InLane;
                }
                self.can_start.push(key);
                Admitted::Ready
            }
            Placement::Joined { job, replaced, is_earlier } => {
                self.is_earlier |= is_earlier;
                Admitted::Joined { job, replaced }
            }
            Placement::Deferred { job, receipt, after, is_first } => {
                Admitted::Deferred { job, receipt, after, is_first }
            }
            Placement::IdReused(job, message, held) => {
                let (original, receipt) = *message;
                Admitted::IdReused(job, self.aside(original, receipt), held)
            }
        }
    }

    /// Sets aside a message that is not to be held. It still takes its turn in its group.
    pub fn aside(&mut self, original: OriginalMessage, receipt: Receipt) -> RemovedJob {
        let turn = original.ordered_group().map(|group| {
            let (lane, key) = self.state.enter_group(group, receipt.leased_at);
            let receives = receipt.receive_count;
            GroupTurn { inflight: Arc::clone(self.inflight), lane, key, receives }
        });
        RemovedJob { original, receipts: vec![receipt], turn }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        for key in mem::take(&mut self.can_start) {
            self.inflight.make_ready(&mut self.state, key);
        }
        if self.is_earlier {
            self.inflight.renewals_changed.notify_one();
        }
    }
}
