//! FIFO queues: order, groups, deduplication. Source: developer guide, "FIFO delivery logic" and
//! "Exactly-once processing".

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};

use super::{Target, bodies, code, handle, system};

/// Messages of a group are received in order, several in one receive.
pub async fn one_receive_takes_a_group_in_order(target: &Target) {
    let queue = target.fifo_with([]).await;
    for body in ["1", "2", "3", "4"] {
        queue.send_fifo("g", body).await;
    }
    let received = queue.receive(3, 1).await;
    assert_eq!(bodies(&received), ["1", "2", "3"]);
    queue.assert_nothing("the group is taken").await;
}

/// While a message of a group is in flight, no other message of it is received; other groups are.
pub async fn group_is_locked_while_a_message_is_in_flight(target: &Target) {
    let queue = target.fifo_with([]).await;
    queue.send_fifo("a", "a1").await;
    queue.send_fifo("a", "a2").await;
    queue.send_fifo("b", "b1").await;
    let first = queue.receive_one().await;
    assert_eq!(first.body(), Some("a1"));
    assert_eq!(bodies(&queue.receive(10, 0).await), ["b1"]);
    queue.assert_nothing("both groups are taken").await;
    assert_eq!(queue.counts().await, ["1", "2", "0"]);
    queue.delete(handle(&first)).await;
    assert_eq!(queue.receive_one().await.body(), Some("a2"));
}

/// A new message of a locked group waits and does not wake a long poll.
pub async fn locked_group_keeps_new_messages(target: &Target) {
    let queue = target.fifo_with([]).await;
    queue.send_fifo("a", "a1").await;
    let first = queue.receive_one().await;
    queue.send_fifo("a", "a2").await;
    assert!(queue.receive(10, 1).await.is_empty());
    queue.delete(handle(&first)).await;
    assert_eq!(queue.receive_one().await.body(), Some("a2"));
}

/// A long poll wakes when a delete unlocks the group.
pub async fn delete_unlocks_the_group(target: &Target) {
    let queue = target.fifo_with([]).await;
    queue.send_fifo("a", "a1").await;
    queue.send_fifo("a", "a2").await;
    let first = queue.receive_one().await;
    let (received, ()) = tokio::join!(biased; queue.receive(10, 10), async {
        queue.assert_nothing("an exchange lets the receive arrive").await;
        queue.delete(handle(&first)).await;
    });
    assert_eq!(bodies(&received), ["a2"]);
}

/// A message that is made visible again comes before later ones of its group.
pub async fn returned_message_keeps_its_place(target: &Target) {
    let queue = target.fifo_with([]).await;
    for body in ["1", "2"] {
        queue.send_fifo("g", body).await;
    }
    let first = queue.receive_one().await;
    let shown = queue.change_visibility(handle(&first), 0).await;
    shown.expect("the message is in flight");
    let received = queue.receive(10, 1).await;
    assert_eq!(bodies(&received), ["1", "2"]);
}

/// Messages that are made visible again in any order are received in their original order.
pub async fn returned_messages_keep_their_order(target: &Target) {
    let queue = target.fifo_with([]).await;
    for body in ["1", "2", "3"] {
        queue.send_fifo("g", body).await;
    }
    let received = queue.receive(10, 1).await;
    for message in received.iter().rev() {
        let shown = queue.change_visibility(handle(message), 0).await;
        shown.expect("the message is in flight");
    }
    assert_eq!(bodies(&queue.receive(10, 1).await), ["1", "2", "3"]);
}

/// A repeated deduplication id is accepted but not enqueued, and returns the first message id.
pub async fn repeated_id_is_enqueued_once(target: &Target) {
    let queue = target.fifo_with([]).await;
    let first = queue.send_fifo("g", "same").await;
    let second = queue.send_fifo("g", "same").await;
    assert_eq!(first, second);
    let received = queue.receive(10, 1).await;
    assert_eq!(received.len(), 1);
    queue.delete(handle(&received[0])).await;
    queue.send_fifo("g", "same").await;
    queue.assert_nothing("not after it was deleted either").await;
}

/// A missing id is replaced by the SHA-256 of the body if the queue is configured so.
///
/// Otherwise the send is refused.
pub async fn deduplication_by_content(target: &Target) {
    let by_content = [(QueueAttributeName::ContentBasedDeduplication, "true")];
    let (queue, plain) = (target.fifo_with(by_content).await, target.fifo_with([]).await);
    let send = |url: &str| {
        let send = target.client.send_message().queue_url(url);
        send.message_body("same").message_group_id("g").send()
    };
    let first = send(&queue.url).await.expect("accepted");
    let second = send(&queue.url).await.expect("accepted");
    assert_eq!(first.message_id(), second.message_id());
    let received = queue.receive(10, 1).await;
    assert_eq!(received.len(), 1);
    let name = MessageSystemAttributeName::MessageDeduplicationId;
    let sha256 = "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5";
    assert_eq!(system(&received[0], name), sha256);
    let error = send(&plain.url).await.expect_err("no id and no digest");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
}

/// A group is required, and a delay is refused.
pub async fn group_is_required_and_delay_refused(target: &Target) {
    let queue = target.fifo_with([]).await;
    let send = target.client.send_message().queue_url(&queue.url).message_body("x");
    let send = send.message_deduplication_id("x");
    let error = send.clone().send().await.expect_err("no group");
    assert!(code(&error).starts_with("MissingParameter"), "{}", code(&error));
    let error = send.message_group_id("g").delay_seconds(1).send().await.expect_err("a delay");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
}

/// Messages have their group, deduplication id and an increasing sequence number.
pub async fn messages_carry_their_sequence(target: &Target) {
    let queue = target.fifo_with([]).await;
    for body in ["1", "2"] {
        queue.send_fifo("g", body).await;
    }
    let received = queue.receive(10, 1).await;
    let sequence = |message: &Message| {
        let number = system(message, MessageSystemAttributeName::SequenceNumber);
        number.parse::<u128>().expect("a number")
    };
    assert!(sequence(&received[0]) < sequence(&received[1]));
    assert_eq!(system(&received[0], MessageSystemAttributeName::MessageGroupId), "g");
    let name = MessageSystemAttributeName::MessageDeduplicationId;
    assert_eq!(system(&received[1], name), "2");
}

/// A delete with an expired handle is refused. Source: "Amazon SQS visibility timeout".
pub async fn expired_handle_is_refused(target: &Target) {
    let queue = target.fifo_with([]).await;
    queue.send_fifo("g", "1").await;
    let message = queue.receive_one().await;
    let shown = queue.change_visibility(handle(&message), 0).await;
    shown.expect("the message is in flight");
    let delete = target.client.delete_message().queue_url(&queue.url);
    let error = delete.receipt_handle(handle(&message)).send().await.expect_err("expired");
    assert!(code(&error).starts_with("InvalidParameterValue"), "{}", code(&error));
    assert_eq!(queue.receive_one().await.body(), Some("1"));
}

/// A FIFO dead-letter queue keeps group and order.
pub async fn redrive_keeps_the_group(target: &Target) {
    let dlq = target.fifo_with([]).await;
    let policy = dlq.redrive_policy(1).await;
    let queue = target.fifo_with([(QueueAttributeName::RedrivePolicy, &policy)]).await;
    for body in ["1", "2"] {
        queue.send_fifo("g", body).await;
    }
    let first = queue.receive_one().await;
    let shown = queue.change_visibility(handle(&first), 0).await;
    shown.expect("the message is in flight");
    assert_eq!(queue.receive_one().await.body(), Some("2"), "the first one moves");
    let dead = dlq.receive_one().await;
    assert_eq!(dead.body(), Some("1"));
    assert_eq!(dead.message_id(), first.message_id());
    assert_eq!(system(&dead, MessageSystemAttributeName::MessageGroupId), "g");
}
