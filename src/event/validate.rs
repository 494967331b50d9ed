//! Reads an [`Event`] from the innermost object and checks each field.
//!
//! `envelope` opens the envelopes before this.

use super::context::EnvelopeContext;
use super::id::{self, ID_BYTES_MAX, IdError};
use super::json_object::{JsonObject, JsonType, Key, Node, SeatList, Value};
use super::number::{self, Shown};
use super::poison::BodyFault;
use super::{
    Event, EventId, EventType, NoChange, NoEvent, Payload, Payment, Poison, PoisonReason,
    ReservationId, SeatIds, Seats, ShowId,
};
use crate::escaped::Escaped;

/// The maximum number of seats in one event: more than the largest block of a venue.
pub const SEATS_MAX: usize = 10_000;

/// The maximum length of a seat's name, in bytes.
pub const SEAT_ID_BYTES_MAX: usize = 128;

/// The only type of the payment simulator, and its spelling in EventBridge.
const STATUS_UPDATED: [&str; 2] = ["payment.status_updated", "Payment Status Updated"];

/// The optional prefix of a payment's status: the name of its enum.
const STATUS_PREFIX: &str = "PAYMENT_STATUS_";

/// The result of reading a type's name.
#[derive(Clone, Copy)]
enum Named {
    Type(EventType),
    /// A payment has another status; the status determines the type.
    StatusUpdated,
}

/// The reason to stop reading.
enum Stop {
    Fault(BodyFault),
    /// The payment has a status that requires no action.
    NoChange(String),
}

impl From<BodyFault> for Stop {
    fn from(fault: BodyFault) -> Self {
        Self::Fault(fault)
    }
}

/// Checks all fields of an event.
///
/// The first fault is reported, in this order: type, spellings, payment's status, id, reservation,
/// payload, show.
pub(super) fn event(
    mut object: Box<JsonObject<'_>>,
    context: EnvelopeContext<'_>,
) -> Result<Event, NoEvent> {
    let mut known = None;
    checked(&mut object, &context, &mut known)
        .map(|event| Event {
            baggage: context.trace.baggage.clone(),
            trace: context.trace.clone().into_trace(),
            ..event
        })
        .map_err(|stop| {
            let id = own_id(&object, &context).ok().flatten();
            let reservation_id = reservation_id(&object).ok();
            match stop {
                Stop::NoChange(status) => {
                    NoEvent::NoChange(NoChange { id, reservation_id, status })
                }
                Stop::Fault(fault) => NoEvent::Poison(Poison {
                    event_type: known,
                    id,
                    reservation_id,
                    ..fault.into()
                }),
            }
        })
}

/// Reads the event; stores its type in `known` as soon as it is known.
fn checked(
    object: &mut JsonObject<'_>,
    context: &EnvelopeContext<'_>,
    known: &mut Option<EventType>,
) -> Result<Event, Stop> {
    let named = named(object, context)?;
    if let Named::Type(event_type) = named {
        *known = Some(event_type);
    }
    consistent(object)?;
    let mut inner = match std::mem::take(&mut object.payload) {
        Node::Object(inner) => Some(inner),
        Node::Absent => None,
        Node::Other(kind) => return Err(wrong_type(Key::Payload, kind, "an object").into()),
    };
    if let Some(inner) = &inner {
        consistent(inner)?;
    }
    let event_type = match named {
        Named::Type(event_type) => event_type,
        Named::StatusUpdated => by_status(inner.as_deref().unwrap_or(object))?,
    };
    *known = Some(event_type);
    let (id, is_id_of_message) = event_id(object, context)?;
    let reservation_id = reservation_id(object)?;
    let mut payload = payload(event_type, inner.as_deref_mut().unwrap_or(object))?;
    if let (
        Named::StatusUpdated,
        Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment),
    ) = (named, &mut payload)
        && payment.payment_intent_id.is_none()
    {
        let fields = inner.as_deref().unwrap_or(object);
        payment.payment_intent_id = optional_id(fields, Key::PaymentId)?;
    }
    let show_id = show_id(object, &payload)?;
    let (trace, baggage) = (None, None);
    Ok(Event { id, is_id_of_message, reservation_id, show_id, payload, trace, baggage })
}

fn named(object: &JsonObject<'_>, context: &EnvelopeContext<'_>) -> Result<Named, BodyFault> {
    let value = own_or(object.get(Key::Type), &context.type_name);
    let value = own_or(value, object.get(Key::EventType));
    let name = text(value, Key::Type)?.ok_or_else(|| missing(Key::Type))?;
    if STATUS_UPDATED.contains(&name) {
        return Ok(Named::StatusUpdated);
    }
    EventType::from_name(name).map(Named::Type).ok_or_else(|| {
        let known = EventType::ALL.map(EventType::as_str).join(", ");
        let [status_updated, _] = STATUS_UPDATED;
        let detail = format!("type is {}: must be one of {known}, {status_updated}", Escaped(name));
        BodyFault::new(PoisonReason::UnknownType, detail)
    })
}

/// Checks that no field has two values in its two spellings.
fn consistent(object: &JsonObject<'_>) -> Result<(), BodyFault> {
    object.contradiction.map_or(Ok(()), |key| {
        let name = key.as_str();
        Err(BodyFault::event(format!("{name} is given in two spellings with different values")))
    })
}

/// Returns the type of an event from its payment status.
fn by_status(fields: &JsonObject<'_>) -> Result<EventType, Stop> {
    let status = text(fields.get(Key::Status), Key::Status)?
        .filter(|status| !status.is_empty())
        .ok_or_else(|| missing(Key::Status))?;
    let bare = match status.split_at_checked(STATUS_PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(STATUS_PREFIX) => rest,
        Some(_) | None => status,
    };
    let is = |name: &str| bare.eq_ignore_ascii_case(name);
    if is("COMPLETED") || is("APPROVED") {
        Ok(EventType::PaymentApproved)
    } else if is("FAILED") {
        Ok(EventType::PaymentFailed)
    } else {
        Err(Stop::NoChange(Escaped(status).to_string()))
    }
}

/// Returns the identity in the body, if there is one.
fn own_id(
    object: &JsonObject<'_>,
    context: &EnvelopeContext<'_>,
) -> Result<Option<EventId>, BodyFault> {
    optional(own_or(object.get(Key::Id), &context.id), Key::Id, EventId::new)
}

/// Returns the identity, and whether it is the message's id.
fn event_id(
    object: &JsonObject<'_>,
    context: &EnvelopeContext<'_>,
) -> Result<(EventId, bool), BodyFault> {
    match own_id(object, context)? {
        Some(id) => Ok((id, false)),
        None => match EventId::new(context.message_id) {
            Ok(id) => Ok((id, true)),
            Err(_) => Err(missing(Key::Id)),
        },
    }
}

fn reservation_id(object: &JsonObject<'_>) -> Result<ReservationId, BodyFault> {
    let key = Key::ReservationId;
    required(object.get(key), key, ReservationId::new)
}

/// Returns the show.
///
/// It is required on a payment that names seats. For an expiry, the Reservation API can provide it.
/// On a payment without seats no step uses it, so an invalid value counts as absent.
fn show_id(object: &JsonObject<'_>, payload: &Payload) -> Result<Option<ShowId>, BodyFault> {
    let (value, key) = (object.get(Key::EventId), Key::EventId);
    match payload {
        Payload::ReservationExpired(_) => optional(value, key, ShowId::new),
        Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) => {
            match payment.seats {
                Some(_) => required(value, key, ShowId::new).map(Some),
                None => Ok(describing(value).and_then(|text| ShowId::new(&text).ok())),
            }
        }
    }
}

/// Reads an event's payload from the object with its fields.
fn payload(event_type: EventType, fields: &mut JsonObject<'_>) -> Result<Payload, BodyFault> {
    match event_type {
        EventType::ReservationExpired => seats(fields, false).map(Payload::ReservationExpired),
        EventType::PaymentApproved => payment(fields).map(Payload::PaymentApproved),
        EventType::PaymentFailed => payment(fields).map(Payload::PaymentFailed),
    }
}

fn payment(fields: &mut JsonObject<'_>) -> Result<Payment, BodyFault> {
    Ok(Payment {
        payment_intent_id: optional_id(fields, Key::PaymentIntentId)?,
        amount: match fields.get(Key::Amount) {
            Value::Integer(amount) => Some(*amount),
            Value::Absent | Value::Text(_) | Value::Number(_) | Value::Other(_) => None,
        },
        currency: describing(fields.get(Key::Currency)),
        user_id: optional_id(fields, Key::UserId)?,
        error_code: describing(fields.get(Key::ErrorCode)),
        error_message: describing(fields.get(Key::ErrorMessage)),
        seats: seats(fields, true)?,
    })
}

/// Returns the named seats, or their quantity.
///
/// `None` if neither is given, or if there are no names, the quantity is 0 and `zero_is_none` is
/// set.
fn seats(fields: &mut JsonObject<'_>, zero_is_none: bool) -> Result<Option<Seats>, BodyFault> {
    let seat_ids = seat_ids(std::mem::take(&mut fields.seat_ids))?;
    let count = i32::try_from(seat_ids.len()).expect("SEATS_MAX fits 32 bits");
    let Some(quantity) = quantity(fields.get(Key::Qty), zero_is_none && count == 0)? else {
        let quantity = count;
        return Ok((count > 0).then_some(Seats { seat_ids, quantity }));
    };
    if count > 0 && count != quantity {
        return Err(BodyFault::event(format!(
            "qty is {quantity}: must be the number of seat_ids, {count}"
        )));
    }
    Ok(Some(Seats { seat_ids, quantity }))
}

fn quantity(value: &Value<'_>, zero_is_none: bool) -> Result<Option<i32>, BodyFault> {
    const ALLOWED: &str = "a whole number from 1 to 2147483647";
    let (number, shown) = match value {
        Value::Absent => return Ok(None),
        Value::Integer(number) => (Some(*number), number.to_string()),
        Value::Number(json) => (number::whole(json), Shown(json).to_string()),
        Value::Text(text) => {
            let shown = Escaped(text);
            return Err(BodyFault::event(format!("qty is a string, {shown}: must be {ALLOWED}")));
        }
        Value::Other(kind) => return Err(wrong_type(Key::Qty, *kind, ALLOWED)),
    };
    match number.and_then(|number| i32::try_from(number).ok()) {
        Some(0) if zero_is_none => Ok(None),
        Some(quantity) if quantity >= 1 => Ok(Some(quantity)),
        Some(_) | None => Err(BodyFault::event(format!("qty is {shown}: must be {ALLOWED}"))),
    }
}

fn seat_ids(list: SeatList) -> Result<SeatIds, BodyFault> {
    let seats = match list {
        SeatList::Absent => return Ok(SeatIds::default()),
        SeatList::Seats(seats) => seats,
        SeatList::TooMany => {
            return Err(BodyFault::event(format!("seat_ids has more than {SEATS_MAX} seats")));
        }
        SeatList::WrongElement(index, found) => {
            return Err(BodyFault::event(format!(
                "seat_ids[{index}] is {found}: must be a string"
            )));
        }
        SeatList::Other(kind) => {
            return Err(wrong_type(Key::SeatIds, kind, "an array of strings"));
        }
    };
    for (index, seat) in seats.iter().enumerate() {
        id::check(seat, SEAT_ID_BYTES_MAX).map_err(|error| {
            BodyFault::event(format!("seat_ids[{index}] is {}: {error}", Escaped(seat)))
        })?;
    }
    Ok(seats)
}

/// Returns `own`, or `otherwise` if `own` is absent.
fn own_or<'v, 'a>(own: &'v Value<'a>, otherwise: &'v Value<'a>) -> &'v Value<'a> {
    match own {
        Value::Absent => otherwise,
        Value::Text(_) | Value::Integer(_) | Value::Number(_) | Value::Other(_) => own,
    }
}

/// Returns the text of a field that decides an effect.
fn text<'v>(value: &'v Value<'_>, key: Key) -> Result<Option<&'v str>, BodyFault> {
    match value {
        Value::Absent => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Integer(number) => Err(wrong_number(key, &number.to_string())),
        Value::Number(json) => Err(wrong_number(key, json)),
        Value::Other(kind) => Err(wrong_type(key, *kind, "a string")),
    }
}

fn required<T>(
    value: &Value<'_>,
    key: Key,
    make: fn(&str) -> Result<T, IdError>,
) -> Result<T, BodyFault> {
    optional(value, key, make)?.ok_or_else(|| missing(key))
}

fn optional<T>(
    value: &Value<'_>,
    key: Key,
    make: fn(&str) -> Result<T, IdError>,
) -> Result<Option<T>, BodyFault> {
    let made =
        text(value, key)?.map(|text| make(text).map_err(|error| not_an_id(key, text, error)));
    made.transpose()
}

fn optional_id(fields: &JsonObject<'_>, key: Key) -> Result<Option<Box<str>>, BodyFault> {
    match text(fields.get(key), key)? {
        None | Some("") => Ok(None),
        Some(text) => id::check(text, ID_BYTES_MAX)
            .map(|()| Some(text.into()))
            .map_err(|error| not_an_id(key, text, error)),
    }
}

/// Returns the text of a field that only describes; an invalid value counts as absent.
fn describing(value: &Value<'_>) -> Option<Box<str>> {
    match value {
        Value::Text(text) if !text.is_empty() => Some(text.as_ref().into()),
        Value::Text(_) | Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => {
            None
        }
    }
}

fn missing(key: Key) -> BodyFault {
    BodyFault::event(format!("{} is missing", key.as_str()))
}

fn not_an_id(key: Key, text: &str, error: IdError) -> BodyFault {
    BodyFault::event(format!("{} is {}: {error}", key.as_str(), Escaped(text)))
}

fn wrong_number(key: Key, json: &str) -> BodyFault {
    let found = number::described(json);
    BodyFault::event(format!("{} is {found}: must be a string", key.as_str()))
}

fn wrong_type(key: Key, given: JsonType, allowed: &str) -> BodyFault {
    BodyFault::event(format!("{} is {given}: must be {allowed}", key.as_str()))
}
