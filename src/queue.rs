//! The queue's contract, in the terms of Amazon SQS, and nothing of its SDK.
//!
//! Everything that the engine asks of a queue stands in [`Queue`]; `sqs` is the one implementation
//! that a user runs, and the only one that names the AWS SDK. `dead_letter` says what a copy in the
//! dead-letter queue carries, `actions` which of the queue's actions fail.

pub mod actions;
pub mod dead_letter;
pub mod metered;
pub mod sqs;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

pub use dead_letter::DeadLetter;

use crate::metrics::QueueAction;
pub use crate::metrics::QueueErrorKind;

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

impl Attribute {
    fn bytes(&self) -> usize {
        let value = match &self.value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Binary(bytes) => bytes.len(),
        };
        size_of::<Self>() + self.name.len() + self.data_type.len() + value
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

/// What SQS calls a message group. It is two things, by the kind of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageGroup {
    /// On a FIFO queue: its messages are handled one after another.
    Ordered(Box<str>),
    /// On a standard queue: a tenant's name, by which SQS shares out its receives (fair queues). It orders nothing.
    Tenant(Box<str>),
}

impl MessageGroup {
    /// The group's name, where it has an order.
    #[must_use]
    pub fn ordered(&self) -> Option<&str> {
        match self {
            Self::Ordered(name) => Some(name),
            Self::Tenant(_) => None,
        }
    }

    /// The name that it was sent with.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Ordered(name) | Self::Tenant(name)) = self;
        name
    }
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
    /// What it belongs to (`MessageGroupId`).
    pub group: Option<MessageGroup>,
    /// The X-Ray header (`AWSTraceHeader`).
    pub trace_header: Option<Box<str>>,
    /// The sender's attributes.
    pub attributes: Vec<Attribute>,
}

/// Attributes that name the original of a copy: as our dead-letter copies carry it, and messages made of those.
const ORIGINAL_ID: [&str; 2] = ["dlq_message_id", "redrive_of"];

impl Message {
    /// The memory that it takes: body and attributes, and what SQS says of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self { id, handle, body, group, trace_header, attributes, .. } = self;
        let group = group.as_ref().map(MessageGroup::name);
        let said = [Some(&*id.0), Some(&*handle.0), group, trace_header.as_deref()];
        let said: usize = said.into_iter().flatten().map(str::len).sum();
        body.len() + said + attributes.iter().map(Attribute::bytes).sum::<usize>()
    }

    /// SQS's id of the message that this is a copy of, however often it was copied; its own where it is none.
    #[must_use]
    pub fn original_id(&self) -> &str {
        let named = ORIGINAL_ID.into_iter().find_map(|name| self.text_attribute(name));
        named.filter(|id| is_message_id(id)).unwrap_or(&self.id.0)
    }

    /// The text of the attribute of that name.
    #[must_use]
    pub fn text_attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| match &attribute.value {
            AttributeValue::Text(text) if attribute.name == name => Some(text.as_str()),
            AttributeValue::Text(_) | AttributeValue::Binary(_) => None,
        })
    }
}

/// Whether it can be an id of SQS's: they are UUIDs, and SQS allows 100 characters for them.
fn is_message_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=100).contains(&text.len()) && text.bytes().all(fits)
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

/// In words.
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

/// For how long a message may come back before SQS takes it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLimits {
    /// How many receives it has before SQS moves it to a dead-letter queue; `None`: as many as it takes.
    pub receives_max: Option<u32>,
    /// How long after its sending SQS drops it; `None` where that is not known, or a copy of it can be sent nowhere before.
    pub retention: Option<Duration>,
}

/// What a call that changes nothing says about a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The action is allowed.
    Allowed,
    /// Only the action itself would tell.
    CannotBeAsked,
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
    /// Long-polls for up to `max` messages (1 to [`BATCH_MAX`]), hidden from others for `visibility`,
    /// whole seconds, at most 12 hours; an empty answer is no error.
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError>;

    /// Deletes up to [`BATCH_MAX`] messages.
    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer;

    /// Keeps up to [`BATCH_MAX`] messages that are held hidden for the time given with each, counted
    /// from when SQS handles the call; whole seconds, rounded up, at most 12 hours.
    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer;

    /// Gives up to [`BATCH_MAX`] messages up: they are visible again after the time given with each,
    /// counted as in [`Queue::extend`].
    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer;

    /// Sends a copy to the dead-letter queue; it is there when this returns `Ok`. Fails with
    /// [`QueueErrorKind::NoDeadLetterQueue`] where none is known.
    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError>;

    /// Whether it is a FIFO queue: a message group is closed until what was received of it is deleted, or visible again.
    fn is_fifo(&self) -> bool {
        false
    }

    /// Looks up for how long a message may come back. Where the dead-letter queue is the target of the redrive policy, copies go
    /// to what that is now, from here on.
    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        Ok(QueueLimits::default())
    }

    /// Asks whether an action works, with a call that changes nothing; fails where it does not.
    /// [`QueueAction::Attributes`] works where it is known whether there is a dead-letter queue.
    async fn probe(&self, _action: QueueAction) -> Result<Permission, QueueError> {
        Ok(Permission::CannotBeAsked)
    }
}
