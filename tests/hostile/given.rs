//! Values and objects of a body as they stand, by the plainest means: part of `reference`, which says what they mean.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The fields that are known: each may stand once in an object.
const KNOWN: [&str; 39] = [
    "Type",
    "Message",
    "MessageId",
    "Timestamp",
    "detail-type",
    "id",
    "type",
    "time",
    "ts",
    "trace_id",
    "traceparent",
    "reservation_id",
    "event_id",
    "qty",
    "payment_intent_id",
    "amount",
    "currency",
    "user_id",
    "error_code",
    "error_message",
    "seat_ids",
    "payload",
    "detail",
    "data",
    "specversion",
    "tracestate",
    "MessageAttributes",
    "status",
    "payment_id",
    "event_type",
    "eventType",
    "reservationId",
    "eventId",
    "quantity",
    "paymentIntentId",
    "userId",
    "errorCode",
    "errorMessage",
    "seatIds",
];

/// The fields that JVM producers spell otherwise.
const SPELLINGS: [(&str, &str); 9] = [
    ("event_type", "eventType"),
    ("reservation_id", "reservationId"),
    ("event_id", "eventId"),
    ("qty", "quantity"),
    ("payment_intent_id", "paymentIntentId"),
    ("user_id", "userId"),
    ("error_code", "errorCode"),
    ("error_message", "errorMessage"),
    ("seat_ids", "seatIds"),
];

/// Where an empty text says nothing.
const EMPTY_IS_ABSENT: [&str; 4] = ["payment_intent_id", "user_id", "error_code", "error_message"];

fn says_something(name: &str, json: &str) -> bool {
    json != "null" && !(EMPTY_IS_ABSENT.contains(&name) && json == r#""""#)
}

/// A field's value, as far as any rule asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given {
    Absent,
    Text(String),
    Whole(i64),
    /// Any other number, as it stands.
    Number(String),
    Other,
}

pub(crate) fn given(json: &str) -> Given {
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Null) => Given::Absent,
        Ok(Value::String(text)) => Given::Text(text),
        // `serde_json` takes this zero for a fraction.
        Ok(Value::Number(_)) if json == "-0" => Given::Whole(0),
        Ok(Value::Number(number)) => {
            number.as_i64().map_or_else(|| Given::Number(json.to_owned()), Given::Whole)
        }
        Err(_) if json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            Given::Number(json.to_owned())
        }
        // What `Value` cannot hold (half a surrogate pair, `1e400`, great depth) fits no field either.
        Ok(Value::Bool(_) | Value::Array(_) | Value::Object(_)) | Err(_) => Given::Other,
    }
}

/// An object's members as they stand, those of the same name too.
pub(crate) struct Object(Vec<(String, String)>);

impl Object {
    /// The first value that says something, in either spelling.
    pub(crate) fn json(&self, name: &str) -> Option<&str> {
        let other = SPELLINGS.iter().find(|(snake, _)| *snake == name).map(|(_, camel)| *camel);
        let members = self.0.iter().filter(|(key, _)| key == name || Some(key.as_str()) == other);
        members.map(|(_, json)| json.as_str()).find(|json| says_something(name, json))
    }

    pub(crate) fn contradicts_itself(&self) -> bool {
        let values = |name: &str, other: &str| {
            let members = self.0.iter().filter(|(key, _)| key == name || key == other);
            members
                .map(|(_, json)| json.clone())
                .filter(|json| says_something(name, json))
                .collect::<Vec<_>>()
        };
        SPELLINGS.iter().any(|(snake, camel)| {
            let values = values(snake, camel);
            let [one, other] = values.as_slice() else { return false };
            if *snake == "seat_ids" { list(one) != list(other) } else { kind(one) != kind(other) }
        })
    }

    /// The first member of that name, null or not.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, json)| json.as_str())
    }

    pub(crate) fn get(&self, name: &str) -> Given {
        self.json(name).map_or(Given::Absent, given)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.json(name).is_some()
    }
}

/// A value, or of what type it is where no field takes that: two of one type are not told apart.
fn kind(json: &str) -> (Given, Option<char>) {
    let value = given(json);
    let first = if value == Given::Other { json.chars().next() } else { None };
    // A text that UTF-8 cannot hold is of another type than a text, and true and false are of one.
    // Two ways to write one whole number are one value.
    let value = match &value {
        Given::Number(json) => whole(json).map_or_else(|| value.clone(), Given::Whole),
        Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Other => value,
    };
    (value, first.map(|first| if first == 'f' { 't' } else { first }))
}

/// What a list of names says: the names, that they are too many, or the first that is none and what it is.
fn list(json: &str) -> (Vec<String>, String) {
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(json) else {
        // A number is not told from another, nor from a text.
        let first = json.chars().next().unwrap_or_default();
        let first = match first {
            'f' => 't',
            '-' | '0'..='9' => '0',
            first => first,
        };
        return (Vec::new(), first.to_string());
    };
    let mut names = Vec::new();
    for name in list {
        match given(name.get()) {
            Given::Text(_) if names.len() == 10_000 => return (Vec::new(), "many".into()),
            Given::Text(name) => names.push(name),
            other @ (Given::Absent | Given::Whole(_) | Given::Number(_) | Given::Other) => {
                let shown = match other {
                    Given::Whole(_) | Given::Number(_) => {
                        name.get().chars().take(64).collect::<String>()
                            + if name.get().len() > 64 { "..." } else { "" }
                    }
                    Given::Absent | Given::Text(_) | Given::Other => {
                        format!("{:?}", kind(name.get()))
                    }
                };
                return (Vec::new(), format!("{} {shown}", names.len()));
            }
        }
    }
    (names, String::new())
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            // A key that no text can hold is not one of ours.
            let key = serde_json::from_str(key.get()).unwrap_or_default();
            members.push((key, value.get().to_owned()));
        }
        Ok(Object(members))
    }
}

/// The members, where it is an object.
pub(crate) fn object(json: &str) -> Option<Object> {
    serde_json::Deserializer::from_str(json).deserialize_map(Members).ok()
}

/// Whether any object that may be read names a known field twice.
pub(crate) fn repeats(json: &str, objects: usize) -> bool {
    let Some(object) = object(json).filter(|_| objects > 0) else { return false };
    let times = |name: &str| object.0.iter().filter(|(key, _)| key == name).count();
    KNOWN.iter().any(|name| times(name) > 1)
        || ["payload", "detail"]
            .iter()
            .filter_map(|name| object.json(name))
            .any(|inner| repeats(inner, objects - 1))
}

/// The value of a number, where that is whole and not far too large: its digits, with the point moved by the exponent.
pub(crate) fn whole(json: &str) -> Option<i64> {
    let json = json.to_ascii_lowercase();
    let (mantissa, exponent) = json.split_once('e').unwrap_or((&json, "0"));
    let digits: Vec<char> = mantissa.chars().filter(char::is_ascii_digit).collect();
    if digits.iter().all(|digit| *digit == '0') {
        return Some(0);
    }
    let before = mantissa.trim_start_matches('-').split('.').next().unwrap_or_default().len();
    // An exponent of so many digits makes every other number too large, or a fraction.
    let exponent: i128 = exponent.parse().ok()?;
    let point = i128::try_from(before).ok()? + exponent;
    let (mut value, mut at) = (0_i128, 0);
    for digit in digits {
        if at < point {
            value = value.checked_mul(10)? + i128::from(digit.to_digit(10)?);
        } else if digit != '0' {
            return None;
        }
        at += 1;
    }
    while at < point {
        value = value.checked_mul(10)?;
        at += 1;
    }
    let value = if mantissa.starts_with('-') { -value } else { value };
    i64::try_from(value).ok()
}
