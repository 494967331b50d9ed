//! The queue's contract, in the terms of Amazon SQS, and nothing of its SDK.
//!
//! Everything that the engine asks of a queue stands in [`Queue`]; `sqs` is the one implementation
//! that a user runs, and the only one that names the AWS SDK. `dead_letter` says what a copy in the
//! dead-letter queue carries.

pub mod dead_letter;
pub mod metered;
pub mod sqs;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use dead_letter::DeadLetter;

/// The most entries that SQS takes in one batch, and the most messages that it gives in one receive
/// (AWS: `ReceiveMessage`, `DeleteMessageBatch`, `ChangeMessageVisibilityBatch`).
pub const BATCH_MAX: usize = 10;

/// What SQS gives with each receive and wants back to settle the message. It changes with every
/// receive of the same message, so the newest one is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptHandle(pub Box<str>);

/// SQS's own id of a message. It is never an event's identity: a redrive may change it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub Box<str>);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message attribute, as its sender gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// `String`, `Number` or `Binary`, with an optional custom suffix.
    pub data_type: String,
    /// Its value.
    pub value: AttributeValue,
}

/// The value of an [`Attribute`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// For `String` and `Number`.
    Text(String),
    /// For `Binary`.
    Binary(Vec<u8>),
}

/// One message as it was received.
#[derive(Clone, Debug)]
pub struct Message {
    /// SQS's own id.
    pub id: MessageId,
    /// What settles this receipt of it.
    pub handle: ReceiptHandle,
    /// The body, untouched.
    pub body: String,
    /// How often it has been received, this time included (`ApproximateReceiveCount`).
    pub receive_count: u32,
    /// When its sender handed it to SQS (`SentTimestamp`).
    pub sent_at: Option<SystemTime>,
    /// The FIFO group (`MessageGroupId`).
    pub group_id: Option<Box<str>>,
    /// The X-Ray header (`AWSTraceHeader`).
    pub trace_header: Option<Box<str>>,
    /// The sender's attributes.
    pub attributes: Vec<Attribute>,
}

impl Message {
    /// The text of the attribute of that name.
    #[must_use]
    pub fn text_attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| match &attribute.value {
            AttributeValue::Text(text) if attribute.name == name => Some(text.as_str()),
            AttributeValue::Text(_) | AttributeValue::Binary(_) => None,
        })
    }
}

/// What went wrong with a whole call to the queue.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct QueueError {
    /// What kind of trouble it is.
    pub kind: QueueErrorKind,
    /// SQS's own words, or the connection's.
    pub detail: String,
}

/// The kinds of trouble that call for different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueErrorKind {
    /// SQS asks for fewer calls, or for fewer messages in flight (`OverLimit`).
    Throttled,
    /// Credentials are missing, expired or lack the permission.
    Denied,
    /// There is no such queue, or the URL's region or account is wrong.
    NoSuchQueue,
    /// No answer within the deadline.
    Timeout,
    /// No connection, or a broken one.
    Network,
    /// SQS refuses the request itself: the same request will not succeed.
    Refused,
    /// A copy was to be sent to a dead-letter queue, and none is known.
    NoDeadLetterQueue,
    /// SQS failed (5xx), or said what is not known here.
    Other,
}

impl fmt::Display for QueueErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "throttled",
            Self::Denied => "access denied",
            Self::NoSuchQueue => "no such queue",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Refused => "refused",
            Self::NoDeadLetterQueue => "no dead-letter queue is known",
            Self::Other => "failed",
        })
    }
}

impl QueueErrorKind {
    /// A word from a fixed set, for spans.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::NoSuchQueue => "no_such_queue",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Refused => "refused",
            Self::NoDeadLetterQueue => "no_dead_letter_queue",
            Self::Other => "other",
        }
    }
}

/// Why one entry of a batch failed while others may have succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// The receipt no longer stands (`ReceiptHandleIsInvalid`, `MessageNotInflight`, an expired
    /// handle): the message is not ours any more.
    Lost(String),
    /// SQS's fault, or throttling: worth another try.
    Retry(String),
}

/// The answer for each entry of a batch, in the order in which the entries were given.
pub type BatchAnswer = Result<Vec<Result<(), EntryError>>, QueueError>;

/// A queue with at-least-once delivery and visibility timeouts.
///
/// Every method makes one attempt: retries are the caller's, who knows how long a lease still lasts.
/// A dropped `receive` may leave messages hidden until their visibility timeout ends; the other
/// futures may be dropped at the price of not knowing whether they took effect.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Long-polls for up to `max` messages (1 to [`BATCH_MAX`]); an empty answer is no error.
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError>;

    /// Deletes up to [`BATCH_MAX`] messages.
    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer;

    /// Makes up to [`BATCH_MAX`] messages visible again after the time given with each, counted
    /// from when SQS handles the call; whole seconds, rounded up, at most 12 hours.
    async fn change_visibility(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer;

    /// Sends a copy to the dead-letter queue; it is there when this returns `Ok`. Fails with
    /// [`QueueErrorKind::NoDeadLetterQueue`] where none is known.
    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError>;
}
