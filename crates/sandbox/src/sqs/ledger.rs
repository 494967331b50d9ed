//! What the server saw: a record of its own that tests hold a worker's claims against.

use std::collections::VecDeque;
use std::sync::Arc;

use super::action::Action;
use super::error::ErrorCode;

/// Entries kept for each queue; the oldest make room. The sums beside them are never cut.
const ENTRIES_MAX: usize = 500_000;

/// Everything that happened to one queue since it was made.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Messages accepted, without deduplicated ones.
    pub sent: u64,
    /// FIFO sends that were answered with an earlier message's id.
    pub deduplicated: u64,
    /// Receives answered, empty ones included.
    pub receives: u64,
    /// Receives answered without a message.
    pub receives_empty: u64,
    /// Messages handed out, repeats included.
    pub delivered: u64,
    /// Messages deleted.
    pub deletes_effective: u64,
    /// Deletes answered with success that deleted nothing: an old handle, or a message gone already.
    pub deletes_stale: u64,
    /// Visibility changes to 0.
    pub visibility_to_zero: u64,
    /// Visibility changes to more than 0.
    pub visibility_extended: u64,
    /// Messages moved to the dead-letter queue by the redrive policy.
    pub moved_to_dlq: u64,
    /// Messages dropped at the end of their retention.
    pub expired: u64,
    /// Faults injected.
    pub faults: u64,
    /// What happened, in order: at most the last 500,000.
    pub entries: VecDeque<Entry>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the server started.
    pub at_ms: u64,
    /// What was asked for; a move to the dead-letter queue shows as the receive that caused it.
    pub action: Action,
    /// Which message, where it is about one.
    pub message_id: Option<Arc<str>>,
    /// The handle that was given out, or given back.
    pub receipt_handle: Option<Arc<str>>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted.
    Sent,
    /// A repeat within five minutes: accepted and not enqueued.
    Deduplicated,
    /// Handed out, for the so-manieth time.
    Delivered {
        /// `ApproximateReceiveCount`.
        receive_count: u32,
    },
    /// Answered without a message.
    Empty,
    /// Deleted.
    Deleted,
    /// Answered with success, and deleted nothing.
    DeleteStale,
    /// Hidden for so long from now; visible at once at 0.
    VisibilitySet {
        /// Seconds.
        timeout_s: u32,
    },
    /// Received too often, and moved.
    MovedToDlq,
    /// Refused.
    Refused(ErrorCode),
    /// A fault that was asked for.
    Fault(FaultKind),
}

/// The kinds of injected faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An error answer, without effect.
    Error,
    /// A bare HTTP status, without effect.
    Http,
    /// The connection was reset before the action had any effect.
    Reset,
    /// The action took effect, then the connection was reset.
    ReplyLost,
    /// The message was handed out and left visible.
    Duplicate,
    /// An entry of a batch failed.
    BatchEntry,
    /// A delete was answered with success and not carried out.
    SilentDelete,
}

impl Ledger {
    /// Books an entry and its sum.
    pub(crate) fn book(&mut self, entry: Entry) {
        match entry.outcome {
            Outcome::Sent => self.sent += 1,
            Outcome::Deduplicated => self.deduplicated += 1,
            Outcome::Delivered { receive_count: _ } => self.delivered += 1,
            Outcome::Empty => {
                self.receives += 1;
                self.receives_empty += 1;
            }
            Outcome::Deleted => self.deletes_effective += 1,
            Outcome::DeleteStale => self.deletes_stale += 1,
            Outcome::VisibilitySet { timeout_s: 0 } => self.visibility_to_zero += 1,
            Outcome::VisibilitySet { timeout_s: _ } => self.visibility_extended += 1,
            Outcome::MovedToDlq => self.moved_to_dlq += 1,
            Outcome::Refused(_) => {}
            Outcome::Fault(_) => self.faults += 1,
        }
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}
