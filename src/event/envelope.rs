//! Reads a message's text down to the innermost layer: opens envelopes and keeps their fields.
//!
//! `read` checks the fields of the event.

use super::context::EnvelopeContext;
use super::json_object::{self, Key, Layer, Node, Value};
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
    let around = EnvelopeContext { message_id, ..EnvelopeContext::default() };
    open(body, "the body", around, 0).map_err(|no_event| foreign::explain(body, no_event))
}

/// The role of an object, identified by its shape.
enum Shape {
    Event,
    Sns,
    CloudEvent,
    Detail,
}

fn shape(layer: &Layer<'_>) -> Shape {
    let is_absent = |node: &Node<'_>| matches!(node, Node::Absent);
    if layer.has(Key::ReservationId) || !is_absent(&layer.payload) {
        Shape::Event
    } else if layer.has(Key::SnsType) && layer.has(Key::SnsMessage) {
        Shape::Sns
    } else if layer.has(Key::SpecVersion) && layer.data.is_some() {
        Shape::CloudEvent
    } else if !is_absent(&layer.detail) {
        Shape::Detail
    } else {
        Shape::Event
    }
}

fn open(
    text: &str,
    place: &str,
    around: EnvelopeContext<'_>,
    envelopes: u8,
) -> Result<Event, NoEvent> {
    let mut layer = parse(text, place)?;
    let mut around = around;
    let mut envelopes = envelopes;
    loop {
        around.trace = around.trace.inside(&layer);
        let shape = shape(&layer);
        if !matches!(shape, Shape::Event) {
            envelopes += 1;
            if envelopes > ENVELOPES_MAX {
                return Err(too_deep().into());
            }
        }
        match shape {
            Shape::Event => return validate::event(layer, around),
            Shape::Sns => {
                let message = sns_message(&mut layer)?;
                around.trace = around.trace.with_attributes(layer.sns_attributes);
                return open(&message, "Message", inside_sns(around, &mut layer), envelopes);
            }
            Shape::CloudEvent => {
                let data = cloud_event_data(&layer)?;
                around = inside_detail(around, &mut layer);
                layer = parse(data, Key::Data.as_str())?;
            }
            Shape::Detail => {
                let detail = std::mem::take(&mut layer.detail);
                around = inside_detail(around, &mut layer);
                layer = object(detail, Key::Detail.as_str())?;
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

fn parse<'a>(text: &'a str, place: &str) -> Result<Box<Layer<'a>>, BodyFault> {
    let node = json_object::parse(text, OBJECTS_MAX)
        .map_err(|error| BodyFault::new(PoisonReason::InvalidJson, format!("{place}: {error}")))?;
    object(node, place)
}

fn object<'a>(node: Node<'a>, place: &str) -> Result<Box<Layer<'a>>, BodyFault> {
    let kind = match node {
        Node::Object(layer) => return Ok(layer),
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
fn sns_message<'a>(layer: &mut Layer<'a>) -> Result<std::borrow::Cow<'a, str>, BodyFault> {
    let broken = |detail: String| BodyFault::new(PoisonReason::InvalidEnvelope, detail);
    match layer.get(Key::SnsType) {
        Value::Text(kind) if kind == "Notification" => {}
        Value::Text(kind) => {
            return Err(broken(format!("Type is {}: must be \"Notification\"", Escaped(kind))));
        }
        Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            return Err(broken("Type is no string: must be \"Notification\"".into()));
        }
    }
    match layer.take(Key::SnsMessage) {
        Value::Text(message) => Ok(message),
        Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            Err(broken("Message is no string: must be JSON as a string".into()))
        }
    }
}

/// Returns the JSON of a CloudEvent's data (CloudEvents 1.0, JSON event format).
fn cloud_event_data<'a>(layer: &Layer<'a>) -> Result<&'a str, BodyFault> {
    let version = match layer.get(Key::SpecVersion) {
        Value::Text(version) if version == "1.0" => return Ok(layer.data.unwrap_or("null")),
        Value::Text(version) => Escaped(version).to_string(),
        Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            "no string".to_owned()
        }
    };
    let detail = format!("specversion is {version}: must be \"1.0\"");
    Err(BodyFault::new(PoisonReason::InvalidEnvelope, detail))
}

fn inside_sns<'a>(around: EnvelopeContext<'a>, layer: &mut Layer<'a>) -> EnvelopeContext<'a> {
    EnvelopeContext { id: first(layer.take(Key::SnsMessageId), around.id), ..around }
}

fn inside_detail<'a>(around: EnvelopeContext<'a>, layer: &mut Layer<'a>) -> EnvelopeContext<'a> {
    let type_name = first(layer.take(Key::DetailType), layer.take(Key::Type));
    EnvelopeContext {
        id: first(layer.take(Key::Id), around.id),
        type_name: first(type_name, around.type_name),
        ..around
    }
}

fn first<'a>(value: Value<'a>, otherwise: Value<'a>) -> Value<'a> {
    match value {
        Value::Absent => otherwise,
        Value::Text(_) | Value::Integer(_) | Value::Number(_) | Value::Other(_) => value,
    }
}
