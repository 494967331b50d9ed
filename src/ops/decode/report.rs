//! What the worker would do with one body, as JSON and as text.

use std::io::{self, Write};

use serde::Serialize;

use super::input::{BODY_BYTES_MAX, GivenBody};
use crate::client::path_segment;
use crate::event::{Envelope, Event, NoEvent, Seats, idempotency_key};
use crate::handler::plan::{PlannedCall, plan};
use crate::ops::text;

/// Seats shown in text; JSON has all.
const SEATS_SHOWN: usize = 10;

/// What the worker would do with a body.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The SQS id of the message, if the body came in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<&'static str>,
    /// Absent if only the message has one, and the message is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_from: Option<IdFrom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation_id: Option<String>,
    /// The show.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seat_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// From the outermost to the innermost.
    envelopes: Vec<&'static str>,
    steps: Vec<StepReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// The steps are done, then the message is deleted.
    Handled,
    /// The message is deleted.
    NoChange,
    /// The message is copied to the dead-letter queue, then deleted.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum IdFrom {
    Body,
    Message,
}

/// One step.
#[derive(Debug, Serialize)]
struct StepReport {
    step: &'static str,
    service: &'static str,
    call: String,
    request: Request,
    /// What the Reservation API is asked for before this call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asked_for: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

/// The fields of a call, by their names on the wire, without the idempotency key.
#[derive(Clone, Debug, Default, Serialize)]
struct Request {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seat_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_intent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

impl Report {
    /// Describes a body that SQS does not carry.
    pub(super) fn too_long(given: &GivenBody) -> Self {
        let length = given.body.len();
        Self {
            message_id: message_id(given),
            reason: Some("too_long"),
            detail: Some(format!(
                "the body has {length} bytes: must have at most {BODY_BYTES_MAX}, as SQS takes no longer message"
            )),
            ..Self::empty(Outcome::Refused, &[])
        }
    }

    /// Describes a decoded body.
    pub(super) fn new(
        given: &GivenBody,
        envelopes: &[Envelope],
        decoded: Result<Event, NoEvent>,
    ) -> Self {
        let has_message = given.message.is_some();
        let report = match decoded {
            Ok(event) => Self::of_event(&event, envelopes, has_message),
            Err(NoEvent::NoChange(no_change)) => Self {
                detail: Some(format!("the payment's status {} changes nothing", no_change.status)),
                id: no_change.id.map(|id| id.as_str().to_owned()),
                reservation_id: no_change.reservation_id.map(|id| id.as_str().to_owned()),
                ..Self::empty(Outcome::NoChange, envelopes)
            },
            Err(NoEvent::Poison(poison)) => Self {
                reason: Some(poison.reason.as_str()),
                detail: Some(poison.detail),
                event_type: poison.event_type.map(|event_type| event_type.as_str()),
                id: poison.id.map(|id| id.as_str().to_owned()),
                reservation_id: poison.reservation_id.map(|id| id.as_str().to_owned()),
                ..Self::empty(Outcome::Refused, envelopes)
            },
        };
        Self { message_id: message_id(given), ..report }
    }

    /// Returns whether the worker accepts the body.
    pub(super) fn is_accepted(&self) -> bool {
        match self.outcome {
            Outcome::Handled | Outcome::NoChange => true,
            Outcome::Refused => false,
        }
    }

    fn empty(outcome: Outcome, envelopes: &[Envelope]) -> Self {
        Self {
            message_id: None,
            outcome,
            reason: None,
            detail: None,
            event_type: None,
            id: None,
            id_from: None,
            reservation_id: None,
            event_id: None,
            quantity: None,
            seat_ids: None,
            trace_id: None,
            envelopes: envelopes.iter().map(|envelope| envelope.as_str()).collect(),
            steps: Vec::new(),
        }
    }

    fn of_event(event: &Event, envelopes: &[Envelope], has_message: bool) -> Self {
        let is_id_known = has_message || !event.is_id_of_message;
        let trace = event.trace.as_ref().map(|trace| trace.parent.trace_id);
        Self {
            event_type: Some(event.event_type().as_str()),
            id: is_id_known.then(|| event.id.as_str().to_owned()),
            id_from: Some(if event.is_id_of_message { IdFrom::Message } else { IdFrom::Body }),
            reservation_id: Some(event.reservation_id.as_str().to_owned()),
            event_id: event.show_id.as_ref().map(|show| show.as_str().to_owned()),
            quantity: event.seats().map(|seats| seats.quantity),
            seat_ids: event.seats().map(seat_ids),
            trace_id: trace.map(|id| format!("{id:032x}")),
            steps: plan(event).iter().map(|call| step(event, call, is_id_known)).collect(),
            ..Self::empty(Outcome::Handled, envelopes)
        }
    }

    /// Writes the report as text.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self.outcome {
            Outcome::Handled => writeln!(out, "accepted: {}", self.event_type.unwrap_or_default())?,
            Outcome::NoChange => writeln!(out, "accepted, without effect: the message is deleted")?,
            Outcome::Refused => writeln!(
                out,
                "refused: {}; the message goes to the dead-letter queue",
                self.reason.unwrap_or_default()
            )?,
        }
        line(out, "message", self.message_id.as_deref().map(text::quoted))?;
        // The details are escaped where they quote something.
        line(out, "why", self.detail.clone())?;
        if self.outcome == Outcome::Refused {
            line(out, "type", self.event_type.map(str::to_owned))?;
        }
        line(out, "id", self.id_text())?;
        line(out, "reservation", self.reservation_id.as_deref().map(text::quoted))?;
        line(out, "show", self.event_id.as_deref().map(text::quoted))?;
        line(out, "seats", self.seats_text())?;
        line(out, "trace", self.trace_id.clone())?;
        if !self.envelopes.is_empty() {
            line(out, "envelopes", Some(self.envelopes.join(" around ")))?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            step.write(index + 1, out)?;
        }
        Ok(())
    }

    fn id_text(&self) -> Option<String> {
        const WARNING: &str =
            "the body has none, so the same event published twice takes effect twice";
        match (&self.id, self.id_from) {
            (Some(id), Some(IdFrom::Message)) => {
                Some(format!("{} of the message: {WARNING}", text::quoted(id)))
            }
            (None, Some(IdFrom::Message)) => {
                Some(format!("that which SQS gives the message: {WARNING}"))
            }
            (Some(id), Some(IdFrom::Body) | None) => Some(text::quoted(id)),
            (None, Some(IdFrom::Body) | None) => None,
        }
    }

    fn seats_text(&self) -> Option<String> {
        let quantity = self.quantity?;
        let names = self.seat_ids.as_deref().unwrap_or_default();
        let shown = names.iter().take(SEATS_SHOWN).map(|name| text::quoted(name));
        let shown = shown.collect::<Vec<_>>().join(" ");
        let more = names.len().saturating_sub(SEATS_SHOWN);
        Some(match (names.is_empty(), more) {
            (true, _) => format!("{quantity}, of no name"),
            (false, 0) => format!("{quantity}: {shown}"),
            (false, more) => format!("{quantity}: {shown} and {more} more"),
        })
    }
}

fn message_id(given: &GivenBody) -> Option<String> {
    given.message.as_ref().map(|message| message.id.clone())
}

fn line(out: &mut impl Write, name: &str, value: Option<String>) -> io::Result<()> {
    value.map_or(Ok(()), |value| writeln!(out, "  {name:<12} {value}"))
}

fn seat_ids(seats: &Seats) -> Vec<String> {
    seats.seat_ids.iter().map(str::to_owned).collect()
}

fn step(event: &Event, call: &PlannedCall<'_>, is_id_known: bool) -> StepReport {
    let key = is_id_known.then(|| idempotency_key(&event.id, call.step()).to_string());
    let (service, name) = match call {
        PlannedCall::SetStatus { .. } => {
            let id = path_segment(event.reservation_id.as_str());
            ("Reservation API", format!("PATCH /internal/reservations/{id}"))
        }
        PlannedCall::ReleaseHold { .. } => ("Inventory", "ReleaseHold".to_owned()),
        PlannedCall::Commit { .. } => ("Inventory", "CommitReservation".to_owned()),
    };
    let mut asked_for = Vec::new();
    if let (PlannedCall::ReleaseHold { show_id, seats, .. }, true) = (call, event.lacks_hold()) {
        asked_for.extend(show_id.is_none().then_some("event_id"));
        asked_for.extend(seats.is_none().then_some("seat_ids, quantity"));
    }
    StepReport {
        step: call.step().as_str(),
        service,
        call: name,
        request: request(event, call),
        asked_for,
        idempotency_key: key,
    }
}

fn request(event: &Event, call: &PlannedCall<'_>) -> Request {
    let reservation_id = Some(event.reservation_id.as_str().to_owned());
    let owned = |text: &str| text.to_owned();
    match *call {
        PlannedCall::SetStatus { target, payment_intent_id } => Request {
            status: Some(target.as_str()),
            payment_intent_id: payment_intent_id.map(owned),
            ..Request::default()
        },
        PlannedCall::ReleaseHold { show_id, seats, reason } => Request {
            reservation_id,
            event_id: show_id.map(|show| show.as_str().to_owned()),
            seat_ids: seats.map(seat_ids),
            quantity: seats.map(|seats| seats.quantity),
            reason: Some(reason.as_str()),
            ..Request::default()
        },
        PlannedCall::Commit { show_id, seats, payment } => Request {
            reservation_id,
            event_id: Some(show_id.as_str().to_owned()),
            seat_ids: Some(seat_ids(seats)),
            quantity: Some(seats.quantity),
            payment_intent_id: Some(
                payment.payment_intent_id.as_deref().unwrap_or_default().into(),
            ),
            user_id: Some(payment.user_id.as_deref().unwrap_or_default().into()),
            ..Request::default()
        },
    }
}

impl StepReport {
    fn write(&self, number: usize, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "  {number}. {}: {}, {}", self.step, self.service, self.call)?;
        if !self.asked_for.is_empty() {
            let asked_for = self.asked_for.join(", ");
            writeln!(out, "     before: GET of the reservation, for its {asked_for}")?;
        }
        let mut request = text::json(&self.request);
        let names = self.request.seat_ids.as_deref().unwrap_or_default();
        if names.len() > SEATS_SHOWN {
            let few = Request {
                seat_ids: Some(vec![format!("the {} seats above", names.len())]),
                ..self.request.clone()
            };
            request = text::json(&few);
        }
        writeln!(out, "     request: {request}")?;
        let key = self.idempotency_key.as_deref();
        writeln!(out, "     key: {}", key.unwrap_or("derived from the message's id"))
    }
}
