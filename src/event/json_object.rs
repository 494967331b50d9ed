//! Reads one JSON object of a body: all fields that an envelope or event may have.
//!
//! Types are recorded but not checked, so that one wrong field does not hide the others. The values
//! borrow from the body. `validate` checks the fields.
//!
//! The reader is hand-written, not derived, for three reasons: a wrong type is a result and not an
//! error, so that the field can be named; the depth is limited, so that no body controls the use of
//! the stack; and no tree of values is built.
//!
//! A value is first taken as raw text and then parsed. JSON allows values that cannot be
//! represented: half of a surrogate pair (`"\ud83d"`, the result of truncating a text with an
//! emoji) or a number above all doubles (`1e400`). Such a value is invalid for its field; the body
//! is still well formed.

mod key;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub(super) use key::Key;

use super::{SEATS_MAX, SeatIds, number};

/// A JSON type that is wrong for its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonType {
    Null,
    Boolean,
    Number,
    Text,
    /// A string with half of a surrogate pair, which UTF-8 cannot represent.
    BrokenText,
    Array,
    Object,
}

impl JsonType {
    /// Returns the type of a JSON value, by its first character.
    fn of(json: &str) -> Self {
        match json.bytes().next() {
            Some(b'"') => Self::Text,
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::BrokenText => "a string with half of a surrogate pair",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// A scalar value; `null` becomes `Absent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Value<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i64),
    /// Any other number, as text: with a fraction or an exponent, or too large for 64 bits.
    Number(&'a str),
    /// Any other type.
    Other(JsonType),
}

impl Value<'_> {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Returns whether both values are equal; the notation of a whole number does not matter.
    fn says_as(&self, other: &Self) -> bool {
        let whole = |value: &Self| match value {
            Self::Integer(number) => Some(*number),
            Self::Number(json) => number::whole(json),
            Self::Absent | Self::Text(_) | Self::Other(_) => None,
        };
        self == other || whole(self).is_some_and(|number| whole(other) == Some(number))
    }
}

/// The value of `seat_ids`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum SeatList {
    #[default]
    Absent,
    Seats(SeatIds),
    /// There are more than [`SEATS_MAX`].
    TooMany,
    /// The element at this index is not a string; the text describes it.
    WrongElement(usize, String),
    Other(JsonType),
}

/// The value of a field that should be an object; `null` becomes `Absent`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Node<'a> {
    #[default]
    Absent,
    Object(Box<JsonObject<'a>>),
    /// Not an object, or an object below the maximum depth.
    Other(JsonType),
}

/// The fields of one object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct JsonObject<'a> {
    values: [Value<'a>; Key::VALUES],
    pub(super) seat_ids: SeatList,
    pub(super) payload: Node<'a>,
    pub(super) detail: Node<'a>,
    /// The JSON of `data`, read only in an envelope; `None` if it is `null`.
    pub(super) data: Option<&'a str>,
    /// The JSON of an SNS notification's `MessageAttributes`.
    pub(super) sns_attributes: Option<&'a str>,
    /// The first field with different values in its two spellings.
    pub(super) contradiction: Option<Key>,
}

impl<'a> JsonObject<'a> {
    /// Returns the value of a field; `Absent` for fields that are not scalar.
    pub(super) fn get(&self, key: Key) -> &Value<'a> {
        self.values.get(key as usize).unwrap_or(&Value::Absent)
    }

    pub(super) fn has(&self, key: Key) -> bool {
        !self.get(key).is_absent()
    }

    pub(super) fn take(&mut self, key: Key) -> Value<'a> {
        self.values.get_mut(key as usize).map(std::mem::take).unwrap_or_default()
    }

    /// Stores a scalar value. Two spellings of a field may be equal, or one of them absent.
    fn put(&mut self, key: Key, mut value: Value<'a>) {
        let field = key.field();
        if field.is_absent_where_empty() && matches!(&value, Value::Text(text) if text.is_empty()) {
            value = Value::Absent;
        }
        let Some(slot) = self.values.get_mut(field as usize) else { return };
        if slot.is_absent() {
            *slot = value;
        } else if !value.is_absent() && !value.says_as(slot) {
            self.contradiction.get_or_insert(field);
        }
    }

    fn put_seats(&mut self, seats: SeatList) {
        if self.seat_ids == SeatList::Absent {
            self.seat_ids = seats;
        } else if seats != SeatList::Absent && seats != self.seat_ids {
            self.contradiction.get_or_insert(Key::SeatIds);
        }
    }

    /// Stores the JSON of a value that may be read later.
    fn put_json(&mut self, key: Key, raw: &'a RawValue) {
        let json = (JsonType::of(raw.get()) != JsonType::Null).then_some(raw.get());
        if key == Key::Data {
            self.data = json;
        } else {
            self.sns_attributes = json;
        }
    }
}

/// Parses `text` as one JSON value, with nested objects down to depth `objects`, at least 1.
///
/// # Errors
/// Fails if the text is not JSON (RFC 8259), or if a known field is given twice. The error's text
/// contains nothing of the body.
pub(super) fn parse(text: &str, objects: u8) -> Result<Node<'_>, serde_json::Error> {
    // Most bodies are objects, which can be read without a first pass.
    if text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        object(text, objects)
    } else {
        node(serde_json::from_str(text)?, objects)
    }
}

fn node(raw: &RawValue, objects: u8) -> Result<Node<'_>, serde_json::Error> {
    match JsonType::of(raw.get()) {
        JsonType::Null => Ok(Node::Absent),
        JsonType::Object => object(raw.get(), objects),
        kind @ (JsonType::Boolean
        | JsonType::Number
        | JsonType::Text
        | JsonType::BrokenText
        | JsonType::Array) => Ok(Node::Other(kind)),
    }
}

fn object(text: &str, objects: u8) -> Result<Node<'_>, serde_json::Error> {
    let Some(objects) = objects.checked_sub(1) else { return Ok(Node::Other(JsonType::Object)) };
    let mut json = serde_json::Deserializer::from_str(text);
    let object = json.deserialize_map(JsonObjectVisitor { objects })?;
    json.end()?;
    Ok(Node::Object(object))
}

/// Reads an object with nested objects, down to a depth.
struct JsonObjectVisitor {
    objects: u8,
}

impl<'de> Visitor<'de> for JsonObjectVisitor {
    type Value = Box<JsonObject<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Box<JsonObject<'de>>, A::Error> {
        let inside = |raw: &'de RawValue| node(raw, self.objects).map_err(A::Error::custom);
        let mut object = Box::<JsonObject<'de>>::default();
        let mut seen = 0_u64;
        while let Some(raw) = map.next_key::<&'de RawValue>()? {
            let key = key(raw);
            if key == Key::Unknown {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let bit = 1_u64 << key as u32;
            if seen & bit != 0 {
                return Err(A::Error::duplicate_field(key.as_str()));
            }
            seen |= bit;
            let raw = map.next_value::<&'de RawValue>()?;
            if key == Key::Payload {
                object.payload = inside(raw)?;
            } else if key == Key::Detail {
                object.detail = inside(raw)?;
            } else if key.field() == Key::SeatIds {
                object.put_seats(seats(raw)?);
            } else if matches!(key, Key::Data | Key::SnsAttributes) {
                object.put_json(key, raw);
            } else {
                object.put(key, value(raw));
            }
        }
        Ok(object)
    }
}

/// Returns the field with this name; `Unknown` if the name is not a valid text.
fn key(raw: &RawValue) -> Key {
    let Some(name) = text(raw.get()) else { return Key::Unknown };
    let name: StrDeserializer<'_, serde_json::Error> = name.as_ref().into_deserializer();
    Key::deserialize(name).unwrap_or(Key::Unknown)
}

/// Returns the text of a JSON string; `None` if it has half of a surrogate pair.
fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.get(1..json.len() - 1) {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        Some(_) | None => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}

fn value(raw: &RawValue) -> Value<'_> {
    let json = raw.get();
    match JsonType::of(json) {
        JsonType::Null => Value::Absent,
        JsonType::Text => text(json).map_or(Value::Other(JsonType::BrokenText), Value::Text),
        JsonType::Number => json.parse().map_or(Value::Number(json), Value::Integer),
        kind @ (JsonType::Boolean | JsonType::BrokenText | JsonType::Array | JsonType::Object) => {
            Value::Other(kind)
        }
    }
}

fn seats<E: Error>(raw: &RawValue) -> Result<SeatList, E> {
    match JsonType::of(raw.get()) {
        JsonType::Null => Ok(SeatList::Absent),
        JsonType::Array => {
            let mut json = serde_json::Deserializer::from_str(raw.get());
            json.deserialize_seq(SeatsVisitor).map_err(E::custom)
        }
        kind @ (JsonType::Boolean
        | JsonType::Number
        | JsonType::Text
        | JsonType::BrokenText
        | JsonType::Object) => Ok(SeatList::Other(kind)),
    }
}

fn drain<'de, A: SeqAccess<'de>>(mut array: A) -> Result<(), A::Error> {
    while array.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

struct SeatsVisitor;

impl<'de> Visitor<'de> for SeatsVisitor {
    type Value = SeatList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<SeatList, A::Error> {
        let mut seats = SeatIds::default();
        while let Some(raw) = array.next_element::<&'de RawValue>()? {
            let found = match value(raw) {
                Value::Text(seat) if seats.len() < SEATS_MAX => {
                    seats.push(&seat);
                    continue;
                }
                Value::Text(_) => {
                    drain(array)?;
                    return Ok(SeatList::TooMany);
                }
                Value::Absent => JsonType::Null.to_string(),
                Value::Integer(_) | Value::Number(_) => number::described(raw.get()),
                Value::Other(kind) => kind.to_string(),
            };
            drain(array)?;
            return Ok(SeatList::WrongElement(seats.len(), found));
        }
        seats.shrink();
        Ok(SeatList::Seats(seats))
    }
}

/// Returns the value of the first member with this name, if `json` is an object.
pub(super) fn member<'a>(json: &'a str, name: &str) -> Option<&'a RawValue> {
    struct Find<'n>(&'n str);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                if found.is_none() && text(key.get()).is_some_and(|key| key == self.0) {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }

    serde_json::Deserializer::from_str(json).deserialize_map(Find(name)).ok().flatten()
}

/// Returns the text of a value, if it is a string.
pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    if JsonType::of(raw.get()) == JsonType::Text { text(raw.get()) } else { None }
}
