//! Message groups on standard queues: the name of a tenant, without any order. Source: developer
//! guide, "Amazon SQS fair queues".

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};

use super::{Target, handle, system};

fn tenant(message: &Message) -> String {
    system(message, MessageSystemAttributeName::MessageGroupId)
}

/// A group is returned with its message and locks no other message of the group.
pub async fn message_group_locks_nothing_on_a_standard_queue(target: &Target) {
    let queue = target.queue().await;
    for body in ["1", "2", "3"] {
        queue.send_of("tenant", body).await;
    }
    queue.send("nobody's").await;
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(queue.receive_one().await);
    }
    let mut seen: Vec<_> = received
        .iter()
        .map(|message| (message.body().unwrap_or_default(), tenant(message)))
        .collect();
    seen.sort_unstable();
    let named = |body| (body, "tenant".to_owned());
    assert_eq!(seen, [named("1"), named("2"), named("3"), ("nobody's", String::new())]);
}

/// A message that is made visible again does not wait for others of its tenant.
pub async fn returned_message_does_not_wait_for_its_tenant(target: &Target) {
    let queue = target.queue().await;
    for body in ["1", "2"] {
        queue.send_of("tenant", body).await;
    }
    let first = queue.receive_one().await;
    let _second = queue.receive_one().await;
    queue.change_visibility(handle(&first), 0).await.expect("the message is in flight");
    assert_eq!(queue.receive_one().await.body(), first.body());
}

/// A message in the dead-letter queue keeps its group.
pub async fn redrive_keeps_the_tenant(target: &Target) {
    let (queue, dlq) = target.queue_with_dlq(1).await;
    queue.send_of("tenant", "1").await;
    let first = queue.receive_one().await;
    queue.change_visibility(handle(&first), 0).await.expect("the message is in flight");
    queue.assert_nothing("it moves").await;
    assert_eq!(tenant(&dlq.receive_one().await), "tenant");
}
