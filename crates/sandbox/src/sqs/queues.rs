//! The actions on queues.

use std::collections::BTreeMap;

use super::batch::bounded;
use super::error::{ErrorCode, SqsError};
use super::settings::{ACCOUNT, queue_arn, queue_name, unknown_attribute};
use super::wire;
use super::world::Shared;

/// Maximum number of queues in a page. Source: API_ListQueues.
const LIST_MAX: u32 = 1000;

pub(crate) fn create(
    shared: &Shared,
    input: wire::CreateQueue,
) -> Result<wire::QueueUrl, SqsError> {
    let name = input.queue_name.ok_or_else(|| SqsError::missing("QueueName"))?;
    let now = shared.now();
    shared.lock().create(&name, &input.attributes, now)?;
    Ok(wire::QueueUrl { queue_url: shared.url(&name) })
}

pub(crate) fn get_url(
    shared: &Shared,
    input: wire::GetQueueUrl,
) -> Result<wire::QueueUrl, SqsError> {
    let name = input.queue_name.ok_or_else(|| SqsError::missing("QueueName"))?;
    let now = shared.now();
    shared.lock().queue(Some(&name), now)?;
    Ok(wire::QueueUrl { queue_url: shared.url(&name) })
}

pub(crate) fn list(shared: &Shared, input: wire::ListQueues) -> Result<wire::QueueUrls, SqsError> {
    let max = bounded("MaxResults", input.max_results, 1, LIST_MAX)?;
    let limit = usize::try_from(max.unwrap_or(LIST_MAX)).unwrap_or(usize::MAX);
    let prefix = input.queue_name_prefix.unwrap_or_default();
    let after = input.next_token.unwrap_or_default();
    let world = shared.lock();
    let mut names = world.names().filter(|name| name.starts_with(&prefix) && **name > after);
    let page: Vec<&String> = names.by_ref().take(limit).collect();
    // A token is returned only if pages were requested. Source: API_ListQueues.
    let next_token =
        page.last().filter(|_| max.is_some() && names.next().is_some()).map(|name| (*name).clone());
    let queue_urls = page.iter().map(|name| shared.url(name)).collect();
    Ok(wire::QueueUrls { queue_urls, next_token })
}

pub(crate) fn delete(shared: &Shared, input: wire::DeleteQueue) -> Result<wire::Nothing, SqsError> {
    let now = shared.now();
    shared.lock().delete(input.queue_url.as_deref(), now)?;
    Ok(wire::Nothing {})
}

pub(crate) fn purge(shared: &Shared, input: wire::PurgeQueue) -> Result<wire::Nothing, SqsError> {
    let now = shared.now();
    shared.lock().purge(input.queue_url.as_deref(), now)?;
    Ok(wire::Nothing {})
}

pub(crate) fn get_attributes(
    shared: &Shared,
    input: wire::GetQueueAttributes,
) -> Result<wire::QueueAttributes, SqsError> {
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(input.queue_url.as_deref(), now)?;
    let counts = queue.counts();
    let mut all = queue.settings.attributes();
    for (name, value) in [
        ("QueueArn", queue_arn(&queue.name)),
        ("ApproximateNumberOfMessages", counts.visible.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
        ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
        ("CreatedTimestamp", queue.created_s.to_string()),
        ("LastModifiedTimestamp", queue.modified_s.to_string()),
    ] {
        all.insert(name.to_owned(), value);
    }
    drop(world);
    let attributes = select(all, &input.attribute_names)?;
    Ok(wire::QueueAttributes { attributes })
}

/// Attributes that a queue supports even if they are not set.
const OPTIONAL: [&str; 10] = [
    "Policy",
    "RedrivePolicy",
    "RedriveAllowPolicy",
    "KmsMasterKeyId",
    "KmsDataKeyReusePeriodSeconds",
    "SqsManagedSseEnabled",
    "FifoQueue",
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "FifoThroughputLimit",
];

fn select(
    mut all: BTreeMap<String, String>,
    names: &[String],
) -> Result<BTreeMap<String, String>, SqsError> {
    if names.iter().any(|name| name == "All") {
        return Ok(all);
    }
    let known = |name: &str| all.contains_key(name) || OPTIONAL.contains(&name);
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(unknown_attribute(name));
    }
    all.retain(|name, _| names.contains(name));
    Ok(all)
}

pub(crate) fn set_attributes(
    shared: &Shared,
    input: wire::SetQueueAttributes,
) -> Result<wire::Nothing, SqsError> {
    let now = shared.now();
    shared.lock().reconfigure(input.queue_url.as_deref(), &input.attributes, now)?;
    Ok(wire::Nothing {})
}

pub(crate) fn list_sources(
    shared: &Shared,
    input: wire::ListDeadLetterSourceQueues,
) -> Result<wire::SourceQueueUrls, SqsError> {
    let now = shared.now();
    let mut world = shared.lock();
    let name = world.queue(input.queue_url.as_deref(), now)?.name.clone();
    let sources = world.sources_of(&name);
    Ok(wire::SourceQueueUrls { queue_urls: sources.iter().map(|name| shared.url(name)).collect() })
}

/// Moves all messages before the response, so there is no task to list or cancel.
pub(crate) fn start_move(
    shared: &Shared,
    input: wire::StartMessageMoveTask,
) -> Result<wire::TaskStarted, SqsError> {
    let source = input.source_arn.ok_or_else(|| SqsError::missing("SourceArn"))?;
    let not_found = || {
        SqsError::new(
            ErrorCode::ResourceNotFound,
            "The resource that you specified for the SourceArn parameter doesn't exist.",
        )
    };
    let now = shared.now();
    let mut world = shared.lock();
    world.queue(Some(&source), now).map_err(|_| not_found())?;
    world.move_back(&source, input.destination_arn.as_deref(), now)?;
    Ok(wire::TaskStarted {
        task_handle: format!("{ACCOUNT}-{}-{}", queue_name(&source), now.epoch_ms),
    })
}
