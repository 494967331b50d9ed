//! The queue's contract, in the terms of Amazon SQS, without its SDK.
//!
//! [`Queue`] holds every operation that the engine calls. `sqs` is the one production
//! implementation, and the only module that names the AWS SDK. `dead_letter` defines the contents
//! of a copy in the dead-letter queue, `redrive` that of a copy on its way back. `actions` tracks
//! which queue actions fail.

pub mod actions;
pub mod dead_letter;
pub mod instrumented;
mod redrive;
pub mod sqs;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use dead_letter::{DeadLetter, QUEUE as DLQ_QUEUE};
pub use redrive::{OperatorQueue, QueueCounts, RedriveCopy};

use crate::memory::allocated;
use crate::metrics::QueueAction;
pub use crate::metrics::QueueErrorKind;

/// Maximum entries of one batch, and maximum messages of one receive (AWS: `ReceiveMessage`,
/// `DeleteMessageBatch`, `ChangeMessageVisibilityBatch`).
pub const BATCH_MAX: usize = 10;

/// The receipt handle that SQS returns with each receive; it settles the message.
///
/// It changes with every receive of the same message; the newest one must be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptHandle(pub Box<str>);

/// The message id that SQS assigns.
/// It is not an event's identity: a redrive may change it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub Box<str>);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message attribute, as the sender set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Attribute name.
    pub name: String,
    /// `String`, `Number` or `Binary`, with an optional custom suffix.
    pub data_type: String,
    /// Attribute value.
    pub value: AttributeValue,
}

impl Attribute {
    /// Returns the memory that it takes, in bytes.
    fn bytes(&self) -> usize {
        let value = match &self.value {
            AttributeValue::Text(text) => text.capacity(),
            AttributeValue::Binary(bytes) => bytes.capacity(),
        };
        let blocks = [self.name.capacity(), self.data_type.capacity(), value];
        size_of::<Self>() + blocks.into_iter().map(allocated).sum::<usize>()
    }
}

/// The value of an [`Attribute`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// For `String` and `Number`.
    Text(String),
    /// For `Binary`.
    Binary(Vec<u8>),
}

/// The SQS message group. Its meaning depends on the kind of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageGroup {
    /// FIFO queue: an ordering lane. Its messages are handled one after another.
    Ordered(Box<str>),
    /// Standard queue: the tenant name by which SQS shares out receives (fair queues). No ordering.
    Tenant(Box<str>),
}

impl MessageGroup {
    /// Returns the group's name if the group is ordered.
    #[must_use]
    pub fn ordered(&self) -> Option<&str> {
        match self {
            Self::Ordered(name) => Some(name),
            Self::Tenant(_) => None,
        }
    }

    /// Returns the group's name as the sender set it.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Ordered(name) | Self::Tenant(name)) = self;
        name
    }
}

/// One received message.
#[derive(Clone, Debug)]
pub struct Message {
    /// The id that SQS assigned.
    pub id: MessageId,
    /// The receipt handle of this receive.
    pub handle: ReceiptHandle,
    /// The unmodified body.
    pub body: String,
    /// Number of receives, including this one (`ApproximateReceiveCount`).
    pub receive_count: u32,
    /// Time at which the sender sent it to SQS (`SentTimestamp`).
    pub sent_at: Option<SystemTime>,
    /// The message group (`MessageGroupId`).
    pub group: Option<MessageGroup>,
    /// The X-Ray header (`AWSTraceHeader`).
    pub trace_header: Option<Box<str>>,
    /// The ARN of the queue that SQS moved it from (`DeadLetterQueueSourceArn`). Only operators'
    /// commands ask for it.
    pub source_arn: Option<Box<str>>,
    /// The sender's message attributes.
    pub attributes: Vec<Attribute>,
}

/// Memory beside its texts that a held message takes: job, receipt, their places in the table, the
/// message id in three places. Measured: 6,000 small events.
const HELD_BYTES: usize = 2 * 1_024;

/// Attributes that hold the original's id: on our dead-letter copies, and on messages that a
/// redrive made of those copies.
const ORIGINAL_ID: [&str; 2] = ["dlq_message_id", "redrive_of"];

impl Message {
    /// Returns the memory that the message takes while it is held, in bytes: body, attributes, the
    /// SQS metadata, and what the worker notes of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self { handle, body, group, trace_header, source_arn, attributes, .. } = self;
        let group = group.as_ref().map(MessageGroup::name);
        let said = [Some(&*handle.0), group, trace_header.as_deref(), source_arn.as_deref()];
        let said: usize = said.into_iter().flatten().map(|text| allocated(text.len())).sum();
        let attributes = attributes.iter().map(Attribute::bytes).sum::<usize>();
        HELD_BYTES + allocated(body.capacity()) + said + attributes
    }

    /// Returns the SQS id of the original message, across any number of copies.
    /// Returns this message's own id if it is not a copy.
    #[must_use]
    pub fn original_id(&self) -> &str {
        let named = ORIGINAL_ID.into_iter().find_map(|name| self.text_attribute(name));
        named.filter(|id| is_message_id(id)).unwrap_or(&self.id.0)
    }

    /// Returns the value of the text attribute with this name.
    #[must_use]
    pub fn text_attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| match &attribute.value {
            AttributeValue::Text(text) if attribute.name == name => Some(text.as_str()),
            AttributeValue::Text(_) | AttributeValue::Binary(_) => None,
        })
    }
}

/// Whether `text` can be an SQS message id. They are UUIDs; SQS allows up to 100 characters.
fn is_message_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=100).contains(&text.len()) && text.bytes().all(fits)
}

/// The error of a whole call to the queue.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct QueueError {
    /// The error kind.
    pub kind: QueueErrorKind,
    /// The error text of SQS or of the connection.
    pub detail: String,
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

/// The receive limit and the retention of the queue's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLimits {
    /// Receives of a message before SQS moves it to a dead-letter queue; `None`: unlimited.
    pub receives_max: Option<u32>,
    /// Time from sending until SQS deletes a message. `None` if it is not known, or if there is no
    /// dead-letter queue for a copy of the message.
    pub retention: Option<Duration>,
}

/// The result of a permission check by a call that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The action is allowed.
    Allowed,
    /// Only the real action can show whether it is allowed.
    CannotBeAsked,
}

/// The error of one entry of a batch. Other entries of the batch may have succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// The receipt handle is no longer valid (`ReceiptHandleIsInvalid`, `MessageNotInflight`, an
    /// expired handle): the message is not ours any more.
    Lost(String),
    /// A server-side error or throttling; the entry can be retried.
    Retry(String),
}

/// The result of each entry of a batch, in the order of the entries in the call.
pub type BatchAnswer = Result<Vec<Result<(), EntryError>>, QueueError>;

/// A queue with at-least-once delivery and visibility timeouts.
///
/// Every method makes one attempt. The caller retries, because it knows how long a lease still
/// lasts.
///
/// Cancel-safety: a dropped `receive` may leave messages hidden until their visibility timeout
/// ends. The other futures may be dropped; then it is not known whether they took effect.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Long-polls for up to `max` messages (1 to [`BATCH_MAX`]).
    /// They are hidden from other consumers for `visibility`: whole seconds, at most 12 hours. An
    /// empty answer is not an error.
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError>;

    /// Deletes up to [`BATCH_MAX`] messages.
    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer;

    /// Sets the visibility timeout of up to [`BATCH_MAX`] messages that this process holds.
    /// Each duration counts from when SQS handles the call: whole seconds, rounded up, at most 12
    /// hours.
    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer;

    /// Hands back up to [`BATCH_MAX`] messages.
    /// They become visible again after the given durations, which count as in [`Queue::extend`].
    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer;

    /// Sends a copy to the dead-letter queue; the copy is stored when this returns `Ok`.
    ///
    /// # Errors
    /// [`QueueErrorKind::NoDeadLetterQueue`] if no dead-letter queue is known.
    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError>;

    /// Whether this is a FIFO queue.
    /// A FIFO queue delivers no more messages of a group until the received ones are deleted or
    /// visible again.
    fn is_fifo(&self) -> bool {
        false
    }

    /// Looks up the receive limit and the retention.
    /// If the dead-letter queue comes from the redrive policy, this call also applies changes of
    /// the policy: later copies go to the current target.
    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        Ok(QueueLimits::default())
    }

    /// Checks an action with a call that changes nothing; fails if the action does not work.
    /// [`QueueAction::Attributes`] works if it is known whether there is a dead-letter queue.
    async fn probe(&self, _action: QueueAction) -> Result<Permission, QueueError> {
        Ok(Permission::CannotBeAsked)
    }
}
