//! Tests of partial failures: each permission fails alone, in single calls and batches, for its
//! time.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry as ChangeEntry,
    DeleteMessageBatchRequestEntry as DeleteEntry, QueueAttributeName,
    SendMessageBatchRequestEntry as SendEntry,
};

use super::*;

/// Calls every action with this permission and returns the error codes.
async fn ask(client: &Client, url: &str, right: Right) -> Vec<Option<String>> {
    fn code<T, E: ProvideErrorMetadata>(answer: Result<T, E>) -> Option<String> {
        // The handles are invalid: a call that checks the handle was allowed.
        let code = answer.err()?.code()?.to_owned();
        (code != "ReceiptHandleIsInvalid").then_some(code)
    }
    match right {
        Right::Receive => vec![code(client.receive_message().queue_url(url).send().await)],
        Right::ChangeVisibility => {
            let one = client.change_message_visibility().queue_url(url);
            let one = one.receipt_handle("x").visibility_timeout(5).send().await;
            let entry = ChangeEntry::builder().id("0").receipt_handle("x").visibility_timeout(5);
            let batch = client.change_message_visibility_batch().queue_url(url);
            let batch = batch.entries(entry.build().unwrap()).send().await;
            vec![code(one), code(batch)]
        }
        Right::Delete => {
            let one = client.delete_message().queue_url(url).receipt_handle("x").send().await;
            let entry = DeleteEntry::builder().id("0").receipt_handle("x").build().unwrap();
            let batch = client.delete_message_batch().queue_url(url).entries(entry).send().await;
            vec![code(one), code(batch)]
        }
        Right::Send => {
            let one = client.send_message().queue_url(url).message_body("x").send().await;
            let entry = SendEntry::builder().id("0").message_body("x").build().unwrap();
            let batch = client.send_message_batch().queue_url(url).entries(entry).send().await;
            vec![code(one), code(batch)]
        }
        Right::ReadAttributes => {
            let read = client.get_queue_attributes().queue_url(url);
            vec![code(read.attribute_names(QueueAttributeName::All).send().await)]
        }
    }
}

#[tokio::test]
async fn a_failure_affects_only_its_own_permission() {
    let (sqs, url, client) = server().await;
    let faults = sqs.faults(&url);
    for (ailment, code) in [
        (Ailment::Denied, "AccessDenied"),
        (Ailment::Failing, "InternalError"),
        (Ailment::Throttled, "RequestThrottled"),
    ] {
        for ailing in Right::ALL {
            faults.ail(ailing, ailment);
            for right in Right::ALL {
                let said = ask(&client, &url, right).await;
                let expected = (right == ailing).then(|| code.to_owned());
                assert!(said.iter().all(|it| *it == expected), "{ailing:?} {right:?}: {said:?}");
            }
            faults.heal(ailing);
            assert!(ask(&client, &url, ailing).await.iter().all(Option::is_none), "{ailing:?}");
        }
    }
    // Three failures of five permissions, three of which have batches.
    assert_eq!(sqs.ledger(&url).faults, 3 * (5 + 3));
}

#[tokio::test]
async fn a_denial_names_the_action_and_does_not_affect_other_queues() {
    let (sqs, url, client) = server().await;
    let other = sqs.create_queue("other", QueueSpec::default());
    sqs.faults(&url).ail(Right::Delete, Ailment::Denied);
    let denied = client.delete_message().queue_url(&url).receipt_handle("x").send().await;
    let error = denied.unwrap_err();
    let said = error.message().unwrap();
    assert!(said.contains("not authorized to perform: sqs:deletemessage on resource"), "{said}");
    assert!(ask(&client, &other, Right::Delete).await.iter().all(Option::is_none));
}

#[tokio::test]
async fn a_failure_lasts_for_its_time() {
    let (sqs, url, client) = server().await;
    let time = Duration::from_millis(300);
    let began = Instant::now();
    sqs.faults(&url).ail_for(Right::Receive, Ailment::Denied, time);
    let mut denied = 0;
    while ask(&client, &url, Right::Receive).await != [None] {
        denied += 1;
        assert!(began.elapsed() < SOON, "the receive is still denied");
    }
    assert!(denied > 0 && began.elapsed() >= time);
}

#[tokio::test]
async fn a_slow_action_is_executed_later() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "x");
    let time = Duration::from_millis(200);
    sqs.faults(&url).ail(Right::Receive, Ailment::Slow(time));
    let began = Instant::now();
    assert_eq!(receive(&client, &url).await.len(), 1);
    assert!(began.elapsed() >= time);
}
