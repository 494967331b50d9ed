//! The kinds of deviations of a run, as text.

use std::fmt;

/// A deviation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The event was never sent.
    NotSent(String),
    /// An expected effect is missing.
    Missing(String, &'static str),
    /// An expected effect happened this many times.
    Repeated(String, &'static str, usize),
    /// An effect that was not expected.
    Unexpected(String, &'static str),
    /// An effect with an idempotency key of no event.
    Stranger(String, &'static str),
    /// A step that was called again after it had succeeded.
    Needless(String, &'static str),
    /// A superseded event that was dropped without a refusal.
    DroppedUnseen(String),
    /// The reservation has the wrong final status.
    WrongStatus(String, String),
    /// The seats have the wrong final state.
    WrongSeats(String, String),
    /// A valid event is in the dead-letter queue.
    DeadLettered(String),
    /// The dead-letter queue has this many copies of the poison message with unchanged body.
    PoisonCopies(usize),
    /// The dead-letter queue has this many other messages.
    StrangeDeadLetters(usize),
    /// The queue has this many remaining messages.
    QueueNotEmpty(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(event) => {
                write!(out, "{event}: never sent, as what it waits for never happened")
            }
            Self::Missing(event, effect) => write!(out, "{event}: lost, {effect} is missing"),
            Self::Repeated(event, effect, times) => {
                write!(out, "{event}: {effect} came about {times} times")
            }
            Self::Unexpected(event, effect) => {
                write!(out, "{event}: {effect} should not have come about")
            }
            Self::Stranger(key, effect) => {
                write!(out, "key {key}: {effect} came about, and no event has this key")
            }
            Self::Needless(event, step) => {
                write!(out, "{event}: {step} was called again though it had succeeded")
            }
            Self::DroppedUnseen(event) => {
                write!(out, "{event}: dropped, though the Reservation API never refused it")
            }
            Self::WrongStatus(reservation, what) => {
                write!(out, "{reservation}: the status is {what}")
            }
            Self::WrongSeats(reservation, what) => {
                write!(out, "{reservation}: the seats are {what}")
            }
            Self::DeadLettered(event) => {
                write!(out, "{event}: a good event is in the dead-letter queue")
            }
            Self::PoisonCopies(copies) => {
                write!(
                    out,
                    "poison: {copies} copies with the original body in the dead-letter queue, not 1"
                )
            }
            Self::StrangeDeadLetters(count) => {
                write!(out, "{count} messages in the dead-letter queue that were never sent")
            }
            Self::QueueNotEmpty(count) => write!(out, "{count} messages are left in the queue"),
        }
    }
}
