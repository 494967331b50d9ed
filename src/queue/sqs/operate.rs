//! What operators' commands do with the dead-letter queue and the source queue.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::MessageSystemAttributeName;

use super::convert::{system_attributes, to_sdk_attribute};
use super::error::{self, queue_error};
use super::{SqsQueue, SqsSettings, target};
use crate::queue::{MessageId, OperatorQueue, QueueCounts, QueueError, RedriveCopy};

/// Long-poll wait of a receive from the dead-letter queue. One second is the least with which SQS
/// asks all its servers, so that an empty answer means an empty queue.
const WAIT: Duration = Duration::from_secs(1);

/// The system attributes that a dead letter is shown with: the worker's, and the queue from which
/// SQS moved it.
const ASKED_FOR: [MessageSystemAttributeName; 5] = [
    MessageSystemAttributeName::ApproximateReceiveCount,
    MessageSystemAttributeName::SentTimestamp,
    MessageSystemAttributeName::MessageGroupId,
    MessageSystemAttributeName::AwsTraceHeader,
    MessageSystemAttributeName::DeadLetterQueueSourceArn,
];

impl SqsQueue {
    /// Returns the dead-letter queue as a queue to work on, or `None` if there is none.
    ///
    /// # Errors
    /// If it could not be looked up.
    pub async fn dead_letters(&self) -> Result<Option<Self>, QueueError> {
        let Some(target) = self.target().await? else { return Ok(None) };
        Ok(Some(Self {
            client: self.client.clone(),
            long_polls: self.long_polls.clone(),
            settings: SqsSettings { queue_url: target.url, dlq_url: None, wait: WAIT },
            is_fifo: target.fifo,
            name: error::DEAD_LETTER_QUEUE,
            asked_for: &ASKED_FOR,
            called: self.called.clone(),
            has_received: AtomicBool::new(true),
            dlq: target::KnownTarget::default(),
            credentials: self.credentials.clone(),
        }))
    }

    /// Returns the queue's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.settings.queue_url
    }
}

#[async_trait]
impl OperatorQueue for SqsQueue {
    async fn counts(&self) -> Result<QueueCounts, QueueError> {
        let attributes = self.attributes().await?;
        Ok(QueueCounts { visible: attributes.visible, in_flight: attributes.in_flight })
    }

    async fn redrive(&self, copy: &RedriveCopy) -> Result<MessageId, QueueError> {
        let mut call = self.client.send_message().queue_url(self.url()).message_body(&copy.body);
        for attribute in &copy.attributes {
            let name = attribute.name.clone();
            call = call.message_attributes(name, to_sdk_attribute(attribute.clone()));
        }
        call = call.set_message_system_attributes(system_attributes(copy.trace_header.as_deref()));
        call = call.set_message_group_id(copy.group_for(self.is_fifo).map(str::to_owned));
        if self.is_fifo {
            call = call.message_deduplication_id(&*copy.source_id.0);
        }
        let sent = call.send().await.map_err(|error| queue_error(&error, error::REDRIVE))?;
        // Without an id it is no answer of SQS: whether the copy is stored is not known.
        let id = sent.message_id.filter(|id| !id.is_empty()).ok_or_else(error::no_message_id)?;
        Ok(MessageId(id.into()))
    }
}
