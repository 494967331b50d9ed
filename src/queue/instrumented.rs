//! A [`Queue`] that counts and times each call to another queue, and records its evidence.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::actions::QueueActions;
use super::{
    BatchAnswer, DeadLetter, EntryError, Message, Permission, Queue, QueueError, QueueErrorKind,
    QueueLimits, ReceiptHandle,
};
use crate::metrics::{Call, CallResult, Metrics, QueueAction};

/// Counts, times and records each call.
pub struct InstrumentedQueue {
    queue: Arc<dyn Queue>,
    metrics: Arc<Metrics>,
    actions: Arc<QueueActions>,
}

/// A call in progress. If it is dropped without an answer, it counts as a timeout.
struct OpenQueueCall<'a> {
    actions: &'a QueueActions,
    action: QueueAction,
    began_at: Instant,
    is_answered: bool,
}

impl OpenQueueCall<'_> {
    fn answered(mut self, answer: Result<(), &QueueError>) {
        self.is_answered = true;
        self.actions.note(self.action, self.began_at, answer);
    }

    /// Closes the call without evidence about the action.
    fn ignored(mut self) {
        self.is_answered = true;
    }
}

impl Drop for OpenQueueCall<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let detail = "no answer in time".to_owned();
            let error = QueueError { kind: QueueErrorKind::Timeout, detail };
            self.actions.note(self.action, self.began_at, Err(&error));
        }
    }
}

impl InstrumentedQueue {
    /// Wraps `queue`.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>, metrics: Arc<Metrics>, actions: Arc<QueueActions>) -> Self {
        Self { queue, metrics, actions }
    }

    fn open(&self, action: QueueAction) -> OpenQueueCall<'_> {
        let began_at = Instant::now();
        OpenQueueCall { actions: &self.actions, action, began_at, is_answered: false }
    }

    /// Runs an extension or a hand-back; one permission covers both.
    async fn change_visibility(&self, answer: impl Future<Output = BatchAnswer>) -> BatchAnswer {
        let open = self.open(QueueAction::Extend);
        let answer = self.timed(Call::ChangeMessageVisibilityBatch, answer).await;
        open.answered(evidence(&answer).as_ref().copied());
        answer
    }

    async fn timed<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        let started_at = Instant::now();
        let answer = answer.await;
        let result = match &answer {
            Ok(_) => CallResult::Ok,
            Err(error) => result_of(error.kind),
        };
        // Without a dead-letter queue, SQS was not called.
        let is_uncalled =
            matches!(&answer, Err(error) if error.kind == QueueErrorKind::NoDeadLetterQueue);
        if !is_uncalled {
            self.metrics.call(call, result, started_at.elapsed());
        }
        answer
    }
}

fn result_of(kind: QueueErrorKind) -> CallResult {
    match kind {
        QueueErrorKind::Throttled => CallResult::Paced,
        QueueErrorKind::Denied | QueueErrorKind::NoSuchQueue | QueueErrorKind::Refused => {
            CallResult::Permanent
        }
        QueueErrorKind::Timeout | QueueErrorKind::Network => CallResult::Outage,
        QueueErrorKind::NoDeadLetterQueue | QueueErrorKind::Other => CallResult::Transient,
    }
}

/// Returns the evidence of a batch about its action.
/// The action works if one entry succeeded, or if SQS examined its receipt handle.
fn evidence(answer: &BatchAnswer) -> Result<(), QueueError> {
    let entries = answer.as_ref().map_err(Clone::clone)?;
    let mut why = None;
    for entry in entries {
        match entry {
            Ok(()) | Err(EntryError::Lost(_)) => return Ok(()),
            Err(EntryError::Retry(detail)) => why = Some(detail),
        }
    }
    match why {
        Some(detail) => {
            Err(QueueError { kind: QueueErrorKind::Other, detail: format!("each entry: {detail}") })
        }
        None => Ok(()),
    }
}

#[async_trait]
impl Queue for InstrumentedQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        let open = self.open(QueueAction::Receive);
        let answer = self.queue.receive(max, visibility);
        let answer = self.timed(Call::ReceiveMessage, answer).await;
        open.answered(answer.as_ref().map(|_| ()));
        answer
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        let open = self.open(QueueAction::Delete);
        let answer = self.timed(Call::DeleteMessageBatch, self.queue.delete(handles)).await;
        open.answered(evidence(&answer).as_ref().copied());
        answer
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.change_visibility(self.queue.extend(leases)).await
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.change_visibility(self.queue.hand_back(messages)).await
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        // The target is looked up first if it is not known; that is another action.
        let open = self.open(QueueAction::Attributes);
        match self.queue.probe(QueueAction::Attributes).await {
            Ok(Permission::Allowed) => open.answered(Ok(())),
            Ok(Permission::CannotBeAsked) => open.ignored(),
            Err(error) => {
                open.answered(Err(&error));
                return Err(error);
            }
        }
        let open = self.open(QueueAction::DeadLetter);
        let answer = self.timed(Call::SendMessage, self.queue.dead_letter(dead_letter)).await;
        match &answer {
            // The error is about this copy only, or no call to SQS was made.
            Err(error)
                if matches!(
                    error.kind,
                    QueueErrorKind::Refused | QueueErrorKind::NoDeadLetterQueue
                ) =>
            {
                open.ignored();
            }
            Ok(()) | Err(_) => open.answered(answer.as_ref().copied()),
        }
        answer
    }

    fn is_fifo(&self) -> bool {
        self.queue.is_fifo()
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        self.timed(Call::GetQueueAttributes, self.queue.limits()).await
    }

    /// Records only failures. The caller records a success, because a probe cannot show whether all
    /// entries of a batch fail.
    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let open = self.open(action);
        let answer = self.queue.probe(action).await;
        match &answer {
            Ok(Permission::Allowed | Permission::CannotBeAsked) => open.ignored(),
            Err(error) => open.answered(Err(error)),
        }
        answer
    }
}
