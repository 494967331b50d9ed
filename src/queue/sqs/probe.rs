//! Asks what a policy allows, with calls that change nothing: a receipt handle that SQS never gave, a batch without
//! entries. SQS looks at the caller's permissions before it looks at either.

use std::time::Duration;

use super::SqsQueue;
use super::error::{self, queue_error};
use crate::metrics::QueueAction;
use crate::queue::{
    BatchAnswer, EntryError, Permission, Queue, QueueError, QueueErrorKind, ReceiptHandle,
};

/// No receipt handle of SQS looks like this.
const NO_HANDLE: &str = "a-receipt-handle-that-was-never-given";

impl SqsQueue {
    pub(super) async fn ask(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let handle = ReceiptHandle(NO_HANDLE.into());
        match action {
            // To ask is to take a message, and to spend one of its receives.
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

    /// A batch without entries sends nothing, whoever answers it. That it is denied is certain; where SQS complains of
    /// the batch instead, it may have looked at that first.
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

/// What the answer about that handle says.
fn permission(answer: BatchAnswer) -> Result<Permission, QueueError> {
    match answer {
        Ok(entries) => match entries.into_iter().next() {
            Some(Err(EntryError::Retry(detail))) => {
                Err(QueueError { kind: QueueErrorKind::Other, detail })
            }
            Some(Ok(()) | Err(EntryError::Lost(_))) | None => Ok(Permission::Allowed),
        },
        // SQS refuses the handle, not the caller.
        Err(why) if why.kind == QueueErrorKind::Refused => Ok(Permission::Allowed),
        Err(why) => Err(why),
    }
}
