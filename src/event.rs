//! Decodes the text of one message to an [`Event`], with [`decode()`].
//!
//! A text that can never be an event gives a [`Poison`] with the reason. The module is pure: no
//! clock, no network, no configuration. Other modules decide the steps of an event and the meaning
//! of the services' answers (handlers), whether the event is a duplicate (the idempotency store),
//! and what happens to poison (settlement).
//!
//! # What is refused, and why
//!
//! - `id`, `reservation_id`, `event_id`: a string of 1 to [`ID_BYTES_MAX`] bytes without control
//!   characters. An ARN or URN fits; ids become URL segments, store keys and log fields.
//! - `reservation_id`: not `.` or `..`. As a URL path segment these mean the current and the parent
//!   folder, percent-encoded or not (WHATWG URL, *double-dot URL path segment*).
//! - `seat_ids`: at most [`SEATS_MAX`] strings of 1 to [`SEAT_ID_BYTES_MAX`] bytes without control
//!   characters. The request to the inventory then stays well under gRPC's usual 4 MiB.
//! - `qty`: a number with a whole value from 1 to 2,147,483,647, in any notation, because Python
//!   and Jackson write `2.0`. It is an `int32` on the wire. On a payment, 0 without seats means
//!   absent.
//! - `event_id`: required on a payment that names seats. An expiry may omit it and its seats; the
//!   Reservation API then provides them. No other step uses it.
//! - Two spellings: `reservation_id` and `reservationId` (and similar pairs) may both be given,
//!   with the same value. JVM producers write camelCase.
//! - `payment_intent_id`, `user_id`: a string of at most [`ID_BYTES_MAX`] bytes without control
//!   characters; empty means absent. They are passed on to the services.
//! - Envelopes: at most [`ENVELOPES_MAX`] around one event. No valid producer nests deeper.
//! - JSON: RFC 8259. Values that are not needed are skipped at any nesting depth. Objects are read
//!   to a fixed depth, and skipping does not recurse. Therefore no body can exhaust the stack, and
//!   `serde_json`'s recursion limit of 128 is never reached.
//!
//! Further rules:
//!
//! - **Fields that decide an effect are strict.** These are all fields above, `type` and a
//!   payment's `status`. A wrong type is refused: the producer has a fault, and a guess could
//!   release the wrong seats.
//! - **Fields that only describe are lenient.** These are `amount`, `currency`, `error_code`,
//!   `error_message`, the `event_id` of a payment without seats, and the trace context. An invalid
//!   value counts as absent, so that a paid seat is not lost because of it.
//! - **`null` means absent** in every field. Unknown fields are ignored, and so is the time (`ts`,
//!   `time`, `Timestamp`).
//! - **A known field given twice** in one object is refused: parsers differ on which value is used
//!   (RFC 8259, section 4).
//! - **A JSON value that UTF-8 or 64 bits cannot hold** (half of a surrogate pair, `1e400`) is
//!   invalid for its field only; the rest of the body is read.
//! - **No value is trimmed or changed in case**: an id with a trailing space is another id.
//! - Duplicate seat ids are passed on: the inventory validates them.
//!
//! # Envelopes
//!
//! The shape of each layer identifies it, in this order:
//!
//! - an object with its own `reservation_id` or `payload` is the event;
//! - an object with `Type` and `Message` is from SNS;
//! - an object with `specversion` and `data` is a CloudEvent;
//! - an object with a `detail` is from EventBridge (`detail-type`) or a typed detail (`type`).
//!
//! *The innermost value is used*: id, type and trace context are the event's own if it has them,
//! else those of the nearest envelope. A complete flat event therefore
//! takes nothing from its envelopes. If no layer names a type, `event_type` is used.
//!
//! An SNS `MessageId` identifies a publication, not an event. It is the identity only if no inner
//! layer has one: it is stable across redelivery and redrive, but not across a second publish. If
//! the whole body has no identity, the SQS message id of the original message is used, and
//! [`Event::is_id_of_message`] is set.
//!
//! The fields of the payload are read from `payload`; if there is none, from the event's own
//! object.

mod context;
mod envelope;
mod foreign;
mod hash;
mod id;
mod json_object;
mod number;
mod poison;
mod seats;
mod step;
mod trace;
mod validate;

pub use envelope::{ENVELOPES_MAX, Envelope, decode, decode_in_envelopes};
pub use hash::ContentHash;
pub use id::{EventId, ID_BYTES_MAX, IdError, ReservationId, ShowId};
pub use poison::{NoChange, NoEvent, Poison, PoisonReason};
pub use seats::SeatIds;
pub use step::{Step, StepSet, idempotency_key};
pub use trace::{BodyTrace, W3cParent};
pub use validate::{SEAT_ID_BYTES_MAX, SEATS_MAX};

use std::fmt;

use crate::memory::allocated;

/// The types of event that the worker handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A hold expired before payment.
    ReservationExpired,
    /// The payment was approved.
    PaymentApproved,
    /// The payment was refused.
    PaymentFailed,
}

impl EventType {
    /// Every type, in a fixed order.
    pub const ALL: [Self; 3] =
        [Self::ReservationExpired, Self::PaymentApproved, Self::PaymentFailed];

    /// Returns the name on the wire, in logs and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReservationExpired => "reservation.expired",
            Self::PaymentApproved => "payment.approved",
            Self::PaymentFailed => "payment.failed",
        }
    }

    /// Returns the type for a producer's name.
    ///
    /// Three names are aliases of `reservation.expired`: the scheduler of the reservation service
    /// writes two of them.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "reservation.expired"
            | "reservation.hold.expired"
            | "Reservation Expiry"
            | "RESERVATION_EXPIRED" => Some(Self::ReservationExpired),
            "payment.approved" => Some(Self::PaymentApproved),
            "payment.failed" => Some(Self::PaymentFailed),
            _ => None,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A valid event, with all fields checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The identity of the event; every step's idempotency key is derived from it.
    pub id: EventId,
    /// Whether the id is the SQS message id of the original message, because the body has none.
    ///
    /// This id is stable across redelivery, but not across a second publish.
    pub is_id_of_message: bool,
    /// The reservation; events of one reservation are handled one at a time.
    pub reservation_id: ReservationId,
    /// The show of the seats; the JSON calls it `event_id`.
    ///
    /// It is always present on a payment that names seats.
    pub show_id: Option<ShowId>,
    /// The payload.
    pub payload: Payload,
    /// The trace context found in the body.
    pub trace: Option<BodyTrace>,
    /// The `baggage` in the attributes of an SNS notification, unchanged.
    pub baggage: Option<Box<str>>,
}

/// The payload, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The hold expired; `None` means the seats that the Reservation API has for it.
    ReservationExpired(Option<Seats>),
    /// The payment was approved.
    PaymentApproved(Payment),
    /// The payment was refused.
    PaymentFailed(Payment),
}

/// Seats of one show: by name, or only as a quantity (general admission).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    /// The names of the seats, as given; empty for general admission.
    pub seat_ids: SeatIds,
    /// The number of seats; at least 1, and equal to the number of `seat_ids` if there are any.
    pub quantity: i32,
}

impl Seats {
    /// Builds seats from a service's answer, by the rules for events.
    ///
    /// Returns `None` if the answer has no usable seats.
    #[must_use]
    pub fn known(seat_ids: &[&str], quantity: Option<&str>) -> Option<Self> {
        let is_name = |seat: &&str| id::check(seat, SEAT_ID_BYTES_MAX).is_ok();
        if seat_ids.len() > SEATS_MAX || !seat_ids.iter().all(is_name) {
            return None;
        }
        let count = i64::try_from(seat_ids.len()).ok()?;
        let quantity = quantity.map_or(Some(count), number::whole)?;
        let fits = quantity >= 1 && (count == 0 || count == quantity);
        let quantity = i32::try_from(quantity).ok().filter(|_| fits)?;
        Some(Self { seat_ids: seat_ids.iter().copied().collect(), quantity })
    }
}

/// The fields of a payment event; all are optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    /// The payment provider's id of the payment; never empty.
    pub payment_intent_id: Option<Box<str>>,
    /// The amount, in the smallest unit of the currency.
    pub amount: Option<i64>,
    /// The currency, as given; not checked against ISO 4217.
    pub currency: Option<Box<str>>,
    /// The user who pays; never empty.
    pub user_id: Option<Box<str>>,
    /// The error code of a failed payment.
    pub error_code: Option<Box<str>>,
    /// The error text of a failed payment. It may contain personal data: do not log it.
    pub error_message: Option<Box<str>>,
    /// The paid seats, if the event has seats or a quantity.
    ///
    /// Without them, the event has no step for the inventory.
    pub seats: Option<Seats>,
}

impl Event {
    /// Returns the type of the event.
    #[must_use]
    pub const fn event_type(&self) -> EventType {
        match &self.payload {
            Payload::ReservationExpired(_) => EventType::ReservationExpired,
            Payload::PaymentApproved(_) => EventType::PaymentApproved,
            Payload::PaymentFailed(_) => EventType::PaymentFailed,
        }
    }

    /// Returns the seats, if the event has seats or a quantity.
    #[must_use]
    pub const fn seats(&self) -> Option<&Seats> {
        match &self.payload {
            Payload::ReservationExpired(seats) => seats.as_ref(),
            Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) => {
                payment.seats.as_ref()
            }
        }
    }

    /// Returns the memory that the event takes, in bytes, without the body that it was read from.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let trace = self.trace.as_ref();
        let texts: [Option<&str>; 3] = [
            self.show_id.as_ref().map(ShowId::as_str),
            trace.and_then(|trace| trace.state.as_deref()),
            self.baggage.as_deref(),
        ];
        let ids = [self.id.as_str(), self.reservation_id.as_str()];
        let payment = match &self.payload {
            Payload::ReservationExpired(_) => 0,
            Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) => payment.bytes(),
        };
        let texts = texts.into_iter().flatten().chain(ids);
        texts.map(|text| allocated(text.len())).sum::<usize>()
            + payment
            + self.seats().map_or(0, |seats| seats.seat_ids.bytes())
    }

    /// Returns whether the Reservation API must provide the show and the seats to release.
    #[must_use]
    pub const fn lacks_hold(&self) -> bool {
        match &self.payload {
            Payload::ReservationExpired(seats) => self.show_id.is_none() || seats.is_none(),
            Payload::PaymentApproved(_) | Payload::PaymentFailed(_) => false,
        }
    }

    /// Returns the hash of the content.
    ///
    /// Two deliveries with the same id *and* the same hash are one event. The same id with another
    /// hash means that the id was used twice. See [`ContentHash`] for the fields that are hashed.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        hash::of(self)
    }
}

impl Payment {
    /// Returns the memory that the text fields take, in bytes.
    fn bytes(&self) -> usize {
        let Self { payment_intent_id, currency, user_id, error_code, error_message, .. } = self;
        let texts = [payment_intent_id, currency, user_id, error_code, error_message];
        texts.into_iter().flatten().map(|text| allocated(text.len())).sum()
    }
}

#[cfg(test)]
mod tests;
