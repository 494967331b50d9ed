//! Reads an object in one pass, each value as it comes, which takes half the work of taking each as text first. What it cannot
//! read, it gives up on: what is no JSON, a field given twice, whatever is rare. That is left to the other way, in `wire`, which
//! alone says what is wrong with a body; so no error that is made here is ever seen.
//!
//! What it does read is what the other way would: the tests hold one against the other.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::{Key, Kind, Layer, Node, SeatList, Value};
use crate::event::{SEATS_MAX, SeatIds};

/// The object that `text` is, with objects in objects down to `objects` deep; `None` where the other way must be taken.
pub(super) fn object(text: &str, objects: u8) -> Option<Box<Layer<'_>>> {
    let fields = Fields { objects: objects.checked_sub(1)? };
    let mut json = serde_json::Deserializer::from_str(text);
    let layer = json.deserialize_map(fields).ok()?;
    json.end().ok()?;
    Some(layer)
}

/// An object that may hold others, down to a depth.
struct Fields {
    objects: u8,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Box<Layer<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut layer = Box::<Layer<'de>>::default();
        let mut seen = 0_u64;
        while let Some(key) = object.next_key::<Key>()? {
            if key == Key::Unknown {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let bit = 1_u64 << key as u32;
            if seen & bit != 0 {
                return Err(A::Error::duplicate_field(key.as_str()));
            }
            seen |= bit;
            if key == Key::Payload {
                layer.payload = object.next_value_seed(Inside(self.objects))?;
            } else if key == Key::Detail {
                layer.detail = object.next_value_seed(Inside(self.objects))?;
            } else if key.field() == Key::SeatIds {
                layer.put_seats(object.next_value()?);
            } else if matches!(key, Key::Data | Key::SnsAttributes) {
                layer.put_json(key, object.next_value()?);
            } else {
                let value = object.next_value()?;
                if value == UNSEEN && key != Key::Amount {
                    return Err(A::Error::custom("a number that must be seen"));
                }
                layer.put(key, value);
            }
        }
        Ok(layer)
    }
}

/// The value of a field that should be an object. Objects in it may go so deep.
struct Inside(u8);

impl<'de> DeserializeSeed<'de> for Inside {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Node<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Absent)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Node<'de>, A::Error> {
        let objects = self.0.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        Fields { objects }.visit_map(object).map(Node::Object)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Plain)
    }
}

/// A number whose text is not known here.
const UNSEEN: Value<'static> = Value::Number("");

/// A plain value.
struct Plain;

impl<'de> Visitor<'de> for Plain {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Absent)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other(Kind::Boolean))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(UNSEEN, Value::Integer))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value<'de>, E> {
        // `-0` comes as one too, and is an integer, which `0.0` is not: there the text must be seen.
        if number == 0.0 {
            return Err(E::custom("a zero"));
        }
        Ok(UNSEEN)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de> Deserialize<'de> for SeatList {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Seats)
    }
}

/// The value of `seat_ids`.
struct Seats;

impl<'de> Visitor<'de> for Seats {
    type Value = SeatList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strings or null")
    }

    fn visit_unit<E: Error>(self) -> Result<SeatList, E> {
        Ok(SeatList::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<SeatList, A::Error> {
        let mut seats = SeatIds::default();
        while array.next_element_seed(Seat(&mut seats))?.is_some() {}
        seats.shrink();
        Ok(SeatList::Seats(seats))
    }
}

/// One seat more.
struct Seat<'s>(&'s mut SeatIds);

impl<'de> DeserializeSeed<'de> for Seat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Seat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, seat: &str) -> Result<(), E> {
        if self.0.len() == SEATS_MAX {
            return Err(E::custom("too many"));
        }
        self.0.push(seat);
        Ok(())
    }
}
