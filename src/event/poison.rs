//! Why a body is no event. What becomes of it is left to settlement.

use std::fmt;

use super::{EventId, EventType, ReservationId};

/// Why a body can never be handled. The set is fixed: it labels metrics and dead-lettered messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoisonReason {
    /// It is not JSON (RFC 8259), or names a field twice.
    InvalidJson,
    /// It is JSON, but none of the accepted envelopes, or a broken one.
    InvalidEnvelope,
    /// There are more envelopes around it than are opened.
    NestedTooDeep,
    /// It is an event of a type that the worker does not handle.
    UnknownType,
    /// It has a known shape, but a field is missing or not what it must be.
    InvalidEvent,
}

impl PoisonReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::InvalidJson,
        Self::InvalidEnvelope,
        Self::NestedTooDeep,
        Self::UnknownType,
        Self::InvalidEvent,
    ];

    /// The label in metrics, logs and dead-lettered messages.
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

/// A body that can never be handled, with whatever of it could be read, for the log line and the dead-letter's attributes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Poison {
    /// The kind of fault.
    pub reason: PoisonReason,
    /// Its type, if it has a known one.
    pub event_type: Option<EventType>,
    /// Its identity, if it has a valid one.
    pub id: Option<EventId>,
    /// Its reservation, if it names a valid one.
    pub reservation_id: Option<ReservationId>,
    /// The field, the value given (escaped, cut at 64 characters) and what is allowed. Fit for logs.
    pub detail: String,
}

/// A body that is well formed, and tells of something that changes nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoChange {
    /// Its identity, if it has a valid one.
    pub id: Option<EventId>,
    /// Its reservation, if it names a valid one.
    pub reservation_id: Option<ReservationId>,
    /// The payment's status, quoted, escaped and cut. Fit for logs.
    pub status: String,
}

/// Why there is no event to handle in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEvent {
    /// It can never be handled.
    Poison(Poison),
    /// There is nothing to be done.
    NoChange(NoChange),
}

impl From<Fault> for NoEvent {
    fn from(fault: Fault) -> Self {
        Self::Poison(fault.into())
    }
}

/// A fault before it is known what else could be read.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: PoisonReason,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(reason: PoisonReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// An event that has the right shape but a wrong field.
    pub(super) fn event(detail: impl Into<String>) -> Self {
        Self::new(PoisonReason::InvalidEvent, detail)
    }
}

impl From<Fault> for Poison {
    fn from(fault: Fault) -> Self {
        Self {
            reason: fault.reason,
            event_type: None,
            id: None,
            reservation_id: None,
            detail: fault.detail,
        }
    }
}
