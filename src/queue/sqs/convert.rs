//! Converts between the SDK's types and ours.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{
    self, MessageAttributeValue, MessageSystemAttributeName, MessageSystemAttributeNameForSends,
    MessageSystemAttributeValue,
};

use crate::queue::{Attribute, AttributeValue, Message, MessageGroup, MessageId, ReceiptHandle};

/// Maximum visibility timeout of SQS: 12 hours (AWS: `ChangeMessageVisibility`).
const VISIBILITY_MAX_S: u64 = 12 * 60 * 60;

/// The length from which a body is moved into memory of its own size.
const COPIED_BYTES_MIN: usize = 4 * 1_024;

/// Converts to whole seconds, rounded up, at most the SQS maximum.
pub(super) fn whole_seconds(duration: Duration) -> i32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(up.min(VISIBILITY_MAX_S)).expect("12 hours fit")
}

/// Whether a queue's URL, name or ARN is that of a FIFO queue: FIFO names end in `.fifo`.
pub(super) fn fifo_name(name: &str) -> bool {
    name.ends_with(".fifo")
}

/// Returns the name of the queue with this URL.
pub(super) fn queue_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Converts a received message; `None` without an id or a receipt handle.
/// SQS sends both with every message, and a message without a handle cannot be settled.
pub(super) fn to_message(mut raw: types::Message, is_fifo: bool) -> Option<Message> {
    let id = MessageId(raw.message_id.take()?.into());
    let handle = ReceiptHandle(raw.receipt_handle.take()?.into());
    let mut system = raw.attributes.take().unwrap_or_default();
    let receive_count = system
        .get(&MessageSystemAttributeName::ApproximateReceiveCount)
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    let sent_at = system
        .get(&MessageSystemAttributeName::SentTimestamp)
        .and_then(|ms| ms.parse().ok())
        .and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let mut take = |name| system.remove(&name).map(String::into_boxed_str);
    Some(Message {
        id,
        handle,
        body: raw.body.map(in_its_own_size).unwrap_or_default(),
        receive_count,
        sent_at,
        group: take(MessageSystemAttributeName::MessageGroupId).map(|name| {
            if is_fifo { MessageGroup::Ordered(name) } else { MessageGroup::Tenant(name) }
        }),
        trace_header: take(MessageSystemAttributeName::AwsTraceHeader),
        source_arn: take(MessageSystemAttributeName::DeadLetterQueueSourceArn),
        attributes: raw
            .message_attributes
            .unwrap_or_default()
            .into_iter()
            .filter_map(to_attribute)
            .collect(),
    })
}

/// Returns a body without unused memory. The SDK reserves the length that the body has in the
/// response, where each quote is escaped. For a short one, the copy is not worth its cost.
fn in_its_own_size(body: String) -> String {
    let is_short = body.len() < COPIED_BYTES_MIN;
    if is_short || body.capacity() == body.len() { body } else { body.as_str().to_owned() }
}

fn to_attribute((name, raw): (String, MessageAttributeValue)) -> Option<Attribute> {
    let value = match (raw.string_value, raw.binary_value) {
        (Some(text), _) => AttributeValue::Text(text),
        (None, Some(blob)) => AttributeValue::Binary(blob.into_inner()),
        (None, None) => return None,
    };
    Some(Attribute { name, data_type: raw.data_type, value })
}

pub(super) fn to_sdk_attribute(attribute: Attribute) -> MessageAttributeValue {
    let builder = MessageAttributeValue::builder().data_type(attribute.data_type);
    match attribute.value {
        AttributeValue::Text(text) => builder.string_value(text),
        AttributeValue::Binary(bytes) => builder.binary_value(Blob::new(bytes)),
    }
    .build()
    .expect("the data type is set")
}

/// Returns the system attributes of a message that is sent with this X-Ray header.
pub(super) fn system_attributes(
    trace_header: Option<&str>,
) -> Option<HashMap<MessageSystemAttributeNameForSends, MessageSystemAttributeValue>> {
    let value = MessageSystemAttributeValue::builder().data_type("String");
    let value = value.string_value(trace_header?).build().expect("the data type is set");
    Some(HashMap::from([(MessageSystemAttributeNameForSends::AwsTraceHeader, value)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_takes_no_more_memory_than_it_needs() {
        for (length, is_moved) in [(100, false), (COPIED_BYTES_MIN, true), (70_000, true)] {
            let mut body = String::with_capacity(2 * length);
            body.extend(std::iter::repeat_n('x', length));
            let raw = types::Message::builder().message_id("m").receipt_handle("h").body(body);
            let body = to_message(raw.build(), false).expect("it has an id and a handle").body;
            assert_eq!((body.len(), body.capacity() == length), (length, is_moved));
        }
    }

    #[test]
    fn seconds_are_rounded_up_and_capped_at_twelve_hours() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
        assert_eq!(whole_seconds(Duration::from_millis(30_001)), 31);
        assert_eq!(whole_seconds(Duration::from_secs(1_000_000)), 43_200);
    }

    #[test]
    fn a_message_needs_an_id_and_a_handle() {
        let whole = types::Message::builder().message_id("m").receipt_handle("h").body("{}");
        let message = to_message(whole.build(), false).expect("whole");
        assert_eq!((&*message.id.0, &*message.handle.0, &*message.body), ("m", "h", "{}"));
        assert_eq!(message.receive_count, 1);
        assert!(to_message(types::Message::builder().message_id("m").build(), false).is_none());
        assert!(to_message(types::Message::builder().receipt_handle("h").build(), false).is_none());
    }

    #[test]
    fn invalid_system_attributes_are_ignored() {
        let raw = |count: &str, sent: &str| {
            types::Message::builder()
                .message_id("m")
                .receipt_handle("h")
                .attributes(MessageSystemAttributeName::ApproximateReceiveCount, count)
                .attributes(MessageSystemAttributeName::SentTimestamp, sent)
                .attributes(MessageSystemAttributeName::AwsTraceHeader, "Root=1")
                .attributes(MessageSystemAttributeName::MessageGroupId, "g")
                .build()
        };
        let message = to_message(raw("7", "1500"), true).expect("whole");
        assert_eq!(message.receive_count, 7);
        assert_eq!(message.sent_at, Some(UNIX_EPOCH + Duration::from_millis(1_500)));
        assert_eq!(message.trace_header.as_deref(), Some("Root=1"));
        assert_eq!(message.group, Some(MessageGroup::Ordered("g".into())));
        let message = to_message(raw("many", "18446744073709551615"), false).expect("whole");
        assert_eq!(message.receive_count, 1);
        assert_eq!(message.group, Some(MessageGroup::Tenant("g".into())));
    }

    #[test]
    fn attributes_survive_a_round_trip() {
        for value in [AttributeValue::Text("t".into()), AttributeValue::Binary(vec![0, 255])] {
            let there = Attribute { name: "n".into(), data_type: "String.x".into(), value };
            let back = to_attribute(("n".into(), to_sdk_attribute(there.clone())));
            assert_eq!(back, Some(there));
        }
    }
}
