//! One JSON object of a body, as it stands: each field that any envelope or event may have, with its type noted but not yet judged,
//! so that one wrong field does not hide the others. Borrows from the body. What the fields must be is left to `read`.
//!
//! Hand-written rather than derived for three reasons: a wrong type is an answer here and no error, so that the field can be named;
//! a depth can be set, so that no body decides how much stack is used; and no tree of values is built on the way.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{SEATS_MAX, SeatIds};

/// The fields that are read. Every other is `Unknown`, and skipped unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
pub(super) enum Key {
    #[serde(rename = "Type")]
    SnsType,
    #[serde(rename = "Message")]
    SnsMessage,
    #[serde(rename = "MessageId")]
    SnsMessageId,
    #[serde(rename = "Timestamp")]
    SnsTimestamp,
    #[serde(rename = "detail-type")]
    DetailType,
    Id,
    Type,
    Time,
    Ts,
    TraceId,
    Traceparent,
    ReservationId,
    EventId,
    Qty,
    PaymentIntentId,
    Amount,
    Currency,
    UserId,
    ErrorCode,
    ErrorMessage,
    SeatIds,
    Payload,
    Detail,
    #[serde(other)]
    Unknown,
}

impl Key {
    /// How many keys come before `SeatIds`: those with a plain value.
    const VALUES: usize = Self::SeatIds as usize;

    /// The name in the body.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SnsType => "Type",
            Self::SnsMessage => "Message",
            Self::SnsMessageId => "MessageId",
            Self::SnsTimestamp => "Timestamp",
            Self::DetailType => "detail-type",
            Self::Id => "id",
            Self::Type => "type",
            Self::Time => "time",
            Self::Ts => "ts",
            Self::TraceId => "trace_id",
            Self::Traceparent => "traceparent",
            Self::ReservationId => "reservation_id",
            Self::EventId => "event_id",
            Self::Qty => "qty",
            Self::PaymentIntentId => "payment_intent_id",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::UserId => "user_id",
            Self::ErrorCode => "error_code",
            Self::ErrorMessage => "error_message",
            Self::SeatIds => "seat_ids",
            Self::Payload => "payload",
            Self::Detail => "detail",
            Self::Unknown => "(unknown)",
        }
    }
}

/// A JSON type that does not fit where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// A plain value. `Absent` is also what `null` becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Value<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i64),
    /// Anything else; numbers that are not whole or do not fit 64 bits among it.
    Other(Kind),
}

/// The value of `seat_ids`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum SeatList {
    #[default]
    Absent,
    Seats(SeatIds),
    /// There are more than [`SEATS_MAX`].
    TooMany,
    /// The element at this place is no string.
    WrongElement(usize, Kind),
    Other(Kind),
}

/// The value of a field that should be an object. `Absent` is also what `null` becomes.
#[derive(Debug, Default)]
pub(super) enum Node<'a> {
    #[default]
    Absent,
    Object(Box<Layer<'a>>),
    /// Not an object, or one that is deeper than anything that is read.
    Other(Kind),
}

/// The fields of one object.
#[derive(Debug, Default)]
pub(super) struct Layer<'a> {
    values: [Value<'a>; Key::VALUES],
    pub(super) seat_ids: SeatList,
    pub(super) payload: Node<'a>,
    pub(super) detail: Node<'a>,
}

impl<'a> Layer<'a> {
    /// The value of a field; `Absent` for those that are no plain value.
    pub(super) fn get(&self, key: Key) -> &Value<'a> {
        self.values.get(key as usize).unwrap_or(&Value::Absent)
    }

    pub(super) fn has(&self, key: Key) -> bool {
        *self.get(key) != Value::Absent
    }

    pub(super) fn take(&mut self, key: Key) -> Value<'a> {
        self.values.get_mut(key as usize).map(std::mem::take).unwrap_or_default()
    }
}

/// Reads `text` as one JSON value, with objects in objects down to `objects` deep.
///
/// # Errors
/// When it is not JSON, or a known field is given twice. The error's text holds nothing of the body.
pub(super) fn parse(text: &str, objects: u8) -> Result<Node<'_>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let node = NodeSeed { objects }.deserialize(&mut json)?;
    json.end()?;
    Ok(node)
}

fn drain_array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<(), A::Error> {
    while array.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<(), A::Error> {
    while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Reads an object that may hold others, down to a depth.
struct NodeSeed {
    objects: u8,
}

impl<'de> DeserializeSeed<'de> for NodeSeed {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Node<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node<'de>, E> {
        Ok(Node::Other(Kind::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node<'de>, E> {
        Ok(Node::Other(Kind::Number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node<'de>, E> {
        Ok(Node::Other(Kind::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node<'de>, E> {
        Ok(Node::Other(Kind::Number))
    }

    fn visit_str<E>(self, _: &str) -> Result<Node<'de>, E> {
        Ok(Node::Other(Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Node<'de>, A::Error> {
        drain_array(array)?;
        Ok(Node::Other(Kind::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node<'de>, A::Error> {
        let Some(objects) = self.objects.checked_sub(1) else {
            drain_object(object)?;
            return Ok(Node::Other(Kind::Object));
        };
        let mut layer = Box::<Layer<'de>>::default();
        let mut seen = 0_u32;
        while let Some(key) = object.next_key::<Key>()? {
            if key == Key::Unknown {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let bit = 1_u32 << key as u32;
            if seen & bit != 0 {
                return Err(A::Error::duplicate_field(key.as_str()));
            }
            seen |= bit;
            if let Some(slot) = layer.values.get_mut(key as usize) {
                *slot = object.next_value()?;
            } else if key == Key::Payload {
                layer.payload = object.next_value_seed(Self { objects })?;
            } else if key == Key::Detail {
                layer.detail = object.next_value_seed(Self { objects })?;
            } else {
                layer.seat_ids = object.next_value()?;
            }
        }
        Ok(Node::Object(layer))
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other(Kind::Boolean))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Other(Kind::Number), Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other(Kind::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Value<'de>, A::Error> {
        drain_array(array)?;
        Ok(Value::Other(Kind::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Value<'de>, A::Error> {
        drain_object(object)?;
        Ok(Value::Other(Kind::Object))
    }
}

impl<'de> Deserialize<'de> for SeatList {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(SeatsVisitor)
    }
}

struct SeatsVisitor;

impl<'de> Visitor<'de> for SeatsVisitor {
    type Value = SeatList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<SeatList, E> {
        Ok(SeatList::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<SeatList, E> {
        Ok(SeatList::Other(Kind::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<SeatList, E> {
        Ok(SeatList::Other(Kind::Number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<SeatList, E> {
        Ok(SeatList::Other(Kind::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<SeatList, E> {
        Ok(SeatList::Other(Kind::Number))
    }

    fn visit_str<E>(self, _: &str) -> Result<SeatList, E> {
        Ok(SeatList::Other(Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<SeatList, A::Error> {
        let mut seats = SeatIds::default();
        while let Some(value) = array.next_element::<Value<'de>>()? {
            let kind = match value {
                Value::Text(seat) if seats.len() < SEATS_MAX => {
                    seats.push(&seat);
                    continue;
                }
                Value::Text(_) => {
                    drain_array(array)?;
                    return Ok(SeatList::TooMany);
                }
                Value::Absent => Kind::Null,
                Value::Integer(_) => Kind::Number,
                Value::Other(kind) => kind,
            };
            drain_array(array)?;
            return Ok(SeatList::WrongElement(seats.len(), kind));
        }
        seats.shrink();
        Ok(SeatList::Seats(seats))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<SeatList, A::Error> {
        drain_object(object)?;
        Ok(SeatList::Other(Kind::Object))
    }
}
