//! The rules of decoding once more, as plainly as they can be put: every value through `serde_json`'s `Value`, one look-up a field,
//! nothing borrowed, nothing fast. Written from the README's tables and the module documentation of `event`, not from its code.
//! What the worker's own decoder says must be the same; comparing them is left to `judge`.

use std::fmt;

use reservation_worker::event::{
    Event, EventId, EventType, Payload, Payment, PoisonReason, ReservationId, Seats, ShowId,
};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use PoisonReason::{InvalidEnvelope, InvalidEvent, InvalidJson, NestedTooDeep, UnknownType};

/// The fields that are known: each may stand once in an object.
const KNOWN: [&str; 23] = [
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
];

/// Two envelopes, the event, its payload.
const OBJECTS_MAX: usize = 4;

/// A field's value, as far as any rule asks.
#[derive(Clone, Debug, PartialEq)]
enum Given {
    Absent,
    Text(String),
    Whole(i64),
    Other,
}

fn given(json: &str) -> Given {
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Null) => Given::Absent,
        Ok(Value::String(text)) => Given::Text(text),
        // `serde_json` takes this zero for a fraction.
        Ok(Value::Number(_)) if json == "-0" => Given::Whole(0),
        Ok(Value::Number(number)) => number.as_i64().map_or(Given::Other, Given::Whole),
        // What `Value` cannot hold (half a surrogate pair, `1e400`, great depth) fits no field either.
        Ok(Value::Bool(_) | Value::Array(_) | Value::Object(_)) | Err(_) => Given::Other,
    }
}

/// An object's members as they stand, those of the same name too.
struct Object(Vec<(String, String)>);

impl Object {
    fn json(&self, name: &str) -> Option<&str> {
        let member = self.0.iter().find(|(key, _)| key == name);
        member.map(|(_, json)| json.as_str()).filter(|json| *json != "null")
    }

    fn get(&self, name: &str) -> Given {
        self.json(name).map_or(Given::Absent, given)
    }

    fn has(&self, name: &str) -> bool {
        self.json(name).is_some()
    }
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
fn object(json: &str) -> Option<Object> {
    serde_json::Deserializer::from_str(json).deserialize_map(Members).ok()
}

/// Whether any object that may be read names a known field twice.
fn repeats(json: &str, objects: usize) -> bool {
    let Some(object) = object(json).filter(|_| objects > 0) else { return false };
    let times = |name: &str| object.0.iter().filter(|(key, _)| key == name).count();
    KNOWN.iter().any(|name| times(name) > 1)
        || ["payload", "detail"]
            .iter()
            .filter_map(|name| object.json(name))
            .any(|inner| repeats(inner, objects - 1))
}

/// What the envelopes so far say.
#[derive(Clone)]
struct Around {
    id: Given,
    kind: Given,
    time: Given,
    trace_parent: Option<String>,
    trace_id: Option<String>,
}

fn or(value: Given, otherwise: &Given) -> Given {
    if value == Given::Absent { otherwise.clone() } else { value }
}

/// The event in a body, or why there is none.
pub(crate) fn decode(body: &str) -> Result<Event, PoisonReason> {
    let around = Around {
        id: Given::Absent,
        kind: Given::Absent,
        time: Given::Absent,
        trace_parent: None,
        trace_id: None,
    };
    open(body, around, 0)
}

/// A text: the body, or the `Message` of a notification.
fn open(text: &str, around: Around, envelopes: usize) -> Result<Event, PoisonReason> {
    let json: Box<RawValue> = serde_json::from_str(text).map_err(|_| InvalidJson)?;
    if repeats(json.get(), OBJECTS_MAX) {
        return Err(InvalidJson);
    }
    layer(&object(json.get()).ok_or(InvalidEnvelope)?, around, envelopes)
}

fn layer(object: &Object, mut around: Around, envelopes: usize) -> Result<Event, PoisonReason> {
    note_trace(object, &mut around);
    let is_event = object.has("reservation_id") || object.has("payload");
    let is_sns = object.has("Type") && object.has("Message");
    if is_event || !(is_sns || object.has("detail")) {
        return event(object, &around);
    }
    if envelopes == 2 {
        return Err(NestedTooDeep);
    }
    if is_sns {
        let (Given::Text(kind), Given::Text(message)) = (object.get("Type"), object.get("Message"))
        else {
            return Err(InvalidEnvelope);
        };
        if kind != "Notification" {
            return Err(InvalidEnvelope);
        }
        around.id = or(object.get("MessageId"), &around.id);
        around.time = or(object.get("Timestamp"), &around.time);
        return open(&message, around, envelopes + 1);
    }
    around.id = or(object.get("id"), &around.id);
    around.time = or(object.get("time"), &around.time);
    around.kind = or(or(object.get("detail-type"), &object.get("type")), &around.kind);
    let detail = object.json("detail").and_then(self::object).ok_or(InvalidEnvelope)?;
    layer(&detail, around, envelopes + 1)
}

fn event(object: &Object, around: &Around) -> Result<Event, PoisonReason> {
    let kind = match or(object.get("type"), &around.kind) {
        Given::Text(name) => match name.as_str() {
            "reservation.expired" | "reservation.hold.expired" => EventType::ReservationExpired,
            "payment.approved" => EventType::PaymentApproved,
            "payment.failed" => EventType::PaymentFailed,
            _ => return Err(UnknownType),
        },
        Given::Absent | Given::Whole(_) | Given::Other => return Err(InvalidEvent),
    };
    let id = required(or(object.get("id"), &around.id))?;
    let reservation_id = required(object.get("reservation_id"))?;
    if reservation_id == "." || reservation_id == ".." {
        return Err(InvalidEvent);
    }
    let show_id = required(object.get("event_id"))?;
    let inner = match object.json("payload") {
        Some(json) => Some(self::object(json).ok_or(InvalidEvent)?),
        None => None,
    };
    let payload = payload(kind, inner.as_ref().unwrap_or(object))?;
    Ok(Event {
        id: EventId::new(&id).expect("an id by the rule"),
        reservation_id: ReservationId::new(&reservation_id).expect("an id by the rule"),
        show_id: ShowId::new(&show_id).expect("an id by the rule"),
        occurred_at: described(or(object.get("ts"), &around.time)).filter(|at| fits(at, 64)),
        payload,
        trace_parent: trace_parent(around).map(String::into_boxed_str),
    })
}

fn payload(kind: EventType, fields: &Object) -> Result<Payload, PoisonReason> {
    let seats = seats(fields)?;
    if kind == EventType::ReservationExpired {
        return seats.map(Payload::ReservationExpired).ok_or(InvalidEvent);
    }
    let payment = Payment {
        payment_intent_id: optional(fields.get("payment_intent_id"))?,
        amount: match fields.get("amount") {
            Given::Whole(amount) => Some(amount),
            Given::Absent | Given::Text(_) | Given::Other => None,
        },
        currency: described(fields.get("currency")),
        user_id: optional(fields.get("user_id"))?,
        error_code: described(fields.get("error_code")),
        error_message: described(fields.get("error_message")),
        seats,
    };
    Ok(if kind == EventType::PaymentApproved {
        Payload::PaymentApproved(payment)
    } else {
        Payload::PaymentFailed(payment)
    })
}

fn seats(fields: &Object) -> Result<Option<Seats>, PoisonReason> {
    let names: Vec<String> = match fields.json("seat_ids") {
        None => Vec::new(),
        Some(list) => serde_json::from_str::<Vec<&RawValue>>(list)
            .map_err(|_| InvalidEvent)?
            .into_iter()
            .map(|name| match given(name.get()) {
                Given::Text(name) if fits(&name, 128) => Ok(name),
                Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Other => {
                    Err(InvalidEvent)
                }
            })
            .collect::<Result<_, _>>()?,
    };
    if names.len() > 10_000 {
        return Err(InvalidEvent);
    }
    let count = i32::try_from(names.len()).expect("10,000 fit");
    let quantity = match fields.get("qty") {
        Given::Absent if count == 0 => return Ok(None),
        Given::Absent => count,
        Given::Whole(qty) => i32::try_from(qty).ok().filter(|qty| *qty >= 1).ok_or(InvalidEvent)?,
        Given::Text(_) | Given::Other => return Err(InvalidEvent),
    };
    if count != 0 && count != quantity {
        return Err(InvalidEvent);
    }
    Ok(Some(Seats { seat_ids: names.iter().map(String::as_str).collect(), quantity }))
}

/// The rule for ids and names of seats.
fn fits(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

fn required(value: Given) -> Result<String, PoisonReason> {
    match value {
        Given::Text(text) if fits(&text, 256) => Ok(text),
        Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Other => Err(InvalidEvent),
    }
}

fn optional(value: Given) -> Result<Option<Box<str>>, PoisonReason> {
    match value {
        Given::Absent => Ok(None),
        Given::Text(text) if text.is_empty() => Ok(None),
        Given::Text(_) | Given::Whole(_) | Given::Other => {
            required(value).map(|text| Some(text.into()))
        }
    }
}

fn described(value: Given) -> Option<Box<str>> {
    match value {
        Given::Text(text) if !text.is_empty() => Some(text.into()),
        Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Other => None,
    }
}

fn note_trace(object: &Object, around: &mut Around) {
    let [parent, id] = ["traceparent", "trace_id"].map(|name| match object.get(name) {
        Given::Text(text) => text,
        Given::Absent | Given::Whole(_) | Given::Other => String::new(),
    });
    if let Some(found) = w3c(&parent).or_else(|| w3c(&id)) {
        around.trace_parent = Some(found);
    }
    if let Some(found) = trace_id(&id) {
        around.trace_id = Some(found);
    }
}

fn trace_parent(around: &Around) -> Option<String> {
    around.trace_parent.clone().or_else(|| {
        let id = around.trace_id.as_ref()?;
        let half = if id.ends_with(&"0".repeat(16)) { &id[..16] } else { &id[16..] };
        Some(format!("00-{id}-{half}-01"))
    })
}

/// A `traceparent`, as version 00.
pub(crate) fn w3c(text: &str) -> Option<String> {
    let hex = |from: usize, to: usize| {
        text.get(from..to)
            .filter(|part| part.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)))
    };
    let (version, id, parent, flags) = (hex(0, 2)?, hex(3, 35)?, hex(36, 52)?, hex(53, 55)?);
    let dashes = [2, 35, 52].iter().all(|at| text.as_bytes()[*at] == b'-');
    let ends = text.len() == 55 || (version != "00" && text.as_bytes()[55] == b'-');
    let is_zero = |part: &str| part.chars().all(|c| c == '0');
    (dashes && ends && version != "ff" && !is_zero(id) && !is_zero(parent))
        .then(|| format!("00-{id}-{parent}-{flags}"))
}

/// 32 hexadecimal digits, or X-Ray's `1-8-24`, in lower case.
fn trace_id(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('-').collect();
    let id = match parts.as_slice() {
        [id] => (*id).to_owned(),
        ["1", epoch, rest] if epoch.len() == 8 => format!("{epoch}{rest}"),
        _ => return None,
    };
    let is_id = id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit());
    (is_id && id.chars().any(|c| c != '0')).then(|| id.to_ascii_lowercase())
}
