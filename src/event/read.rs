//! From the innermost layer to an [`Event`]: what each field must be. Envelopes are opened before this, in `decode`.

use super::decode::Around;
use super::id::{self, ID_BYTES_MAX, IdError};
use super::poison::Fault;
use super::wire::{Key, Kind, Layer, Node, SeatList, Value};
use super::{
    Event, EventId, EventType, Payload, Payment, Poison, PoisonReason, ReservationId, SeatIds,
    Seats, ShowId,
};
use crate::excerpt::Excerpt;

/// Seats that one event may name at most: more than any venue's block.
pub const SEATS_MAX: usize = 10_000;

/// Bytes that the name of a seat may have at most.
pub const SEAT_ID_BYTES_MAX: usize = 128;

/// Bytes that a time may have at most; RFC 3339 with nanoseconds and offset takes 35.
const TIME_BYTES_MAX: usize = 64;

/// Checks everything that an event needs. The fault is the first in the order type, id, reservation, show, payload.
pub(super) fn event(mut layer: Layer<'_>, around: Around<'_>) -> Result<Event, Poison> {
    checked(&mut layer, &around)
        .map(|event| Event { trace_parent: around.trace.clone().into_trace_parent(), ..event })
        .map_err(|fault| Poison {
            event_type: event_type(&layer, &around).ok(),
            id: event_id(&layer, &around).ok(),
            reservation_id: reservation_id(&layer).ok(),
            ..fault.into()
        })
}

fn checked(layer: &mut Layer<'_>, around: &Around<'_>) -> Result<Event, Fault> {
    let event_type = event_type(layer, around)?;
    let id = event_id(layer, around)?;
    let reservation_id = reservation_id(layer)?;
    let show_id = required(layer.get(Key::EventId), Key::EventId, ShowId::new)?;
    let occurred_at = own_or(layer.get(Key::Ts), &around.time);
    let occurred_at =
        describing(occurred_at).filter(|text| id::check(text, TIME_BYTES_MAX).is_ok());
    let payload = match std::mem::take(&mut layer.payload) {
        Node::Object(mut inner) => payload(event_type, &mut inner)?,
        Node::Absent => payload(event_type, layer)?,
        Node::Other(kind) => return Err(wrong_type(Key::Payload, kind, "an object")),
    };
    Ok(Event { id, reservation_id, show_id, occurred_at, payload, trace_parent: None })
}

fn event_type(layer: &Layer<'_>, around: &Around<'_>) -> Result<EventType, Fault> {
    let value = own_or(layer.get(Key::Type), &around.type_name);
    let name = text(value, Key::Type)?.ok_or_else(|| missing(Key::Type))?;
    EventType::from_name(name).ok_or_else(|| {
        let known = EventType::ALL.map(EventType::as_str).join(", ");
        let detail = format!("type is {}: must be one of {known}", Excerpt(name));
        Fault::new(PoisonReason::UnknownType, detail)
    })
}

fn event_id(layer: &Layer<'_>, around: &Around<'_>) -> Result<EventId, Fault> {
    required(own_or(layer.get(Key::Id), &around.id), Key::Id, EventId::new)
}

fn reservation_id(layer: &Layer<'_>) -> Result<ReservationId, Fault> {
    let key = Key::ReservationId;
    required(layer.get(key), key, ReservationId::new)
}

/// An event's payload, from the object that holds its fields.
fn payload(event_type: EventType, fields: &mut Layer<'_>) -> Result<Payload, Fault> {
    match event_type {
        EventType::ReservationExpired => seats(fields)?
            .map(Payload::ReservationExpired)
            .ok_or_else(|| Fault::event("qty and seat_ids are missing: one of them is needed")),
        EventType::PaymentApproved => payment(fields).map(Payload::PaymentApproved),
        EventType::PaymentFailed => payment(fields).map(Payload::PaymentFailed),
    }
}

fn payment(fields: &mut Layer<'_>) -> Result<Payment, Fault> {
    Ok(Payment {
        payment_intent_id: optional_id(fields, Key::PaymentIntentId)?,
        amount: match fields.get(Key::Amount) {
            Value::Integer(amount) => Some(*amount),
            Value::Absent | Value::Text(_) | Value::Other(_) => None,
        },
        currency: describing(fields.get(Key::Currency)),
        user_id: optional_id(fields, Key::UserId)?,
        error_code: describing(fields.get(Key::ErrorCode)),
        error_message: describing(fields.get(Key::ErrorMessage)),
        seats: seats(fields)?,
    })
}

/// The seats that are named, or their number; `None` where there is neither.
fn seats(fields: &mut Layer<'_>) -> Result<Option<Seats>, Fault> {
    let seat_ids = seat_ids(std::mem::take(&mut fields.seat_ids))?;
    let count = i32::try_from(seat_ids.len()).expect("SEATS_MAX fits 32 bits");
    let Some(quantity) = quantity(fields.get(Key::Qty))? else {
        let quantity = count;
        return Ok((count > 0).then_some(Seats { seat_ids, quantity }));
    };
    if count > 0 && count != quantity {
        return Err(Fault::event(format!(
            "qty is {quantity}: must be the number of seat_ids, {count}"
        )));
    }
    Ok(Some(Seats { seat_ids, quantity }))
}

fn quantity(value: &Value<'_>) -> Result<Option<i32>, Fault> {
    const ALLOWED: &str = "a whole number from 1 to 2147483647";
    match value {
        Value::Absent => Ok(None),
        Value::Integer(number) => match i32::try_from(*number) {
            Ok(quantity) if quantity >= 1 => Ok(Some(quantity)),
            Ok(_) | Err(_) => Err(Fault::event(format!("qty is {number}: must be {ALLOWED}"))),
        },
        Value::Text(_) => Err(wrong_type(Key::Qty, Kind::Text, ALLOWED)),
        Value::Other(kind) => Err(wrong_type(Key::Qty, *kind, ALLOWED)),
    }
}

fn seat_ids(list: SeatList) -> Result<SeatIds, Fault> {
    let seats = match list {
        SeatList::Absent => return Ok(SeatIds::default()),
        SeatList::Seats(seats) => seats,
        SeatList::TooMany => {
            return Err(Fault::event(format!("seat_ids has more than {SEATS_MAX} seats")));
        }
        SeatList::WrongElement(index, kind) => {
            return Err(Fault::event(format!("seat_ids[{index}] is {kind}: must be a string")));
        }
        SeatList::Other(kind) => {
            return Err(wrong_type(Key::SeatIds, kind, "an array of strings"));
        }
    };
    for (index, seat) in seats.iter().enumerate() {
        id::check(seat, SEAT_ID_BYTES_MAX).map_err(|error| {
            Fault::event(format!("seat_ids[{index}] is {}: {error}", Excerpt(seat)))
        })?;
    }
    Ok(seats)
}

/// The value, unless it is absent.
fn own_or<'v, 'a>(own: &'v Value<'a>, otherwise: &'v Value<'a>) -> &'v Value<'a> {
    match own {
        Value::Absent => otherwise,
        Value::Text(_) | Value::Integer(_) | Value::Other(_) => own,
    }
}

/// The text of a field that decides something.
fn text<'v>(value: &'v Value<'_>, key: Key) -> Result<Option<&'v str>, Fault> {
    match value {
        Value::Absent => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Integer(_) => Err(wrong_type(key, Kind::Number, "a string")),
        Value::Other(kind) => Err(wrong_type(key, *kind, "a string")),
    }
}

fn required<T>(
    value: &Value<'_>,
    key: Key,
    make: fn(&str) -> Result<T, IdError>,
) -> Result<T, Fault> {
    let text = text(value, key)?.ok_or_else(|| missing(key))?;
    make(text).map_err(|error| not_an_id(key, text, error))
}

fn optional_id(fields: &Layer<'_>, key: Key) -> Result<Option<Box<str>>, Fault> {
    match text(fields.get(key), key)? {
        None | Some("") => Ok(None),
        Some(text) => id::check(text, ID_BYTES_MAX)
            .map(|()| Some(text.into()))
            .map_err(|error| not_an_id(key, text, error)),
    }
}

/// The text of a field that only describes: what does not fit is absent.
fn describing(value: &Value<'_>) -> Option<Box<str>> {
    match value {
        Value::Text(text) if !text.is_empty() => Some(text.as_ref().into()),
        Value::Text(_) | Value::Absent | Value::Integer(_) | Value::Other(_) => None,
    }
}

fn missing(key: Key) -> Fault {
    Fault::event(format!("{} is missing", key.as_str()))
}

fn not_an_id(key: Key, text: &str, error: IdError) -> Fault {
    Fault::event(format!("{} is {}: {error}", key.as_str(), Excerpt(text)))
}

fn wrong_type(key: Key, given: Kind, allowed: &str) -> Fault {
    Fault::event(format!("{} is {given}: must be {allowed}", key.as_str()))
}
