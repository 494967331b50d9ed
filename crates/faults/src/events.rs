//! Events to send, each with its expected effects.

use sandbox::ledger::Effect;
use sandbox::reservation_api::ReservationStatus;
use serde_json::{Value, json};
use uuid::Uuid;

/// The show of all seats.
const SHOW: &str = "evt_2025_1001";

/// The three event types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `reservation.expired`.
    Expired,
    /// `payment.approved`.
    Approved,
    /// `payment.failed`.
    Refused,
}

impl Kind {
    /// All types.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Approved, Self::Refused];

    /// Returns the value of the event's `type` field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "reservation.expired",
            Self::Approved => "payment.approved",
            Self::Refused => "payment.failed",
        }
    }

    /// Returns the name of the inventory step, as idempotency keys have it.
    const fn seats_step(self) -> &'static str {
        match self {
            Self::Expired | Self::Refused => "inventory-release",
            Self::Approved => "inventory-commit",
        }
    }

    /// Returns the expected effects, in this order.
    #[must_use]
    pub fn effects(self) -> [Effect; 2] {
        match self {
            Self::Expired => [Effect::Status(ReservationStatus::Expired), Effect::SeatsReleased],
            Self::Approved => {
                [Effect::Status(ReservationStatus::Confirmed), Effect::SeatsCommitted]
            }
            Self::Refused => [Effect::Status(ReservationStatus::Cancelled), Effect::SeatsReleased],
        }
    }
}

/// An event. Unless a case says otherwise, its reservation has no other event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event id.
    pub id: String,
    /// The event type.
    pub kind: Kind,
    /// The reservation id.
    pub reservation: String,
    /// Bytes of padding in the body, in an unknown field.
    pub padding: usize,
}

impl Event {
    /// Creates an event with this name for a reservation of the same name.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { id: format!("evt_{name}"), kind, reservation: format!("rsv_{name}"), padding: 0 }
    }

    /// Sets another reservation.
    #[must_use]
    pub fn about(self, reservation: &str) -> Self {
        Self { reservation: reservation.to_owned(), ..self }
    }

    /// Adds padding to the body.
    #[must_use]
    pub fn padded(self, bytes: usize) -> Self {
        Self { padding: bytes, ..self }
    }

    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> String {
        let seats = json!(["A-12", "A-13"]);
        let payload: Value = match self.kind {
            Kind::Expired => json!({"qty": 2, "seat_ids": seats}),
            Kind::Approved | Kind::Refused => json!({
                "payment_intent_id": "pay_1", "amount": 120_000, "qty": 2, "seat_ids": seats,
            }),
        };
        let mut body = json!({
            "id": self.id, "type": self.kind.as_str(), "reservation_id": self.reservation,
            "event_id": SHOW, "ts": "2024-01-01T12:00:00Z", "payload": payload,
        });
        if self.padding > 0 {
            body["padding"] = Value::String("x".repeat(self.padding));
        }
        body.to_string()
    }

    /// Returns the idempotency keys of its steps, in order.
    #[must_use]
    pub fn keys(&self) -> [String; 2] {
        ["reservation-status", self.kind.seats_step()].map(|step| key(&self.id, step))
    }
}

/// Returns the idempotency key of a step: the same in every attempt, process and version.
fn key(id: &str, step: &str) -> String {
    let name = format!("urn:reservation-worker:{id}/{step}");
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

/// Creates `count` events of all types in turn, with names that begin with `name`.
#[must_use]
pub fn crowd(name: &str, count: usize) -> Vec<Event> {
    let kinds = Kind::ALL.into_iter().cycle();
    (0..count).zip(kinds).map(|(n, kind)| Event::new(&format!("{name}_{n}"), kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys_have_the_documented_values() {
        let expired = Event { id: "evt_123456".to_owned(), ..Event::new("x", Kind::Expired) };
        assert_eq!(
            expired.keys(),
            ["17f16bd2-d941-53dc-8b73-fff0816074c2", "43e622ac-f4c7-5c4b-8456-802403703e17"]
        );
        let approved = Event { kind: Kind::Approved, ..expired };
        assert_eq!(approved.keys()[1], "f03cccc4-9f0d-5e82-b2b1-1a604e6e4d8c");
    }

    #[test]
    fn padding_adds_only_its_length_to_the_body() {
        let plain = Event::new("x", Kind::Expired);
        let padded = plain.clone().padded(1_000);
        let added = padded.body().len() - plain.body().len();
        assert_eq!(added, 1_000 + r#","padding":"""#.len());
    }
}
