//! Queues: creating, finding, configuring, purging and deleting them.

use aws_sdk_sqs::types::QueueAttributeName;

use super::{Kind, Target, code, unique_name};

/// The same name and attributes return the same queue; other attributes are refused.
pub async fn create_is_idempotent(target: &Target) {
    let name = unique_name();
    let visibility = QueueAttributeName::VisibilityTimeout;
    let first = target.create(&name, [(visibility.clone(), "40")]).await;
    let second = target.create(&name, [(visibility.clone(), "40")]).await;
    assert_eq!(first.url, second.url);
    assert!(first.url.ends_with(&format!("/000000000000/{name}")), "{}", first.url);
    let create = target.client.create_queue().queue_name(&name);
    let other = create.attributes(visibility, "41").send().await;
    let error = other.expect_err("the name is taken").into_service_error();
    assert!(error.is_queue_name_exists(), "{error:?}");
}

/// Names are validated; `.fifo` is only for FIFO queues.
pub async fn bad_names_are_refused(target: &Target) {
    for name in ["with space", "dot.ted", "name.fifo", &"x".repeat(81)] {
        let create = target.client.create_queue().queue_name(name).send().await;
        let error = create.expect_err("refused");
        assert!(code(&error).starts_with("InvalidParameterValue"), "{name}: {}", code(&error));
    }
}

/// The URL of a queue is found by name; an unknown name is a typed error.
pub async fn url_by_name(target: &Target) {
    let name = unique_name();
    let queue = target.create(&name, []).await;
    let found = target.client.get_queue_url().queue_name(&name).send().await;
    assert_eq!(found.expect("found").queue_url(), Some(queue.url.as_str()));
    let missing = target.client.get_queue_url().queue_name(unique_name()).send().await;
    let error = missing.expect_err("not there").into_service_error();
    assert!(error.is_queue_does_not_exist(), "{error:?}");
}

/// Queues are listed by prefix, optionally in pages.
pub async fn listing_by_prefix(target: &Target) {
    let prefix = unique_name();
    let mut expected = Vec::new();
    for suffix in ["a", "b", "c"] {
        expected.push(target.create(&format!("{prefix}-{suffix}"), []).await.url);
    }
    let list = target.client.list_queues().queue_name_prefix(&prefix);
    let all = list.clone().send().await.expect("listed");
    let mut urls = all.queue_urls().to_vec();
    urls.sort();
    assert_eq!(urls, expected);
    let mut pages = list.into_paginator().page_size(2).send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.expect("listed").queue_urls().len());
    }
    assert_eq!(sizes, [2, 1]);
}

/// Attributes have the documented defaults.
pub async fn attributes_have_defaults(target: &Target) {
    let queue = target.queue().await;
    let all = queue.attributes().await;
    for (name, value) in [
        (QueueAttributeName::VisibilityTimeout, "30"),
        (QueueAttributeName::DelaySeconds, "0"),
        (QueueAttributeName::ReceiveMessageWaitTimeSeconds, "0"),
        (QueueAttributeName::MessageRetentionPeriod, "345600"),
        (QueueAttributeName::MaximumMessageSize, "1048576"),
    ] {
        assert_eq!(all.get(&name).map(String::as_str), Some(value), "{name:?}");
    }
    let arn = all.get(&QueueAttributeName::QueueArn).cloned().unwrap_or_default();
    let name = queue.url.rsplit('/').next().unwrap_or_default();
    assert_eq!(arn, format!("arn:aws:sqs:us-east-1:000000000000:{name}"));
    assert!(all.contains_key(&QueueAttributeName::CreatedTimestamp));
    assert!(!all.contains_key(&QueueAttributeName::RedrivePolicy));
    assert!(!all.contains_key(&QueueAttributeName::FifoQueue));
}

/// Attributes can be changed, and only the requested ones are returned.
pub async fn attributes_are_set(target: &Target) {
    let queue = target.queue().await;
    let visibility = QueueAttributeName::VisibilityTimeout;
    let set = target.client.set_queue_attributes().queue_url(&queue.url);
    let set = set.attributes(visibility.clone(), "77");
    set.send().await.expect("set");
    let get = target.client.get_queue_attributes().queue_url(&queue.url);
    let got = get.attribute_names(visibility.clone()).send().await.expect("answered");
    let all = got.attributes().expect("one was asked for");
    assert_eq!(all.len(), 1);
    assert_eq!(all.get(&visibility).map(String::as_str), Some("77"));
}

/// Unknown attributes are refused.
pub async fn unknown_attribute_is_refused(target: &Target) {
    let queue = target.queue().await;
    let get = target.client.get_queue_attributes().queue_url(&queue.url);
    let get = get.attribute_names(QueueAttributeName::from("NoSuchAttribute"));
    let error = get.send().await.expect_err("refused").into_service_error();
    assert!(error.is_invalid_attribute_name(), "{error:?}");
    let set = target.client.set_queue_attributes().queue_url(&queue.url);
    let set = set.attributes(QueueAttributeName::from("NoSuchAttribute"), "1");
    let error = set.send().await.expect_err("refused").into_service_error();
    assert!(error.is_invalid_attribute_name(), "{error:?}");
}

/// A purge removes all messages, including in-flight ones. A second purge within 60 s is refused:
/// API_PurgeQueue, `PurgeQueueInProgress`. LocalStack does so only if configured.
pub async fn purge_empties(target: &Target) {
    let queue = target.queue().await;
    queue.send("a").await;
    queue.send("b").await;
    queue.receive_one().await;
    let purge = target.client.purge_queue().queue_url(&queue.url);
    purge.clone().send().await.expect("purged");
    assert_eq!(queue.counts().await, ["0", "0", "0"]);
    let again = purge.send().await;
    match target.kind {
        Kind::Embedded => {
            let error = again.expect_err("too soon").into_service_error();
            assert!(error.is_purge_queue_in_progress(), "{error:?}");
        }
        Kind::LocalStack => {
            again.expect("LocalStack purges again");
        }
    }
}

/// A deleted queue does not exist. Its name is free after 60 s: API_DeleteQueue,
/// `QueueDeletedRecently`. LocalStack enforces that only if configured.
pub async fn deleted_queue_is_gone(target: &Target) {
    let name = unique_name();
    let queue = target.create(&name, []).await;
    queue.send("x").await;
    let delete = target.client.delete_queue().queue_url(&queue.url);
    delete.send().await.expect("deleted");
    let send = target.client.send_message().queue_url(&queue.url);
    let error = send.message_body("x").send().await.expect_err("refused");
    assert!(error.into_service_error().is_queue_does_not_exist());
    let again = target.client.create_queue().queue_name(&name).send().await;
    match target.kind {
        Kind::Embedded => {
            let error = again.expect_err("too soon").into_service_error();
            assert!(error.is_queue_deleted_recently(), "{error:?}");
        }
        Kind::LocalStack => {
            again.expect("LocalStack makes it again");
        }
    }
}
