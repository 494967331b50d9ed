//! Batches settlements for SQS: deletes and visibility changes in batches of ten, dead letters one
//! by one.
//!
//! A batch is sent when it has ten entries, or when its oldest has waited for [`FLUSH_AFTER`]. Ten
//! deletes wait for ten more, for [`PAIR_WITHIN`]; a partial second batch then waits for another
//! [`FLUSH_AFTER`].
//! A delete may wait, because the effects are already applied. A crash during the wait repeats a
//! delivery, which the idempotency keys and the store make harmless.
//! On a FIFO queue a message group waits for each delete, so one is sent at once; deletes that
//! arrive during the call go with the next.
//! A delete that fails is kept ([`retry_queue`]) and retried while its lease can be extended. A
//! release that fails is retried until its lease ends. After that SQS delivers the message again.
//! [`call`] makes the calls.

mod call;
mod dead_letter;
mod retry_queue;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use self::call::{BatchContext, DeleteOutcome, delete, release};
use self::dead_letter::{CopyOutcome, DeadLetterCopy, send};
use self::retry_queue::RetryQueue;
use super::account::{Disposition, MessageAccount};
use super::decide::DeadLetterReason;
use crate::inflight::{InFlight, Receipt, RemovedJob};
use crate::metrics::{Metrics, QueueAction};
use crate::queue::actions::QueueActions;
use crate::queue::{BATCH_MAX, Queue};
use crate::telemetry::QueueSpans;

/// Maximum wait of a settlement for a full batch. At 50 events a second it makes batches of five.
/// It is a fiftieth of the shortest visibility timeout; leases are extended at half time, so every
/// lease lasts much longer than this.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Maximum deletes that are sent together: two batches, if the second fills quickly. Its call finds
/// the SDK's code in the CPU cache, and takes half the time.
const DELETES_MAX: usize = 2 * BATCH_MAX;

/// Maximum wait of a full batch of deletes for a second one.
const PAIR_WITHIN: Duration = Duration::from_millis(10);

/// One settlement.
#[derive(Debug)]
pub enum Settlement {
    /// Deletes the message; the account counts it as this.
    Delete(Receipt, Disposition),
    /// Makes the message visible after this delay.
    Release(Receipt, Duration),
    /// Sends a copy to the dead-letter queue, then deletes the message.
    DeadLetter(Box<RemovedJob>, Box<Grounds>),
}

/// The reason that a dead letter carries beside the message.
#[derive(Debug)]
pub struct Grounds {
    /// The reason.
    pub reason: DeadLetterReason,
    /// The error text.
    pub error: String,
    /// The event type, or `unknown`.
    pub event_type: &'static str,
}

/// The sender of settlements to the [`Batcher`].
#[derive(Clone, Debug)]
pub struct Batches {
    settlements: mpsc::Sender<Settlement>,
    outstanding: Outstanding,
}

/// Counts the receipts that were handed in and are not settled yet.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(Arc<AtomicUsize>);

impl Outstanding {
    /// Returns the count.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Batches {
    /// Returns the counter of unsettled receipts; it may outlive the sender.
    #[must_use]
    pub fn outstanding(&self) -> Outstanding {
        self.outstanding.clone()
    }

    /// Hands in a settlement.
    /// Waits only if SQS is so slow that the channel holds as many settlements as messages may be
    /// held. If the future is dropped meanwhile, the message is not settled: SQS delivers it again.
    pub async fn send(&self, settlement: Settlement) {
        let receipts = match &settlement {
            Settlement::Delete(..) | Settlement::Release(..) => 1,
            Settlement::DeadLetter(removed, _) => removed.receipts.len(),
        };
        self.outstanding.0.fetch_add(receipts, Ordering::Relaxed);
        let sent = self.settlements.send(settlement).await;
        if let Err(mpsc::error::SendError(settlement)) = sent {
            // The receiver is closed only after all senders are gone.
            error!(settlement = ?mem::discriminant(&settlement), "A settlement came after the end");
        }
    }
}

/// The task that settles messages in batches.
pub struct Batcher {
    settlements: mpsc::Receiver<Settlement>,
    context: Arc<BatchContext>,
    calls: JoinSet<EndedCall>,
    /// Delete calls in progress.
    deletes_open: usize,
    /// Whether the queue is FIFO. If so, deletes do not wait for a full batch.
    is_fifo: bool,
    retry_queue: RetryQueue,
    /// All senders are gone: the worker is shutting down.
    is_closing: bool,
    deletes: Vec<(Receipt, Disposition)>,
    releases: Vec<(Receipt, Duration)>,
    flush_at: Option<Instant>,
}

/// The result of a call that has ended.
enum EndedCall {
    Delete(DeleteOutcome),
    Release,
    Copy(CopyOutcome),
}

impl Batcher {
    /// Creates the batcher and its sender.
    /// `messages_max` bounds the channel, because each settlement is a message that is held.
    #[must_use]
    pub fn new(
        queue: Arc<dyn Queue>,
        metrics: Arc<Metrics>,
        account: Arc<MessageAccount>,
        spans: QueueSpans,
        inflight: Arc<InFlight>,
        actions: Arc<QueueActions>,
        messages_max: usize,
    ) -> (Batches, Self) {
        let (sender, settlements) = mpsc::channel(messages_max);
        let outstanding = Outstanding::default();
        let batches = Batches { settlements: sender, outstanding: outstanding.clone() };
        let is_fifo = queue.is_fifo();
        let context =
            BatchContext { queue, metrics, account, outstanding, spans, inflight, actions };
        let context = Arc::new(context);
        let batcher = Self {
            settlements,
            retry_queue: RetryQueue::new(Arc::clone(&context)),
            context,
            calls: JoinSet::new(),
            deletes_open: 0,
            is_fifo,
            is_closing: false,
            deletes: Vec::with_capacity(DELETES_MAX),
            releases: Vec::with_capacity(BATCH_MAX),
            flush_at: None,
        };
        (batches, batcher)
    }

    /// Runs until every [`Batches`] is dropped and all settlements are done or lost.
    pub async fn run(mut self) {
        loop {
            let (flush_at, try_at) = (self.flush_at, self.retry_queue.next_try());
            tokio::select! {
                biased;
                Some(ended) = self.calls.join_next() => {
                    self.ended(ended.expect("a settlement does not panic"));
                }
                settlement = self.settlements.recv(), if !self.is_closing => match settlement {
                    Some(settlement) => self.add(settlement),
                    None => self.close(),
                },
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => self.flush_due(),
                () = sleep_until(try_at.unwrap_or_else(Instant::now)), if try_at.is_some() => self.try_again(),
                else => return,
            }
            if self.is_closing {
                self.flush();
            }
        }
    }

    /// Starts closing: open settlements are finished, and kept dead letters are handed back.
    fn close(&mut self) {
        self.is_closing = true;
        for settlement in self.retry_queue.give_up_letters() {
            self.add(settlement);
        }
    }

    fn ended(&mut self, ended: EndedCall) {
        match ended {
            EndedCall::Delete(deleted) => {
                self.deletes_open -= 1;
                self.retry_queue.deleted(deleted);
                self.flush_at_once();
            }
            EndedCall::Release => {}
            EndedCall::Copy(sent) => {
                for settlement in self.retry_queue.sent(sent, self.is_closing) {
                    self.add(settlement);
                }
            }
        }
    }

    fn try_again(&mut self) {
        for (batch, has_hung) in self.retry_queue.deletes_due() {
            self.spawn_delete(batch, Some(has_hung));
        }
        for copy in self.retry_queue.copies_due() {
            self.spawn_copy(copy);
        }
    }

    fn add(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Delete(receipt, how) => self.add_delete(receipt, how),
            Settlement::Release(receipt, after) => {
                self.releases.push((receipt, after));
                if self.releases.len() == BATCH_MAX {
                    self.flush_releases();
                }
            }
            Settlement::DeadLetter(removed, grounds) => {
                let copy = DeadLetterCopy::new(*removed, *grounds);
                if self.context.cannot_send() {
                    let sent = CopyOutcome::failed_before(copy);
                    self.ended(EndedCall::Copy(sent));
                } else {
                    self.spawn_copy(copy);
                }
            }
        }
        if self.deletes.is_empty() && self.releases.is_empty() {
            self.flush_at = None;
        } else if self.flush_at.is_none() {
            self.flush_within(FLUSH_AFTER);
        }
        self.flush_at_once();
    }

    /// Sends the deletes of a FIFO queue without delay. The loop reads settlements that are already
    /// in the channel first, so they join the batch.
    fn flush_at_once(&mut self) {
        if self.is_fifo && self.deletes_open == 0 && !self.deletes.is_empty() {
            self.flush_within(Duration::ZERO);
        }
    }

    /// Adds a delete. While deletes fail, one call from time to time probes whether they work
    /// again; the other deletes are kept until then.
    fn add_delete(&mut self, receipt: Receipt, how: Disposition) {
        if self.context.actions.is_failing(QueueAction::Delete) {
            return self.retry_queue.keep_delete(receipt, how);
        }
        self.deletes.push((receipt, how));
        match self.deletes.len() {
            DELETES_MAX => self.flush_deletes(),
            BATCH_MAX => self.flush_within(PAIR_WITHIN),
            _ => {}
        }
    }

    fn spawn_delete(&mut self, batch: Vec<(Receipt, Disposition)>, again: Option<bool>) {
        let context = Arc::clone(&self.context);
        self.deletes_open += 1;
        self.calls.spawn(async move { EndedCall::Delete(delete(&context, batch, again).await) });
    }

    fn spawn_copy(&mut self, copy: Box<DeadLetterCopy>) {
        let context = Arc::clone(&self.context);
        self.calls.spawn(async move { EndedCall::Copy(send(&context, copy).await) });
    }

    fn flush_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.flush_at = Some(self.flush_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Sends what has waited long enough. A partial second batch of deletes continues to wait.
    fn flush_due(&mut self) {
        let whole = if self.is_fifo { DELETES_MAX } else { BATCH_MAX };
        let second = self.deletes.split_off(self.deletes.len().min(whole));
        self.flush();
        if !second.is_empty() {
            self.deletes.extend(second);
            self.flush_within(FLUSH_AFTER);
        }
    }

    fn flush(&mut self) {
        self.flush_at = None;
        self.flush_deletes();
        self.flush_releases();
    }

    fn flush_deletes(&mut self) {
        let mut rest = mem::replace(&mut self.deletes, Vec::with_capacity(DELETES_MAX));
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(BATCH_MAX));
            self.spawn_delete(rest, None);
            rest = later;
        }
    }

    fn flush_releases(&mut self) {
        if !self.releases.is_empty() {
            let batch = mem::replace(&mut self.releases, Vec::with_capacity(BATCH_MAX));
            let context = Arc::clone(&self.context);
            self.calls.spawn(async move {
                release(&context, batch).await;
                EndedCall::Release
            });
        }
    }
}
