//! The errors of the SQS API: their names in both protocols, HTTP statuses and texts. `server`
//! builds the HTTP response.

use std::fmt;

/// An error response of SQS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsError {
    /// The error code.
    pub code: ErrorCode,
    /// The error text. It never has a message body.
    pub message: String,
}

impl SqsError {
    /// Creates an error with its own text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Creates an `InvalidParameterValue` with the usual text of SQS. The value is truncated to 64
    /// characters.
    pub(crate) fn parameter(name: &str, value: impl fmt::Display, reason: &str) -> Self {
        let value: String = value.to_string().chars().take(64).collect();
        Self::new(
            ErrorCode::InvalidParameterValue,
            format!("Value {value} for parameter {name} is invalid. Reason: {reason}"),
        )
    }

    pub(crate) fn missing(name: &str) -> Self {
        Self::new(
            ErrorCode::MissingParameter,
            format!("The request must contain the parameter {name}."),
        )
    }

    pub(crate) fn no_such_queue() -> Self {
        Self::new(ErrorCode::QueueDoesNotExist, "The specified queue does not exist.")
    }
}

impl fmt::Display for SqsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.shape(), self.message)
    }
}

impl std::error::Error for SqsError {}

/// The errors that this server returns. Source: the "Errors" sections of the SQS API reference and
/// its "Common Error Types".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The caller lacks the permission (403).
    AccessDenied,
    /// Two entries of a batch have the same id.
    BatchEntryIdsNotDistinct,
    /// All entries together exceed the size limit.
    BatchRequestTooLong,
    /// A batch without entries.
    EmptyBatchRequest,
    /// The security token has expired (403).
    ExpiredToken,
    /// An internal error of SQS (500).
    InternalError,
    /// An unknown action.
    InvalidAction,
    /// An unknown queue attribute.
    InvalidAttributeName,
    /// A queue attribute out of its range.
    InvalidAttributeValue,
    /// An entry id other than 1-80 letters, digits, `-`, `_`.
    InvalidBatchEntryId,
    /// Characters that SQS does not accept.
    InvalidMessageContents,
    /// A parameter out of its range.
    InvalidParameterValue,
    /// The request is unsigned or uses plain HTTP.
    InvalidSecurity,
    /// The caller may not use the queue's KMS key.
    KmsAccessDenied,
    /// KMS throttles the queue's key.
    KmsThrottled,
    /// The body is not JSON of the action's shape.
    Serialization,
    /// The message is not in flight.
    MessageNotInflight,
    /// A required parameter is missing.
    MissingParameter,
    /// Too many messages in flight.
    OverLimit,
    /// A purge within 60 s after another.
    PurgeQueueInProgress,
    /// A queue of this name was deleted within the last 60 s.
    QueueDeletedRecently,
    /// No queue has this name or URL.
    QueueDoesNotExist,
    /// A queue of this name exists with other attributes.
    QueueNameExists,
    /// Not a receipt handle of this queue.
    ReceiptHandleIsInvalid,
    /// Too many requests.
    RequestThrottled,
    /// A resource other than the queue does not exist (404).
    ResourceNotFound,
    /// SQS is not available (503).
    ServiceUnavailable,
    /// More than ten entries in a batch.
    TooManyEntriesInBatchRequest,
    /// Not supported for this kind of queue or request.
    UnsupportedOperation,
}

impl ErrorCode {
    /// Returns the name in the JSON protocol's `__type`.
    pub fn shape(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::BatchEntryIdsNotDistinct => "BatchEntryIdsNotDistinct",
            Self::BatchRequestTooLong => "BatchRequestTooLong",
            Self::EmptyBatchRequest => "EmptyBatchRequest",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::InternalError => "InternalFailure",
            Self::InvalidAction => "UnknownOperationException",
            Self::InvalidAttributeName => "InvalidAttributeName",
            Self::InvalidAttributeValue => "InvalidAttributeValue",
            Self::InvalidBatchEntryId => "InvalidBatchEntryId",
            Self::InvalidMessageContents => "InvalidMessageContents",
            Self::InvalidParameterValue => "InvalidParameterValueException",
            Self::InvalidSecurity => "InvalidSecurity",
            Self::KmsAccessDenied => "KmsAccessDenied",
            Self::KmsThrottled => "KmsThrottled",
            Self::Serialization => "SerializationException",
            Self::MessageNotInflight => "MessageNotInflight",
            Self::MissingParameter => "MissingRequiredParameterException",
            Self::OverLimit => "OverLimit",
            Self::PurgeQueueInProgress => "PurgeQueueInProgress",
            Self::QueueDeletedRecently => "QueueDeletedRecently",
            Self::QueueDoesNotExist => "QueueDoesNotExist",
            Self::QueueNameExists => "QueueNameExists",
            Self::ReceiptHandleIsInvalid => "ReceiptHandleIsInvalid",
            Self::RequestThrottled => "RequestThrottled",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::TooManyEntriesInBatchRequest => "TooManyEntriesInBatchRequest",
            Self::UnsupportedOperation => "UnsupportedOperation",
        }
    }

    /// Returns the name in the older query protocol. SDKs read it from `x-amzn-query-error` and
    /// from the `Code` of a failed batch entry.
    pub fn query_code(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDenied",
            Self::BatchEntryIdsNotDistinct => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            Self::BatchRequestTooLong => "AWS.SimpleQueueService.BatchRequestTooLong",
            Self::EmptyBatchRequest => "AWS.SimpleQueueService.EmptyBatchRequest",
            Self::ExpiredToken => "ExpiredToken",
            Self::InternalError => "InternalError",
            Self::InvalidAction => "InvalidAction",
            Self::InvalidAttributeName => "InvalidAttributeName",
            Self::InvalidAttributeValue => "InvalidAttributeValue",
            Self::InvalidBatchEntryId => "AWS.SimpleQueueService.InvalidBatchEntryId",
            Self::InvalidMessageContents => "InvalidMessageContents",
            Self::InvalidParameterValue => "InvalidParameterValue",
            Self::InvalidSecurity => "InvalidSecurity",
            Self::KmsAccessDenied => "KMS.AccessDeniedException",
            Self::KmsThrottled => "KMS.ThrottlingException",
            Self::Serialization => "MalformedInput",
            Self::MessageNotInflight => "AWS.SimpleQueueService.MessageNotInflight",
            Self::MissingParameter => "MissingParameter",
            Self::OverLimit => "OverLimit",
            Self::PurgeQueueInProgress => "AWS.SimpleQueueService.PurgeQueueInProgress",
            Self::QueueDeletedRecently => "AWS.SimpleQueueService.QueueDeletedRecently",
            Self::QueueDoesNotExist => "AWS.SimpleQueueService.NonExistentQueue",
            Self::QueueNameExists => "QueueAlreadyExists",
            Self::ReceiptHandleIsInvalid => "ReceiptHandleIsInvalid",
            Self::RequestThrottled => "RequestThrottled",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::TooManyEntriesInBatchRequest => {
                "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"
            }
            Self::UnsupportedOperation => "AWS.SimpleQueueService.UnsupportedOperation",
        }
    }

    /// Returns the HTTP status.
    pub fn http_status(self) -> u16 {
        match self {
            Self::AccessDenied | Self::ExpiredToken | Self::InvalidSecurity => 403,
            Self::ResourceNotFound => 404,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::BatchEntryIdsNotDistinct
            | Self::BatchRequestTooLong
            | Self::EmptyBatchRequest
            | Self::InvalidAction
            | Self::InvalidAttributeName
            | Self::InvalidAttributeValue
            | Self::InvalidBatchEntryId
            | Self::InvalidMessageContents
            | Self::InvalidParameterValue
            | Self::KmsAccessDenied
            | Self::KmsThrottled
            | Self::Serialization
            | Self::MessageNotInflight
            | Self::MissingParameter
            | Self::OverLimit
            | Self::PurgeQueueInProgress
            | Self::QueueDeletedRecently
            | Self::QueueDoesNotExist
            | Self::QueueNameExists
            | Self::ReceiptHandleIsInvalid
            | Self::RequestThrottled
            | Self::TooManyEntriesInBatchRequest
            | Self::UnsupportedOperation => 400,
        }
    }

    /// Returns whether the caller is at fault, for `SenderFault` and `x-amzn-query-error`.
    pub fn is_sender_fault(self) -> bool {
        self.http_status() < 500
    }
}
