//! What could not be settled and waits for its action to work again: deletes, and copies to the dead-letter queue. The
//! table extends its leases meanwhile, so that nothing is received again for it.
//!
//! How much waits is bounded by the room: each message that is kept keeps its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Settlement;
use super::call::{Context, Deleted, RETRY_FAILING};
use super::letter::{Letter, Sent};
use crate::clock;
use crate::inflight::{Receipt, ReceiptKey, TakenBack};
use crate::metrics::{HeldGuard, HeldState, QueueAction, SettlementKind};
use crate::queue::{BATCH_MAX, QueueErrorKind};
use crate::retry::Backoff;
use crate::settle::ledger::Left;

/// Between the tries of what is undone: one call asks, and its answer is good for all.
const TRY: Backoff = Backoff { base: Duration::from_millis(200), cap: RETRY_FAILING };

/// The shortest such wait: full jitter may draw next to nothing.
const TRY_MIN: Duration = Duration::from_millis(100);

/// Calls at once, where they work again: eighty messages in some twenty milliseconds.
const CALLS_MAX: usize = 8;

/// Something that waits, and when it is tried again.
#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    /// Tries in a row that settled nothing.
    failures: u32,
    calls_open: usize,
    /// Whether one of the calls that are open, or of those since the last pause, settled something.
    has_worked: bool,
    next_at: Option<Instant>,
}

impl<T> Queue<T> {
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

    /// What waits, or is being tried.
    fn len(&self) -> usize {
        self.items.len() + self.calls_open
    }

    /// Begins another round.
    fn begin(&mut self) {
        self.next_at = None;
        self.has_worked = false;
    }

    /// Calls were made, or nothing could be tried just now.
    fn began(&mut self, calls: usize) {
        self.calls_open += calls;
        if self.calls_open == 0 && !self.items.is_empty() {
            self.next_at = Some(Instant::now() + TRY_MIN);
        }
    }

    /// A call of the round ended.
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
    how: Left,
    _held: HeldGuard,
}

struct KeptLetter {
    letter: Box<Letter>,
    keys: Vec<ReceiptKey>,
    _held: HeldGuard,
}

/// See the module.
pub(super) struct Undone {
    context: Arc<Context>,
    deletes: Queue<KeptDelete>,
    letters: Queue<KeptLetter>,
    /// The last delete was not answered in its time.
    has_hung: bool,
}

impl Undone {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, deletes: Queue::new(), letters: Queue::new(), has_hung: false }
    }

    /// When something is to be tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        [self.deletes.next_at, self.letters.next_at].into_iter().flatten().min()
    }

    /// Keeps a message that is to be deleted.
    pub(super) fn keep_delete(&mut self, receipt: Receipt, how: Left) {
        let held = self.context.metrics.held(HeldState::Settling);
        let key = self.context.inflight.keep(receipt, clock::now());
        self.deletes.push(KeptDelete { key, how, _held: held });
        self.tell();
    }

    /// A call that deletes has ended.
    pub(super) fn deleted(&mut self, deleted: Deleted) {
        let Deleted { undone, settled, is_again, has_hung } = deleted;
        self.has_hung = has_hung;
        for (receipt, how) in undone {
            self.keep_delete(receipt, how);
        }
        if is_again {
            self.deletes.ended(settled > 0);
            self.tell();
        }
    }

    /// The deletes to be tried now, in batches, and whether the last call hung. While deletes fail that is one batch.
    pub(super) fn deletes_due(&mut self) -> Vec<(Vec<(Receipt, Left)>, bool)> {
        let now = Instant::now();
        if self.deletes.next_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.deletes.begin();
        let is_failing = self.context.actions.is_failing(QueueAction::Delete);
        let calls_max = if is_failing { 1 } else { CALLS_MAX };
        // Where leases cannot be extended either, there is nothing to wait for.
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
        self.tell();
        batches
    }

    /// A letter was sent, or not. What is to be settled now.
    ///
    /// Where no copy can be sent, one message stays held, and asks again and again; so does each of a FIFO group, whose
    /// later messages would otherwise come again with it, and spend their receives. Others are handed back, spaced out.
    pub(super) fn sent(&mut self, sent: Sent, is_closing: bool) -> Vec<Settlement> {
        let settlements = self.note_sent(sent, is_closing);
        self.tell();
        settlements
    }

    fn note_sent(&mut self, sent: Sent, is_closing: bool) -> Vec<Settlement> {
        match sent {
            Sent::Lost => {
                // Only one that was kept can have lost its receipts since.
                Vec::new()
            }
            Sent::Done(settlements, was_kept) => {
                if was_kept {
                    self.letters.ended(true);
                }
                settlements
            }
            Sent::Failed(letter, kind) => {
                let was_kept = letter.was_kept;
                let is_only = self.letters.items.is_empty() || letter.turn.is_some();
                let settlements = if may_pass(kind) && is_only && !is_closing {
                    self.keep_letter(letter);
                    Vec::new()
                } else {
                    letter.give_up(&self.context.inflight, kind)
                };
                if was_kept {
                    self.letters.ended(false);
                }
                settlements
            }
        }
    }

    fn keep_letter(&mut self, mut letter: Box<Letter>) {
        let now = clock::now();
        let held = self.context.metrics.held(HeldState::Settling);
        letter.was_kept = true;
        let receipts = std::mem::take(&mut letter.receipts);
        let keys = receipts.into_iter().map(|r| self.context.inflight.keep(r, now)).collect();
        self.letters.push(KeptLetter { letter, keys, _held: held });
    }

    /// The letters to be tried now. While copies fail that is one.
    pub(super) fn letters_due(&mut self) -> Vec<Box<Letter>> {
        let now = Instant::now();
        if self.letters.next_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.letters.begin();
        let letters_max = if self.context.cannot_send() { 1 } else { CALLS_MAX };
        let mut due = Vec::new();
        for _ in 0..self.letters.items.len() {
            if due.len() == letters_max {
                break;
            }
            let Some(kept) = self.letters.items.pop_front() else { break };
            match self.take_back(kept, false) {
                Ok(letter) if letter.receipts.is_empty() => {}
                Ok(letter) => due.push(letter),
                Err(busy) => self.letters.items.push_back(busy),
            }
        }
        self.letters.began(due.len());
        self.tell();
        due
    }

    /// The letter with those of its receipts that stand; not now where one of them is being extended.
    fn take_back(&mut self, mut kept: KeptLetter, urgent: bool) -> Result<Box<Letter>, KeptLetter> {
        let now = clock::now();
        let mut busy = Vec::new();
        for key in std::mem::take(&mut kept.keys) {
            match self.context.inflight.take_back(key, now, urgent) {
                TakenBack::Ready(receipt) => kept.letter.receipts.push(receipt),
                TakenBack::Busy => busy.push(key),
                TakenBack::Lost(receipt) => self.lost(&receipt, SettlementKind::DeadLetter),
            }
        }
        if busy.is_empty() {
            let stand = std::mem::take(&mut kept.letter.receipts).into_iter().map(|r| (r, ()));
            let stand = self.context.drop_expired(stand.collect());
            kept.letter.receipts = stand.into_iter().map(|(receipt, ())| receipt).collect();
            return Ok(kept.letter);
        }
        for receipt in std::mem::take(&mut kept.letter.receipts) {
            busy.push(self.context.inflight.keep(receipt, now));
        }
        kept.keys = busy;
        Err(kept)
    }

    /// The worker leaves: the letters that wait are handed back.
    pub(super) fn give_up_letters(&mut self) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        for kept in std::mem::take(&mut self.letters.items) {
            // The lease keeper is gone by now: no receipt is being extended.
            if let Ok(letter) = self.take_back(kept, true) {
                settlements.extend(letter.give_up(&self.context.inflight, None));
            }
        }
        self.letters.next_at = None;
        settlements
    }

    /// What waits asks by itself whether its action works again; nobody else has to.
    fn tell(&self) {
        self.context.actions.set_waiting(QueueAction::Delete, self.deletes.len());
        self.context.actions.set_waiting(QueueAction::DeadLetter, self.letters.len());
    }

    fn lost(&self, receipt: &Receipt, kind: SettlementKind) {
        self.context.metrics.lease_lost();
        self.context.lost(receipt, kind, "the lease was lost");
    }
}

/// Whether copies may be sent later. A copy that is refused is refused again.
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
