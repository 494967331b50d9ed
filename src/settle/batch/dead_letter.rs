//! Sends dead letters: first the copy, then the delete.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::call::{BatchContext, RETRY, TimeShare, end_span, is_timeout, within};
use super::{Grounds, Settlement};
use crate::clock;
use crate::inflight::{GroupTurn, InFlight, Receipt, RemovedJob};
use crate::metrics::SettlementKind;
use crate::queue::{DeadLetter, QueueError, QueueErrorKind};
use crate::settle::account::Disposition;
use crate::settle::decide::{DeadLetterReason, release_delay};

/// Maximum time that a message is hidden. SQS allows 12 hours from its receive.
const HIDDEN_MAX: Duration = Duration::from_secs(11 * 3_600);

/// A copy, and the receipts of the message that was copied.
#[derive(Debug)]
pub(super) struct DeadLetterCopy {
    pub(super) dead_letter: DeadLetter,
    pub(super) receipts: Vec<Receipt>,
    /// The turn in its FIFO group: later messages wait for it.
    pub(super) turn: Option<GroupTurn>,
    pub(super) reason: DeadLetterReason,
    /// Whether it could not be sent before, and was kept.
    pub(super) was_kept: bool,
}

impl DeadLetterCopy {
    pub(super) fn new(removed: RemovedJob, grounds: Grounds) -> Box<Self> {
        let RemovedJob { original, receipts, turn } = removed;
        let Grounds { reason, error, event_type } = grounds;
        let dead_letter = DeadLetter {
            body: original.body,
            message_id: original.original_id,
            source_id: original.message_id,
            group: original.group,
            trace_header: original.trace_header,
            reason: reason.as_str(),
            error,
            event_type,
            receive_count: original.receive_count,
            at: SystemTime::now(),
            attributes: original.attributes,
            shortened: 0,
        };
        Box::new(Self { dead_letter, receipts, turn, reason, was_kept: false })
    }

    /// Hands the message back with a delay, because no copy can be sent.
    pub(super) fn give_up(
        self,
        inflight: &InFlight,
        kind: Option<QueueErrorKind>,
    ) -> Vec<Settlement> {
        let Self { dead_letter, receipts, turn, reason, .. } = self;
        let is_ordered = turn.is_some();
        if let Some(turn) = turn {
            turn.abandon();
        }
        let after = match kind {
            // Without a dead-letter queue nothing removes the message, so it is hidden for long. In
            // a FIFO group it would block the later messages while it is hidden.
            Some(QueueErrorKind::NoDeadLetterQueue) if !is_ordered => HIDDEN_MAX,
            Some(
                QueueErrorKind::NoDeadLetterQueue
                | QueueErrorKind::Throttled
                | QueueErrorKind::Denied
                | QueueErrorKind::NoSuchQueue
                | QueueErrorKind::Timeout
                | QueueErrorKind::Network
                | QueueErrorKind::Refused
                | QueueErrorKind::Other,
            )
            | None => release_delay(dead_letter.receive_count),
        };
        let now = clock::now();
        let hidden = receipts.iter().map(|receipt| inflight.hidden(receipt, after, now));
        let after = hidden.min().unwrap_or(after);
        warn!(
            message_id = %dead_letter.message_id,
            reason = reason.as_str(),
            visible_after_s = after.as_secs(),
            "No copy could be sent to a dead-letter queue: the message is left to the queue's redrive policy",
        );
        receipts.into_iter().map(|receipt| Settlement::Release(receipt, after)).collect()
    }
}

/// The result of sending a copy.
pub(super) enum CopyOutcome {
    /// The copy is stored; the deletes follow. The flag: whether the copy had been kept.
    Done(Vec<Settlement>, bool),
    /// No copy could be sent; the error, or `None` if no call was made.
    Failed(Box<DeadLetterCopy>, Option<QueueErrorKind>),
    /// No valid lease is left: the next receiver decides about the message again.
    Lost,
}

impl CopyOutcome {
    /// Returns the failure of a copy that was not sent, because copies are known to fail.
    pub(super) fn failed_before(copy: Box<DeadLetterCopy>) -> Self {
        Self::Failed(copy, None)
    }
}

/// Sends the copy.
pub(super) async fn send(context: &BatchContext, mut copy: Box<DeadLetterCopy>) -> CopyOutcome {
    let Some(deadline) = copy.receipts.iter().map(|receipt| receipt.deadline).max() else {
        return CopyOutcome::Lost;
    };
    if let Err(why) = send_with_span(context, &mut copy, deadline).await {
        if !context.cannot_send() {
            warn!(message_id = %copy.dead_letter.message_id, error = %why, "A copy could not be sent to the dead-letter queue");
        }
        return CopyOutcome::Failed(copy, Some(why.kind));
    }
    context.metrics.dead_letter(copy.reason.as_str());
    context.metrics.settled(SettlementKind::DeadLetter);
    let DeadLetterCopy { receipts, was_kept, .. } = *copy;
    let delete = |receipt| Settlement::Delete(receipt, Disposition::DeadLettered);
    CopyOutcome::Done(receipts.into_iter().map(delete).collect(), was_kept)
}

async fn send_with_span(
    context: &BatchContext,
    copy: &mut DeadLetterCopy,
    deadline: Instant,
) -> Result<(), QueueError> {
    let link = copy.receipts.iter().find_map(|receipt| receipt.span.as_ref());
    let span = context.spans.send_dead_letter(link);
    let sent = send_copy(context, copy, deadline).await;
    end_span(span, sent.as_ref().err());
    sent
}

/// Sends the copy within half of the remaining lease; the rest is for a release or an extension.
///
/// A refused copy may be too long with its attributes: the body has exactly the maximum size, or
/// the dead-letter queue accepts less. It is sent again with fewer attributes.
async fn send_copy(
    context: &BatchContext,
    copy: &mut DeadLetterCopy,
    deadline: Instant,
) -> Result<(), QueueError> {
    let give_up_at = clock::now() + clock::left(deadline) / 2;
    let (mut failures, mut has_hung) = (0, false);
    loop {
        let share = if has_hung { TimeShare::All } else { TimeShare::Third };
        let answer = within(give_up_at, share, context.queue.dead_letter(&copy.dead_letter)).await;
        has_hung = is_timeout(&answer);
        let Err(why) = answer else { return Ok(()) };
        context.metrics.settlement_failed(SettlementKind::DeadLetter);
        match why.kind {
            QueueErrorKind::Refused if copy.dead_letter.shorten() => {
                let (attributes, error) =
                    (copy.dead_letter.all_attributes().len(), why.to_string());
                warn!(message_id = %copy.dead_letter.message_id, attributes, error, "A copy was refused: it is sent with fewer attributes");
                continue;
            }
            QueueErrorKind::NoDeadLetterQueue
            | QueueErrorKind::Refused
            | QueueErrorKind::NoSuchQueue
            | QueueErrorKind::Denied => return Err(why),
            QueueErrorKind::Throttled
            | QueueErrorKind::Timeout
            | QueueErrorKind::Network
            | QueueErrorKind::Other => {}
        }
        // A kept copy is retried later; this call only probes whether copies can be sent.
        if copy.was_kept {
            return Err(why);
        }
        // The pause ends at `give_up_at` at the latest: the rest of the lease is for the release.
        let pause = RETRY.delay(failures, &mut fastrand::Rng::new());
        failures += 1;
        sleep(clock::left(give_up_at).min(pause)).await;
        if clock::now() >= give_up_at {
            return Err(why);
        }
    }
}
