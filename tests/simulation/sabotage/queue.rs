//! The queue of an engine that uses it wrongly.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::metrics::QueueAction;
use reservation_worker::queue::{
    BATCH_MAX, BatchAnswer, DeadLetter, EntryError, Message, Permission, Queue, QueueError,
    QueueLimits, ReceiptHandle,
};
use tokio::time::sleep;

use crate::sqs::receipt;
use crate::world::Sim;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueFault {
    /// Messages are deleted as soon as they are received.
    DeleteBeforeHandling,
    /// Leases are reported as extended without being extended.
    LeaseNotExtended,
    /// The receipt of a copy of an event in flight is dropped.
    JoinDropped,
    /// A batch of deletes has the first handle in every entry.
    HandlesNotDistinct,
    /// A process that stops keeps messages that it should hand back.
    ReleaseForgotten,
    /// A lost lease is reported as extended.
    LeaseLossIgnored,
    /// A copy for the dead-letter queue is reported as sent without being sent.
    CopyNotSent,
    /// A process that stops drops its open receive.
    ReceiveAborted,
    /// Every receive asks for a full batch, beyond the in-flight limit.
    RoomIgnored,
}

pub(super) struct BrokenQueue {
    pub(super) whole: Arc<dyn Queue>,
    pub(super) fault: QueueFault,
    pub(super) sim: Arc<Sim>,
}

impl BrokenQueue {
    /// Returns after the process has been told to stop.
    async fn leaving(&self) {
        while !self.sim.lock().draining {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether the process already holds the message's event by an earlier receipt.
    fn is_copy(&self, message: &Message) -> bool {
        let world = self.sim.lock();
        let number = receipt(&message.handle);
        let kind = |receipt: usize| world.queue.msgs[world.queue.receipts[receipt].msg].kind;
        world.queue.receipts[..number].iter().enumerate().any(|(earlier, receipt)| {
            let held = receipt.life == world.life && receipt.delivered && !receipt.settling;
            held && receipt.until > world.now() && kind(earlier) == kind(number)
        })
    }
}

#[async_trait]
impl Queue for BrokenQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        let max = if self.fault == QueueFault::RoomIgnored { BATCH_MAX } else { max };
        let is_aborted = self.fault == QueueFault::ReceiveAborted;
        let mut messages = tokio::select! {
            biased;
            messages = self.whole.receive(max, visibility) => messages?,
            () = self.leaving(), if is_aborted => return Ok(Vec::new()),
        };
        if self.fault == QueueFault::DeleteBeforeHandling && !messages.is_empty() {
            let handles: Vec<_> = messages.iter().map(|message| message.handle.clone()).collect();
            drop(self.whole.delete(&handles).await);
        }
        messages.retain(|it| self.fault != QueueFault::JoinDropped || !self.is_copy(it));
        Ok(messages)
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        if self.fault == QueueFault::HandlesNotDistinct {
            return self.whole.delete(&vec![handles[0].clone(); handles.len()]).await;
        }
        self.whole.delete(handles).await
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        if self.fault == QueueFault::LeaseNotExtended {
            return Ok(vec![Ok(()); leases.len()]);
        }
        let mut answers = self.whole.extend(leases).await?;
        if self.fault == QueueFault::LeaseLossIgnored {
            let lost = |answer: &&mut _| matches!(answer, Err(EntryError::Lost(_)));
            answers.iter_mut().filter(lost).for_each(|answer| *answer = Ok(()));
        }
        Ok(answers)
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        if self.fault == QueueFault::ReleaseForgotten && self.sim.lock().draining {
            return Ok(vec![Ok(()); messages.len()]);
        }
        self.whole.hand_back(messages).await
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        if self.fault == QueueFault::CopyNotSent {
            return Ok(());
        }
        self.whole.dead_letter(dead_letter).await
    }

    fn is_fifo(&self) -> bool {
        self.whole.is_fifo()
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        self.whole.limits().await
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        self.whole.probe(action).await
    }
}
