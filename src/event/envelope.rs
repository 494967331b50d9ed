//! Reads a message's text down to the innermost object: opens envelopes and keeps their fields.
//!
//! `validate` checks the fields of the event.

use super::context::EnvelopeContext;
use super::json_object::{self, JsonObject, Key, Node, Value};
use super::poison::BodyFault;
use super::validate;
use super::{Event, NoEvent, PoisonReason, foreign};
use crate::escaped::Escaped;

/// The maximum number of envelopes: EventBridge, or a typed detail, sent through SNS.
pub const ENVELOPES_MAX: u8 = 2;

/// The maximum depth of objects: the envelopes, the event, its payload.
const OBJECTS_MAX: u8 = ENVELOPES_MAX + 2;

/// Decodes the body of one message.
///
/// `message_id` is the SQS id of the original message. It becomes the event's identity if the body
/// has none.
///
/// # Errors
/// Returns [`NoEvent`] if the body can never be handled, on any delivery, or if nothing is to be
/// done.
pub fn decode(body: &str, message_id: &str) -> Result<Event, NoEvent> {
    decode_noting(body, message_id, &mut |_| {})
}

/// Decodes the body of one message as [`decode`] does.
///
/// Also returns the envelopes that were opened, from the outermost to the innermost.
pub fn decode_in_envelopes(
    body: &str,
    message_id: &str,
) -> (Vec<Envelope>, Result<Event, NoEvent>) {
    let mut opened = Vec::new();
    let decoded = decode_noting(body, message_id, &mut |envelope| opened.push(envelope));
    (opened, decoded)
}

fn decode_noting(
    body: &str,
    message_id: &str,
    note: &mut impl FnMut(Envelope),
) -> Result<Event, NoEvent> {
    let context = EnvelopeContext { message_id, ..EnvelopeContext::default() };
    open(body, "the body", context, 0, note).map_err(|no_event| foreign::explain(body, no_event))
}

/// A kind of envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// A notification of SNS.
    Sns,
    /// A CloudEvent in structured JSON.
    CloudEvent,
    /// An event of EventBridge.
    EventBridge,
    /// A `detail` with a `type` beside it.
    TypedDetail,
}

impl Envelope {
    /// Returns the name in `decode --json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sns => "sns",
            Self::CloudEvent => "cloudevent",
            Self::EventBridge => "eventbridge",
            Self::TypedDetail => "typed_detail",
        }
    }
}

/// The role of an object, identified by its shape.
enum Shape {
    Event,
    Sns,
    CloudEvent,
    Detail,
}

fn shape(object: &JsonObject<'_>) -> Shape {
    let is_absent = |node: &Node<'_>| matches!(node, Node::Absent);
    if object.has(Key::ReservationId) || !is_absent(&object.payload) {
        Shape::Event
    } else if object.has(Key::SnsType) && object.has(Key::SnsMessage) {
        Shape::Sns
    } else if object.has(Key::SpecVersion) && object.data.is_some() {
        Shape::CloudEvent
    } else if !is_absent(&object.detail) {
        Shape::Detail
    } else {
        Shape::Event
    }
}

fn open(
    text: &str,
    place: &str,
    context: EnvelopeContext<'_>,
    envelopes: u8,
    note: &mut impl FnMut(Envelope),
) -> Result<Event, NoEvent> {
    let mut object = parse(text, place)?;
    let mut context = context;
    let mut envelopes = envelopes;
    loop {
        context.trace = context.trace.inside(&object);
        let shape = shape(&object);
        if !matches!(shape, Shape::Event) {
            envelopes += 1;
            if envelopes > ENVELOPES_MAX {
                return Err(too_deep().into());
            }
        }
        match shape {
            Shape::Event => return validate::event(object, context),
            Shape::Sns => {
                note(Envelope::Sns);
                let message = sns_message(&mut object)?;
                context.trace = context.trace.with_attributes(object.sns_attributes);
                return open(
                    &message,
                    "Message",
                    inside_sns(context, &mut object),
                    envelopes,
                    note,
                );
            }
            Shape::CloudEvent => {
                note(Envelope::CloudEvent);
                let data = cloud_event_data(&object)?;
                context = inside_detail(context, &mut object);
                object = parse(data, Key::Data.as_str())?;
            }
            Shape::Detail => {
                let is_typed = matches!(object.get(Key::DetailType), Value::Absent);
                note(if is_typed { Envelope::TypedDetail } else { Envelope::EventBridge });
                let detail = std::mem::take(&mut object.detail);
                context = inside_detail(context, &mut object);
                object = expect_object(detail, Key::Detail.as_str())?;
            }
        }
    }
}

fn too_deep() -> BodyFault {
    BodyFault::new(
        PoisonReason::NestedTooDeep,
        format!("more than {ENVELOPES_MAX} envelopes around the event"),
    )
}

fn parse<'a>(text: &'a str, place: &str) -> Result<Box<JsonObject<'a>>, BodyFault> {
    let node = json_object::parse(text, OBJECTS_MAX)
        .map_err(|error| BodyFault::new(PoisonReason::InvalidJson, format!("{place}: {error}")))?;
    expect_object(node, place)
}

fn expect_object<'a>(node: Node<'a>, place: &str) -> Result<Box<JsonObject<'a>>, BodyFault> {
    let kind = match node {
        Node::Object(object) => return Ok(object),
        Node::Absent => json_object::JsonType::Null,
        Node::Other(kind) => kind,
    };
    Err(BodyFault::new(
        PoisonReason::InvalidEnvelope,
        format!("{place} is {kind}: must be an object"),
    ))
}

/// Returns the text inside an SNS notification.
///
/// SNS also sends subscription confirmations in this shape; they contain no event.
fn sns_message<'a>(object: &mut JsonObject<'a>) -> Result<std::borrow::Cow<'a, str>, BodyFault> {
    let broken = |detail: String| BodyFault::new(PoisonReason::InvalidEnvelope, detail);
    match object.get(Key::SnsType) {
        Value::Text(kind) if kind == "Notification" => {}
        Value::Text(kind) => {
            return Err(broken(format!("Type is {}: must be \"Notification\"", Escaped(kind))));
        }
        Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            return Err(broken("Type is no string: must be \"Notification\"".into()));
        }
    }
    match object.take(Key::SnsMessage) {
        Value::Text(message) => Ok(message),
        Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            Err(broken("Message is no string: must be JSON as a string".into()))
        }
    }
}

/// Returns the JSON of a CloudEvent's data (CloudEvents 1.0, JSON event format).
fn cloud_event_data<'a>(object: &JsonObject<'a>) -> Result<&'a str, BodyFault> {
    let version = match object.get(Key::SpecVersion) {
        Value::Text(version) if version == "1.0" => return Ok(object.data.unwrap_or("null")),
        Value::Text(version) => Escaped(version).to_string(),
        Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            "no string".to_owned()
        }
    };
    let detail = format!("specversion is {version}: must be \"1.0\"");
    Err(BodyFault::new(PoisonReason::InvalidEnvelope, detail))
}

fn inside_sns<'a>(
    context: EnvelopeContext<'a>,
    object: &mut JsonObject<'a>,
) -> EnvelopeContext<'a> {
    EnvelopeContext { id: first(object.take(Key::SnsMessageId), context.id), ..context }
}

fn inside_detail<'a>(
    context: EnvelopeContext<'a>,
    object: &mut JsonObject<'a>,
) -> EnvelopeContext<'a> {
    let type_name = first(object.take(Key::DetailType), object.take(Key::Type));
    EnvelopeContext {
        id: first(object.take(Key::Id), context.id),
        type_name: first(type_name, context.type_name),
        ..context
    }
}

fn first<'a>(value: Value<'a>, otherwise: Value<'a>) -> Value<'a> {
    match value {
        Value::Absent => otherwise,
        Value::Text(_) | Value::Integer(_) | Value::Number(_) | Value::Other(_) => value,
    }
}
