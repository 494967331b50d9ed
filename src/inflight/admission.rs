//! How messages come into the table: a whole reply at once. Of one FIFO group several may be in a
//! reply; where the first goes back to the queue, the later ones must be held by then, to go too.

use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::InFlight;
use super::job::{GroupTurn, Job, Key, Original, Receipt, Taken};
use super::state::{Placed, State};
use crate::event::ContentHash;

/// What became of a message that was taken in.
#[derive(Debug)]
pub enum Admitted {
    /// It can start.
    Ready,
    /// An earlier event of its reservation comes first.
    InLane,
    /// It is a copy of one that is held, and shares its settlement.
    Joined {
        /// The copy; only its receipt was kept.
        job: Box<Job>,
        /// It is the same SQS message, received again: the older receipt was dropped.
        replaced: bool,
    },
    /// It is not held, so that its reservation leaves room for others: to be handed back for that time.
    Deferred {
        /// Only for its span and its name.
        job: Box<Job>,
        /// What hands it back.
        receipt: Receipt,
        /// Until its turn is near.
        after: Duration,
        /// No other of the reservation was handed back for that since the first that is held came.
        is_first: bool,
    },
    /// An event with the same id and another content, which has this hash, is held.
    IdReused(Box<Job>, Taken, ContentHash),
}

/// A reply on its way into the table. While this lives the table stands still: nothing is awaited
/// meanwhile. Dropping it lets start what can.
#[derive(Debug)]
pub struct Admission<'a> {
    pub(super) inflight: &'a Arc<InFlight>,
    pub(super) state: MutexGuard<'a, State>,
    pub(super) can_start: Vec<Key>,
    /// A receipt is to be extended before all those that were held.
    pub(super) is_earlier: bool,
}

impl Admission<'_> {
    /// Takes in an event with the receipt that it came with.
    pub fn event(&mut self, job: Box<Job>, original: Original, receipt: Receipt) -> Admitted {
        match self.state.admit(job, original, receipt) {
            Placed::New { key, is_first, is_earlier } => {
                self.is_earlier |= is_earlier;
                if !is_first {
                    return Admitted::InLane;
                }
                self.can_start.push(key);
                Admitted::Ready
            }
            Placed::Joined { job, replaced, is_earlier } => {
                self.is_earlier |= is_earlier;
                Admitted::Joined { job, replaced }
            }
            Placed::Deferred { job, receipt, after, is_first } => {
                Admitted::Deferred { job, receipt, after, is_first }
            }
            Placed::IdReused(job, message, held) => {
                let (original, receipt) = *message;
                Admitted::IdReused(job, self.aside(original, receipt), held)
            }
        }
    }

    /// Sets a message aside that is not to be held. In its group it takes its turn all the same.
    pub fn aside(&mut self, original: Original, receipt: Receipt) -> Taken {
        let turn = original.ordered_group().map(|group| {
            let (lane, key) = self.state.enter_group(group, receipt.leased_at);
            let receives = receipt.receive_count;
            GroupTurn { inflight: Arc::clone(self.inflight), lane, key, receives }
        });
        Taken { original, receipts: vec![receipt], turn }
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
