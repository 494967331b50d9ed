//! The supported actions with their names in the protocol.

/// An action of the SQS API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Changes the visibility timeout of a received message.
    ChangeMessageVisibility,
    /// The same for up to ten messages.
    ChangeMessageVisibilityBatch,
    /// Creates a queue.
    CreateQueue,
    /// Deletes a received message.
    DeleteMessage,
    /// Deletes up to ten received messages.
    DeleteMessageBatch,
    /// Deletes a queue with its messages.
    DeleteQueue,
    /// Returns a queue's settings and counts.
    GetQueueAttributes,
    /// Returns a queue's URL by its name.
    GetQueueUrl,
    /// Lists the queues that use a queue as their dead-letter queue.
    ListDeadLetterSourceQueues,
    /// Lists queues by a prefix of their name.
    ListQueues,
    /// Deletes all messages of a queue.
    PurgeQueue,
    /// Receives up to ten messages.
    ReceiveMessage,
    /// Sends a message.
    SendMessage,
    /// Sends up to ten messages.
    SendMessageBatch,
    /// Changes a queue's settings.
    SetQueueAttributes,
    /// Moves a dead-letter queue's messages back to their source queue.
    StartMessageMoveTask,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 16] = [
        Self::ChangeMessageVisibility,
        Self::ChangeMessageVisibilityBatch,
        Self::CreateQueue,
        Self::DeleteMessage,
        Self::DeleteMessageBatch,
        Self::DeleteQueue,
        Self::GetQueueAttributes,
        Self::GetQueueUrl,
        Self::ListDeadLetterSourceQueues,
        Self::ListQueues,
        Self::PurgeQueue,
        Self::ReceiveMessage,
        Self::SendMessage,
        Self::SendMessageBatch,
        Self::SetQueueAttributes,
        Self::StartMessageMoveTask,
    ];

    /// Returns the action's name, as in `X-Amz-Target: AmazonSQS.<name>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChangeMessageVisibility => "ChangeMessageVisibility",
            Self::ChangeMessageVisibilityBatch => "ChangeMessageVisibilityBatch",
            Self::CreateQueue => "CreateQueue",
            Self::DeleteMessage => "DeleteMessage",
            Self::DeleteMessageBatch => "DeleteMessageBatch",
            Self::DeleteQueue => "DeleteQueue",
            Self::GetQueueAttributes => "GetQueueAttributes",
            Self::GetQueueUrl => "GetQueueUrl",
            Self::ListDeadLetterSourceQueues => "ListDeadLetterSourceQueues",
            Self::ListQueues => "ListQueues",
            Self::PurgeQueue => "PurgeQueue",
            Self::ReceiveMessage => "ReceiveMessage",
            Self::SendMessage => "SendMessage",
            Self::SendMessageBatch => "SendMessageBatch",
            Self::SetQueueAttributes => "SetQueueAttributes",
            Self::StartMessageMoveTask => "StartMessageMoveTask",
        }
    }

    /// Parses an `X-Amz-Target` header.
    pub(crate) fn from_target(target: &str) -> Option<Self> {
        let name = target.strip_prefix("AmazonSQS.")?;
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}
