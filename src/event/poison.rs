//! The reasons why a body is not an event.
//!
//! Settlement decides what happens to such a message.

use std::fmt;

use super::{EventId, EventType, ReservationId};

/// The reason why a body can never be handled.
///
/// The set is fixed, because it labels metrics and dead-lettered messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoisonReason {
    /// The body is not JSON (RFC 8259), or has a field twice.
    InvalidJson,
    /// The body is JSON, but not an accepted envelope, or a broken one.
    InvalidEnvelope,
    /// The body has more envelopes than the maximum.
    NestedTooDeep,
    /// The event has a type that the worker does not handle.
    UnknownType,
    /// The shape is known, but a field is missing or wrong.
    InvalidEvent,
}

impl PoisonReason {
    /// Every reason, in a fixed order.
    pub const ALL: [Self; 5] = [
        Self::InvalidJson,
        Self::InvalidEnvelope,
        Self::NestedTooDeep,
        Self::UnknownType,
        Self::InvalidEvent,
    ];

    /// Returns the label in metrics, logs and dead-lettered messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidEnvelope => "invalid_envelope",
            Self::NestedTooDeep => "nested_too_deep",
            Self::UnknownType => "unknown_type",
            Self::InvalidEvent => "invalid_event",
        }
    }
}

impl fmt::Display for PoisonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A body that can never be handled.
///
/// Contains the fields that could be read, for the log line and the attributes of the dead-lettered
/// message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Poison {
    /// The reason.
    pub reason: PoisonReason,
    /// The type, if it is known.
    pub event_type: Option<EventType>,
    /// The identity, if it is valid.
    pub id: Option<EventId>,
    /// The reservation, if it is valid.
    pub reservation_id: Option<ReservationId>,
    /// The field, its value (escaped, truncated to 64 characters) and the allowed values.
    ///
    /// It is safe to log.
    pub detail: String,
}

/// A well-formed body whose content requires no action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoChange {
    /// The identity, if it is valid.
    pub id: Option<EventId>,
    /// The reservation, if it is valid.
    pub reservation_id: Option<ReservationId>,
    /// The payment's status, quoted, escaped and truncated. It is safe to log.
    pub status: String,
}

/// The reason why a body contains no event to handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEvent {
    /// The body can never be handled.
    Poison(Poison),
    /// The body requires no action.
    NoChange(NoChange),
}

impl From<BodyFault> for NoEvent {
    fn from(fault: BodyFault) -> Self {
        Self::Poison(fault.into())
    }
}

/// A fault without the other fields of the body.
#[derive(Debug)]
pub(super) struct BodyFault {
    pub(super) reason: PoisonReason,
    pub(super) detail: String,
}

impl BodyFault {
    pub(super) fn new(reason: PoisonReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// Creates the fault of an event with the right shape but a wrong field.
    pub(super) fn event(detail: impl Into<String>) -> Self {
        Self::new(PoisonReason::InvalidEvent, detail)
    }
}

impl From<BodyFault> for Poison {
    fn from(fault: BodyFault) -> Self {
        Self {
            reason: fault.reason,
            event_type: None,
            id: None,
            reservation_id: None,
            detail: fault.detail,
        }
    }
}
