//! Settlements on their way to SQS: deletes and visibility changes in batches of ten, dead letters
//! one by one.
//!
//! A batch is sent when it has ten entries, or when its oldest has waited for [`FLUSH_AFTER`]. Ten deletes wait for ten more, for
//! [`PAIR_WITHIN`]; what has come by then and fills no batch waits on, for [`FLUSH_AFTER`] from there.
//! Nobody waits for a delete (its effects are done), so a short wait costs no latency; what it
//! costs is that a crash within it repeats a delivery, which the keys and the store make harmless.
//! Entries that fail are tried again, one by one as SQS answers them, until their lease ends: from
//! then on the message is SQS's again, and is left alone.

mod letter;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{error, warn};

use self::letter::dead_letter;
use super::decide::DeadLetterReason;
use super::ledger::{Ledger, Left};
use crate::inflight::{Receipt, Taken};
use crate::metrics::{Metrics, SettlementKind};
use crate::queue::{
    BATCH_MAX, BatchAnswer, EntryError, Queue, QueueError, QueueErrorKind, ReceiptHandle,
};
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, on};
use crate::telemetry::{Failure, QueueSpan, QueueSpans, SpanLink};

/// The longest that a settlement waits for company. At 50 events a second it makes batches of
/// five; it is a fiftieth of the shortest visibility timeout, and leases are extended at half time,
/// so that much more than this is left of any lease.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Deletes go two batches at a time, where the second fills fast: its call finds the SDK's code in the processor's cache, and takes half
/// the time.
const DELETES_MAX: usize = 2 * BATCH_MAX;

/// How long a full batch of deletes waits for a second: no longer, as a FIFO queue holds a group back until its messages are deleted.
const PAIR_WITHIN: Duration = Duration::from_millis(10);

/// A call is given at least this long, where there is so much: SQS answers in tens of milliseconds.
const CALL_MIN: Duration = Duration::from_millis(500);

/// Between the tries of a call that failed.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// One settlement.
#[derive(Debug)]
pub enum Settlement {
    /// Delete the message; it leaves in that way.
    Delete(Receipt, Left),
    /// Make the message visible after that time.
    Release(Receipt, Duration),
    /// Send a copy to the dead-letter queue, then delete.
    DeadLetter(Box<Taken>, Box<Grounds>),
}

/// What a dead letter says beside the message.
#[derive(Debug)]
pub struct Grounds {
    /// Why.
    pub reason: DeadLetterReason,
    /// Why, in words.
    pub error: String,
    /// The event's type, or `unknown`.
    pub event_type: &'static str,
}

/// Where settlements are handed in.
#[derive(Clone, Debug)]
pub struct Batches {
    settlements: mpsc::Sender<Settlement>,
    outstanding: Outstanding,
}

/// How many receipts were handed in and are not settled yet.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(Arc<AtomicUsize>);

impl Outstanding {
    /// That many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Batches {
    /// What is not settled yet; it outlives the sender.
    #[must_use]
    pub fn outstanding(&self) -> Outstanding {
        self.outstanding.clone()
    }

    /// Hands one in. Waits only where SQS is so slow that as many wait as messages may be held.
    pub async fn send(&self, settlement: Settlement) {
        let receipts = match &settlement {
            Settlement::Delete(..) | Settlement::Release(..) => 1,
            Settlement::DeadLetter(taken, _) => taken.receipts.len(),
        };
        self.outstanding.0.fetch_add(receipts, Ordering::Relaxed);
        let sent = self.settlements.send(settlement).await;
        if let Err(mpsc::error::SendError(settlement)) = sent {
            // Closed only after everybody who settles is gone.
            error!(settlement = ?mem::discriminant(&settlement), "A settlement came after the end");
        }
    }
}

/// The task that settles.
pub struct Batcher {
    settlements: mpsc::Receiver<Settlement>,
    context: Arc<Context>,
    calls: JoinSet<Vec<Settlement>>,
    deletes: Vec<(Receipt, Left)>,
    releases: Vec<(Receipt, Duration)>,
    flush_at: Option<Instant>,
}

struct Context {
    queue: Arc<dyn Queue>,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    outstanding: Outstanding,
    spans: QueueSpans,
}

impl Batcher {
    /// `messages_max` bounds the channel: each settlement is a message that is held.
    #[must_use]
    pub fn new(
        queue: Arc<dyn Queue>,
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
        spans: QueueSpans,
        messages_max: usize,
    ) -> (Batches, Self) {
        let (sender, settlements) = mpsc::channel(messages_max);
        let outstanding = Outstanding::default();
        let batches = Batches { settlements: sender, outstanding: outstanding.clone() };
        let batcher = Self {
            settlements,
            context: Arc::new(Context { queue, metrics, ledger, outstanding, spans }),
            calls: JoinSet::new(),
            deletes: Vec::with_capacity(DELETES_MAX),
            releases: Vec::with_capacity(BATCH_MAX),
            flush_at: None,
        };
        (batches, batcher)
    }

    /// Runs until every [`Batches`] is dropped and all that they handed in is settled, or lost.
    pub async fn run(mut self) {
        loop {
            let flush_at = self.flush_at;
            tokio::select! {
                biased;
                Some(more) = self.calls.join_next() => {
                    for settlement in more.expect("a settlement does not panic") {
                        self.add(settlement);
                    }
                }
                settlement = self.settlements.recv() => match settlement {
                    Some(settlement) => self.add(settlement),
                    None => break,
                },
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => self.flush_due(),
            }
        }
        self.flush();
        while let Some(more) = self.calls.join_next().await {
            for settlement in more.expect("a settlement does not panic") {
                self.add(settlement);
            }
            self.flush();
        }
    }

    fn add(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Delete(receipt, how) => {
                self.deletes.push((receipt, how));
                match self.deletes.len() {
                    DELETES_MAX => self.flush_deletes(),
                    BATCH_MAX => self.flush_within(PAIR_WITHIN),
                    _ => {}
                }
            }
            Settlement::Release(receipt, after) => {
                self.releases.push((receipt, after));
                if self.releases.len() == BATCH_MAX {
                    self.flush_releases();
                }
            }
            Settlement::DeadLetter(taken, grounds) => {
                self.calls.spawn(dead_letter(Arc::clone(&self.context), taken, *grounds));
            }
        }
        if self.deletes.is_empty() && self.releases.is_empty() {
            self.flush_at = None;
        } else if self.flush_at.is_none() {
            self.flush_within(FLUSH_AFTER);
        }
    }

    fn flush_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.flush_at = Some(self.flush_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// What has waited long enough. Of deletes that fill one batch and not two, the second has only begun to wait.
    fn flush_due(&mut self) {
        let second = self.deletes.split_off(self.deletes.len().min(BATCH_MAX));
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
        let mut rest = self.deletes.drain(..).peekable();
        while rest.peek().is_some() {
            let batch = rest.by_ref().take(BATCH_MAX).collect();
            self.calls.spawn(delete(Arc::clone(&self.context), batch));
        }
    }

    fn flush_releases(&mut self) {
        if !self.releases.is_empty() {
            let batch = mem::replace(&mut self.releases, Vec::with_capacity(BATCH_MAX));
            self.calls.spawn(release(Arc::clone(&self.context), batch));
        }
    }
}

async fn delete(context: Arc<Context>, batch: Vec<(Receipt, Left)>) -> Vec<Settlement> {
    let mut rest = context.drop_expired(batch);
    let (mut failures, mut has_hung) = (0, false);
    while !rest.is_empty() {
        let mut handles: Vec<ReceiptHandle> = rest.iter().map(|(r, _)| r.handle.clone()).collect();
        if on(Sabotage::HandlesNotDistinct) {
            handles.fill(rest[0].0.handle.clone());
        }
        let deadline = first_deadline(rest.iter().map(|(receipt, _)| receipt));
        let span = context.spans.settle("delete", rest.len(), links(&rest));
        let answer = within(deadline, has_hung, context.queue.delete(&handles)).await;
        has_hung = is_timeout(&answer);
        end_span(span, answer.as_ref().err());
        rest = context.book(rest, answer, SettlementKind::Delete, |how| *how);
        context.pause(&mut failures, rest.is_empty()).await;
        rest = context.drop_expired(rest);
    }
    Vec::new()
}

async fn release(context: Arc<Context>, batch: Vec<(Receipt, Duration)>) -> Vec<Settlement> {
    let mut rest = context.drop_expired(batch);
    let (mut failures, mut has_hung) = (0, false);
    while !rest.is_empty() {
        let changes: Vec<_> = rest.iter().map(|(r, after)| (r.handle.clone(), *after)).collect();
        let deadline = first_deadline(rest.iter().map(|(receipt, _)| receipt));
        let span = context.spans.settle("release", rest.len(), links(&rest));
        let answer = within(deadline, has_hung, context.queue.change_visibility(&changes)).await;
        has_hung = is_timeout(&answer);
        end_span(span, answer.as_ref().err());
        rest = context.book(rest, answer, SettlementKind::Release, |_| Left::HandedBack);
        context.pause(&mut failures, rest.is_empty()).await;
        rest = context.drop_expired(rest);
    }
    Vec::new()
}

impl Context {
    /// One receipt is settled, or lost.
    fn left(&self, how: Left) {
        self.outstanding.0.fetch_sub(1, Ordering::Relaxed);
        self.ledger.left(how, 1);
    }

    /// Counts what was settled, and gives back what is to be tried again.
    fn book<T>(
        &self,
        batch: Vec<(Receipt, T)>,
        answer: BatchAnswer,
        kind: SettlementKind,
        left: impl Fn(&T) -> Left,
    ) -> Vec<(Receipt, T)> {
        let answers = match answer {
            Ok(answers) => answers,
            Err(why) => {
                warn!(error = %why, count = batch.len(), settlement = kind.as_str(), "Settling failed, trying again while the leases last");
                batch.iter().for_each(|_| self.metrics.settlement_failed(kind));
                return batch;
            }
        };
        let mut rest = Vec::new();
        let mut refused = None;
        for ((receipt, what), answer) in batch.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    self.metrics.settled(kind);
                    self.left(left(&what));
                }
                Err(EntryError::Lost(why)) => {
                    self.metrics.settlement_failed(kind);
                    self.left(Left::LeaseLost);
                    warn!(message_id = %receipt.message_id, error = why, settlement = kind.as_str(), "The message was not ours any more when it was settled");
                }
                Err(EntryError::Retry(why)) => {
                    self.metrics.settlement_failed(kind);
                    rest.push((receipt, what));
                    refused.get_or_insert(why);
                }
            }
        }
        if let Some(error) = refused {
            warn!(
                error,
                count = rest.len(),
                settlement = kind.as_str(),
                "Settling failed, trying again while the leases last"
            );
        }
        rest
    }

    /// Waits before another try; a try that left nothing waits for nothing.
    async fn pause(&self, failures: &mut u32, done: bool) {
        if !done {
            sleep(RETRY.delay(*failures, &mut fastrand::Rng::new())).await;
            *failures += 1;
        }
    }

    /// What can no longer be settled in time is SQS's again.
    fn drop_expired<T>(&self, batch: Vec<(Receipt, T)>) -> Vec<(Receipt, T)> {
        let now = Instant::now();
        let (rest, expired): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(receipt, _)| receipt.deadline > now);
        for (receipt, _) in expired {
            self.left(Left::Unsettled);
            warn!(message_id = %receipt.message_id, "The message could not be settled before its lease ended: SQS delivers it again");
        }
        rest
    }
}

fn links<T>(batch: &[(Receipt, T)]) -> impl Iterator<Item = &SpanLink> {
    batch.iter().filter_map(|(receipt, _)| receipt.span.as_ref())
}

fn end_span(span: QueueSpan, error: Option<&QueueError>) {
    let message = error.map(ToString::to_string).unwrap_or_default();
    span.end(error.map(|error| Failure { error_type: error.kind.word(), message: &message }));
}

fn first_deadline<'a>(receipts: impl Iterator<Item = &'a Receipt>) -> Instant {
    receipts.map(|receipt| receipt.deadline).min().expect("a batch is not empty")
}

/// A call that hangs leaves time for another before the deadline. After one that `has_hung` the next may take all that is
/// left: SQS is slow then, and what only ever gets a third of a short lease would never be settled.
async fn within<T>(
    deadline: Instant,
    has_hung: bool,
    call: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    let share = if has_hung { left } else { left / 3 };
    timeout_at(now + share.max(CALL_MIN).min(left), call).await.unwrap_or_else(|_elapsed| {
        let detail = "no answer in its share of the time that is left".to_owned();
        Err(QueueError { kind: QueueErrorKind::Timeout, detail })
    })
}

fn is_timeout<T>(answer: &Result<T, QueueError>) -> bool {
    answer.as_ref().is_err_and(|why| why.kind == QueueErrorKind::Timeout)
}
