//! The values and objects of a body, read in the simplest way: part of `reference`, which
//! interprets them.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The known fields: each may occur once in an object.
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

/// Fields with a second spelling, used by JVM producers.
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

/// Fields in which an empty text counts as absent.
const EMPTY_IS_ABSENT: [&str; 4] = ["payment_intent_id", "user_id", "error_code", "error_message"];

fn says_something(name: &str, json: &str) -> bool {
    json != "null" && !(EMPTY_IS_ABSENT.contains(&name) && json == r#""""#)
}

/// A field's value, as far as the rules need it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given {
    Absent,
    Text(String),
    Whole(i64),
    /// Any other number, as written.
    Number(String),
    Other,
}

pub(crate) fn given(json: &str) -> Given {
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Null) => Given::Absent,
        Ok(Value::String(text)) => Given::Text(text),
        // `serde_json` reads this zero as a fraction.
        Ok(Value::Number(_)) if json == "-0" => Given::Whole(0),
        Ok(Value::Number(number)) => {
            number.as_i64().map_or_else(|| Given::Number(json.to_owned()), Given::Whole)
        }
        Err(_) if json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            Given::Number(json.to_owned())
        }
        // JSON that `Value` cannot hold (half a surrogate pair, `1e400`, great depth) fits no
        // field.
        Ok(Value::Bool(_) | Value::Array(_) | Value::Object(_)) | Err(_) => Given::Other,
    }
}

/// An object's members as written, including repeated names.
pub(crate) struct Object(Vec<(String, String)>);

impl Object {
    /// Returns the first value that is not absent, in either spelling.
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

    /// Returns the first member of that name, null or not.
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

/// Returns a value; for one that no field takes, also a mark of its type.
fn kind(json: &str) -> (Given, Option<char>) {
    let value = given(json);
    let first = if value == Given::Other { json.chars().next() } else { None };
    // A text that UTF-8 cannot hold differs from a text, true and false are alike, and two
    // spellings of one whole number are one value.
    let value = match &value {
        Given::Number(json) => whole(json).map_or_else(|| value.clone(), Given::Whole),
        Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Other => value,
    };
    (value, first.map(|first| if first == 'f' { 't' } else { first }))
}

/// Returns the names of a list, or a mark: "many", or the first element that is no name.
fn list(json: &str) -> (Vec<String>, String) {
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(json) else {
        // All numbers have one mark, and all texts have one.
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
            // A key that a text cannot hold is no known field.
            let key = serde_json::from_str(key.get()).unwrap_or_default();
            members.push((key, value.get().to_owned()));
        }
        Ok(Object(members))
    }
}

/// Returns the members if it is an object.
pub(crate) fn object(json: &str) -> Option<Object> {
    serde_json::Deserializer::from_str(json).deserialize_map(Members).ok()
}

/// Whether one of the objects that the decoder reads has a known field twice.
pub(crate) fn repeats(json: &str, objects: usize) -> bool {
    let Some(object) = object(json).filter(|_| objects > 0) else { return false };
    let times = |name: &str| object.0.iter().filter(|(key, _)| key == name).count();
    KNOWN.iter().any(|name| times(name) > 1)
        || ["payload", "detail"]
            .iter()
            .filter_map(|name| object.json(name))
            .any(|inner| repeats(inner, objects - 1))
}

/// Returns the value of a whole number in range, from its digits and its exponent.
pub(crate) fn whole(json: &str) -> Option<i64> {
    let json = json.to_ascii_lowercase();
    let (mantissa, exponent) = json.split_once('e').unwrap_or((&json, "0"));
    let digits: Vec<char> = mantissa.chars().filter(char::is_ascii_digit).collect();
    if digits.iter().all(|digit| *digit == '0') {
        return Some(0);
    }
    let before = mantissa.trim_start_matches('-').split('.').next().unwrap_or_default().len();
    // An exponent that does not fit makes every other number too large or a fraction.
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
