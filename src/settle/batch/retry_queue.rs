//! Keeps deletes and dead letters that failed, until their action works again.
//!
//! The in-flight table extends their leases meanwhile, so that SQS does not deliver the messages
//! again. Their number is bounded: each kept message keeps its in-flight permit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Settlement;
use super::call::{BatchContext, DeleteOutcome, RETRY_FAILING};
use super::dead_letter::{CopyOutcome, DeadLetterCopy};
use crate::clock;
use crate::inflight::{Receipt, ReceiptKey, TakenBack};
use crate::metrics::{HeldGuard, HeldState, QueueAction, SettlementKind};
use crate::queue::{BATCH_MAX, QueueErrorKind};
use crate::retry::Backoff;
use crate::settle::account::Disposition;

/// Backoff between the retries; one call probes, and its result applies to all.
const TRY: Backoff = Backoff { base: Duration::from_millis(200), cap: RETRY_FAILING };

/// Minimum pause: full jitter may return almost zero.
const TRY_MIN: Duration = Duration::from_millis(100);

/// Concurrent calls once the action works again: eighty messages in about twenty milliseconds.
const CALLS_MAX: usize = 8;

/// Items that wait, and the time of their next try.
#[derive(Debug)]
struct DelayQueue<T> {
    items: VecDeque<T>,
    /// Consecutive rounds that settled nothing.
    failures: u32,
    calls_open: usize,
    /// Whether a call of the current round has settled something.
    has_worked: bool,
    next_at: Option<Instant>,
}

impl<T> DelayQueue<T> {
    fn new() -> Self {
        let items = VecDeque::new();
        Self { items, failures: 0, calls_open: 0, has_worked: false, next_at: None }
    }

    fn push(&mut self, item: T) {
        self.items.push_back(item);
        if self.calls_open == 0 && self.next_at.is_none() {
            self.pause();
        }
    }

    fn pause(&mut self) {
        let pause = TRY.delay(self.failures, &mut fastrand::Rng::new()).max(TRY_MIN);
        self.next_at = Some(Instant::now() + pause);
    }

    /// Returns the number of waiting items and open calls.
    fn len(&self) -> usize {
        self.items.len() + self.calls_open
    }

    /// Begins a round of calls.
    fn begin(&mut self) {
        self.next_at = None;
        self.has_worked = false;
    }

    /// Counts the calls that were made. If none could be made, the next round begins after
    /// [`TRY_MIN`].
    fn began(&mut self, calls: usize) {
        self.calls_open += calls;
        if self.calls_open == 0 && !self.items.is_empty() {
            self.next_at = Some(Instant::now() + TRY_MIN);
        }
    }

    /// Counts a call of the round as ended; the last one schedules the next round.
    fn ended(&mut self, has_worked: bool) {
        self.calls_open -= 1;
        self.has_worked |= has_worked;
        if self.calls_open > 0 {
            return;
        }
        self.failures = if self.has_worked { 0 } else { self.failures.saturating_add(1) };
        if self.items.is_empty() {
            self.next_at = None;
        } else if self.has_worked {
            self.next_at = Some(Instant::now());
        } else {
            self.pause();
        }
    }
}

struct KeptDelete {
    key: ReceiptKey,
    how: Disposition,
    _held: HeldGuard,
}

struct KeptCopy {
    copy: Box<DeadLetterCopy>,
    keys: Vec<ReceiptKey>,
    _held: HeldGuard,
}

/// The kept deletes and dead letters.
pub(super) struct RetryQueue {
    context: Arc<BatchContext>,
    deletes: DelayQueue<KeptDelete>,
    copies: DelayQueue<KeptCopy>,
    /// Whether the last delete call timed out.
    has_hung: bool,
}

impl RetryQueue {
    pub(super) fn new(context: Arc<BatchContext>) -> Self {
        Self { context, deletes: DelayQueue::new(), copies: DelayQueue::new(), has_hung: false }
    }

    /// Returns the time of the next retry.
    pub(super) fn next_try(&self) -> Option<Instant> {
        [self.deletes.next_at, self.copies.next_at].into_iter().flatten().min()
    }

    /// Keeps a delete for a later retry.
    pub(super) fn keep_delete(&mut self, receipt: Receipt, how: Disposition) {
        let held = self.context.metrics.held(HeldState::Settling);
        let key = self.context.inflight.keep(receipt, clock::now());
        self.deletes.push(KeptDelete { key, how, _held: held });
        self.report_waiting();
    }

    /// Handles the end of a delete call.
    pub(super) fn deleted(&mut self, deleted: DeleteOutcome) {
        let DeleteOutcome { failed, settled, is_again, has_hung } = deleted;
        self.has_hung = has_hung;
        for (receipt, how) in failed {
            self.keep_delete(receipt, how);
        }
        if is_again {
            self.deletes.ended(settled > 0);
            self.report_waiting();
        }
    }

    /// Returns the deletes that are due, in batches, each with whether the last call timed out.
    /// While deletes fail, that is one batch.
    pub(super) fn deletes_due(&mut self) -> Vec<(Vec<(Receipt, Disposition)>, bool)> {
        let now = Instant::now();
        if self.deletes.next_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.deletes.begin();
        let is_failing = self.context.actions.is_failing(QueueAction::Delete);
        let calls_max = if is_failing { 1 } else { CALLS_MAX };
        // If leases cannot be extended either, no extension is waited for.
        let urgent = self.context.actions.is_failing(QueueAction::Extend);
        let mut due = Vec::new();
        for _ in 0..self.deletes.items.len() {
            if due.len() == calls_max * BATCH_MAX {
                break;
            }
            let Some(kept) = self.deletes.items.pop_front() else { break };
            match self.context.inflight.take_back(kept.key, clock::now(), urgent) {
                TakenBack::Ready(receipt) => due.push((receipt, kept.how)),
                TakenBack::Busy => self.deletes.items.push_back(kept),
                TakenBack::Lost(receipt) => self.lost(&receipt, SettlementKind::Delete),
            }
        }
        let mut batches = Vec::new();
        let mut due = due.into_iter().peekable();
        while due.peek().is_some() {
            batches.push((due.by_ref().take(BATCH_MAX).collect(), self.has_hung));
        }
        self.deletes.began(batches.len());
        self.report_waiting();
        batches
    }

    /// Handles the result of a copy; returns the settlements that follow.
    ///
    /// While no copy can be sent, one message stays held and probes repeatedly. Each message of a
    /// FIFO group stays held too: otherwise the later messages of the group would come again with
    /// it, and use up receives. Other messages are handed back with a delay.
    pub(super) fn sent(&mut self, sent: CopyOutcome, is_closing: bool) -> Vec<Settlement> {
        let settlements = self.note_sent(sent, is_closing);
        self.report_waiting();
        settlements
    }

    fn note_sent(&mut self, sent: CopyOutcome, is_closing: bool) -> Vec<Settlement> {
        match sent {
            CopyOutcome::Lost => {
                // A job can lose its last receipt while it runs. A kept copy does not come here:
                // `copies_due` drops it.
                Vec::new()
            }
            CopyOutcome::Done(settlements, was_kept) => {
                if was_kept {
                    self.copies.ended(true);
                }
                settlements
            }
            CopyOutcome::Failed(copy, kind) => {
                let was_kept = copy.was_kept;
                let is_only = self.copies.items.is_empty() || copy.turn.is_some();
                let settlements = if may_pass(kind) && is_only && !is_closing {
                    self.keep_copy(copy);
                    Vec::new()
                } else {
                    copy.give_up(&self.context.inflight, kind)
                };
                if was_kept {
                    self.copies.ended(false);
                }
                settlements
            }
        }
    }

    fn keep_copy(&mut self, mut copy: Box<DeadLetterCopy>) {
        let now = clock::now();
        let held = self.context.metrics.held(HeldState::Settling);
        copy.was_kept = true;
        let receipts = std::mem::take(&mut copy.receipts);
        let keys = receipts.into_iter().map(|r| self.context.inflight.keep(r, now)).collect();
        self.copies.push(KeptCopy { copy, keys, _held: held });
    }

    /// Returns the copies that are due. While copies fail, that is one.
    pub(super) fn copies_due(&mut self) -> Vec<Box<DeadLetterCopy>> {
        let now = Instant::now();
        if self.copies.next_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.copies.begin();
        let letters_max = if self.context.cannot_send() { 1 } else { CALLS_MAX };
        let mut due = Vec::new();
        for _ in 0..self.copies.items.len() {
            if due.len() == letters_max {
                break;
            }
            let Some(kept) = self.copies.items.pop_front() else { break };
            match self.take_back(kept, false) {
                Ok(copy) if copy.receipts.is_empty() => {}
                Ok(copy) => due.push(copy),
                Err(busy) => self.copies.items.push_back(busy),
            }
        }
        self.copies.began(due.len());
        self.report_waiting();
        due
    }

    /// Returns the copy with its valid receipts, or keeps it if one of them must be extended
    /// first.
    fn take_back(
        &mut self,
        mut kept: KeptCopy,
        urgent: bool,
    ) -> Result<Box<DeadLetterCopy>, KeptCopy> {
        let now = clock::now();
        let mut busy = Vec::new();
        for key in std::mem::take(&mut kept.keys) {
            match self.context.inflight.take_back(key, now, urgent) {
                TakenBack::Ready(receipt) => kept.copy.receipts.push(receipt),
                TakenBack::Busy => busy.push(key),
                TakenBack::Lost(receipt) => self.lost(&receipt, SettlementKind::DeadLetter),
            }
        }
        if busy.is_empty() {
            let stand = std::mem::take(&mut kept.copy.receipts).into_iter().map(|r| (r, ()));
            let stand = self.context.drop_expired(stand.collect());
            kept.copy.receipts = stand.into_iter().map(|(receipt, ())| receipt).collect();
            return Ok(kept.copy);
        }
        for receipt in std::mem::take(&mut kept.copy.receipts) {
            busy.push(self.context.inflight.keep(receipt, now));
        }
        kept.keys = busy;
        Err(kept)
    }

    /// Returns the settlements that hand back all kept copies at shutdown.
    pub(super) fn give_up_letters(&mut self) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        for kept in std::mem::take(&mut self.copies.items) {
            // The lease keeper has stopped by now: no receipt is being extended.
            if let Ok(copy) = self.take_back(kept, true) {
                settlements.extend(copy.give_up(&self.context.inflight, None));
            }
        }
        self.copies.next_at = None;
        settlements
    }

    /// Reports the number of waiting items; they probe their action themselves, so no other probe
    /// is needed.
    fn report_waiting(&self) {
        self.context.actions.set_waiting(QueueAction::Delete, self.deletes.len());
        self.context.actions.set_waiting(QueueAction::DeadLetter, self.copies.len());
    }

    fn lost(&self, receipt: &Receipt, kind: SettlementKind) {
        self.context.metrics.lease_lost();
        self.context.lost(receipt, kind, "the lease was lost");
    }
}

/// Whether a copy may succeed later. A refused copy would be refused again.
fn may_pass(kind: Option<QueueErrorKind>) -> bool {
    match kind {
        Some(QueueErrorKind::NoDeadLetterQueue | QueueErrorKind::Refused) => false,
        Some(
            QueueErrorKind::Throttled
            | QueueErrorKind::Denied
            | QueueErrorKind::NoSuchQueue
            | QueueErrorKind::Timeout
            | QueueErrorKind::Network
            | QueueErrorKind::Other,
        )
        | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a round of calls, and returns how long after it the next one begins.
    fn pause_after(queue: &mut DelayQueue<()>, calls: &[bool]) -> Duration {
        queue.begin();
        queue.began(calls.len());
        for has_worked in calls {
            assert_eq!(queue.next_at, None, "the round goes on");
            queue.ended(*has_worked);
        }
        queue.next_at.expect("an item waits").saturating_duration_since(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_begins_at_once_only_after_one_in_which_a_call_worked() {
        let mut queue = DelayQueue::new();
        queue.push(());
        for _ in 0..3 {
            assert_eq!(pause_after(&mut queue, &[true]), Duration::ZERO);
            assert!(pause_after(&mut queue, &[false]) >= TRY_MIN);
            assert_eq!(pause_after(&mut queue, &[false, true, false]), Duration::ZERO);
            assert!(pause_after(&mut queue, &[false, false]) >= TRY_MIN);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_that_fail_are_ever_further_apart() {
        let mut queue = DelayQueue::new();
        queue.push(());
        let pauses: Vec<_> = (0..100).map(|_| pause_after(&mut queue, &[false])).collect();
        assert!(pauses.iter().all(|pause| *pause <= RETRY_FAILING), "{pauses:?}");
        assert!(pauses[..2].iter().all(|pause| *pause <= 4 * TRY.base), "{pauses:?}");
        assert!(pauses[10..].iter().any(|pause| *pause > RETRY_FAILING / 2), "{pauses:?}");
        pause_after(&mut queue, &[true]);
        assert!(pause_after(&mut queue, &[false]) <= 2 * TRY.base, "it has worked since");
    }
}
