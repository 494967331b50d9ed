//! `DeleteMessage` and `ChangeMessageVisibility`: what handles permit, and for how long.

use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName;

use super::{Kind, Target, assert_took, bodies, handle};

/// A deleted message is never received again.
pub async fn delete_removes(target: &Target) {
    let visibility = [(QueueAttributeName::VisibilityTimeout, "1")];
    let queue = target.queue_with(visibility).await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    queue.delete(handle(&message)).await;
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
    assert!(queue.receive(1, 2).await.is_empty(), "a deleted message is not received again");
}

/// Deleting again succeeds. Source: API_DeleteMessage.
pub async fn delete_again_succeeds(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    queue.delete(handle(&message)).await;
    queue.delete(handle(&message)).await;
}

/// A message can be deleted after its visibility timeout if it was not received again.
pub async fn delete_after_the_timeout(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let shown = queue.change_visibility(handle(&message), 0).await;
    shown.expect("the message is in flight");
    assert_eq!(queue.counts().await, ["1", "0", "0"]);
    queue.delete(handle(&message)).await;
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
}

/// After another receive, only the newest handle deletes; an older one returns success. Source:
/// API_DeleteMessage, "the request succeeds, but the message might not be deleted".
///
/// LocalStack 4.12 deletes by any handle.
pub async fn old_handle_deletes_nothing(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let first = queue.receive_one().await;
    let shown = queue.change_visibility(handle(&first), 0).await;
    shown.expect("the message is in flight");
    let second = queue.receive_one().await;
    queue.delete(handle(&first)).await;
    match target.kind {
        Kind::Embedded => assert_eq!(queue.counts().await, ["0", "1", "0"]),
        Kind::LocalStack => assert_eq!(queue.counts().await, ["0", "0", "0"]),
    }
    queue.delete(handle(&second)).await;
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
}

/// Both actions refuse an invalid handle.
pub async fn invalid_handle_is_refused(target: &Target) {
    let queue = target.queue().await;
    let delete = target.client.delete_message().queue_url(&queue.url);
    let error = delete.receipt_handle("no handle at all").send().await.expect_err("refused");
    let error = error.into_service_error();
    assert!(error.is_receipt_handle_is_invalid(), "{error:?}");
    let changed = queue.change_visibility("no handle at all", 1).await;
    assert_eq!(changed, Err("ReceiptHandleIsInvalid".to_owned()));
}

/// A handle of another queue is invalid.
pub async fn handle_of_another_queue_is_refused(target: &Target) {
    let (queue, other) = (target.queue().await, target.queue().await);
    other.send("x").await;
    let message = other.receive_one().await;
    let changed = queue.change_visibility(handle(&message), 0).await;
    assert_eq!(changed, Err("ReceiptHandleIsInvalid".to_owned()));
    assert_eq!(other.counts().await, ["0", "1", "0"]);
}

/// A timeout of 0 makes the message visible at once.
pub async fn visibility_to_zero_shows_at_once(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    assert_eq!(queue.counts().await, ["0", "1", "0"]);
    let shown = queue.change_visibility(handle(&message), 0).await;
    shown.expect("the message is in flight");
    assert_eq!(bodies(&queue.receive(1, 0).await), ["x"]);
}

/// A longer timeout counts from the change and replaces the first.
pub async fn visibility_is_extended(target: &Target) {
    let visibility = [(QueueAttributeName::VisibilityTimeout, "1")];
    let queue = target.queue_with(visibility).await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let since = Instant::now();
    let extended = queue.change_visibility(handle(&message), 4).await;
    extended.expect("the message is in flight");
    assert!(queue.receive(1, 2).await.is_empty(), "hidden past its first timeout");
    queue.receive_one().await;
    let timeout = Duration::from_secs(4);
    assert_took(since, timeout - Duration::from_millis(200), timeout + target.lateness());
}

/// A shorter timeout ends earlier.
pub async fn visibility_is_shortened(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let since = Instant::now();
    let shortened = queue.change_visibility(handle(&message), 1).await;
    shortened.expect("the message is in flight");
    queue.receive_one().await;
    let timeout = Duration::from_secs(1);
    assert_took(since, timeout - Duration::from_millis(200), timeout + target.lateness());
}

/// A visible message is not in flight. Source: API_ChangeMessageVisibility, `MessageNotInflight`.
///
/// LocalStack 4.12 returns success and changes nothing.
pub async fn change_of_a_visible_message(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let shown = queue.change_visibility(handle(&message), 0).await;
    shown.expect("the message is in flight");
    let again = queue.change_visibility(handle(&message), 60).await;
    match target.kind {
        Kind::Embedded => {
            let code = "AWS.SimpleQueueService.MessageNotInflight".to_owned();
            assert_eq!(again, Err(code));
        }
        Kind::LocalStack => assert_eq!(again, Ok(())),
    }
    assert_eq!(bodies(&queue.receive(1, 0).await), ["x"], "it stays visible");
}

/// The visibility of a deleted message cannot be changed.
pub async fn change_of_a_deleted_message(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    queue.delete(handle(&message)).await;
    let changed = queue.change_visibility(handle(&message), 60).await;
    let code = changed.expect_err("the message is gone");
    assert!(code.starts_with("InvalidParameterValue"), "{code}");
}

/// Timeouts are 0 to 43,200 s. Source: API_ChangeMessageVisibility.
///
/// LocalStack 4.12 does not check this.
pub async fn timeout_out_of_range_is_refused(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let changed = queue.change_visibility(handle(&message), 43_201).await;
    match target.kind {
        Kind::Embedded => assert_eq!(changed, Err("InvalidParameterValue".to_owned())),
        Kind::LocalStack => assert_eq!(changed, Ok(())),
    }
    assert_eq!(queue.counts().await, ["0", "1", "0"]);
}

/// The 12 hours count from the receive, so later changes allow less. Source:
/// API_ChangeMessageVisibility and "Amazon SQS visibility timeout".
///
/// LocalStack 4.12 checks each change by itself.
pub async fn twelve_hours_count_from_the_receive(target: &Target) {
    let queue = target.queue().await;
    queue.send("x").await;
    let message = queue.receive_one().await;
    let almost = queue.change_visibility(handle(&message), 43_000).await;
    almost.expect("within 12 hours");
    let over = queue.change_visibility(handle(&message), 43_200).await;
    match target.kind {
        Kind::Embedded => assert_eq!(over, Err("InvalidParameterValue".to_owned())),
        Kind::LocalStack => assert_eq!(over, Ok(())),
    }
}
