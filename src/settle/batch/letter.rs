//! Dead letters on their way: the copy first, then the delete.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{Context, Grounds, RETRY, Settlement, end_span, is_timeout, within};
use crate::inflight::Taken;
use crate::metrics::SettlementKind;
use crate::queue::{DeadLetter, MessageId, QueueError, QueueErrorKind};
use crate::sabotage::{Sabotage, on};
use crate::settle::decide::{DeadLetterReason, release_delay};
use crate::settle::ledger::Left;

/// The longest that a message is hidden. SQS allows 12 hours from its receipt.
const HIDDEN_MAX: Duration = Duration::from_secs(11 * 3_600);

/// Sends the copy; what follows is a delete, or a release where no copy can be sent.
pub(super) async fn dead_letter(
    context: Arc<Context>,
    taken: Box<Taken>,
    grounds: Grounds,
) -> Vec<Settlement> {
    let Taken { original, receipts, turn } = *taken;
    let Grounds { reason, error, event_type } = grounds;
    let receive_count = original.receive_count;
    let letter = DeadLetter {
        body: original.body,
        message_id: original.message_id,
        group_id: original.group_id,
        reason: reason.as_str(),
        error,
        event_type,
        receive_count,
        at: SystemTime::now(),
        attributes: original.attributes,
    };
    let deadline = receipts.iter().map(|receipt| receipt.deadline).max();
    let sent = match deadline {
        Some(_) if on(Sabotage::CopyNotSent) => Ok(()),
        Some(deadline) => {
            let link = receipts.iter().find_map(|receipt| receipt.span.as_ref());
            let span = context.spans.send_dead_letter(link);
            let sent = send_copy(&context, &letter, deadline).await;
            end_span(span, sent.as_ref().err());
            sent
        }
        // Its last lease was lost: whoever has it next judges it again.
        None => return Vec::new(),
    };
    match sent {
        Ok(()) => {
            context.metrics.dead_letter(reason.as_str());
            context.metrics.settled(SettlementKind::DeadLetter);
            receipts.into_iter().map(|r| Settlement::Delete(r, Left::DeadLettered)).collect()
        }
        Err(why) => {
            if let Some(turn) = turn {
                turn.abandon();
            }
            let after = match why.kind {
                // Nothing will ever take it away: it is only in the way. In a group it would be in
                // the way of the others while it is hidden.
                QueueErrorKind::NoDeadLetterQueue if letter.group_id.is_none() => HIDDEN_MAX,
                QueueErrorKind::NoDeadLetterQueue
                | QueueErrorKind::Throttled
                | QueueErrorKind::Denied
                | QueueErrorKind::NoSuchQueue
                | QueueErrorKind::Timeout
                | QueueErrorKind::Network
                | QueueErrorKind::Refused
                | QueueErrorKind::Other => release_delay(receive_count),
            };
            left_to_redrive(&letter.message_id, reason, &why, after);
            receipts.into_iter().map(|r| Settlement::Release(r, after)).collect()
        }
    }
}

fn left_to_redrive(id: &MessageId, reason: DeadLetterReason, why: &QueueError, after: Duration) {
    warn!(
        message_id = %id,
        reason = reason.as_str(),
        error = %why,
        visible_after_s = after.as_secs(),
        "No copy could be sent to a dead-letter queue: the message is left to the queue's redrive policy",
    );
}

/// Leaves time after it to release the message where no copy could be sent.
async fn send_copy(
    context: &Context,
    letter: &DeadLetter,
    deadline: Instant,
) -> Result<(), QueueError> {
    let give_up_at = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
    let (mut failures, mut has_hung) = (0, false);
    loop {
        let answer = within(give_up_at, has_hung, context.queue.dead_letter(letter)).await;
        has_hung = is_timeout(&answer);
        let Err(why) = answer else { return Ok(()) };
        context.metrics.settlement_failed(SettlementKind::DeadLetter);
        match why.kind {
            QueueErrorKind::NoDeadLetterQueue
            | QueueErrorKind::Refused
            | QueueErrorKind::NoSuchQueue
            | QueueErrorKind::Denied => return Err(why),
            QueueErrorKind::Throttled
            | QueueErrorKind::Timeout
            | QueueErrorKind::Network
            | QueueErrorKind::Other => {}
        }
        // Never past that instant: what is left of the lease is for the release.
        let pause = RETRY.delay(failures, &mut fastrand::Rng::new());
        failures += 1;
        sleep_until(give_up_at.min(Instant::now() + pause)).await;
        if Instant::now() >= give_up_at {
            return Err(why);
        }
    }
}
