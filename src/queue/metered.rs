//! A [`Queue`] that counts and times each call to another one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{BatchAnswer, DeadLetter, Message, Queue, QueueError, QueueErrorKind, ReceiptHandle};
use crate::metrics::{Call, CallResult, Metrics};

/// Counts and times each call.
pub struct Metered {
    queue: Arc<dyn Queue>,
    metrics: Arc<Metrics>,
}

impl Metered {
    /// Wraps `queue`.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>, metrics: Arc<Metrics>) -> Self {
        Self { queue, metrics }
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
        self.metrics.call(call, result, started_at.elapsed());
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

#[async_trait]
impl Queue for Metered {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        self.timed(Call::ReceiveMessage, self.queue.receive(max)).await
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        self.timed(Call::DeleteMessageBatch, self.queue.delete(handles)).await
    }

    async fn change_visibility(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let answer = self.queue.change_visibility(changes);
        self.timed(Call::ChangeMessageVisibilityBatch, answer).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError> {
        self.timed(Call::SendMessage, self.queue.dead_letter(letter)).await
    }
}
