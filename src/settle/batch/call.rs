//! One SQS call for a batch of settlements: its timeout, its span, and the result of each entry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::Outstanding;
use crate::clock;
use crate::inflight::{InFlight, Receipt};
use crate::metrics::{Metrics, QueueAction, SettlementKind};
use crate::queue::actions::QueueActions;
use crate::queue::{BatchAnswer, EntryError, Queue, QueueError, QueueErrorKind, ReceiptHandle};
use crate::retry::Backoff;
use crate::settle::account::{Disposition, MessageAccount};
use crate::telemetry::{QueueSpan, QueueSpans, SpanFailure, SpanLink};

/// Minimum timeout of a call, if so much time is left: SQS answers in tens of milliseconds.
const CALL_MIN: Duration = Duration::from_millis(500);

/// Maximum timeout of a call, so that a call that hangs does not delay the detection of a recovery.
const CALL_MAX: Duration = Duration::from_secs(5);

/// Backoff between the attempts of a failed call.
pub(super) const RETRY: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// Pause between attempts while the action is known to fail: each attempt is a probe.
pub(super) const RETRY_FAILING: Duration = Duration::from_secs(4);

/// The dependencies of every call.
pub(super) struct BatchContext {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) account: Arc<MessageAccount>,
    pub(super) outstanding: Outstanding,
    pub(super) spans: QueueSpans,
    pub(super) inflight: Arc<InFlight>,
    pub(super) actions: Arc<QueueActions>,
}

/// The result of a delete call.
pub(super) struct DeleteOutcome {
    /// Deletes to be retried.
    pub(super) failed: Vec<(Receipt, Disposition)>,
    /// Number of deletes that were settled, or whose receipt was lost.
    pub(super) settled: usize,
    /// Whether the call was a retry.
    pub(super) is_again: bool,
    /// Whether the call timed out.
    pub(super) has_hung: bool,
}

/// Deletes a batch with one call. `again`: `None` for a first try; else whether the last call timed
/// out.
pub(super) async fn delete(
    context: &BatchContext,
    batch: Vec<(Receipt, Disposition)>,
    again: Option<bool>,
) -> DeleteOutcome {
    let is_again = again.is_some();
    let count = batch.len();
    let batch = context.drop_expired(batch);
    if batch.is_empty() {
        return DeleteOutcome { failed: batch, settled: count, is_again, has_hung: false };
    }
    let handles: Vec<ReceiptHandle> = batch.iter().map(|(r, _)| r.handle.clone()).collect();
    let share = if again == Some(true) { TimeShare::Most } else { TimeShare::Third };
    let deadline = first_deadline(batch.iter().map(|(receipt, _)| receipt));
    let span = context.spans.settle("delete", batch.len(), links(&batch));
    let answer = within(deadline, share, context.queue.delete(&handles)).await;
    let has_hung = is_timeout(&answer);
    end_span(span, answer.as_ref().err());
    let failed = context.book(batch, answer, SettlementKind::Delete, |how| *how);
    DeleteOutcome { settled: count - failed.len(), failed, is_again, has_hung }
}

/// Makes a batch visible again. Retries until it is done, or until the leases end.
pub(super) async fn release(context: &BatchContext, batch: Vec<(Receipt, Duration)>) {
    let mut rest = context.drop_expired(batch);
    let (mut failures, mut has_hung) = (0, false);
    while !rest.is_empty() {
        let changes: Vec<_> = rest.iter().map(|(r, after)| (r.handle.clone(), *after)).collect();
        let deadline = first_deadline(rest.iter().map(|(receipt, _)| receipt));
        let span = context.spans.settle("release", rest.len(), links(&rest));
        let share = if has_hung { TimeShare::All } else { TimeShare::Third };
        let answer = within(deadline, share, context.queue.hand_back(&changes)).await;
        has_hung = is_timeout(&answer);
        end_span(span, answer.as_ref().err());
        rest = context.book(rest, answer, SettlementKind::Release, |_| Disposition::HandedBack);
        if !rest.is_empty() {
            sleep(context.release_pause(failures)).await;
            failures += 1;
        }
        rest = context.drop_expired(rest);
    }
}

impl BatchContext {
    /// Counts one receipt as settled or lost.
    pub(super) fn left(&self, how: Disposition) {
        self.outstanding.0.fetch_sub(1, Ordering::Relaxed);
        self.account.left(how, 1);
    }

    /// Whether a copy to the dead-letter queue would fail.
    pub(super) fn cannot_send(&self) -> bool {
        [QueueAction::DeadLetter, QueueAction::Attributes]
            .into_iter()
            .any(|action| self.actions.is_failing(action))
    }

    /// Returns the pause before the next release call. A release needs the permission of an
    /// extension.
    fn release_pause(&self, failures: u32) -> Duration {
        if self.actions.is_failing(QueueAction::Extend) {
            return RETRY_FAILING;
        }
        RETRY.delay(failures, &mut fastrand::Rng::new())
    }

    /// Counts the settled entries, and returns those to be retried.
    fn book<T>(
        &self,
        batch: Vec<(Receipt, T)>,
        answer: BatchAnswer,
        kind: SettlementKind,
        left: impl Fn(&T) -> Disposition,
    ) -> Vec<(Receipt, T)> {
        let answers = match answer {
            Ok(answers) => answers,
            Err(why) => {
                batch.iter().for_each(|_| self.metrics.settlement_failed(kind));
                self.warn_failed(kind, batch.len(), &why.to_string());
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
                    self.lost(&receipt, kind, &why);
                }
                Err(EntryError::Retry(why)) => {
                    self.metrics.settlement_failed(kind);
                    rest.push((receipt, what));
                    refused.get_or_insert(why);
                }
            }
        }
        if let Some(error) = refused {
            self.warn_failed(kind, rest.len(), &error);
        }
        rest
    }

    /// Counts a receipt that is no longer valid.
    pub(super) fn lost(&self, receipt: &Receipt, kind: SettlementKind, why: &str) {
        self.left(Disposition::LeaseLost);
        warn!(message_id = %receipt.message_id, error = why, settlement = kind.as_str(), "The message was not ours any more when it was settled");
    }

    /// Logs a failure, unless the action is known to fail: that is already logged.
    fn warn_failed(&self, kind: SettlementKind, count: usize, error: &str) {
        let action = match kind {
            SettlementKind::Delete => QueueAction::Delete,
            SettlementKind::Release => QueueAction::Extend,
            SettlementKind::DeadLetter => QueueAction::DeadLetter,
        };
        if !self.actions.is_failing(action) {
            warn!(
                error,
                count,
                settlement = kind.as_str(),
                "Settling failed, trying again while the leases last"
            );
        }
    }

    /// Drops the entries whose lease has ended: SQS delivers those messages again.
    pub(super) fn drop_expired<T>(&self, batch: Vec<(Receipt, T)>) -> Vec<(Receipt, T)> {
        let now = clock::now();
        let (rest, expired): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(receipt, _)| receipt.deadline > now);
        for (receipt, _) in expired {
            self.left(Disposition::Unsettled);
            warn!(message_id = %receipt.message_id, "The message could not be settled before its lease ended: SQS delivers it again");
        }
        rest
    }
}

fn links<T>(batch: &[(Receipt, T)]) -> impl Iterator<Item = &SpanLink> {
    batch.iter().filter_map(|(receipt, _)| receipt.span.as_ref())
}

pub(super) fn end_span(span: QueueSpan, error: Option<&QueueError>) {
    let message = error.map(ToString::to_string).unwrap_or_default();
    span.end(error.map(|error| SpanFailure { error_type: error.kind.as_str(), message: &message }));
}

fn first_deadline<'a>(receipts: impl Iterator<Item = &'a Receipt>) -> Instant {
    receipts.map(|receipt| receipt.deadline).min().expect("a batch is not empty")
}

/// The share of the remaining time that a call may take. A call that hangs must leave time for
/// another. After a timeout the next call may take more: SQS is slow then, and a third of a short
/// lease may never be enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeShare {
    Third,
    /// The rest of the lease is for its extension.
    Most,
    All,
}

pub(super) async fn within<T>(
    deadline: Instant,
    share: TimeShare,
    call: impl Future<Output = Result<T, QueueError>>,
) -> Result<T, QueueError> {
    let left = clock::left(deadline);
    let share = match share {
        TimeShare::Third => left / 3,
        TimeShare::Most => left * 2 / 3,
        TimeShare::All => left,
    };
    let limit = share.clamp(CALL_MIN, CALL_MAX).min(left);
    timeout(limit, call).await.unwrap_or_else(|_elapsed| {
        let detail = format!("no answer within {} ms", limit.as_millis());
        Err(QueueError { kind: QueueErrorKind::Timeout, detail })
    })
}

pub(super) fn is_timeout<T>(answer: &Result<T, QueueError>) -> bool {
    answer.as_ref().is_err_and(|why| why.kind == QueueErrorKind::Timeout)
}
