//! `ReceiveMessage` without waiting: number of messages, visibility timeouts and attributes.

use std::time::{Duration, Instant};

use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName};

use super::{Target, assert_took, bodies, code, handle, system};

/// A receive returns at most ten messages, one by default, each once.
pub async fn ten_messages_at_most(target: &Target) {
    let queue = target.queue().await;
    for number in 0..12 {
        queue.send(&number.to_string()).await;
    }
    let receive = target.client.receive_message().queue_url(&queue.url);
    let one = receive.clone().send().await.expect("answered");
    assert_eq!(one.messages().len(), 1, "one by default");
    let ten = queue.receive(10, 1).await;
    let last = queue.receive(10, 1).await;
    assert_eq!((ten.len(), last.len()), (10, 1));
    let mut all = bodies(&ten);
    all.extend(bodies(&last));
    all.extend(bodies(one.messages()));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 12);
    let eleven = receive.clone().max_number_of_messages(11).send().await;
    let error = eleven.expect_err("out of range");
    assert_eq!(code(&error), "InvalidParameterValue");
}

/// Zero messages cannot be requested. Source: API_ReceiveMessage, "Valid values: 1 to 10".
///
/// LocalStack 4.12 treats 0 as the default.
pub async fn zero_messages_cannot_be_requested(target: &Target) {
    let queue = target.queue().await;
    let receive = target.client.receive_message().queue_url(&queue.url);
    let result = receive.max_number_of_messages(0).send().await;
    target.refused(result, "InvalidParameterValue");
}

/// A received message is hidden for the queue's timeout, then received again with a higher count.
pub async fn visibility_timeout_ends(target: &Target) {
    let queue = target.queue_with([(QueueAttributeName::VisibilityTimeout, "1")]).await;
    queue.send("x").await;
    let first = queue.receive_one().await;
    let since = Instant::now();
    queue.assert_nothing("it is hidden").await;
    let second = queue.receive_one().await;
    let timeout = Duration::from_secs(1);
    assert_took(since, timeout - Duration::from_millis(200), timeout + target.lateness());
    assert_eq!(first.message_id(), second.message_id());
    assert_ne!(handle(&first), handle(&second), "each receive has its own handle");
    let count = MessageSystemAttributeName::ApproximateReceiveCount;
    assert_eq!(system(&first, count.clone()), "1");
    assert_eq!(system(&second, count), "2");
    let since_first = MessageSystemAttributeName::ApproximateFirstReceiveTimestamp;
    assert_eq!(system(&first, since_first.clone()), system(&second, since_first));
}

/// The timeout of the receive overrides the queue's.
pub async fn visibility_timeout_of_the_receive(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let receive = target.client.receive_message().queue_url(&queue.url);
    let received = receive.visibility_timeout(1).send().await.expect("answered");
    let since = Instant::now();
    assert_eq!(received.messages().len(), 1);
    queue.assert_nothing("it is hidden").await;
    queue.receive_one().await;
    let timeout = Duration::from_secs(1);
    assert_took(since, timeout - Duration::from_millis(200), timeout + target.lateness());
}

/// A message with a timeout of 0 stays visible.
pub async fn visibility_timeout_zero(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    for _ in 0..2 {
        let receive = target.client.receive_message().queue_url(&queue.url);
        let received = receive.visibility_timeout(0).send().await.expect("answered");
        assert_eq!(received.messages().len(), 1);
    }
    assert_eq!(queue.counts().await, ["1", "0", "0"]);
}

/// Timestamps and sender are returned on request.
pub async fn system_attributes(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let number = |name| system(&message, name).parse::<u64>().expect("a number");
    let sent_ms = number(MessageSystemAttributeName::SentTimestamp);
    let received_ms = number(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp);
    assert!(sent_ms > 1_600_000_000_000, "milliseconds since 1970: {sent_ms}");
    assert!(received_ms >= sent_ms && received_ms - sent_ms < 60_000);
    assert_ne!(system(&message, MessageSystemAttributeName::SenderId), "");
    assert_eq!(system(&message, MessageSystemAttributeName::MessageGroupId), "");
}

/// Only requested attributes are returned, by the new and the old parameter name.
pub async fn system_attributes_as_requested(target: &Target) {
    let queue = target.queue().await;
    let receive = target.client.receive_message().queue_url(&queue.url).visibility_timeout(0);
    queue.send("x").await;
    let none = receive.clone().send().await.expect("answered");
    assert!(none.messages()[0].attributes().is_none_or(|all| all.is_empty()));
    let name = MessageSystemAttributeName::SentTimestamp;
    let newer = receive.clone().message_system_attribute_names(name.clone());
    let newer = newer.send().await.expect("answered");
    let all = newer.messages()[0].attributes().expect("one was asked for");
    assert!(all.len() == 1 && all.contains_key(&name));
    #[allow(deprecated, reason = "older SDKs ask in this way")]
    let older = receive.attribute_names(QueueAttributeName::All);
    let older = older.send().await.expect("answered");
    let all = older.messages()[0].attributes().expect("all were asked for");
    assert!(all.contains_key(&MessageSystemAttributeName::ApproximateReceiveCount));
    assert!(all.contains_key(&name));
}

/// Message attributes are selected by name, by prefix, or all. The digest covers the returned ones.
pub async fn message_attributes_as_requested(target: &Target) {
    let queue = target.queue().await;
    let mut send = target.client.send_message().queue_url(&queue.url).message_body("x");
    for name in ["text", "trace.id", "trace.flags"] {
        let value = MessageAttributeValue::builder()
            .data_type("String")
            .string_value("seat A-12 ☂")
            .build()
            .expect("a data type is given");
        send = send.message_attributes(name, value);
    }
    send.send().await.expect("accepted");
    for (asked, expected) in [
        (vec![], vec![]),
        (vec!["text"], vec!["text"]),
        (vec!["trace.*"], vec!["trace.flags", "trace.id"]),
        (vec!["text", "trace.id", "none"], vec!["text", "trace.id"]),
        (vec!["All"], vec!["text", "trace.flags", "trace.id"]),
        (vec![".*"], vec!["text", "trace.flags", "trace.id"]),
    ] {
        let mut receive =
            target.client.receive_message().queue_url(&queue.url).visibility_timeout(0);
        for name in &asked {
            receive = receive.message_attribute_names(*name);
        }
        let received = receive.send().await.expect("answered");
        let message = &received.messages()[0];
        let mut names: Vec<&str> = message
            .message_attributes()
            .map(|all| all.keys().map(String::as_str).collect())
            .unwrap_or_default();
        names.sort_unstable();
        assert_eq!(names, expected, "asked for {asked:?}");
        if asked == ["text"] {
            let md5 = Some("3db948111dcb7ec41f514364482232ed");
            assert_eq!(message.md5_of_message_attributes(), md5);
        }
        assert_eq!(message.md5_of_message_attributes().is_some(), !expected.is_empty());
    }
}

/// Counts change through the life of a message.
pub async fn counts_follow(target: &Target) {
    let queue = target.queue().await;
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
    queue.send("a").await;
    queue.send("b").await;
    assert_eq!(queue.counts().await, ["2", "0", "0"]);
    let message = queue.receive_one().await;
    assert_eq!(queue.counts().await, ["1", "1", "0"]);
    queue.delete(handle(&message)).await;
    assert_eq!(queue.counts().await, ["1", "0", "0"]);
}

/// Concurrent receivers never get the same message.
pub async fn receivers_share_without_repeats(target: &Target) {
    let queue = target.queue().await;
    for number in 0..40 {
        queue.send(&number.to_string()).await;
    }
    let receive = || async {
        let mut mine = Vec::new();
        loop {
            let messages = queue.receive(3, 0).await;
            if messages.is_empty() {
                return mine;
            }
            mine.extend(messages.iter().filter_map(|m| m.body().map(str::to_owned)));
        }
    };
    let (a, b, c, d) = tokio::join!(receive(), receive(), receive(), receive());
    let mut all = [a, b, c, d].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40);
    assert_eq!(queue.counts().await, ["0", "40", "0"], "each was received once");
}

/// A missing queue is a typed error for each message action.
pub async fn missing_queue_is_typed(target: &Target) {
    let queue = target.queue().await;
    let url = queue.url.replace("case-", "none-");
    let client = &target.client;
    let send = client.send_message().queue_url(&url).message_body("x").send();
    let error = send.await.expect_err("refused").into_service_error();
    assert!(error.is_queue_does_not_exist(), "{error:?}");
    let receive = client.receive_message().queue_url(&url).send();
    let error = receive.await.expect_err("refused");
    assert_eq!(code(&error), "AWS.SimpleQueueService.NonExistentQueue");
    assert_eq!(error.raw_response().map(|r| r.status().as_u16()), Some(400));
    assert!(error.into_service_error().is_queue_does_not_exist());
    let delete = client.delete_message().queue_url(&url).receipt_handle("x").send();
    let error = delete.await.expect_err("refused").into_service_error();
    assert!(error.is_queue_does_not_exist(), "{error:?}");
}

/// Every response has a request id in the SDK, also errors.
pub async fn answers_carry_a_request_id(target: &Target) {
    use aws_sdk_sqs::operation::RequestId;
    let queue = target.queue().await;
    let receive = target.client.receive_message().queue_url(&queue.url);
    let answer = receive.clone().send().await.expect("answered");
    assert!(answer.request_id().is_some_and(|id| !id.is_empty()));
    let missing = queue.url.replace("case-", "none-");
    let receive = target.client.receive_message().queue_url(missing);
    let error = receive.send().await.expect_err("not there");
    assert!(error.request_id().is_some_and(|id| !id.is_empty()));
}
