//! What the worker is told: an [`Event`], decoded from the text of one message by [`decode()`], or a [`Poison`] that says why
//! that text can never be an event. Pure: no clock, no network, no configuration.
//!
//! Leaves to others: which steps an event needs and what their answers mean (handlers), whether it was seen before
//! (the idempotency store), what becomes of poison (settlement).
//!
//! # What is refused, and why
//!
//! | field | rule | reason |
//! | --- | --- | --- |
//! | `id`, `reservation_id`, `event_id` | a string of 1 to [`ID_BYTES_MAX`] bytes without control characters | room for an ARN or URN; they become URL segments, store keys and log fields |
//! | `reservation_id` | not `.` or `..` | as a URL path segment these mean "here" and "one up", percent-encoded or not (WHATWG URL, *double-dot URL path segment*) |
//! | `seat_ids` | at most [`SEATS_MAX`] strings of 1 to [`SEAT_ID_BYTES_MAX`] bytes without control characters | the request to the inventory stays well under gRPC's usual 4 MiB |
//! | `qty` | a number whose value is whole, from 1 to 2,147,483,647, however it is written; 0 without seats means absent on a payment | it is an `int32` on the wire; Python and Jackson write `2.0` |
//! | `event_id` | needed where a payment names seats; an expiry may leave it, and its seats, to the Reservation API | no other step uses it |
//! | two spellings | `reservation_id` and `reservationId` and their kind may both be given, with one value | JVM producers write camelCase |
//! | `payment_intent_id`, `user_id` | a string of at most [`ID_BYTES_MAX`] bytes without control characters; empty means absent | they are sent on |
//! | envelopes | at most [`ENVELOPES_MAX`] around one event | nothing legitimate nests deeper |
//! | JSON | RFC 8259; values that are not needed are skipped, however deep they nest | reading goes a fixed number of objects deep, skipping does not recurse: no body can exhaust the stack, so `serde_json`'s limit of 128 is never met |
//!
//! - **Strict where it decides.** A field that decides an effect, all of the above, `type` and a payment's `status`, is refused when it has the wrong type:
//!   its producer is broken, and a guess could release the wrong seats. A field that only describes (`amount`, `currency`,
//!   `error_code`, `error_message`, the `event_id` of a payment without seats, and whatever carries a trace) counts as absent when it does not fit: it is no reason to lose a paid seat.
//! - **`null` means absent**, everywhere. Unknown fields are ignored, and so is the time (`ts`, `time`, `Timestamp`).
//! - **A known field given twice** in one object is refused: readers differ on which one wins (RFC 8259, section 4).
//! - **What JSON can say and UTF-8 or 64 bits cannot hold** (half of a surrogate pair, `1e400`) does not fit its field; the rest of the body counts.
//! - **Nothing is trimmed or re-cased**: an id with a space at its end is another id.
//! - Seat ids that repeat are passed on: the inventory judges them.
//!
//! # Envelopes
//!
//! Told apart by shape, layer by layer: an object with its own `reservation_id` or `payload` is the event; any other with `Type` and
//! `Message` is from SNS; any other with `specversion` and `data` is a CloudEvent; any other with a `detail` is from EventBridge (`detail-type`) or a typed detail (`type`).
//! *The innermost wins*: id, type and trace context are the event's own where it has them, so a whole flat event is taken
//! as it stands, else they are those of the nearest envelope; where nothing names a type, `event_type` does. So an SNS `MessageId`, which names a publication rather
//! than an event, is the identity only where nothing inside has one: it survives redelivery and redrive, but not a second publish.
//! Where there is none in the whole body, it is the SQS message id of the original message, and [`Event::is_id_of_message`] says so. The payload's fields are read from `payload`, and only where there is none, from beside it.

mod decode;
mod foreign;
mod hash;
mod id;
mod number;
mod poison;
mod read;
mod seats;
mod step;
mod trace;
mod wire;

pub use decode::{ENVELOPES_MAX, decode};
pub use hash::ContentHash;
pub use id::{EventId, ID_BYTES_MAX, IdError, ReservationId, ShowId};
pub use poison::{NoChange, NoEvent, Poison, PoisonReason};
pub use read::{SEAT_ID_BYTES_MAX, SEATS_MAX};
pub use seats::SeatIds;
pub use step::{Step, StepSet, idempotency_key};
pub use trace::{BodyTrace, W3cParent};

use std::fmt;

/// The kinds of event that the worker handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A hold ran out before it was paid for.
    ReservationExpired,
    /// The payment went through.
    PaymentApproved,
    /// The payment was refused.
    PaymentFailed,
}

impl EventType {
    /// Every type.
    pub const ALL: [Self; 3] =
        [Self::ReservationExpired, Self::PaymentApproved, Self::PaymentFailed];

    /// The name on the wire, in logs and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReservationExpired => "reservation.expired",
            Self::PaymentApproved => "payment.approved",
            Self::PaymentFailed => "payment.failed",
        }
    }

    /// The type that a producer calls `name`; three names are aliases of `reservation.expired`: two of them are what the
    /// reservation service's scheduler writes.
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

/// One event, checked: what it says can be acted on as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// This event's identity, from which every step's idempotency key is made.
    pub id: EventId,
    /// The body has no id: this is the SQS message id of the original message, which survives redelivery, not a second publish.
    pub is_id_of_message: bool,
    /// The reservation that it is about. Events of one reservation are handled one at a time.
    pub reservation_id: ReservationId,
    /// The show that seats are sold for; the JSON calls it `event_id`. There is one wherever a payment names seats.
    pub show_id: Option<ShowId>,
    /// What happened.
    pub payload: Payload,
    /// The trace context found in the body.
    pub trace: Option<BodyTrace>,
    /// The `baggage` in the attributes of an SNS notification, as it stands there.
    pub baggage: Option<Box<str>>,
}

/// What happened, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The hold on these seats ran out; on those that the Reservation API knows of, where none are named.
    ReservationExpired(Option<Seats>),
    /// This payment went through.
    PaymentApproved(Payment),
    /// This payment was refused.
    PaymentFailed(Payment),
}

/// Seats of one show: by name, or only a number of them (general admission).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    /// The seats' names, as given; empty for general admission.
    pub seat_ids: SeatIds,
    /// How many; at least 1, and the number of `seat_ids` where those are named.
    pub quantity: i32,
}

impl Seats {
    /// Seats as a service names them, by the rules for events; `None` where they say nothing that can be acted on.
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

/// What a payment event says. No field is required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    /// The payment provider's name for the payment; never empty.
    pub payment_intent_id: Option<Box<str>>,
    /// In the smallest unit of the currency.
    pub amount: Option<i64>,
    /// As given; not checked against ISO 4217.
    pub currency: Option<Box<str>>,
    /// Who pays; never empty.
    pub user_id: Option<Box<str>>,
    /// Why the payment failed, as a code.
    pub error_code: Option<Box<str>>,
    /// Why the payment failed, in words. May name a person: not for logs.
    pub error_message: Option<Box<str>>,
    /// The seats paid for, where the event names any or a quantity: only then has the inventory a part in it.
    pub seats: Option<Seats>,
}

impl Event {
    /// What kind of event it is.
    #[must_use]
    pub const fn event_type(&self) -> EventType {
        match &self.payload {
            Payload::ReservationExpired(_) => EventType::ReservationExpired,
            Payload::PaymentApproved(_) => EventType::PaymentApproved,
            Payload::PaymentFailed(_) => EventType::PaymentFailed,
        }
    }

    /// The seats that it names, if it names any or a quantity.
    #[must_use]
    pub const fn seats(&self) -> Option<&Seats> {
        match &self.payload {
            Payload::ReservationExpired(seats) => seats.as_ref(),
            Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) => {
                payment.seats.as_ref()
            }
        }
    }

    /// The memory that it takes beside the body that it was read from.
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
        let texts: usize = texts.into_iter().flatten().chain(ids).map(str::len).sum();
        texts + payment + self.seats().map_or(0, |seats| seats.seat_ids.bytes())
    }

    /// Whether it leaves to the Reservation API which seats of which show are to be released.
    #[must_use]
    pub const fn lacks_hold(&self) -> bool {
        match &self.payload {
            Payload::ReservationExpired(seats) => self.show_id.is_none() || seats.is_none(),
            Payload::PaymentApproved(_) | Payload::PaymentFailed(_) => false,
        }
    }

    /// The content, condensed: two deliveries with the same id *and* the same hash are one event; with another hash, the
    /// id was used twice. See [`ContentHash`] for what counts.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        hash::of(self)
    }
}

impl Payment {
    /// The memory that its texts take.
    fn bytes(&self) -> usize {
        let Self { payment_intent_id, currency, user_id, error_code, error_message, .. } = self;
        let texts = [payment_intent_id, currency, user_id, error_code, error_message];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    }
}

#[cfg(test)]
mod tests;
