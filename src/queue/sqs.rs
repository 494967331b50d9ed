//! Amazon SQS behind [`Queue`]. The only place, with its children, that names the AWS SDK.
//!
//! The SDK's own retries are off: the poller, the lease keeper and the batches own theirs, because
//! only they know how long a lease still lasts. Region, credentials and endpoint follow the SDK's
//! own rules and are never parsed here.

mod convert;
mod describe;
mod error;
mod http;

use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName,
};
use tokio::sync::OnceCell;

use self::convert::{fifo_name, to_message, to_sdk_attribute, whole_seconds};
use self::error::{entry_answers, queue_error};
use super::{BatchAnswer, DeadLetter, Message, Queue, QueueError, QueueErrorKind, ReceiptHandle};

pub use self::describe::{QueueFacts, Redrive};

/// How long one call other than a receive may take. SQS answers in tens of milliseconds; more than
/// this is a connection that went away.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a receive may take beyond its own wait, so that a half-open connection cannot hang a poll.
const RECEIVE_MARGIN: Duration = Duration::from_secs(5);

/// How long a connection may take to stand, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// How long a connection stays open that nobody uses. When SQS stalls, calls pile up, each on a connection of its own; a worker
/// that polls needs its own again within milliseconds, and one that only extends a lease now and then connects anew for it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the queue needs to know.
#[derive(Clone, Debug)]
pub struct SqsSettings {
    /// The queue's URL.
    pub queue_url: String,
    /// The dead-letter queue's, where it is configured rather than read from the redrive policy.
    pub dlq_url: Option<String>,
    /// Long-poll wait, whole seconds, 0 to 20.
    pub wait: Duration,
    /// Visibility timeout asked for at each receive, whole seconds.
    pub visibility: Duration,
}

/// A queue in Amazon SQS, or in a server that speaks its protocol.
#[derive(Debug)]
pub struct SqsQueue {
    client: Client,
    /// For receives, which may take longer. A client of its own is cheaper than a change at each call.
    long_polls: Client,
    settings: SqsSettings,
    /// Where poison goes. Unset until it is first needed or told at start; `None` when SQS said
    /// that there is no such place.
    dlq: OnceCell<Option<DlqTarget>>,
}

#[derive(Clone, Debug)]
struct DlqTarget {
    url: String,
    fifo: bool,
}

impl DlqTarget {
    fn new(url: String) -> Self {
        let fifo = fifo_name(&url);
        Self { url, fifo }
    }
}

impl SqsQueue {
    /// Prepares the client; nothing is sent yet. Reads region, credentials and endpoint by the
    /// SDK's own rules.
    pub async fn new(settings: SqsSettings) -> Self {
        Self::load(aws_config::defaults(BehaviorVersion::latest()), settings).await
    }

    /// The same, with what `loader` already says about region, credentials and endpoint.
    pub async fn load(loader: ConfigLoader, settings: SqsSettings) -> Self {
        let shared = loader.http_client(http::client(IDLE_TIMEOUT)).load().await;
        let config = aws_sdk_sqs::config::Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            // Every call has a deadline of its own; watching each stream's speed as well buys nothing.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let client = |call_timeout| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_timeout(call_timeout);
            Client::from_conf(config.clone().timeout_config(timeouts.build()).build())
        };
        let long_polls = client(settings.wait + RECEIVE_MARGIN);
        let dlq = match &settings.dlq_url {
            Some(url) => OnceCell::new_with(Some(Some(DlqTarget::new(url.clone())))),
            None => OnceCell::new(),
        };
        Self { client: client(CALL_TIMEOUT), long_polls, settings, dlq }
    }

    async fn receive_call(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        let answer = self
            .long_polls
            .receive_message()
            .queue_url(&self.settings.queue_url)
            .max_number_of_messages(i32::try_from(max).expect("a batch is at most ten"))
            .wait_time_seconds(whole_seconds(self.settings.wait))
            .visibility_timeout(whole_seconds(self.settings.visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
            .message_system_attribute_names(MessageSystemAttributeName::AwsTraceHeader)
            .message_attribute_names("All")
            .send()
            .await
            .map_err(|error| queue_error(&error, error::RECEIVE))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(to_message).collect())
    }

    async fn dead_letter_call(
        &self,
        to: &DlqTarget,
        letter: &DeadLetter,
    ) -> Result<(), QueueError> {
        let mut call = self.client.send_message().queue_url(&to.url).message_body(&letter.body);
        for attribute in letter.all_attributes() {
            let name = attribute.name.clone();
            call = call.message_attributes(name, to_sdk_attribute(attribute));
        }
        if to.fifo {
            // A FIFO dead-letter queue wants a group even where the source had none; the original's
            // id as deduplication id makes a repeated copy (a crash before the delete) one copy.
            let group = letter.group_id.as_deref().unwrap_or("dead-letters");
            call = call
                .message_group_id(group)
                .message_deduplication_id(letter.message_id.0.to_string());
        }
        call.send().await.map(|_| ()).map_err(|error| queue_error(&error, error::DEAD_LETTER))
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        self.receive_call(max).await
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        let entries = handles
            .iter()
            .enumerate()
            .map(|(position, handle)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(position.to_string())
                    .receipt_handle(&*handle.0)
                    .build()
                    .expect("id and handle are set")
            })
            .collect();
        let answer = self
            .client
            .delete_message_batch()
            .queue_url(&self.settings.queue_url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| queue_error(&error, error::DELETE))?;
        let done = answer.successful().iter().map(|entry| entry.id());
        Ok(entry_answers(handles.len(), done, answer.failed()))
    }

    async fn change_visibility(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let entries = changes
            .iter()
            .enumerate()
            .map(|(position, (handle, after))| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(position.to_string())
                    .receipt_handle(&*handle.0)
                    .visibility_timeout(whole_seconds(*after))
                    .build()
                    .expect("id and handle are set")
            })
            .collect();
        let answer = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.settings.queue_url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| queue_error(&error, error::CHANGE_VISIBILITY))?;
        let done = answer.successful().iter().map(|entry| entry.id());
        Ok(entry_answers(changes.len(), done, answer.failed()))
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError> {
        match self.dlq.get_or_try_init(|| self.find_dead_letter_queue()).await? {
            Some(target) => self.dead_letter_call(target, letter).await,
            None => Err(QueueError {
                kind: QueueErrorKind::NoDeadLetterQueue,
                detail: "set SQS_DLQ_URL, or a redrive policy on the queue".to_owned(),
            }),
        }
    }
}
