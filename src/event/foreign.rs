//! Recognises bodies of other systems by a unique mark, and explains them to the sender.
//!
//! Such a body is already known as poison, and its reason is already set.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::json_object::{member, text_of};
use super::{NoEvent, PoisonReason};

/// The minimum length for base64 detection: a shorter text may be a word.
const BASE64_BYTES_MIN: usize = 20;

/// The base64 form of gzip's first bytes.
const GZIP_IN_BASE64: &str = "H4sI";

/// The base64 form of the start of a JSON object: `{"`, `{ `, and `{` with a line end.
const OBJECT_IN_BASE64: [&str; 5] = ["eyI", "eyJ", "eyA", "ewo", "ew0"];

/// Names at the top level of other systems' objects.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Marks<'a> {
    #[serde(rename = "Records")]
    records: Option<&'a RawValue>,
    #[serde(rename = "Event")]
    s3_event: Option<&'a RawValue>,
    #[serde(rename = "Type")]
    sns_type: Option<&'a RawValue>,
    #[serde(alias = "TaskToken", alias = "taskToken")]
    task_token: Option<IgnoredAny>,
    #[serde(rename = "s3BucketName")]
    s3_bucket: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
    task: Option<IgnoredAny>,
    args: Option<IgnoredAny>,
    kwargs: Option<IgnoredAny>,
    #[serde(rename = "content-encoding")]
    content_encoding: Option<IgnoredAny>,
    properties: Option<IgnoredAny>,
    #[serde(rename = "messageType")]
    message_type: Option<IgnoredAny>,
    #[serde(rename = "destinationAddress")]
    destination_address: Option<IgnoredAny>,
    #[serde(rename = "Headers")]
    headers: Option<&'a RawValue>,
    data_base64: Option<IgnoredAny>,
}

/// Puts the name of the sending system before the fault.
///
/// A body with a known event type is our event with a wrong field, and is not changed. The only
/// exception is other content in place of its data.
pub(super) fn explain(body: &str, no_event: NoEvent) -> NoEvent {
    let NoEvent::Poison(mut poison) = no_event else { return no_event };
    let words = recognise(body, poison.reason);
    let is_ours = poison.event_type.is_some() && words != Some(BINARY_DATA);
    if !is_ours && let Some(words) = words {
        poison.detail = format!("{words} ({})", poison.detail);
    }
    NoEvent::Poison(poison)
}

fn recognise(body: &str, reason: PoisonReason) -> Option<&'static str> {
    match reason {
        PoisonReason::InvalidJson => of_text(body),
        PoisonReason::InvalidEnvelope
        | PoisonReason::UnknownType
        | PoisonReason::InvalidEvent
        | PoisonReason::NestedTooDeep => None,
    }
    .or_else(|| of_json(body))
    .or_else(|| {
        let message = text_of(member(body, "Message")?)?;
        of_text(&message).or_else(|| of_json(&message))
    })
}

/// Explains a body that is not JSON.
fn of_text(body: &str) -> Option<&'static str> {
    let text = body.trim();
    if body.starts_with('\u{feff}') {
        Some("the body begins with a byte order mark: send UTF-8 without one")
    } else if body.starts_with("\u{1f}\u{8b}") || body.starts_with("\u{1f}\u{fffd}") {
        Some("the body is gzip: send the JSON itself, not compressed")
    } else if text.starts_with('<') {
        Some("the body is XML or HTML: send JSON")
    } else if text.starts_with(GZIP_IN_BASE64) && may_be_base64(text) {
        Some("the body is gzip in base64: send the JSON itself, neither compressed nor encoded")
    } else if OBJECT_IN_BASE64.iter().any(|start| text.starts_with(start)) && may_be_base64(text) {
        Some(
            "the body is JSON in base64: send the JSON itself (Celery and kombu encode what they send: send with the AWS SDK)",
        )
    } else if looks_like_base64(text) {
        Some("the body looks like base64: send the JSON itself")
    } else {
        None
    }
}

fn may_be_base64(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte);
    text.len() >= BASE64_BYTES_MIN && text.bytes().all(is_digit)
}

/// Returns whether the length fits base64 and all kinds of its digits occur, unlike in a word.
fn looks_like_base64(text: &str) -> bool {
    let digits = || text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let is_other = |byte: u8| !byte.is_ascii_alphabetic() && byte != b'=';
    may_be_base64(text)
        && digits().count() % 4 == 0
        && digits().any(|byte| byte.is_ascii_uppercase())
        && digits().any(|byte| byte.is_ascii_lowercase())
        && digits().any(is_other)
}

/// Explains a body that is JSON of another system.
fn of_json(body: &str) -> Option<&'static str> {
    let text = body.trim_start();
    if text.starts_with('[') {
        return is_pointer(text).then_some(POINTER);
    }
    if text.starts_with('"') {
        let inner: String = serde_json::from_str(text).ok()?;
        return inner.trim_start().starts_with('{').then_some(
            "the body is JSON in a JSON string: it was encoded twice, send the object itself",
        );
    }
    of_marks(&serde_json::from_str(text).ok()?)
}

const BINARY_DATA: &str = "this is a CloudEvent with binary data: send the event as JSON in data";

const POINTER: &str = "the body is a pointer to S3 (SQS extended client library): the worker does not fetch it, send the event itself, without seats that are not needed";

fn is_pointer(text: &str) -> bool {
    let parts: Result<Vec<&RawValue>, _> = serde_json::from_str(text);
    let first = parts.ok().and_then(|parts| text_of(parts.first()?).map(|text| text.into_owned()));
    first.is_some_and(|class| class.ends_with("S3Pointer"))
}

fn of_marks(marks: &Marks<'_>) -> Option<&'static str> {
    let says = |raw: Option<&RawValue>, words: &[&str]| {
        raw.and_then(text_of).is_some_and(|text| words.contains(&text.as_ref()))
    };
    let holds =
        |raw: Option<&RawValue>, word: &str| raw.is_some_and(|raw| raw.get().contains(word));
    let confirmations = ["SubscriptionConfirmation", "UnsubscribeConfirmation"];
    if marks.s3_bucket.is_some() {
        Some(POINTER)
    } else if says(marks.s3_event, &["s3:TestEvent"]) {
        Some(
            "this is the test event that S3 sends when a bucket's notifications are set up: they go to this queue, which is for reservation events",
        )
    } else if holds(marks.records, "aws:s3") {
        Some(
            "this is an S3 event notification: a bucket sends to this queue, which is for reservation events",
        )
    } else if says(marks.sns_type, &confirmations) {
        Some(
            "this is SNS asking for a subscription to be confirmed, no event: open its SubscribeURL, or subscribe the queue with its owner's account, which needs no confirmation",
        )
    } else if marks.task_token.is_some() {
        Some(
            "this is a Step Functions task that waits for its token: the worker answers none, send the event without waiting for a callback",
        )
    } else if (marks.task.is_some()
        && marks.id.is_some()
        && (marks.args.is_some() || marks.kwargs.is_some()))
        || (marks.content_encoding.is_some() && marks.properties.is_some())
    {
        Some("this is a Celery or kombu message: send the event itself as JSON, with the AWS SDK")
    } else if marks.message_type.is_some() && marks.destination_address.is_some() {
        Some(
            "this is MassTransit's envelope, which the worker does not open: publish raw JSON (UseRawJsonSerializer)",
        )
    } else if holds(marks.headers, "NServiceBus.") {
        Some(
            "this is NServiceBus's envelope, which the worker does not open: send the event itself as JSON, with the AWS SDK",
        )
    } else if marks.data_base64.is_some() {
        Some(BINARY_DATA)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    /// Returns the explanation before the fault.
    fn words(body: &str) -> Option<&'static str> {
        match decode(body, "m") {
            Err(NoEvent::Poison(poison)) => recognise(body, poison.reason)
                .filter(|words| poison.detail.starts_with(&format!("{words} ("))),
            found => panic!("{body}: {found:?}"),
        }
    }

    #[test]
    fn only_unambiguous_foreign_bodies_are_explained() {
        for body in [
            "internationalizations",
            "internationalization",
            "ReservationWorkerHealthCheck",
            "ReservationWorkerHealthChecks1",
            "11112222333344445555",
            "4f1ae4ac-1b0b-4b6e-8a39-6f5f1c9a4a11",
            r#"{"id":"1","task":"app.expire"}"#,
            r#"{"task":"app.expire","args":[]}"#,
            r#"{"id":"e","type":"payment.failed","task":"x","args":[]}"#,
            r#"{"id":"e","type":"payment.failed","taskToken":"x"}"#,
        ] {
            assert_eq!(words(body), None, "{body}");
        }
        for body in [
            "CgVldnRfMRITcGF5bWVudC5hcHByb3ZlZBoFcnN2XzE=",
            r#"{"id":"1","task":"app.expire","args":[]}"#,
            r#"{"id":"1","task":"app.expire","kwargs":{}}"#,
            r#"{"specversion":"1.0","id":"1","type":"payment.approved","data_base64":"e30="}"#,
        ] {
            assert!(words(body).is_some(), "{body}");
        }
    }
}
