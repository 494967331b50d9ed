//! Checks permissions with calls that change nothing: a receipt handle that SQS never issued, or a
//! batch without entries. SQS checks the caller's permissions before it checks either.

use std::time::Duration;

use super::SqsQueue;
use super::error::{self, queue_error};
use crate::metrics::QueueAction;
use crate::queue::{
    BatchAnswer, EntryError, Permission, Queue, QueueError, QueueErrorKind, ReceiptHandle,
};

/// Not a valid SQS receipt handle.
const NO_HANDLE: &str = "a-receipt-handle-that-was-never-given";

impl SqsQueue {
    pub(super) async fn ask(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let handle = ReceiptHandle(NO_HANDLE.into());
        match action {
            // A probe would receive a message and use up one of its receives.
            QueueAction::Receive => Ok(Permission::CannotBeAsked),
            QueueAction::Extend => {
                permission(self.change_visibility(&[(handle, Duration::ZERO)]).await)
            }
            QueueAction::Delete => permission(self.delete(&[handle]).await),
            QueueAction::DeadLetter => self.ask_send().await,
            QueueAction::Attributes => {
                self.target().await?;
                Ok(Permission::Allowed)
            }
        }
    }

    /// Probes sending with an empty batch, which never sends a message.
    /// A denial is reliable. A complaint about the batch is not: the server may have checked the
    /// batch before the permission.
    async fn ask_send(&self) -> Result<Permission, QueueError> {
        let Some(target) = self.target().await? else {
            return Ok(Permission::CannotBeAsked);
        };
        let call = self.client.send_message_batch().queue_url(&target.url);
        let Err(why) = call.set_entries(Some(Vec::new())).send().await else {
            return Ok(Permission::CannotBeAsked);
        };
        let why = queue_error(&why, error::DEAD_LETTER);
        match why.kind {
            QueueErrorKind::Refused => Ok(Permission::CannotBeAsked),
            QueueErrorKind::Throttled
            | QueueErrorKind::Denied
            | QueueErrorKind::NoSuchQueue
            | QueueErrorKind::Timeout
            | QueueErrorKind::Network
            | QueueErrorKind::NoDeadLetterQueue
            | QueueErrorKind::Other => Err(why),
        }
    }
}

/// Evaluates the answer about the invalid handle.
fn permission(answer: BatchAnswer) -> Result<Permission, QueueError> {
    match answer {
        Ok(entries) => match entries.into_iter().next() {
            Some(Err(EntryError::Retry(detail))) => {
                Err(QueueError { kind: QueueErrorKind::Other, detail })
            }
            Some(Ok(()) | Err(EntryError::Lost(_))) | None => Ok(Permission::Allowed),
        },
        // SQS rejects the handle, not the caller.
        Err(why) if why.kind == QueueErrorKind::Refused => Ok(Permission::Allowed),
        Err(why) => Err(why),
    }
}
