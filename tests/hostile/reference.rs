//! A second decoder, as simple as possible: every value through `serde_json`'s `Value`, one look-up
//! per field, no borrowing, no optimisation. Written from the tables of docs/events.md and the
//! module documentation of `event`, not from its code. The worker's decoder must return the same;
//! `judge` compares them.

use reservation_worker::event::{
    BodyTrace, Event, EventId, EventType, Payload, Payment, PoisonReason, ReservationId, Seats,
    ShowId, W3cParent,
};
use serde_json::value::RawValue;

#[path = "given.rs"]
mod given;

use PoisonReason::{InvalidEnvelope, InvalidEvent, InvalidJson, NestedTooDeep, UnknownType};
use given::{Given, Object, given, object, repeats, whole};

/// Two envelopes, the event and its payload.
const OBJECTS_MAX: usize = 4;

/// The values of the envelopes so far.
#[derive(Clone)]
struct Around {
    id: Given,
    kind: Given,
    attribute: Option<BodyTrace>,
    trace: Option<BodyTrace>,
    trace_id: Option<String>,
    baggage: Option<String>,
    message_id: String,
}

fn or(value: Given, otherwise: &Given) -> Given {
    if value == Given::Absent { otherwise.clone() } else { value }
}

/// The reason why there is no event; `None` if the event has no effect.
type Stop = Option<PoisonReason>;

/// Returns the event of a body, or why there is none.
pub(crate) fn decode(body: &str, message_id: &str) -> Result<Event, Stop> {
    let around = Around {
        id: Given::Absent,
        kind: Given::Absent,
        attribute: None,
        trace: None,
        trace_id: None,
        baggage: None,
        message_id: message_id.to_owned(),
    };
    open(body, around, 0)
}

/// Reads a text: the body, the `Message` of a notification, or the `data` of a CloudEvent.
fn open(text: &str, around: Around, envelopes: usize) -> Result<Event, Stop> {
    let json: Box<RawValue> = serde_json::from_str(text).map_err(|_| InvalidJson)?;
    if repeats(json.get(), OBJECTS_MAX) {
        return Err(InvalidJson.into());
    }
    layer(&object(json.get()).ok_or(InvalidEnvelope)?, around, envelopes)
}

fn layer(object: &Object, mut around: Around, envelopes: usize) -> Result<Event, Stop> {
    note_trace(object, &mut around);
    let is_event = object.has("reservation_id") || object.has("payload");
    let is_sns = object.has("Type") && object.has("Message");
    let is_cloud_event = object.has("specversion") && object.has("data");
    if is_event || !(is_sns || is_cloud_event || object.has("detail")) {
        return event(object, &around);
    }
    if envelopes == 2 {
        return Err(NestedTooDeep.into());
    }
    if is_sns {
        let (Given::Text(kind), Given::Text(message)) = (object.get("Type"), object.get("Message"))
        else {
            return Err(InvalidEnvelope.into());
        };
        if kind != "Notification" {
            return Err(InvalidEnvelope.into());
        }
        note_attributes(object, &mut around);
        around.id = or(object.get("MessageId"), &around.id);
        return open(&message, around, envelopes + 1);
    }
    around.id = or(object.get("id"), &around.id);
    around.kind = or(or(object.get("detail-type"), &object.get("type")), &around.kind);
    if is_cloud_event {
        if object.get("specversion") != Given::Text("1.0".into()) {
            return Err(InvalidEnvelope.into());
        }
        return open(object.json("data").unwrap_or("null"), around, envelopes + 1);
    }
    let detail = object.json("detail").and_then(self::object).ok_or(InvalidEnvelope)?;
    layer(&detail, around, envelopes + 1)
}

fn event(object: &Object, around: &Around) -> Result<Event, Stop> {
    let name = or(or(object.get("type"), &around.kind), &object.get("event_type"));
    let Given::Text(name) = name else { return Err(InvalidEvent.into()) };
    let named = match name.as_str() {
        "reservation.expired" | "reservation.hold.expired" => Some(EventType::ReservationExpired),
        "Reservation Expiry" | "RESERVATION_EXPIRED" => Some(EventType::ReservationExpired),
        "payment.approved" => Some(EventType::PaymentApproved),
        "payment.failed" => Some(EventType::PaymentFailed),
        "payment.status_updated" | "Payment Status Updated" => None,
        _ => return Err(UnknownType.into()),
    };
    let inner = match object.json("payload") {
        Some(json) => Some(self::object(json).ok_or(InvalidEvent)?),
        None => None,
    };
    let fields = inner.as_ref().unwrap_or(object);
    if object.contradicts_itself() || fields.contradicts_itself() {
        return Err(InvalidEvent.into());
    }
    let kind = match named {
        Some(kind) => kind,
        None => by_status(fields)?,
    };
    let own_id = or(object.get("id"), &around.id);
    let is_id_of_message = own_id == Given::Absent;
    let id = if is_id_of_message { around.message_id.clone() } else { required(own_id)? };
    let reservation_id = required(object.get("reservation_id"))?;
    if reservation_id == "." || reservation_id == ".." {
        return Err(InvalidEvent.into());
    }
    let payload = payload(kind, fields, named.is_none())?;
    Ok(Event {
        id: EventId::new(&id).expect("an id by the rule"),
        is_id_of_message,
        reservation_id: ReservationId::new(&reservation_id).expect("an id by the rule"),
        show_id: show_id(object.get("event_id"), &payload)?
            .map(|id| ShowId::new(&id).expect("an id by the rule")),
        payload,
        trace: trace(around),
        baggage: around.baggage.clone().map(Into::into),
    })
}

/// Returns the show. It is required if a payment has seats, otherwise ignored if invalid; that of
/// an expiry must be valid.
fn show_id(value: Given, payload: &Payload) -> Result<Option<String>, Stop> {
    let needed = match payload {
        Payload::ReservationExpired(_) => value != Given::Absent,
        Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) => {
            if payment.seats.is_none() {
                return Ok(required(value).ok());
            }
            true
        }
    };
    if needed { Ok(Some(required(value)?)) } else { Ok(None) }
}

/// Maps a payment's status to an event type.
fn by_status(fields: &Object) -> Result<EventType, Stop> {
    let Given::Text(status) = fields.get("status") else { return Err(InvalidEvent.into()) };
    if status.is_empty() {
        return Err(InvalidEvent.into());
    }
    let status = status.to_ascii_lowercase();
    match status.strip_prefix("payment_status_").unwrap_or(&status) {
        "completed" | "approved" => Ok(EventType::PaymentApproved),
        "failed" => Ok(EventType::PaymentFailed),
        _ => Err(None),
    }
}

fn payload(kind: EventType, fields: &Object, by_status: bool) -> Result<Payload, PoisonReason> {
    let is_payment = kind != EventType::ReservationExpired;
    let seats = seats(fields, is_payment)?;
    if !is_payment {
        return Ok(Payload::ReservationExpired(seats));
    }
    let mut payment_intent_id = optional(fields.get("payment_intent_id"))?;
    if by_status && payment_intent_id.is_none() {
        payment_intent_id = optional(fields.get("payment_id"))?;
    }
    let payment = Payment {
        payment_intent_id,
        amount: match fields.get("amount") {
            Given::Whole(amount) => Some(amount),
            Given::Absent | Given::Text(_) | Given::Number(_) | Given::Other => None,
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

fn seats(fields: &Object, zero_is_none: bool) -> Result<Option<Seats>, PoisonReason> {
    let names: Vec<String> = match fields.json("seat_ids") {
        None => Vec::new(),
        Some(list) => serde_json::from_str::<Vec<&RawValue>>(list)
            .map_err(|_| InvalidEvent)?
            .into_iter()
            .map(|name| match given(name.get()) {
                Given::Text(name) if fits(&name, 128) => Ok(name),
                Given::Absent
                | Given::Text(_)
                | Given::Whole(_)
                | Given::Number(_)
                | Given::Other => Err(InvalidEvent),
            })
            .collect::<Result<_, _>>()?,
    };
    if names.len() > 10_000 {
        return Err(InvalidEvent);
    }
    let count = i32::try_from(names.len()).expect("10,000 fit");
    let number = match fields.get("qty") {
        Given::Absent => None,
        Given::Whole(qty) => Some(qty),
        Given::Number(json) => Some(whole(&json).ok_or(InvalidEvent)?),
        Given::Text(_) | Given::Other => return Err(InvalidEvent),
    };
    let quantity = match number {
        None if count == 0 => return Ok(None),
        None => count,
        Some(0) if zero_is_none && count == 0 => return Ok(None),
        Some(qty) => i32::try_from(qty).ok().filter(|qty| *qty >= 1).ok_or(InvalidEvent)?,
    };
    if count != 0 && count != quantity {
        return Err(InvalidEvent);
    }
    Ok(Some(Seats { seat_ids: names.iter().map(String::as_str).collect(), quantity }))
}

/// The rule for ids and seat names.
fn fits(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

fn required(value: Given) -> Result<String, PoisonReason> {
    match value {
        Given::Text(text) if fits(&text, 256) => Ok(text),
        Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Number(_) | Given::Other => {
            Err(InvalidEvent)
        }
    }
}

fn optional(value: Given) -> Result<Option<Box<str>>, PoisonReason> {
    match value {
        Given::Absent => Ok(None),
        Given::Text(text) if text.is_empty() => Ok(None),
        Given::Text(_) | Given::Whole(_) | Given::Number(_) | Given::Other => {
            required(value).map(|text| Some(text.into()))
        }
    }
}

fn described(value: Given) -> Option<Box<str>> {
    match value {
        Given::Text(text) if !text.is_empty() => Some(text.into()),
        Given::Absent | Given::Text(_) | Given::Whole(_) | Given::Number(_) | Given::Other => None,
    }
}

fn note_trace(object: &Object, around: &mut Around) {
    let [parent, id, state] = ["traceparent", "trace_id", "tracestate"]
        .map(|name| if let Given::Text(text) = object.get(name) { text } else { String::new() });
    if let Some(parent) = w3c(&parent).or_else(|| w3c(&id)) {
        let (parent, state) = (typed(&parent), described_state(state));
        around.trace = Some(BodyTrace { parent, state, is_attribute: false });
    }
    if let Some(found) = trace_id(&id) {
        around.trace_id = Some(found);
    }
}

fn described_state(state: String) -> Option<Box<str>> {
    (1..=512).contains(&state.len()).then(|| state.into())
}

fn note_attributes(object: &Object, around: &mut Around) {
    let Some(attributes) = object.json("MessageAttributes").and_then(self::object) else { return };
    let value = |name: &str| {
        let attribute = attributes.first(name).and_then(self::object)?;
        match given(attribute.first("Value")?) {
            Given::Text(text) => Some(text),
            Given::Absent | Given::Whole(_) | Given::Number(_) | Given::Other => None,
        }
    };
    if let Some(parent) = value("traceparent").and_then(|text| w3c(&text)) {
        let state = value("tracestate").and_then(described_state);
        around.attribute = Some(BodyTrace { parent: typed(&parent), state, is_attribute: true });
    }
    if let Some(text) = value("baggage").filter(|text| (1..=8192).contains(&text.len())) {
        around.baggage = Some(text);
    }
}

fn trace(around: &Around) -> Option<BodyTrace> {
    around.attribute.clone().or_else(|| around.trace.clone()).or_else(|| {
        let id = around.trace_id.as_ref()?;
        let half = if id.ends_with(&"0".repeat(16)) { &id[..16] } else { &id[16..] };
        let parent = typed(&format!("00-{id}-{half}-01"));
        Some(BodyTrace { parent, state: None, is_attribute: false })
    })
}

/// Reads a `traceparent` of version 00.
fn typed(text: &str) -> W3cParent {
    const HEX: &str = "the text was checked by `w3c`";
    W3cParent {
        trace_id: u128::from_str_radix(&text[3..35], 16).expect(HEX),
        span_id: u64::from_str_radix(&text[36..52], 16).expect(HEX),
        flags: u8::from_str_radix(&text[53..55], 16).expect(HEX),
    }
}

/// Returns a valid `traceparent`, as version 00.
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

/// Returns a trace id (32 hexadecimal digits, or X-Ray's `1-8-24`) in lower case.
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
