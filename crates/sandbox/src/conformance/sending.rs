//! `SendMessage`: accepted and refused messages, and the returned digests.

use std::time::{Duration, Instant};

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{
    MessageAttributeValue, MessageSystemAttributeName, MessageSystemAttributeNameForSends,
    MessageSystemAttributeValue, QueueAttributeName,
};

use super::{Target, assert_took, bodies, code, system};

const LIMIT_BYTES: usize = 1_048_576;
const TRACE: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

fn text(value: &str) -> MessageAttributeValue {
    typed("String", value)
}

fn typed(data_type: &str, value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder()
        .data_type(data_type)
        .string_value(value)
        .build()
        .expect("a data type is given")
}

fn binary(data_type: &str, value: &[u8]) -> MessageAttributeValue {
    MessageAttributeValue::builder()
        .data_type(data_type)
        .binary_value(Blob::new(value))
        .build()
        .expect("a data type is given")
}

/// The response has an id and the MD5 of the body, as the received message.
pub async fn send_answers_with_id_and_md5(target: &Target) {
    let queue = target.queue().await;
    let body = r#"{"id":"evt_1"}"#;
    let send = target.client.send_message().queue_url(&queue.url);
    let sent = send.message_body(body).send().await.expect("accepted");
    assert_eq!(sent.md5_of_message_body(), Some("a7d1a4751fdf70a980c77435fc527ede"));
    assert_eq!(sent.md5_of_message_attributes(), None);
    assert_eq!(sent.sequence_number(), None);
    let message = queue.receive_one().await;
    assert_eq!(message.message_id(), sent.message_id());
    assert_eq!(message.md5_of_body(), sent.md5_of_message_body());
}

/// A body is returned byte for byte, whatever characters it has.
pub async fn bodies_come_back_untouched(target: &Target) {
    let queue = target.queue().await;
    let body = "tab\t line\n return\r quote\" back\\slash 좌석 ☂ 🎟 \u{E000} \u{FFFD} </xml> \u{7F}";
    queue.send(body).await;
    assert_eq!(queue.receive_one().await.body(), Some(body));
}

/// Attributes of each type are returned with the documented digest.
pub async fn attributes_come_back_with_their_md5(target: &Target) {
    let queue = target.queue().await;
    let attributes = [
        ("text", text("seat A-12 ☂")),
        ("count", typed("Number.int", "12")),
        ("raw", binary("Binary.png", &[0, 255, 16])),
    ];
    let mut send = target.client.send_message().queue_url(&queue.url).message_body("x");
    for (name, value) in &attributes {
        send = send.message_attributes(*name, value.clone());
    }
    let sent = send.send().await.expect("accepted");
    // Computed separately, by the algorithm in "Amazon SQS message metadata".
    let md5 = Some("650832f3e3b25d685c5ed3febd0c799f");
    assert_eq!(sent.md5_of_message_attributes(), md5);
    let message = queue.receive_one().await;
    assert_eq!(message.md5_of_message_attributes(), md5);
    let received = message.message_attributes().expect("attributes were asked for");
    assert_eq!(received.len(), attributes.len());
    for (name, value) in attributes {
        assert_eq!(received.get(name), Some(&value), "{name}");
    }
}

/// The X-Ray header is returned as a system attribute with its own digest.
pub async fn trace_header_comes_back(target: &Target) {
    let queue = target.queue().await;
    let value = MessageSystemAttributeValue::builder()
        .data_type("String")
        .string_value(TRACE)
        .build()
        .expect("a data type is given");
    let send = target.client.send_message().queue_url(&queue.url).message_body("x");
    let name = MessageSystemAttributeNameForSends::AwsTraceHeader;
    let send = send.message_system_attributes(name, value);
    let sent = send.send().await.expect("accepted");
    let md5 = Some("5ae4d5d7636402d80f4eb6d213245a88");
    assert_eq!(sent.md5_of_message_system_attributes(), md5);
    let message = queue.receive_one().await;
    assert_eq!(system(&message, MessageSystemAttributeName::AwsTraceHeader), TRACE);
    assert!(message.message_attributes().is_none(), "it is not a message attribute");
}

/// Ten attributes are accepted, eleven are refused. Source: "Message quotas".
///
/// LocalStack 4.12 does not check this.
pub async fn ten_attributes_at_most(target: &Target) {
    let queue = target.queue().await;
    let mut send = target.client.send_message().queue_url(&queue.url).message_body("x");
    for index in 0..10 {
        send = send.message_attributes(format!("name{index}"), text("value"));
    }
    let eleven = send.clone().message_attributes("name10", text("value"));
    send.send().await.expect("ten are accepted");
    let result = eleven.send().await;
    target.refused(result, "InvalidParameterValue");
}

async fn refuses_attribute(target: &Target, name: &str, value: MessageAttributeValue) {
    let queue = target.queue().await;
    let send = target.client.send_message().queue_url(&queue.url).message_body("x");
    let result = send.message_attributes(name, value).send().await;
    let error = result.expect_err("the attribute is refused");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
    queue.assert_nothing("a refused message is not sent").await;
}

/// Values must not be empty.
pub async fn empty_attribute_is_refused(target: &Target) {
    refuses_attribute(target, "name", text("")).await;
}

/// Names must not begin with `AWS.`.
pub async fn reserved_attribute_name_is_refused(target: &Target) {
    refuses_attribute(target, "aws.name", text("value")).await;
}

/// Types are String, Number and Binary.
pub async fn unknown_attribute_type_is_refused(target: &Target) {
    refuses_attribute(target, "name", typed("Boolean", "true")).await;
}

/// Characters that XML does not allow are refused. Source: API_SendMessage,
/// `InvalidMessageContents`.
pub async fn illegal_characters_are_refused(target: &Target) {
    let queue = target.queue().await;
    for body in ["bell\u{7}", "null\u{0}", "\u{FFFE}"] {
        let send = target.client.send_message().queue_url(&queue.url);
        let error = send.message_body(body).send().await.expect_err("refused");
        let service = error.into_service_error();
        assert!(service.is_invalid_message_contents(), "{service:?}");
    }
    queue.assert_nothing("a refused message is not sent").await;
}

/// 1 MiB is accepted, one byte more is refused. Source: "Message quotas".
pub async fn one_mebibyte_at_most(target: &Target) {
    let queue = target.queue().await;
    let send = |bytes: usize| {
        let send = target.client.send_message().queue_url(&queue.url);
        send.message_body("x".repeat(bytes)).send()
    };
    send(LIMIT_BYTES).await.expect("1 MiB is accepted");
    let error = send(LIMIT_BYTES + 1).await.expect_err("more is refused");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
    let message = queue.receive_one().await;
    assert_eq!(message.body().map(str::len), Some(LIMIT_BYTES));
}

/// Names, types and values of attributes count towards the size.
pub async fn attributes_count_towards_the_size(target: &Target) {
    let queue = target.queue().await;
    let attribute_bytes = "name".len() + "String".len() + "value".len();
    let send = |body_bytes: usize| {
        let send = target.client.send_message().queue_url(&queue.url);
        let send = send.message_attributes("name", text("value"));
        send.message_body("x".repeat(body_bytes)).send()
    };
    send(LIMIT_BYTES - attribute_bytes).await.expect("just fits");
    let error = send(LIMIT_BYTES - attribute_bytes + 1).await.expect_err("does not");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
}

/// A message's own delay hides it and counts it as delayed.
pub async fn message_delay(target: &Target) {
    let queue = target.queue().await;
    let since = Instant::now();
    let send = target.client.send_message().queue_url(&queue.url);
    let send = send.message_body("late").delay_seconds(1);
    send.send().await.expect("accepted");
    queue.send("now").await;
    assert_eq!(bodies(&queue.receive(10, 0).await), ["now"]);
    assert_eq!(queue.counts().await, ["0", "1", "1"]);
    assert_eq!(queue.receive_one().await.body(), Some("late"));
    let delay = Duration::from_secs(1);
    assert_took(since, delay, delay + target.lateness());
}

/// The queue's delay is the default; a message's own delay, also 0, overrides it.
pub async fn queue_delay(target: &Target) {
    let queue = target.queue_with([(QueueAttributeName::DelaySeconds, "1")]).await;
    let since = Instant::now();
    queue.send("late").await;
    let send = target.client.send_message().queue_url(&queue.url);
    let send = send.message_body("now").delay_seconds(0);
    send.send().await.expect("accepted");
    assert_eq!(bodies(&queue.receive(10, 0).await), ["now"]);
    assert_eq!(queue.receive_one().await.body(), Some("late"));
    let delay = Duration::from_secs(1);
    assert_took(since, delay, delay + target.lateness());
}

/// Delays are at most 15 minutes. Source: API_SendMessage, `DelaySeconds`.
///
/// LocalStack 4.12 does not check this.
pub async fn delay_out_of_range_is_refused(target: &Target) {
    let queue = target.queue().await;
    let send = target.client.send_message().queue_url(&queue.url);
    let result = send.message_body("x").delay_seconds(901).send().await;
    target.refused(result, "InvalidParameterValue");
}
