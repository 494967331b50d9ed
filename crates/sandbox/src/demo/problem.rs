//! Each way in which a run can be out of balance, in words.

use std::fmt;

/// What does not add up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The event was never sent.
    NotSent(String),
    /// An effect that the event should have had is missing.
    Missing(String, &'static str),
    /// An effect that the event should have had came about this many times.
    Repeated(String, &'static str, usize),
    /// An effect that the event should not have had.
    Unexpected(String, &'static str),
    /// An effect under a key that is no event's.
    Stranger(String, &'static str),
    /// A step was asked for again after it had been answered with success.
    Needless(String, &'static str),
    /// A superseded event that was dropped without ever being refused.
    DroppedUnseen(String),
    /// The reservation ends in the wrong status.
    WrongStatus(String, String),
    /// The seats end in the wrong state.
    WrongSeats(String, String),
    /// A good event is in the dead-letter queue.
    DeadLettered(String),
    /// The poison message is in the dead-letter queue this many times, its body unchanged.
    PoisonCopies(usize),
    /// This many other messages are in the dead-letter queue.
    StrangeDeadLetters(usize),
    /// This many messages are left in the queue.
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
