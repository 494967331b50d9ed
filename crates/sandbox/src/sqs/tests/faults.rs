//! Tests of the fault settings: each has its effect, is recorded, and can be removed.

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry as ChangeEntry,
    DeleteMessageBatchRequestEntry as DeleteEntry,
};

use super::*;

fn kinds(sqs: &Sqs, url: &str) -> Vec<FaultKind> {
    let entries = sqs.ledger(url).entries;
    let fault = |entry: &Entry| match entry.outcome {
        Outcome::Fault(kind) => Some(kind),
        Outcome::Sent
        | Outcome::Deduplicated
        | Outcome::Delivered { .. }
        | Outcome::Empty
        | Outcome::Deleted
        | Outcome::DeleteStale
        | Outcome::VisibilitySet { .. }
        | Outcome::MovedToDlq
        | Outcome::Refused(_) => None,
    };
    entries.iter().filter_map(fault).collect()
}

#[tokio::test]
async fn errors_are_typed_and_returned_the_requested_number_of_times() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "x");
    let throttled = Fault::Error(ErrorCode::RequestThrottled);
    sqs.faults(&url).fail_next(Action::ReceiveMessage, 2, throttled);
    for _ in 0..2 {
        let receive = client.receive_message().queue_url(&url).send().await;
        let error = receive.unwrap_err().into_service_error();
        assert!(error.is_request_throttled(), "{error:?}");
    }
    assert_eq!(receive(&client, &url).await.len(), 1);
    assert_eq!(kinds(&sqs, &url), [FaultKind::Error; 2]);
}

#[tokio::test]
async fn every_error_code_reaches_the_client() {
    let (sqs, url, client) = server().await;
    for code in [
        ErrorCode::AccessDenied,
        ErrorCode::ExpiredToken,
        ErrorCode::InternalError,
        ErrorCode::KmsAccessDenied,
        ErrorCode::KmsThrottled,
        ErrorCode::OverLimit,
        ErrorCode::QueueDoesNotExist,
        ErrorCode::ServiceUnavailable,
    ] {
        sqs.faults(&url).fail_next(Action::ReceiveMessage, 1, Fault::Error(code));
        let receive = client.receive_message().queue_url(&url).send().await;
        let error = receive.unwrap_err();
        let status = error.raw_response().map(|response| response.status().as_u16());
        assert_eq!(status, Some(code.http_status()));
        assert_eq!(error.code(), Some(code.query_code()));
    }
}

#[tokio::test]
async fn bare_statuses_and_resets_have_no_effect() {
    let (sqs, url, client) = server().await;
    for (fault, status) in [(Fault::Http(503), Some(503)), (Fault::Reset, None)] {
        sqs.faults(&url).fail_next(Action::SendMessage, 1, fault);
        let send = client.send_message().queue_url(&url).message_body("x");
        let error = send.send().await.unwrap_err();
        let seen = error.raw_response().map(|response| response.status().as_u16());
        assert_eq!(seen, status, "{error:?}");
    }
    assert_eq!(sqs.counts(&url).total(), 0);
    assert_eq!(kinds(&sqs, &url), [FaultKind::Http, FaultKind::Reset]);
}

#[tokio::test]
async fn a_lost_reply_takes_effect_first() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "x");
    sqs.faults(&url).fail_next(Action::ReceiveMessage, 1, Fault::ReplyLost);
    let receive = client.receive_message().queue_url(&url).send().await;
    assert!(receive.unwrap_err().raw_response().is_none());
    assert_eq!(sqs.counts(&url).in_flight, 1);
    assert_eq!(kinds(&sqs, &url), [FaultKind::ReplyLost]);
}

#[tokio::test]
async fn latency_delays_calls() {
    let (sqs, url, client) = server().await;
    let fixed = Duration::from_millis(80);
    sqs.faults(&url).latency(Action::ReceiveMessage, fixed, Duration::from_millis(10));
    let since = std::time::Instant::now();
    receive(&client, &url).await;
    assert!(since.elapsed() >= fixed);
    // Delayed, not executed: another call can overtake it.
    sqs.faults(&url).latency(Action::ReceiveMessage, SOON, Duration::ZERO);
    tokio::select! {
        biased;
        _ = receive(&client, &url) => panic!("a receive ended before {SOON:?}"),
        seen = sqs.wait_until(&url, |_| true, SOON) => assert!(seen),
    }
}

#[tokio::test]
async fn duplicates_are_delivered_again_at_once() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "x");
    sqs.faults(&url).duplicate_next(1);
    let first = receive(&client, &url).await;
    assert_eq!(first.len(), 1, "a receive returns a message once");
    let second = receive(&client, &url).await;
    assert_eq!(first[0].message_id(), second[0].message_id());
    assert_ne!(first[0].receipt_handle(), second[0].receipt_handle());
    assert_eq!(receive(&client, &url).await.len(), 0);
    assert_eq!(kinds(&sqs, &url), [FaultKind::Duplicate]);
}

#[tokio::test]
async fn batch_entries_fail_separately() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "a");
    sqs.send(&url, "b");
    let received = receive(&client, &url).await;
    let handles = received.iter().map(|m| m.receipt_handle().unwrap());
    let faults = sqs.faults(&url);
    faults.fail_next_visibility_entries(1);
    faults.fail_next_delete_entries(1);
    let mut change = client.change_message_visibility_batch().queue_url(&url);
    let mut delete = client.delete_message_batch().queue_url(&url);
    for (id, handle) in handles.enumerate() {
        let entry = ChangeEntry::builder().id(id.to_string()).receipt_handle(handle);
        change = change.entries(entry.visibility_timeout(60).build().unwrap());
        let entry = DeleteEntry::builder().id(id.to_string()).receipt_handle(handle);
        delete = delete.entries(entry.build().unwrap());
    }
    let changed = change.send().await.unwrap();
    assert_eq!((changed.successful().len(), changed.failed()[0].id()), (1, "0"));
    let deleted = delete.send().await.unwrap();
    assert_eq!((deleted.successful().len(), deleted.failed()[0].id()), (1, "0"));
    assert_eq!(deleted.failed()[0].code(), "InternalError");
    assert!(!deleted.failed()[0].sender_fault());
    assert_eq!(sqs.counts(&url).total(), 1);
    assert_eq!(kinds(&sqs, &url), [FaultKind::BatchEntry; 2]);
}

#[tokio::test]
async fn a_silent_delete_deletes_nothing() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "x");
    let received = receive(&client, &url).await;
    sqs.faults(&url).delete_next_silently(1);
    for expected in [1, 0] {
        let delete = client.delete_message().queue_url(&url);
        let delete = delete.set_receipt_handle(received[0].receipt_handle.clone());
        delete.send().await.unwrap();
        assert_eq!(sqs.counts(&url).total(), expected);
    }
    assert_eq!(kinds(&sqs, &url), [FaultKind::SilentDelete]);
}

#[tokio::test]
async fn random_faults_repeat_with_their_seed_and_can_be_removed() {
    let (sqs, url, client) = server().await;
    let faults = sqs.faults(&url);
    let mut runs = Vec::new();
    for _ in 0..2 {
        faults.seed(7);
        faults.fail_sometimes(Action::ReceiveMessage, 0.5, Fault::Http(500));
        let mut run = Vec::new();
        for _ in 0..32 {
            run.push(client.receive_message().queue_url(&url).send().await.is_ok());
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&true) && runs[0].contains(&false));
    faults.clear();
    for _ in 0..32 {
        receive(&client, &url).await;
    }
}
