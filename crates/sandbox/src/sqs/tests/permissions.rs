//! Tests of permissions: only granted actions are executed, and a refusal names the missing
//! permission.

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry as DeleteEntry;

use super::*;
use crate::sqs::settings::{queue_arn, queue_name};

#[tokio::test]
async fn only_granted_actions_are_executed_and_batches_use_the_same_permission() {
    let (sqs, url, client) = server().await;
    let other = sqs.create_queue("other", QueueSpec::default());
    sqs.send(&url, "x");
    let grant = |action: &str| Grant {
        action: format!("sqs:{action}"),
        resource: queue_arn(queue_name(&url)),
    };
    sqs.authorize(vec![grant("ReceiveMessage")]);
    let message = receive(&client, &url).await.remove(0);
    let entry = DeleteEntry::builder().id("0").set_receipt_handle(message.receipt_handle);
    let entry = entry.build().unwrap();
    let delete = client.delete_message_batch().queue_url(&url).entries(entry);
    let error = delete.clone().send().await.unwrap_err();
    assert_eq!(error.code(), Some("AccessDenied"));
    let said = error.message().unwrap();
    assert!(
        said.contains("not authorized to perform: sqs:deletemessage on resource: arn:"),
        "{said}"
    );
    assert_eq!(sqs.counts(&url).total(), 1, "a denied delete has no effect");
    let elsewhere = client.receive_message().queue_url(&other).send().await;
    assert!(elsewhere.is_err(), "the permission is for another queue");
    sqs.authorize(vec![grant("DeleteMessage")]);
    delete.send().await.unwrap();
    assert_eq!(sqs.counts(&url).total(), 0);
    assert!(client.list_queues().send().await.is_err());
}
