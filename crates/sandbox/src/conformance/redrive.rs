//! Redrive to a dead-letter queue and back.

use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName};

use super::{Queue, Target, code, handle, system};

/// Receives a message `times` times and makes it visible again each time. Returns when it was sent.
async fn receive_times(queue: &Queue<'_>, times: u32) -> String {
    let mut sent_at = String::new();
    for count in 1..=times {
        let message = queue.receive_one().await;
        let name = MessageSystemAttributeName::ApproximateReceiveCount;
        assert_eq!(system(&message, name), count.to_string());
        let shown = queue.change_visibility(handle(&message), 0).await;
        shown.expect("the message is in flight");
        sent_at = system(&message, MessageSystemAttributeName::SentTimestamp);
    }
    sent_at
}

/// A message moves at the receive after `maxReceiveCount`, with id, body, attributes and the time
/// of sending.
pub async fn message_moves_after_its_last_receive(target: &Target) {
    let (queue, dlq) = target.queue_with_dlq(2).await;
    let value = MessageAttributeValue::builder()
        .data_type("String")
        .string_value("value")
        .build()
        .expect("a data type is given");
    let send = target.client.send_message().queue_url(&queue.url).message_body("poison");
    let sent = send.message_attributes("name", value.clone()).send().await.expect("accepted");
    let sent_at = receive_times(&queue, 2).await;
    assert_eq!(dlq.counts().await, ["0", "0", "0"], "it moves on the third receive");
    queue.assert_nothing("it moves instead of being handed out").await;
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
    let dead = dlq.receive_one().await;
    assert_eq!(dead.message_id(), sent.message_id());
    assert_eq!(system(&dead, MessageSystemAttributeName::SentTimestamp), sent_at);
    assert_eq!(dead.body(), Some("poison"));
    assert_eq!(dead.message_attributes().and_then(|all| all.get("name")), Some(&value));
    let source = queue.attribute(QueueAttributeName::QueueArn).await;
    let name = MessageSystemAttributeName::DeadLetterQueueSourceArn;
    assert_eq!(system(&dead, name), source);
}

/// Other messages are received in the same receive that moves one.
pub async fn other_messages_are_received_beside_one_that_moves(target: &Target) {
    let (queue, dlq) = target.queue_with_dlq(1).await;
    queue.send("poison").await;
    receive_times(&queue, 1).await;
    queue.send("good").await;
    assert_eq!(queue.receive_one().await.body(), Some("good"));
    assert_eq!(queue.receive(10, 0).await.len(), 0);
    assert_eq!(dlq.receive_one().await.body(), Some("poison"));
}

/// The policy reads back as it was set and can be removed.
pub async fn policy_reads_back(target: &Target) {
    let (queue, dlq) = target.queue_with_dlq(3).await;
    let policy = queue.attribute(QueueAttributeName::RedrivePolicy).await;
    let policy: serde_json::Value = serde_json::from_str(&policy).expect("the policy is JSON");
    let arn = dlq.attribute(QueueAttributeName::QueueArn).await;
    assert_eq!(policy["deadLetterTargetArn"], arn.as_str());
    let count = policy["maxReceiveCount"].to_string();
    assert_eq!(count.trim_matches('"'), "3");
    let set = target.client.set_queue_attributes().queue_url(&queue.url);
    let set = set.attributes(QueueAttributeName::RedrivePolicy, "");
    set.send().await.expect("taken away");
    assert_eq!(queue.attribute(QueueAttributeName::RedrivePolicy).await, "");
}

/// A policy must name an existing queue. Source: developer guide, "Configure a dead-letter queue".
///
/// LocalStack 4.12 does not check this.
pub async fn policy_needs_an_existing_queue(target: &Target) {
    let queue = target.queue().await;
    let arn = queue.attribute(QueueAttributeName::QueueArn).await;
    let missing = arn.replace("case-", "none-");
    let policy = format!(r#"{{"deadLetterTargetArn":"{missing}","maxReceiveCount":"3"}}"#);
    let set = target.client.set_queue_attributes().queue_url(&queue.url);
    let set = set.attributes(QueueAttributeName::RedrivePolicy, policy).send().await;
    target.refused(set, "InvalidParameterValue");
}

/// A dead-letter queue lists its source queues.
pub async fn sources_are_listed(target: &Target) {
    let (queue, dlq) = target.queue_with_dlq(3).await;
    let list = target.client.list_dead_letter_source_queues().queue_url(&dlq.url);
    let listed = list.send().await.expect("listed");
    assert_eq!(listed.queue_urls(), [queue.url.as_str()]);
}

/// A move task returns dead-lettered messages to their source queue.
pub async fn move_task_brings_messages_back(target: &Target) {
    let (queue, dlq) = target.queue_with_dlq(1).await;
    queue.send("poison").await;
    receive_times(&queue, 1).await;
    queue.assert_nothing("it moves").await;
    assert_eq!(dlq.counts().await, ["1", "0", "0"]);
    let arn = dlq.attribute(QueueAttributeName::QueueArn).await;
    let start = target.client.start_message_move_task().source_arn(arn);
    let started = start.send().await.expect("started");
    assert!(started.task_handle().is_some_and(|handle| !handle.is_empty()));
    assert_eq!(queue.receive_one().await.body(), Some("poison"));
    assert_eq!(dlq.counts().await, ["0", "0", "0"]);
}

/// A move task needs an existing dead-letter queue as its source.
pub async fn move_task_needs_a_dead_letter_queue(target: &Target) {
    let queue = target.queue().await;
    let arn = queue.attribute(QueueAttributeName::QueueArn).await;
    let missing = arn.replace("case-", "none-");
    let start = |arn: String| target.client.start_message_move_task().source_arn(arn).send();
    let error = start(arn).await.expect_err("not a dead-letter queue");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
    let error = start(missing).await.expect_err("not there").into_service_error();
    assert!(error.is_resource_not_found_exception(), "{error:?}");
}
