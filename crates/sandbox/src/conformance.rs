//! Conformance cases for SQS servers, written against the AWS SDK. `tests/conformance.rs` runs each
//! case against our server and LocalStack.
//!
//! A case asserts what the AWS documentation says. Where LocalStack differs, the case says so,
//! names the page, and asserts LocalStack's behaviour too, so that a change of it is noticed.

pub mod batches;
pub mod fair;
pub mod fifo;
pub mod long_poll;
pub mod queues;
pub mod receiving;
pub mod redrive;
pub mod sending;
pub mod settling;

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};

use crate::sqs::Sqs;

/// The server that a case runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The embedded server in this process.
    Embedded,
    /// LocalStack.
    LocalStack,
}

/// A server with a client.
#[derive(Debug)]
pub struct Target {
    /// The kind of server.
    pub kind: Kind,
    /// The SDK client without retries: a case checks the first response.
    pub client: Client,
    /// Keeps the embedded server running.
    _server: Option<Sqs>,
}

impl Target {
    /// Starts a new embedded server.
    pub async fn embedded() -> Self {
        let server = Sqs::start().await;
        Self { kind: Kind::Embedded, client: client(&server.endpoint_url()), _server: Some(server) }
    }

    /// Connects to the server at `CONFORMANCE_ENDPOINT_URL`.
    ///
    /// # Panics
    /// If the variable is not set: a case without a server must not pass.
    pub fn localstack() -> Self {
        let endpoint = std::env::var("CONFORMANCE_ENDPOINT_URL")
            .expect("CONFORMANCE_ENDPOINT_URL names a running LocalStack");
        Self { kind: Kind::LocalStack, client: client(&endpoint), _server: None }
    }

    /// Creates a standard queue.
    pub async fn queue(&self) -> Queue<'_> {
        self.queue_with([]).await
    }

    /// Creates a standard queue with attributes.
    pub async fn queue_with<const N: usize>(
        &self,
        attributes: [(QueueAttributeName, &str); N],
    ) -> Queue<'_> {
        self.create(&unique_name(), attributes).await
    }

    /// Creates a FIFO queue with attributes.
    pub async fn fifo_with<const N: usize>(
        &self,
        attributes: [(QueueAttributeName, &str); N],
    ) -> Queue<'_> {
        let name = format!("{}.fifo", unique_name());
        let request = self
            .client
            .create_queue()
            .queue_name(&name)
            .attributes(QueueAttributeName::FifoQueue, "true");
        self.create_from(request, attributes).await
    }

    /// Creates a queue with this name.
    pub async fn create<const N: usize>(
        &self,
        name: &str,
        attributes: [(QueueAttributeName, &str); N],
    ) -> Queue<'_> {
        let request = self.client.create_queue().queue_name(name);
        self.create_from(request, attributes).await
    }

    async fn create_from<const N: usize>(
        &self,
        mut request: aws_sdk_sqs::operation::create_queue::builders::CreateQueueFluentBuilder,
        attributes: [(QueueAttributeName, &str); N],
    ) -> Queue<'_> {
        for (name, value) in attributes {
            request = request.attributes(name, value);
        }
        let created = request.send().await.expect("the queue is created");
        Queue { client: &self.client, url: created.queue_url.expect("a queue has a URL") }
    }

    /// Creates a queue and its dead-letter queue with this `maxReceiveCount`.
    pub async fn queue_with_dlq(&self, receives_max: u32) -> (Queue<'_>, Queue<'_>) {
        let dlq = self.queue().await;
        let policy = dlq.redrive_policy(receives_max).await;
        let queue = self
            .queue_with([
                (QueueAttributeName::RedrivePolicy, &policy),
                (QueueAttributeName::VisibilityTimeout, "30"),
            ])
            .await;
        (queue, dlq)
    }

    /// Asserts that the embedded server refuses with `expected` what LocalStack accepts.
    pub fn refused<T: Debug, E: ProvideErrorMetadata + Debug, R: Debug>(
        &self,
        result: Result<T, SdkError<E, R>>,
        expected: &str,
    ) {
        match self.kind {
            Kind::Embedded => {
                assert_eq!(code(&result.expect_err("the request must be refused")), expected)
            }
            Kind::LocalStack => {
                result.expect("LocalStack accepts this request");
            }
        }
    }

    /// Returns how late a visibility timeout may end. LocalStack checks once a second.
    pub fn lateness(&self) -> Duration {
        match self.kind {
            Kind::Embedded => Duration::from_millis(500),
            Kind::LocalStack => Duration::from_millis(2500),
        }
    }
}

/// Returns a name that no other case uses.
pub fn unique_name() -> String {
    format!("case-{}", uuid::Uuid::new_v4().simple())
}

/// Creates the SDK client of these tests.
pub(crate) fn client(endpoint: &str) -> Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "conformance"))
        .retry_config(RetryConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// A queue of a case.
#[derive(Debug)]
pub struct Queue<'a> {
    client: &'a Client,
    /// The queue's URL.
    pub url: String,
}

impl Queue<'_> {
    /// Sends a body and returns the message id.
    pub async fn send(&self, body: &str) -> String {
        let sent = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(body)
            .send()
            .await
            .expect("the message is accepted");
        sent.message_id.expect("a sent message has an id")
    }

    /// Sends to a FIFO queue and returns the message id.
    pub async fn send_fifo(&self, group: &str, deduplication_id: &str) -> String {
        let sent = self
            .client
            .send_message()
            .queue_url(&self.url)
            .message_body(deduplication_id)
            .message_group_id(group)
            .message_deduplication_id(deduplication_id)
            .send()
            .await
            .expect("the message is accepted");
        sent.message_id.expect("a sent message has an id")
    }

    /// Sends to a standard queue with a tenant's message group.
    pub async fn send_of(&self, tenant: &str, body: &str) {
        let send = self.client.send_message().queue_url(&self.url).message_body(body);
        send.message_group_id(tenant).send().await.expect("the message is accepted");
    }

    /// Receives up to `max` messages with all attributes; waits up to `wait_s`.
    pub async fn receive(&self, max: i32, wait_s: i32) -> Vec<Message> {
        self.client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(max)
            .wait_time_seconds(wait_s)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await
            .expect("the receive is answered")
            .messages
            .unwrap_or_default()
    }

    /// Receives one message, which must arrive within 5 s.
    pub async fn receive_one(&self) -> Message {
        let mut messages = self.receive(1, 5).await;
        assert_eq!(messages.len(), 1, "one message is visible");
        messages.remove(0)
    }

    /// Asserts that no message is visible now.
    pub async fn assert_nothing(&self, why: &str) {
        assert_eq!(bodies(&self.receive(10, 0).await), Vec::<&str>::new(), "{why}");
    }

    /// Deletes by handle and asserts success.
    pub async fn delete(&self, handle: &str) {
        self.client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(handle)
            .send()
            .await
            .expect("the delete succeeds");
    }

    /// Changes the visibility timeout by handle.
    ///
    /// # Errors
    /// The error code.
    pub async fn change_visibility(&self, handle: &str, timeout_s: i32) -> Result<(), String> {
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(handle)
            .visibility_timeout(timeout_s)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| code(&error))
    }

    /// Returns a queue attribute; empty if it is not set.
    pub async fn attribute(&self, name: QueueAttributeName) -> String {
        let mut all: HashMap<_, _> = self.attributes().await;
        all.remove(&name).unwrap_or_default()
    }

    /// Returns all queue attributes.
    pub async fn attributes(&self) -> HashMap<QueueAttributeName, String> {
        self.client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .expect("the attributes are answered")
            .attributes
            .unwrap_or_default()
    }

    /// Returns the queue's counts of visible, in-flight and delayed messages.
    pub async fn counts(&self) -> [String; 3] {
        let all = self.attributes().await;
        [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ]
        .map(|name| all.get(&name).cloned().unwrap_or_default())
    }

    /// Returns a redrive policy with this queue as its target.
    pub async fn redrive_policy(&self, receives_max: u32) -> String {
        let arn = self.attribute(QueueAttributeName::QueueArn).await;
        format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"{receives_max}"}}"#)
    }
}

/// Returns the error code, or the text of an error without code.
pub fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    match error.code() {
        Some(code) => code.to_owned(),
        None => error.to_string(),
    }
}

/// Returns a message's receipt handle.
pub fn handle(message: &Message) -> &str {
    message.receipt_handle().expect("a received message has a handle")
}

/// Returns the bodies of messages.
pub fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(Message::body).collect()
}

/// Returns a system attribute; empty if it is not set.
pub fn system(message: &Message, name: MessageSystemAttributeName) -> String {
    let attributes = message.attributes();
    attributes.and_then(|all| all.get(&name)).cloned().unwrap_or_default()
}

/// Asserts the elapsed time since `since`.
pub fn assert_took(since: Instant, at_least: Duration, at_most: Duration) {
    let took = since.elapsed();
    assert!((at_least..=at_most).contains(&took), "took {took:?}, not {at_least:?} to {at_most:?}");
}
