//! `SendMessage` and `SendMessageBatch`: validation and response.

use tokio::time::Duration;

use super::action::Action;
use super::batch;
use super::error::{ErrorCode, SqsError};
use super::fifo::Recent;
use super::ledger::Outcome;
use super::message::{
    Checked, Content, MESSAGE_BYTES_MAX, NewMessage, TRACE_HEADER, body_sha256, trace_header_md5,
};
use super::queue::{Now, Queue};
use super::wire;
use super::world::Shared;

/// Maximum number of characters of `MessageGroupId` and `MessageDeduplicationId`. Source:
/// API_SendMessage.
const TOKEN_CHARS_MAX: usize = 128;

pub(crate) fn send(shared: &Shared, input: wire::SendMessage) -> Result<wire::Sent, SqsError> {
    let url = input.queue_url.clone();
    let checked = Checked::new(message(input)?)?;
    let now = shared.now();
    let mut world = shared.lock();
    enqueue(world.queue(url.as_deref(), now)?, Action::SendMessage, checked, now)
}

/// Sends a message from within this process.
pub(crate) fn send_new(
    shared: &Shared,
    url: &str,
    message: NewMessage,
) -> Result<String, SqsError> {
    let checked = Checked::new(message)?;
    let now = shared.now();
    let mut world = shared.lock();
    let sent = enqueue(world.queue(Some(url), now)?, Action::SendMessage, checked, now)?;
    Ok(sent.message_id)
}

pub(crate) fn send_batch(
    shared: &Shared,
    input: wire::SendMessageBatch,
) -> Result<wire::BatchOutcome<wire::SentEntry>, SqsError> {
    batch::check_ids(input.entries.iter().map(|entry| entry.id.as_str()))?;
    let checked: Vec<(String, Result<Checked, SqsError>)> = input
        .entries
        .into_iter()
        .map(wire::SendEntry::split)
        .map(|(id, entry)| (id, message(entry).and_then(Checked::new)))
        .collect();
    let size_bytes: usize = checked
        .iter()
        .filter_map(|(_, checked)| checked.as_ref().ok())
        .map(|checked| checked.size_bytes)
        .sum();
    if size_bytes > MESSAGE_BYTES_MAX {
        return Err(SqsError::new(
            ErrorCode::BatchRequestTooLong,
            format!(
                "Batch requests cannot be longer than {MESSAGE_BYTES_MAX} bytes. You have sent {size_bytes} bytes."
            ),
        ));
    }
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(input.queue_url.as_deref(), now)?;
    Ok(batch::run(checked, |checked| enqueue(queue, Action::SendMessageBatch, checked?, now))
        .map(|id, sent| wire::SentEntry { id, sent }))
}

/// Converts a request into a message.
fn message(input: wire::SendMessage) -> Result<NewMessage, SqsError> {
    let mut trace_header = None;
    for (name, value) in input.message_system_attributes {
        if name != TRACE_HEADER || value.data_type != "String" {
            return Err(SqsError::new(
                ErrorCode::InvalidParameterValue,
                "Message system attribute must be AWSTraceHeader, of type String.",
            ));
        }
        trace_header = value.string_value;
    }
    Ok(NewMessage {
        body: input.message_body.ok_or_else(|| SqsError::missing("MessageBody"))?,
        attributes: input.message_attributes,
        trace_header,
        group: input.message_group_id,
        deduplication_id: input.message_deduplication_id,
        delay_s: batch::bounded("DelaySeconds", input.delay_seconds, 0, 900)?,
    })
}

fn enqueue(
    queue: &mut Queue,
    action: Action,
    checked: Checked,
    now: Now,
) -> Result<wire::Sent, SqsError> {
    let bytes_max = queue.settings.message_bytes_max;
    if checked.size_bytes > bytes_max {
        return Err(SqsError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {bytes_max} bytes."
            ),
        ));
    }
    let Checked { message, size_bytes: _, body_md5, attributes_md5 } = checked;
    check_queue_kind(queue, &message)?;
    let mut sent = wire::Sent {
        message_id: uuid::Uuid::new_v4().to_string(),
        body_md5: body_md5.clone(),
        attributes_md5: attributes_md5.clone(),
        system_attributes_md5: message.trace_header.as_deref().and_then(trace_header_md5),
        sequence_number: None,
    };
    let deduplication_id = deduplicate(queue, &message, &mut sent, now)?;
    let Deduplication::New(deduplication_id) = deduplication_id else {
        let id = Some(sent.message_id.as_str().into());
        queue.book(now, action, id, None, Outcome::Deduplicated);
        return Ok(sent);
    };
    queue.book(now, action, Some(sent.message_id.as_str().into()), None, Outcome::Sent);
    let delay_s = message.delay_s.unwrap_or(queue.settings.spec.delay_s);
    let content = Content {
        id: sent.message_id.clone(),
        body: message.body,
        body_md5,
        attributes: message.attributes,
        attributes_md5,
        trace_header: message.trace_header,
        group: message.group,
        deduplication_id,
        sequence_number: sent.sequence_number.clone(),
        sent_ms: now.epoch_ms,
    };
    queue.push(content, Duration::from_secs(u64::from(delay_s)), now);
    Ok(sent)
}

fn check_queue_kind(queue: &Queue, message: &NewMessage) -> Result<(), SqsError> {
    for (name, token) in
        [("MessageGroupId", &message.group), ("MessageDeduplicationId", &message.deduplication_id)]
    {
        let Some(token) = token else { continue };
        let fits = (1..=TOKEN_CHARS_MAX).contains(&token.len())
            && token.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(SqsError::parameter(
                name,
                token,
                "Can only include alphanumeric and punctuation characters. 1 to 128 in length.",
            ));
        }
    }
    let is_fifo = queue.settings.spec.fifo;
    if is_fifo && message.group.is_none() {
        return Err(SqsError::missing("MessageGroupId"));
    }
    let other_kind = "The request include parameter that is not valid for this queue type.";
    if let (true, Some(delay_s @ 1..)) = (is_fifo, message.delay_s) {
        return Err(SqsError::parameter("DelaySeconds", delay_s, other_kind));
    }
    if let (false, Some(token)) = (is_fifo, &message.deduplication_id) {
        return Err(SqsError::parameter("MessageDeduplicationId", token, other_kind));
    }
    Ok(())
}

enum Deduplication {
    /// Must be enqueued; on a FIFO queue with this id.
    New(Option<String>),
    /// Answered with the earlier message id.
    Repeated,
}

fn deduplicate(
    queue: &mut Queue,
    message: &NewMessage,
    sent: &mut wire::Sent,
    now: Now,
) -> Result<Deduplication, SqsError> {
    let by_content = queue.settings.spec.content_based_deduplication;
    let by_group = queue.settings.deduplicates_by_group();
    let Some(groups) = &mut queue.groups else {
        return Ok(Deduplication::New(None));
    };
    let id = match &message.deduplication_id {
        Some(id) => id.clone(),
        None if by_content => body_sha256(&message.body),
        None => {
            return Err(SqsError::new(
                ErrorCode::InvalidParameterValue,
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
            ));
        }
    };
    let scope = message.group.as_deref().filter(|_| by_group).unwrap_or_default();
    let key = format!("{scope} {id}");
    if let Some(recent) = groups.repeated(&key, now.instant) {
        sent.message_id = recent.message_id;
        sent.sequence_number = Some(recent.sequence_number);
        return Ok(Deduplication::Repeated);
    }
    let sequence_number = groups.next_sequence_number();
    sent.sequence_number = Some(sequence_number.clone());
    let recent = Recent { message_id: sent.message_id.clone(), sequence_number };
    groups.remember(key, recent, now.instant);
    Ok(Deduplication::New(Some(id)))
}
