//! Amazon SQS as a [`Queue`]. Only this module and its children name the AWS SDK.
//!
//! The SDK's own retries are off. The poller, the lease keeper and the batches retry themselves,
//! because they know how long a lease still lasts. Region, credentials and endpoint follow the
//! SDK's rules; `environment` covers the cases that those rules leave open.

mod cache_login;
mod convert;
mod credentials;
mod describe;
mod environment;
mod error;
mod http;
mod operate;
mod probe;
mod target;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{ConfigLoader, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName,
};

use self::convert::{
    fifo_name, queue_name, system_attributes, to_message, to_sdk_attribute, whole_seconds,
};
use self::environment::{Prepared, prepare};
use self::error::{entry_answers, queue_error};
use self::target::DeadLetterTarget;
use super::redrive::GROUP_OF_DEAD_LETTERS;
use super::{
    BatchAnswer, DeadLetter, Message, MessageGroup, Permission, Queue, QueueError, QueueErrorKind,
    QueueLimits, ReceiptHandle,
};
use crate::config::{AwsCache, AwsConfig, Proxies, QueueUrl};
use crate::metrics::QueueAction;

pub use self::cache_login::CacheLogin;
pub use self::describe::{QueueAttributes, Redrive};
pub use self::environment::{AwsError, Called};

/// Timeout of one call other than a receive. SQS answers in tens of milliseconds; a longer wait
/// means a lost connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of a receive beyond its long-poll wait, so that a half-open connection cannot block a
/// poll.
const RECEIVE_MARGIN: Duration = Duration::from_secs(5);

/// Timeout for opening a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// Time until an idle connection is closed.
/// When SQS stalls, calls accumulate, each on its own connection; those must not stay open. A
/// worker that polls reuses its connection within milliseconds; one that extends a lease only
/// sometimes reconnects for it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The system attributes that the worker needs of a message.
const ASKED_FOR: [MessageSystemAttributeName; 4] = [
    MessageSystemAttributeName::ApproximateReceiveCount,
    MessageSystemAttributeName::SentTimestamp,
    MessageSystemAttributeName::MessageGroupId,
    MessageSystemAttributeName::AwsTraceHeader,
];

/// Settings of an [`SqsQueue`].
#[derive(Clone, Debug)]
pub struct SqsSettings {
    /// The URL of the queue.
    pub queue_url: String,
    /// The URL of the dead-letter queue, if it is configured; otherwise the redrive policy names
    /// it.
    pub dlq_url: Option<String>,
    /// Long-poll wait: whole seconds, 0 to 20.
    pub wait: Duration,
}

/// A queue in Amazon SQS, or in a server with its protocol.
#[derive(Debug)]
pub struct SqsQueue {
    client: Client,
    /// The client for receives, which have a longer timeout. A second client is cheaper than a
    /// changed configuration for each call.
    long_polls: Client,
    settings: SqsSettings,
    /// Whether message groups are ordered.
    is_fifo: bool,
    /// The queue's name in errors about permissions.
    name: &'static str,
    /// The system attributes that a receive asks for.
    asked_for: &'static [MessageSystemAttributeName],
    called: Called,
    /// Whether SQS has answered a receive yet. Until then receives use no long-poll wait: on an
    /// empty queue, a long poll would hide for up to 20 s whether receiving works.
    has_received: AtomicBool,
    /// The dead-letter target.
    dlq: target::KnownTarget,
    /// The source of the credentials that sign the calls.
    credentials: Option<SharedCredentialsProvider>,
}

impl SqsQueue {
    /// Prepares the client for `queue` from the environment and the profile.
    /// It sends nothing to SQS.
    ///
    /// # Errors
    /// If this environment does not allow calls to SQS, regardless of SQS's answers.
    pub async fn new(
        settings: SqsSettings,
        aws: &AwsConfig,
        queue: &QueueUrl,
    ) -> Result<Self, AwsError> {
        let Prepared { shared, endpoint, called } = prepare(aws, queue).await?;
        Ok(Self { called, ..Self::with(&shared, endpoint, settings) })
    }

    /// Like [`SqsQueue::new`], with region, credentials and endpoint from `loader`.
    pub async fn load(loader: ConfigLoader, settings: SqsSettings) -> Self {
        let http = http::client(IDLE_TIMEOUT, Proxies::default());
        let shared = loader.http_client(http).load().await;
        let endpoint = shared.endpoint_url().map(str::to_owned);
        Self::with(&shared, endpoint, settings)
    }

    fn with(shared: &SdkConfig, endpoint: Option<String>, settings: SqsSettings) -> Self {
        let mut config = aws_sdk_sqs::config::Builder::from(shared)
            .retry_config(RetryConfig::disabled())
            // Every call has its own timeout; a check of each stream's speed adds nothing.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        // Set even if it is `None`: otherwise the SDK would use an empty variable as the endpoint.
        config.set_endpoint_url(endpoint);
        let client = |call_timeout| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_timeout(call_timeout);
            Client::from_conf(config.clone().timeout_config(timeouts.build()).build())
        };
        let long_polls = client(settings.wait + RECEIVE_MARGIN);
        let is_fifo = fifo_name(&settings.queue_url);
        let (called, dlq) = (Called::default(), target::KnownTarget::default());
        let has_received = AtomicBool::new(false);
        let client = client(CALL_TIMEOUT);
        let credentials = shared.credentials_provider();
        let (name, asked_for) = (error::QUEUE, &ASKED_FOR);
        Self {
            client,
            long_polls,
            settings,
            is_fifo,
            name,
            asked_for,
            called,
            has_received,
            dlq,
            credentials,
        }
    }

    /// Returns the endpoint that is called, and its contradictions to the queue's URL.
    #[must_use]
    pub const fn called(&self) -> &Called {
        &self.called
    }

    /// Returns a login to a cache of AWS, with the credentials and the region of the calls to SQS.
    #[must_use]
    pub fn cache_login(&self, cache: &AwsCache, user: &str) -> CacheLogin {
        CacheLogin::new(self.credentials.clone(), &self.called.region, cache, user)
    }

    async fn receive_call(
        &self,
        max: usize,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let has_received = self.has_received.load(Ordering::Relaxed);
        let wait = if has_received { self.settings.wait } else { Duration::ZERO };
        let answer = self
            .long_polls
            .receive_message()
            .queue_url(&self.settings.queue_url)
            .max_number_of_messages(i32::try_from(max).expect("a batch is at most ten"))
            .wait_time_seconds(whole_seconds(wait))
            .visibility_timeout(whole_seconds(visibility))
            .set_message_system_attribute_names(Some(self.asked_for.to_vec()))
            .message_attribute_names("All")
            .send()
            .await
            .map_err(|error| queue_error(&error, error::RECEIVE.on(self.name)))?;
        self.has_received.store(true, Ordering::Relaxed);
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages.filter_map(|raw| to_message(raw, self.is_fifo)).collect())
    }

    async fn dead_letter_call(
        &self,
        to: &DeadLetterTarget,
        dead_letter: &DeadLetter,
    ) -> Result<(), QueueError> {
        let mut call =
            self.client.send_message().queue_url(&to.url).message_body(&dead_letter.body);
        for attribute in dead_letter.attributes_from(queue_name(&self.settings.queue_url)) {
            let name = attribute.name.clone();
            call = call.message_attributes(name, to_sdk_attribute(attribute));
        }
        call = call
            .set_message_system_attributes(system_attributes(dead_letter.trace_header.as_deref()));
        if to.fifo {
            // A FIFO dead-letter queue needs a group even if the source has none. The deduplication
            // id is this message's own id: a copy repeated after a crash before the delete is
            // stored once. The original's id is wrong here: a message that was redriven from the
            // dead-letter queue and fails again within five minutes would not be stored.
            let group =
                dead_letter.group.as_ref().map_or(GROUP_OF_DEAD_LETTERS, MessageGroup::name);
            call = call
                .message_group_id(group)
                .message_deduplication_id(dead_letter.source_id.0.to_string());
        } else if let Some(MessageGroup::Tenant(name)) = &dead_letter.group {
            // SQS accepts the group that it returned; so the tenant stays known in the copy and
            // after a redrive.
            call = call.message_group_id(&**name);
        }
        let sent = call.send().await.map_err(|error| queue_error(&error, error::DEAD_LETTER))?;
        // Without an id it is no answer of SQS: whether the copy is stored is not known.
        let id = sent.message_id.filter(|id| !id.is_empty());
        id.map(drop).ok_or_else(error::no_message_id)
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
            .map_err(|error| queue_error(&error, error::CHANGE_VISIBILITY.on(self.name)))?;
        let done = answer.successful().iter().map(|entry| entry.id());
        Ok(entry_answers(changes.len(), done, answer.failed()))
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        self.receive_call(max, visibility).await
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
            .map_err(|error| queue_error(&error, error::DELETE.on(self.name)))?;
        let done = answer.successful().iter().map(|entry| entry.id());
        Ok(entry_answers(handles.len(), done, answer.failed()))
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.change_visibility(leases).await
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.change_visibility(messages).await
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        match self.target().await? {
            Some(target) => {
                let sent = self.dead_letter_call(&target, dead_letter).await;
                if sent.as_ref().is_err_and(|why| why.kind == QueueErrorKind::NoSuchQueue) {
                    self.forget_target().await;
                }
                sent
            }
            None => Err(QueueError {
                kind: QueueErrorKind::NoDeadLetterQueue,
                detail:
                    "set SQS_DLQ_URL, or a redrive policy on the queue; the queue itself is none"
                        .to_owned(),
            }),
        }
    }

    fn is_fifo(&self) -> bool {
        self.is_fifo
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        let attributes = self.attributes().await?;
        self.follow(&attributes).await;
        let copies_go_somewhere = matches!(self.target().await, Ok(Some(_)));
        Ok(QueueLimits {
            receives_max: attributes.redrive.map(|redrive| redrive.max_receive_count),
            retention: (copies_go_somewhere && !attributes.retention.is_zero())
                .then_some(attributes.retention),
        })
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        self.ask(action).await
    }
}
