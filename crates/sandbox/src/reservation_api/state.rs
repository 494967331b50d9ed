//! The rules of the Reservation API: transitions of the status, and repeated idempotency keys.

use std::collections::HashMap;
use std::fmt;

use http::StatusCode;
use serde_json::{Value, json};

use crate::ledger::Effect;

/// A reservation's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationStatus {
    /// Held, not paid.
    Pending,
    /// Paid.
    Confirmed,
    /// The hold expired.
    Expired,
    /// The payment failed.
    Cancelled,
}

impl ReservationStatus {
    /// Returns the name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Parses the status of a request, which cannot be `PENDING`.
    fn from_request(name: &str) -> Option<Self> {
        [Self::Confirmed, Self::Expired, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

impl fmt::Display for ReservationStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// All reservations, and the response to each idempotency key.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) auto_create: bool,
    reservations: HashMap<String, Reservation>,
    /// Only applied changes are stored: a refused request is checked again by the state at that
    /// time.
    keys: HashMap<String, Remembered>,
}

#[derive(Debug)]
struct Reservation {
    status: ReservationStatus,
    payment_intent_id: Option<String>,
    details: Value,
}

#[derive(Debug)]
struct Remembered {
    reservation_id: String,
    change: Change,
    answer: Value,
}

/// The change that a `PATCH` requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) status: ReservationStatus,
    pub(crate) payment_intent_id: Option<String>,
}

/// The true result of a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// 200 with this body.
    Ok(Value),
    /// This status, with code and message in the API's error body.
    Refused(StatusCode, &'static str, String),
    /// This status without the API's error body, as a web server responds to an unknown route.
    NoSuchRoute(StatusCode),
}

impl Verdict {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Ok(_) => StatusCode::OK,
            Self::Refused(status, ..) | Self::NoSuchRoute(status) => *status,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self { auto_create: true, reservations: HashMap::new(), keys: HashMap::new() }
    }
}

impl State {
    pub(crate) fn set(&mut self, id: &str, status: ReservationStatus) {
        let reservation = Reservation { status, payment_intent_id: None, details: Value::Null };
        self.reservations.insert(id.to_owned(), reservation);
    }

    pub(crate) fn set_details(&mut self, id: &str, details: Value) {
        if !self.reservations.contains_key(id) {
            self.set(id, ReservationStatus::Pending);
        }
        if let Some(reservation) = self.reservations.get_mut(id) {
            reservation.details = details;
        }
    }

    pub(crate) fn status(&self, id: &str) -> Option<ReservationStatus> {
        self.reservations.get(id).map(|reservation| reservation.status)
    }

    pub(crate) fn get(&mut self, id: &str) -> Verdict {
        match self.find(id) {
            Some(reservation) => Verdict::Ok(reservation.body(id)),
            None => not_found(id),
        }
    }

    pub(crate) fn patch(
        &mut self,
        id: &str,
        key: &str,
        change: &Change,
    ) -> (Verdict, Option<Effect>) {
        if let Some(known) = self.keys.get(key) {
            if known.reservation_id == id && known.change == *change {
                return (Verdict::Ok(known.answer.clone()), None);
            }
            let message = "this Idempotency-Key was used for another request".to_owned();
            return (
                Verdict::Refused(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "IDEMPOTENCY_KEY_REUSED",
                    message,
                ),
                None,
            );
        }
        let Some(reservation) = self.find(id) else {
            return (not_found(id), None);
        };
        if reservation.status != ReservationStatus::Pending {
            let message = format!(
                "a reservation that is {} cannot become {}",
                reservation.status, change.status
            );
            return (Verdict::Refused(StatusCode::CONFLICT, "INVALID_TRANSITION", message), None);
        }
        reservation.status = change.status;
        reservation.payment_intent_id.clone_from(&change.payment_intent_id);
        let answer = reservation.body(id);
        let known = Remembered {
            reservation_id: id.to_owned(),
            change: change.clone(),
            answer: answer.clone(),
        };
        self.keys.insert(key.to_owned(), known);
        (Verdict::Ok(answer), Some(Effect::Status(change.status)))
    }

    fn find(&mut self, id: &str) -> Option<&mut Reservation> {
        if self.auto_create && !self.reservations.contains_key(id) {
            self.set(id, ReservationStatus::Pending);
        }
        self.reservations.get_mut(id)
    }
}

impl Reservation {
    fn body(&self, id: &str) -> Value {
        let mut body = json!({
            "reservation_id": id,
            "status": self.status.as_str(),
            "payment_intent_id": self.payment_intent_id,
        });
        for (name, value) in self.details.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    }
}

impl Change {
    /// Parses a `PATCH` body.
    pub(crate) fn parse(body: &Value) -> Result<Self, &'static str> {
        let status =
            body.get("status").and_then(Value::as_str).and_then(ReservationStatus::from_request);
        let status = status.ok_or("`status` must be CONFIRMED, EXPIRED or CANCELLED")?;
        let payment_intent_id = match body.get("payment_intent_id") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err("`payment_intent_id` must be a string where it is given"),
        };
        Ok(Self { status, payment_intent_id })
    }
}

fn not_found(id: &str) -> Verdict {
    Verdict::Refused(StatusCode::NOT_FOUND, "RESERVATION_NOT_FOUND", format!("no reservation {id}"))
}
