//! A dead letter as operators see it: why it is there, and what its body says.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cli::{Origin, UNKNOWN_TYPE};
use crate::event::{EventType, NoEvent, decode};
use crate::queue::{DLQ_QUEUE, Message};

/// The attribute that only the worker's copies have.
const REASON: &str = "dlq_reason";

/// The last instant that is shown: the end of the year 9999, in milliseconds since 1970.
const MS_MAX: u64 = 253_402_300_799_999;

/// A hash of a message id: what a run remembers of the messages that it has seen.
///
/// Its keys are drawn for each process, so that no sender can make two ids collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct IdHash(u64);

impl IdHash {
    pub(super) fn of(id: &str) -> Self {
        static KEYS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);
        Self(KEYS.hash_one(id))
    }
}

/// A dead letter with what was read from it.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) message: Message,
    pub(super) event_type: String,
    pub(super) reservation_id: Option<String>,
    /// The identity of the event, if the body has a valid one.
    pub(super) event_id: Option<String>,
}

impl Letter {
    pub(super) fn new(message: Message) -> Self {
        let (event_type, event_id, reservation_id) =
            match decode(&message.body, message.original_id()) {
                Ok(event) => {
                    let id = (!event.is_id_of_message).then(|| event.id.clone());
                    (Some(event.event_type()), id, Some(event.reservation_id))
                }
                Err(NoEvent::Poison(poison)) => {
                    (poison.event_type, poison.id, poison.reservation_id)
                }
                Err(NoEvent::NoChange(none)) => (None, none.id, none.reservation_id),
            };
        let event_id = event_id.map(|id| id.to_string());
        // Of a body that is refused, the message's own id may be all that is known.
        let event_id = event_id.filter(|id| id != message.original_id());
        let named = message.text_attribute("dlq_event_type").filter(|name| *name != UNKNOWN_TYPE);
        let event_type = named.or(event_type.map(EventType::as_str)).unwrap_or(UNKNOWN_TYPE);
        Self {
            event_type: event_type.to_owned(),
            event_id,
            reservation_id: reservation_id.map(|id| id.to_string()),
            message,
        }
    }

    pub(super) fn hash(&self) -> IdHash {
        IdHash::of(&self.message.id.0)
    }

    pub(super) fn origin(&self) -> Origin {
        if self.reason().is_some() { Origin::Worker } else { Origin::Sqs }
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.message.text_attribute(REASON)
    }

    /// Returns the name of the queue that it was in before, if SQS or the worker's copy says so.
    pub(super) fn source(&self) -> Option<&str> {
        let by_sqs = self.message.source_arn.as_deref().and_then(|arn| arn.rsplit(':').next());
        by_sqs.or_else(|| self.message.text_attribute(DLQ_QUEUE))
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.message.text_attribute("dlq_error")
    }

    /// Whether the body names the event's id.
    pub(super) fn has_own_id(&self) -> bool {
        self.event_id.is_some()
    }

    /// Returns the identity of the event: its own id, or that of the original message.
    pub(super) fn identity(&self) -> &str {
        self.event_id.as_deref().unwrap_or_else(|| self.message.original_id())
    }

    /// Returns when the worker gave it up. SQS does not tell when it moved a message.
    pub(super) fn dead_at(&self) -> Option<SystemTime> {
        let ms = self.message.text_attribute("dlq_at_ms")?.parse::<u64>().ok()?;
        UNIX_EPOCH.checked_add(Duration::from_millis(ms.min(MS_MAX)))
    }

    /// Returns the time that `--older-than` and `--newer-than` count from.
    pub(super) fn since(&self) -> Option<SystemTime> {
        self.dead_at().or(self.message.sent_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dlq::tests::{body, message, text};

    #[test]
    fn a_copy_of_the_worker_tells_its_reason_type_and_time() {
        let attributes = vec![
            text("dlq_reason", "rejected"),
            text("dlq_event_type", "payment.failed"),
            text("dlq_message_id", "original-1"),
            text("dlq_at_ms", "1500"),
        ];
        let letter = Letter::new(message("m-1", &body("evt-1", "rsv-1"), attributes));
        assert_eq!((letter.reason(), letter.origin()), (Some("rejected"), Origin::Worker));
        assert_eq!(letter.event_type, "payment.failed");
        assert_eq!(letter.dead_at(), Some(UNIX_EPOCH + Duration::from_millis(1_500)));
        assert_eq!(letter.reservation_id.as_deref(), Some("rsv-1"));
        assert_eq!((letter.identity(), letter.has_own_id()), ("evt-1", true));
    }

    #[test]
    fn a_message_that_sqs_moved_is_described_by_its_body() {
        let letter = Letter::new(message("m-1", &body("evt-1", "rsv-1"), vec![]));
        assert_eq!((letter.reason(), letter.origin()), (None, Origin::Sqs));
        assert_eq!(letter.event_type, "reservation.expired");
        assert_eq!(letter.since(), letter.message.sent_at);
    }

    #[test]
    fn the_queue_that_a_letter_was_in_is_told_by_sqs_or_by_the_worker() {
        let by_worker = vec![text("dlq_reason", "rejected"), text("dlq_queue", "events")];
        let mut letter = Letter::new(message("m-1", &body("evt-1", "rsv-1"), by_worker));
        assert_eq!(letter.source(), Some("events"));
        letter.message.source_arn = Some("arn:aws:sqs:eu-1:42:orders".into());
        assert_eq!(letter.source(), Some("orders"));
        let unknown = Letter::new(message("m-1", &body("evt-1", "rsv-1"), vec![]));
        assert_eq!(unknown.source(), None);
    }

    #[test]
    fn without_an_id_the_identity_is_the_original_messages() {
        let without = body("evt-1", "rsv-1").replace("\"id\":\"evt-1\",", "");
        let attributes = vec![text("dlq_message_id", "original-1")];
        let letter = Letter::new(message("m-1", &without, attributes));
        assert_eq!((letter.identity(), letter.has_own_id()), ("original-1", false));
        for refused in ["", "{", "[]", "{\"type\":\"x\",\"reservation_id\":\"r\"}"] {
            assert!(!Letter::new(message("m-1", refused, vec![])).has_own_id(), "{refused}");
        }
    }

    #[test]
    fn a_senseless_time_does_no_harm() {
        for ms in ["18446744073709551615", "-1", "soon", "1e9"] {
            let letter = Letter::new(message("m-1", "{}", vec![text("dlq_at_ms", ms)]));
            assert!(letter.dead_at().is_none_or(|at| at > UNIX_EPOCH), "{ms}");
        }
    }
}
