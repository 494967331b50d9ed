//! The ledger of a queue: the server's own record, which tests compare with the worker's.

use std::collections::VecDeque;
use std::sync::Arc;

use super::action::Action;
use super::error::ErrorCode;

/// Maximum number of entries per queue; the oldest are removed. Totals are not affected.
const ENTRIES_MAX: usize = 500_000;

/// Everything that happened to a queue since it was created.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Requests for this queue that its permissions allowed, of any action.
    pub requests: u64,
    /// Accepted messages, without deduplicated ones.
    pub sent: u64,
    /// FIFO sends that returned an earlier message id.
    pub deduplicated: u64,
    /// Receives, including empty ones.
    pub receives: u64,
    /// Receives without messages.
    pub receives_empty: u64,
    /// Deliveries, including repeated ones.
    pub delivered: u64,
    /// Deleted messages.
    pub deletes_effective: u64,
    /// Deletes without effect: the handle was old, or the message was already deleted.
    pub deletes_stale: u64,
    /// Visibility changes to 0.
    pub visibility_to_zero: u64,
    /// Visibility changes to more than 0.
    pub visibility_extended: u64,
    /// Messages that the redrive policy moved to the dead-letter queue.
    pub moved_to_dlq: u64,
    /// Messages removed at the end of their retention.
    pub expired: u64,
    /// Injected faults.
    pub faults: u64,
    /// The last 500,000 entries, in order.
    pub entries: VecDeque<Entry>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the server started.
    pub at_ms: u64,
    /// The action; a move to the dead-letter queue has the receive that caused it.
    pub action: Action,
    /// The message id, if the entry concerns a message.
    pub message_id: Option<Arc<str>>,
    /// The receipt handle that was returned or used.
    pub receipt_handle: Option<Arc<str>>,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted.
    Sent,
    /// Repeated within five minutes: accepted but not enqueued.
    Deduplicated,
    /// Delivered.
    Delivered {
        /// `ApproximateReceiveCount`.
        receive_count: u32,
    },
    /// A receive without messages.
    Empty,
    /// Deleted.
    Deleted,
    /// Answered with success but without effect.
    DeleteStale,
    /// Hidden from now on; visible at once with 0.
    VisibilitySet {
        /// The timeout in seconds.
        timeout_s: u32,
    },
    /// Received too often and moved.
    MovedToDlq,
    /// Refused.
    Refused(ErrorCode),
    /// An injected fault.
    Fault(FaultKind),
}

/// The kinds of injected faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An error response without effect.
    Error,
    /// An HTTP status without effect.
    Http,
    /// A connection reset without effect.
    Reset,
    /// A connection reset after the effect.
    ReplyLost,
    /// The message was delivered and left visible.
    Duplicate,
    /// An entry of a batch failed.
    BatchEntry,
    /// A delete was answered with success but not executed.
    SilentDelete,
}

impl Ledger {
    /// Adds an entry and updates the totals.
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
