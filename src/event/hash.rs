//! The hash of an event's content, which separates true duplicates from an id that was used twice.
//!
//! The idempotency store decides what follows from either.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{Event, Payload, Payment, Seats};

/// The first 128 bits of a SHA-256 over the content of an event.
///
/// Hashed are type, id, reservation, show and payload, with the alias resolved, the quantity
/// computed and the seats sorted. Not hashed is what may differ between two publications of one
/// event: envelopes, unknown fields, the time and the trace context. The hash is the same in every
/// process and version.
///
/// It contains the version of the hash format. Hashes of two versions are not comparable.
/// Therefore, during the rollout of a new version, no duplicate looks like an id that was used
/// twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash {
    version: u8,
    bytes: [u8; 16],
}

impl ContentHash {
    /// Returns the bytes, for storage.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.bytes
    }

    /// Returns the format version, for storage; from 1 to 16.
    #[must_use]
    pub const fn version(self) -> u8 {
        self.version
    }

    /// Builds a hash of this process's format version from stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self { version: VERSION, bytes }
    }

    /// Returns whether the hashes certainly belong to different events.
    #[must_use]
    pub const fn contradicts(self, other: Self) -> bool {
        self.version == other.version
            && u128::from_be_bytes(self.bytes) != u128::from_be_bytes(other.bytes)
    }
}

/// Formats the hash in hexadecimal.
impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.bytes))
    }
}

/// The version of `FORMAT`: a change that alters the hash of any event must change both.
///
/// At most 16: the shared store has four bits for it.
const VERSION: u8 = 1;

/// The prefix of the hashed data.
const FORMAT: &str = "reservation-worker event 1";

pub(super) fn of(event: &Event) -> ContentHash {
    let mut fields = HashedFields(Sha256::new());
    fields.text(FORMAT);
    fields.text(event.event_type().as_str());
    fields.text(event.id.as_str());
    fields.text(event.reservation_id.as_str());
    // A show's name is never empty, so an empty text means no show.
    fields.text(event.show_id.as_ref().map_or("", |show_id| show_id.as_str()));
    match &event.payload {
        Payload::ReservationExpired(seats) => fields.seats(seats.as_ref()),
        Payload::PaymentApproved(payment) | Payload::PaymentFailed(payment) => {
            fields.payment(payment);
        }
    }
    fields.finish()
}

/// A hash in progress. Presence and length precede each field, so that no two lists collide.
struct HashedFields(Sha256);

impl HashedFields {
    fn payment(&mut self, payment: &Payment) {
        self.optional(payment.payment_intent_id.as_deref());
        self.optional(payment.amount.map(|amount| amount.to_string()).as_deref());
        self.optional(payment.currency.as_deref());
        self.optional(payment.user_id.as_deref());
        self.optional(payment.error_code.as_deref());
        self.optional(payment.error_message.as_deref());
        self.seats(payment.seats.as_ref());
    }

    fn seats(&mut self, seats: Option<&Seats>) {
        self.optional(seats.map(|seats| seats.quantity.to_string()).as_deref());
        if let Some(seats) = seats {
            let mut seat_ids: Vec<&str> = seats.seat_ids.iter().collect();
            seat_ids.sort_unstable();
            self.text(&seat_ids.len().to_string());
            for seat_id in seat_ids {
                self.text(seat_id);
            }
        }
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.0.update([1]);
                self.text(text);
            }
            None => self.0.update([0]),
        }
    }

    fn text(&mut self, text: &str) {
        let length = u64::try_from(text.len()).expect("a length in memory fits 64 bits");
        self.0.update(length.to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn finish(self) -> ContentHash {
        let digest = self.0.finalize();
        let (first, _) = digest.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
        ContentHash::from_bytes(*first)
    }
}
