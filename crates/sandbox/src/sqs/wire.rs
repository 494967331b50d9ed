//! The requests and responses of the AWS JSON 1.0 protocol in the form of the SDKs. Only the
//! structure is defined here; values are checked elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::AttributeValue;

/// A request about one queue.
pub(crate) trait Request {
    /// Returns the URL or name of the queue.
    fn queue(&self) -> Option<&str>;
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident by $key:ident { $($field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub(crate) struct $name {
            pub(crate) $key: Option<String>,
            $(pub(crate) $field: $kind,)*
        }

        impl Request for $name {
            fn queue(&self) -> Option<&str> {
                self.$key.as_deref()
            }
        }
    )*};
}

requests! {
    CreateQueue by queue_name { attributes: BTreeMap<String, String>, }
    GetQueueUrl by queue_name {}
    ListQueues by queue_name_prefix { max_results: Option<i64>, next_token: Option<String>, }
    DeleteQueue by queue_url {}
    PurgeQueue by queue_url {}
    GetQueueAttributes by queue_url { attribute_names: Vec<String>, }
    SetQueueAttributes by queue_url { attributes: BTreeMap<String, String>, }
    ListDeadLetterSourceQueues by queue_url {}
    StartMessageMoveTask by source_arn { destination_arn: Option<String>, }
    SendMessage by queue_url {
        message_body: Option<String>,
        delay_seconds: Option<i64>,
        message_attributes: BTreeMap<String, AttributeValue>,
        message_system_attributes: BTreeMap<String, AttributeValue>,
        message_deduplication_id: Option<String>,
        message_group_id: Option<String>,
    }
    SendMessageBatch by queue_url { entries: Vec<SendEntry>, }
    ReceiveMessage by queue_url {
        attribute_names: Vec<String>,
        message_system_attribute_names: Vec<String>,
        message_attribute_names: Vec<String>,
        max_number_of_messages: Option<i64>,
        visibility_timeout: Option<i64>,
        wait_time_seconds: Option<i64>,
    }
    DeleteMessage by queue_url { receipt_handle: Option<String>, }
    DeleteMessageBatch by queue_url { entries: Vec<SettleEntry>, }
    ChangeMessageVisibility by queue_url {
        receipt_handle: Option<String>,
        visibility_timeout: Option<i64>,
    }
    ChangeMessageVisibilityBatch by queue_url { entries: Vec<SettleEntry>, }
}

/// An entry of `SendMessageBatch`: an id and the fields of `SendMessage`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SendEntry {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) message_body: Option<String>,
    #[serde(default)]
    pub(crate) delay_seconds: Option<i64>,
    #[serde(default)]
    pub(crate) message_attributes: BTreeMap<String, AttributeValue>,
    #[serde(default)]
    pub(crate) message_system_attributes: BTreeMap<String, AttributeValue>,
    #[serde(default)]
    pub(crate) message_deduplication_id: Option<String>,
    #[serde(default)]
    pub(crate) message_group_id: Option<String>,
}

impl SendEntry {
    /// Separates the entry's id from the message.
    pub(crate) fn split(self) -> (String, SendMessage) {
        let message = SendMessage {
            queue_url: None,
            message_body: self.message_body,
            delay_seconds: self.delay_seconds,
            message_attributes: self.message_attributes,
            message_system_attributes: self.message_system_attributes,
            message_deduplication_id: self.message_deduplication_id,
            message_group_id: self.message_group_id,
        };
        (self.id, message)
    }
}

/// An entry of a batch that deletes or changes the visibility.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SettleEntry {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) receipt_handle: Option<String>,
    #[serde(default)]
    pub(crate) visibility_timeout: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Nothing {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct QueueUrl {
    pub(crate) queue_url: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct QueueUrls {
    pub(crate) queue_urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

/// The list of source queues, the only list in this API whose name begins with a small letter.
#[derive(Debug, Serialize)]
pub(crate) struct SourceQueueUrls {
    #[serde(rename = "queueUrls")]
    pub(crate) queue_urls: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct QueueAttributes {
    pub(crate) attributes: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskStarted {
    pub(crate) task_handle: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sent {
    #[serde(rename = "MessageId")]
    pub(crate) message_id: String,
    #[serde(rename = "MD5OfMessageBody")]
    pub(crate) body_md5: String,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    pub(crate) attributes_md5: Option<String>,
    #[serde(rename = "MD5OfMessageSystemAttributes", skip_serializing_if = "Option::is_none")]
    pub(crate) system_attributes_md5: Option<String>,
    #[serde(rename = "SequenceNumber", skip_serializing_if = "Option::is_none")]
    pub(crate) sequence_number: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SentEntry {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) sent: Sent,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EntryId {
    pub(crate) id: String,
}

/// The response to a batch: successful and failed entries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct BatchOutcome<T> {
    pub(crate) successful: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<FailedEntry>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FailedEntry {
    pub(crate) id: String,
    pub(crate) sender_fault: bool,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Received<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<ReceivedMessage<'a>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReceivedMessage<'a> {
    #[serde(rename = "MessageId")]
    pub(crate) message_id: &'a str,
    #[serde(rename = "ReceiptHandle")]
    pub(crate) receipt_handle: &'a str,
    #[serde(rename = "MD5OfBody")]
    pub(crate) body_md5: &'a str,
    #[serde(rename = "Body")]
    pub(crate) body: &'a str,
    #[serde(rename = "Attributes", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) system: BTreeMap<&'static str, String>,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    pub(crate) attributes_md5: Option<String>,
    #[serde(rename = "MessageAttributes", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attributes: BTreeMap<&'a str, &'a AttributeValue>,
}
