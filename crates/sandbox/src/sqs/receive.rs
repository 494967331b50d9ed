//! `ReceiveMessage`: the long poll and the format of deliveries.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant, sleep_until};

use super::action::Action;
use super::batch::bounded;
use super::error::{ErrorCode, SqsError};
use super::ledger::Outcome;
use super::message::{TRACE_HEADER, attributes_md5, is_wanted};
use super::queue::{Delivery, IN_FLIGHT_MAX};
use super::wire;
use super::world::Shared;

/// Receives messages; waits up to the requested time if there are none.
///
/// Cancel-safe: taking and returning a message are one step without an await between, so a client
/// that disconnects while waiting takes none.
pub(crate) async fn receive(
    shared: &Shared,
    input: &wire::ReceiveMessage,
) -> Result<Vec<Delivery>, SqsError> {
    let max = bounded("MaxNumberOfMessages", input.max_number_of_messages, 1, 10)?.unwrap_or(1);
    let max = usize::try_from(max).unwrap_or(1);
    let visibility_s = bounded("VisibilityTimeout", input.visibility_timeout, 0, 43_200)?;
    let wait_s = bounded("WaitTimeSeconds", input.wait_time_seconds, 0, 20)?;
    let url = input.queue_url.as_deref();

    let now = shared.now();
    let (arrived, wait_s) = {
        let mut world = shared.lock();
        let queue = world.queue(url, now)?;
        let wait_s = wait_s.unwrap_or(queue.settings.spec.receive_wait_s);
        // Source: SQS "Message quotas": short polls get an error, long polls and FIFO queues an
        // empty response.
        if wait_s == 0 && queue.groups.is_none() && queue.counts().in_flight >= IN_FLIGHT_MAX {
            queue.book(
                now,
                Action::ReceiveMessage,
                None,
                None,
                Outcome::Refused(ErrorCode::OverLimit),
            );
            return Err(SqsError::new(
                ErrorCode::OverLimit,
                "The maximum number of in flight messages is reached.",
            ));
        }
        (queue.arrived.clone(), wait_s)
    };
    let deadline = now.instant + Duration::from_secs(u64::from(wait_s));
    loop {
        let mut notified = std::pin::pin!(arrived.notified());
        // Registered before the check, so that no arrival is missed in between.
        notified.as_mut().enable();
        let until = match look(shared, url, max, visibility_s, deadline)? {
            Look::Done(deliveries) => return Ok(deliveries),
            Look::WaitUntil(until) => until,
        };
        tokio::select! {
            () = notified => {}
            () = sleep_until(until) => {}
        }
    }
}

enum Look {
    Done(Vec<Delivery>),
    WaitUntil(Instant),
}

fn look(
    shared: &Shared,
    url: Option<&str>,
    max: usize,
    visibility_s: Option<u32>,
    deadline: Instant,
) -> Result<Look, SqsError> {
    let now = shared.now();
    let mut world = shared.lock();
    let deliveries = world.receive(url, max, visibility_s, now)?;
    let queue = world.queue(url, now)?;
    if !deliveries.is_empty() {
        queue.ledger.receives += 1;
        return Ok(Look::Done(deliveries));
    }
    if now.instant >= deadline {
        queue.book(now, Action::ReceiveMessage, None, None, Outcome::Empty);
        return Ok(Look::Done(deliveries));
    }
    let timer = queue.next_timer().unwrap_or(deadline);
    Ok(Look::WaitUntil(timer.min(deadline)))
}

/// Formats deliveries with the requested attributes.
pub(crate) fn render<'a>(
    input: &wire::ReceiveMessage,
    deliveries: &'a [Delivery],
) -> wire::Received<'a> {
    let messages = deliveries.iter().map(|delivery| message(input, delivery)).collect();
    wire::Received { messages }
}

fn message<'a>(input: &wire::ReceiveMessage, delivery: &'a Delivery) -> wire::ReceivedMessage<'a> {
    let content = &*delivery.content;
    let wanted = &input.message_attribute_names;
    let attributes: BTreeMap<_, _> = content
        .attributes
        .iter()
        .filter(|(name, _)| is_wanted(name, wanted))
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    // The digest covers the returned attributes. For all attributes, it was computed at the send.
    let attributes_md5 = if attributes.len() == content.attributes.len() {
        content.attributes_md5.clone()
    } else {
        attributes_md5(attributes.iter().map(|(name, value)| (*name, *value)))
    };
    wire::ReceivedMessage {
        message_id: &content.id,
        receipt_handle: &delivery.receipt_handle,
        body_md5: &content.body_md5,
        body: &content.body,
        system: system_attributes(input, delivery),
        attributes_md5,
        attributes,
    }
}

fn system_attributes(
    input: &wire::ReceiveMessage,
    delivery: &Delivery,
) -> BTreeMap<&'static str, String> {
    let names = [&input.message_system_attribute_names, &input.attribute_names];
    let content = &*delivery.content;
    let mut wanted = BTreeMap::new();
    let mut put = |name: &'static str, value: Option<String>| {
        let asked =
            names.iter().any(|names| names.iter().any(|asked| asked == "All" || asked == name));
        if let (true, Some(value)) = (asked, value) {
            wanted.insert(name, value);
        }
    };
    put("ApproximateFirstReceiveTimestamp", Some(delivery.first_receive_ms.to_string()));
    put("ApproximateReceiveCount", Some(delivery.receive_count.to_string()));
    put("DeadLetterQueueSourceArn", delivery.source_arn.clone());
    put("MessageDeduplicationId", content.deduplication_id.clone());
    put("MessageGroupId", content.group.clone());
    put("SenderId", Some(super::settings::ACCOUNT.to_owned()));
    put("SentTimestamp", Some(content.sent_ms.to_string()));
    put("SequenceNumber", content.sequence_number.clone());
    put(TRACE_HEADER, content.trace_header.clone());
    wanted
}
