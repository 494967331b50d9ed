//! Batch requests: errors of the whole batch and of single entries.

use aws_sdk_sqs::operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry,
};

use super::{Kind, Queue, Target, bodies, handle};

fn entry(id: &str, body: impl Into<String>) -> SendMessageBatchRequestEntry {
    SendMessageBatchRequestEntry::builder()
        .id(id)
        .message_body(body)
        .build()
        .expect("id and body are given")
}

async fn send(
    target: &Target,
    queue: &Queue<'_>,
    entries: Vec<SendMessageBatchRequestEntry>,
) -> Result<SendMessageBatchOutput, SendMessageBatchError> {
    let send = target.client.send_message_batch().queue_url(&queue.url);
    let result = send.set_entries(Some(entries)).send().await;
    result.map_err(aws_sdk_sqs::error::SdkError::into_service_error)
}

/// Asserts that the sender is at fault. Source: API_BatchResultErrorEntry, `SenderFault`.
///
/// LocalStack 4.12 never sets it.
fn assert_sender_fault(target: &Target, failed: &[BatchResultErrorEntry]) {
    for entry in failed {
        assert_eq!(entry.sender_fault(), target.kind == Kind::Embedded, "{entry:?}");
    }
}

/// Ten messages are sent in one batch, each with a result under its id.
pub async fn ten_messages_in_a_batch(target: &Target) {
    let queue = target.queue().await;
    let entries = (0..10).map(|n| entry(&format!("e{n}"), format!("body {n}"))).collect();
    let sent = send(target, &queue, entries).await.expect("accepted");
    assert_eq!(sent.successful().len(), 10);
    assert!(sent.failed().is_empty());
    let received = queue.receive(10, 1).await;
    assert_eq!(received.len(), 10);
    for message in &received {
        let result = sent
            .successful()
            .iter()
            .find(|result| Some(result.message_id()) == message.message_id())
            .expect("each message was answered");
        let number = result.id().trim_start_matches('e');
        assert_eq!(message.body(), Some(format!("body {number}").as_str()));
        assert_eq!(message.md5_of_body(), Some(result.md5_of_message_body()));
    }
}

/// An invalid message fails without affecting the others.
pub async fn one_bad_message_fails_alone(target: &Target) {
    let queue = target.queue().await;
    let entries = vec![entry("good", "good"), entry("bad", "bell\u{7}")];
    let sent = send(target, &queue, entries).await.expect("the batch is answered");
    assert_eq!(sent.successful().len(), 1);
    assert_eq!(sent.successful()[0].id(), "good");
    assert_eq!(sent.failed().len(), 1);
    assert_eq!(sent.failed()[0].id(), "bad");
    assert_eq!(sent.failed()[0].code(), "InvalidMessageContents");
    assert_sender_fault(target, sent.failed());
    assert_eq!(bodies(&queue.receive(10, 0).await), ["good"]);
}

/// Repeated ids fail the batch.
pub async fn repeated_ids_fail_the_batch(target: &Target) {
    let queue = target.queue().await;
    let entries = vec![entry("same", "one"), entry("same", "two")];
    let error = send(target, &queue, entries).await.expect_err("refused");
    assert!(error.is_batch_entry_ids_not_distinct(), "{error:?}");
    queue.assert_nothing("none of it is sent").await;
}

/// An empty batch fails.
pub async fn empty_batch_fails(target: &Target) {
    let queue = target.queue().await;
    let error = send(target, &queue, vec![]).await.expect_err("refused");
    assert!(error.is_empty_batch_request(), "{error:?}");
}

/// A batch has at most ten entries.
pub async fn eleven_entries_fail_the_batch(target: &Target) {
    let queue = target.queue().await;
    let entries = (0..11).map(|n| entry(&format!("e{n}"), "x")).collect();
    let error = send(target, &queue, entries).await.expect_err("refused");
    assert!(error.is_too_many_entries_in_batch_request(), "{error:?}");
    queue.assert_nothing("none of it is sent").await;
}

/// Ids consist of letters, digits, hyphens and underscores.
pub async fn invalid_id_fails_the_batch(target: &Target) {
    let queue = target.queue().await;
    let error = send(target, &queue, vec![entry("a b", "x")]).await.expect_err("refused");
    assert!(error.is_invalid_batch_entry_id(), "{error:?}");
}

/// All messages of a batch together have at most 1 MiB.
pub async fn batch_over_one_mebibyte_fails(target: &Target) {
    let queue = target.queue().await;
    let half = 524_288;
    let fits = vec![entry("a", "x".repeat(half)), entry("b", "y".repeat(half))];
    send(target, &queue, fits).await.expect("1 MiB is accepted");
    let over = vec![entry("a", "x".repeat(half)), entry("b", "y".repeat(half + 1))];
    let error = send(target, &queue, over).await.expect_err("more is refused");
    assert!(error.is_batch_request_too_long(), "{error:?}");
}

/// An invalid handle fails alone; the other messages are deleted.
pub async fn one_bad_handle_fails_alone_in_a_delete(target: &Target) {
    let queue = target.queue().await;
    for body in ["a", "b"] {
        queue.send(body).await;
    }
    let received = queue.receive(10, 1).await;
    assert_eq!(received.len(), 2);
    let mut delete = target.client.delete_message_batch().queue_url(&queue.url);
    let handles = [handle(&received[0]), "no handle at all", handle(&received[1])];
    for (index, receipt) in handles.into_iter().enumerate() {
        let entry =
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt);
        delete = delete.entries(entry.build().expect("id and handle are given"));
    }
    let deleted = delete.send().await.expect("the batch is answered");
    let ids: Vec<&str> = deleted.successful().iter().map(|entry| entry.id()).collect();
    assert_eq!(ids, ["0", "2"]);
    assert_eq!(deleted.failed().len(), 1);
    assert_eq!(deleted.failed()[0].id(), "1");
    assert_eq!(deleted.failed()[0].code(), "ReceiptHandleIsInvalid");
    assert_sender_fault(target, deleted.failed());
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
}

/// An invalid handle fails alone; the other timeouts are changed.
pub async fn one_bad_handle_fails_alone_in_a_change(target: &Target) {
    let queue = target.queue().await;
    for body in ["shown", "hidden"] {
        queue.send(body).await;
    }
    let received = queue.receive(10, 1).await;
    assert_eq!(received.len(), 2);
    let mut change = target.client.change_message_visibility_batch().queue_url(&queue.url);
    for message in &received {
        let body = message.body().unwrap_or_default();
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
            .id(body)
            .receipt_handle(handle(message))
            .visibility_timeout(if body == "shown" { 0 } else { 60 });
        change = change.entries(entry.build().expect("id and handle are given"));
    }
    let bad = ChangeMessageVisibilityBatchRequestEntry::builder()
        .id("bad")
        .receipt_handle("no handle at all")
        .visibility_timeout(60);
    change = change.entries(bad.build().expect("id and handle are given"));
    let changed = change.send().await.expect("the batch is answered");
    assert_eq!(changed.successful().len(), 2);
    assert_eq!(changed.failed().len(), 1);
    assert_eq!(changed.failed()[0].id(), "bad");
    assert_eq!(changed.failed()[0].code(), "ReceiptHandleIsInvalid");
    assert_eq!(bodies(&queue.receive(10, 1).await), ["shown"]);
}

/// The rules for ids also hold for deletes.
pub async fn repeated_ids_fail_a_delete_batch(target: &Target) {
    let queue = target.queue().await;
    queue.send("a").await;
    let message = queue.receive_one().await;
    let entry = DeleteMessageBatchRequestEntry::builder()
        .id("same")
        .receipt_handle(handle(&message))
        .build()
        .expect("id and handle are given");
    let delete = target.client.delete_message_batch().queue_url(&queue.url);
    let delete = delete.entries(entry.clone()).entries(entry);
    let error = delete.send().await.expect_err("refused").into_service_error();
    assert!(error.is_batch_entry_ids_not_distinct(), "{error:?}");
    assert_eq!(queue.counts().await, ["0", "1", "0"], "nothing is deleted");
}
