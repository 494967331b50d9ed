//! The contents of a copy in the dead-letter queue: the unmodified body, and the reason.
//!
//! The queue sends the copy; `settle` decides that it must be sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Attribute, AttributeValue, MessageGroup, MessageId};

/// Maximum number of message attributes in SQS (AWS: "Amazon SQS message metadata").
pub(super) const ATTRIBUTES_MAX: usize = 10;

/// The original's attributes that are kept first, in order of importance.
/// Without the first, a body that the SQS extended client stored elsewhere cannot be read; the
/// others link the copy to its trace.
const NEEDED: [&str; 3] = ["ExtendedPayloadSize", "tracestate", "traceparent"];

/// Maximum length of the error text attribute in bytes: readable, and small beside a 1 MiB body.
const ERROR_BYTES_MAX: usize = 512;

/// The attribute with the error text. It may be dropped, because the log has the text too.
const ERROR: &str = "dlq_error";

/// The attributes with the reason and with the original's id.
const REASON: &str = "dlq_reason";
const MESSAGE_ID: &str = "dlq_message_id";
const EVENT_TYPE: &str = "dlq_event_type";
const RECEIVE_COUNT: &str = "dlq_receive_count";
const AT_MS: &str = "dlq_at_ms";

/// What is left of ours, step by step, in a copy that is too long without the original's. The id is
/// the last: an event without one of its own has its identity from it.
const KEPT: [&[&str]; 4] = [
    &[REASON, EVENT_TYPE, MESSAGE_ID, RECEIVE_COUNT, AT_MS],
    &[REASON, MESSAGE_ID],
    &[MESSAGE_ID],
    &[],
];

/// The attribute with the name of the queue that the message was in. Several queues may share one
/// dead-letter queue, and SQS names the source of what it moves itself only.
pub const QUEUE: &str = "dlq_queue";

/// A message to be copied to the dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The unmodified body of the original.
    pub body: String,
    /// The SQS id of the original, across any number of copies.
    pub message_id: MessageId,
    /// The SQS id of the message that is copied now; it identifies repeated copies of one message.
    pub source_id: MessageId,
    /// The message group of the original.
    pub group: Option<MessageGroup>,
    /// The X-Ray header of the original.
    pub trace_header: Option<Box<str>>,
    /// The reason, as a fixed word.
    pub reason: &'static str,
    /// The error text.
    pub error: String,
    /// The event type, or `unknown`.
    pub event_type: &'static str,
    /// Number of receives of the original.
    pub receive_count: u32,
    /// Time at which the message was given up.
    pub at: SystemTime,
    /// The attributes of the original.
    pub attributes: Vec<Attribute>,
    /// Number of [`DeadLetter::shorten`] calls that took effect.
    pub shortened: u8,
}

impl DeadLetter {
    /// Returns the copy's attributes: ours first, then the original's, the most important first.
    /// The SQS limit of ten applies. An attribute of the original with the name of one of ours (a
    /// copy that came back and failed again) is replaced by ours.
    ///
    /// Each [`DeadLetter::shorten`] goes one step on: first it removes the original's one by one,
    /// from the last; then `dlq_error`; then all but `dlq_reason` and `dlq_message_id`; then
    /// `dlq_reason`; then the last one.
    #[must_use]
    pub fn all_attributes(&self) -> Vec<Attribute> {
        let mut all = self.ours();
        let ours = all.len();
        for attribute in by_worth(&self.attributes) {
            if all.len() == ATTRIBUTES_MAX {
                break;
            }
            // A copy that came back may name another queue.
            if attribute.name != QUEUE && all.iter().all(|known| known.name != attribute.name) {
                all.push(attribute.clone());
            }
        }
        let own = all.len() - ours;
        let Some(step) = usize::from(self.shortened).checked_sub(own) else {
            all.truncate(all.len() - usize::from(self.shortened));
            return all;
        };
        all.truncate(ours);
        if let Some(dropped) = step.checked_sub(1) {
            let kept = KEPT.get(dropped).copied().unwrap_or_default();
            all.retain(|attribute| kept.contains(&attribute.name.as_str()));
        }
        all
    }

    /// Returns [`DeadLetter::all_attributes`], and `dlq_queue` with the name of the queue if there
    /// is room and the copy was not shortened.
    #[must_use]
    pub fn attributes_from(&self, queue: &str) -> Vec<Attribute> {
        let mut all = self.all_attributes();
        if self.shortened == 0 && all.len() < ATTRIBUTES_MAX {
            all.push(text(QUEUE, queue));
        }
        all
    }

    /// Drops the least important attribute that is left; returns false if nothing is left to drop.
    ///
    /// The X-Ray header is the last resort: it does not count towards the size, so a copy that is
    /// refused without any attribute may be refused for its header. Without it the attributes are
    /// tried again.
    pub fn shorten(&mut self) -> bool {
        if !self.all_attributes().is_empty() {
            self.shortened += 1;
            return true;
        }
        if self.trace_header.take().is_none() {
            return false;
        }
        self.shortened = 0;
        true
    }

    fn ours(&self) -> Vec<Attribute> {
        let at_ms = self.at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        vec![
            text(REASON, self.reason),
            text(ERROR, &sqs_text(&self.error)),
            text(EVENT_TYPE, self.event_type),
            text(MESSAGE_ID, &self.message_id.0),
            number(RECEIVE_COUNT, &self.receive_count.to_string()),
            number(AT_MS, &at_ms.to_string()),
        ]
    }
}

/// Returns an original's attributes by importance, then by name, because SQS returns them
/// unordered.
pub(super) fn by_worth(attributes: &[Attribute]) -> Vec<&Attribute> {
    let mut all: Vec<_> = attributes.iter().collect();
    let worth = |name: &str| NEEDED.iter().position(|needed| *needed == name);
    // A redrive added these; the copy's own `dlq_message_id` says the same.
    let is_added = |name: &str| matches!(name, "redrive_of" | "redrive_count");
    let rank = |name: &str| worth(name).unwrap_or(NEEDED.len() + usize::from(is_added(name)));
    all.sort_by_key(|attribute| (rank(&attribute.name), &attribute.name));
    all
}

fn text(name: &str, value: &str) -> Attribute {
    attribute(name, "String", value)
}

fn number(name: &str, value: &str) -> Attribute {
    attribute(name, "Number", value)
}

fn attribute(name: &str, data_type: &str, value: &str) -> Attribute {
    Attribute {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        value: AttributeValue::Text(value.to_owned()),
    }
}

/// Makes `value` valid as an SQS attribute value: not empty, without control characters and
/// non-characters (AWS: `SendMessage`, "Unicode characters").
fn sqs_text(value: &str) -> String {
    let mut out = String::with_capacity(value.len().min(ERROR_BYTES_MAX));
    for c in value.chars() {
        let c = if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') { ' ' } else { c };
        if out.len() + c.len_utf8() > ERROR_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_letter(error: &str, attributes: Vec<Attribute>) -> DeadLetter {
        DeadLetter {
            body: "{}".to_owned(),
            message_id: MessageId("m-1".into()),
            source_id: MessageId("m-1".into()),
            group: None,
            trace_header: None,
            reason: "unknown_type",
            error: error.to_owned(),
            event_type: "unknown",
            receive_count: 3,
            at: UNIX_EPOCH + Duration::from_millis(1_500),
            attributes,
            shortened: 0,
        }
    }

    fn value<'a>(all: &'a [Attribute], name: &str) -> &'a str {
        match &all.iter().find(|a| a.name == name).expect("attribute").value {
            AttributeValue::Text(text) => text,
            AttributeValue::Binary(_) => panic!("binary"),
        }
    }

    #[test]
    fn a_dead_letter_has_the_attributes_of_its_reason_and_origin() {
        let all = dead_letter("type: \"x\" is not known", vec![]).all_attributes();
        assert_eq!(value(&all, "dlq_reason"), "unknown_type");
        assert_eq!(value(&all, "dlq_error"), "type: \"x\" is not known");
        assert_eq!(value(&all, "dlq_message_id"), "m-1");
        assert_eq!(value(&all, "dlq_receive_count"), "3");
        assert_eq!(value(&all, "dlq_at_ms"), "1500");
    }

    #[test]
    fn own_attributes_are_kept_up_to_the_sqs_limit_of_ten() {
        let own = (0..9).map(|n| text(&format!("own{n}"), "v")).collect();
        let all = dead_letter("e", own).all_attributes();
        assert_eq!(all.len(), ATTRIBUTES_MAX);
        assert_eq!(all.iter().filter(|a| a.name.starts_with("own")).count(), 4);
    }

    /// Attributes arrive in random order; the copy must keep and drop them in a fixed order.
    #[test]
    fn a_copy_that_is_too_large_drops_attributes_in_a_fixed_order() {
        let names = ["zeta", "traceparent", "alpha", "ExtendedPayloadSize", "tracestate", "beta"];
        for turn in 0..names.len() {
            let mut own: Vec<_> = names.iter().map(|name| text(name, "v")).collect();
            own.rotate_left(turn);
            let mut dead_letter = dead_letter("e", own);
            let mut left = Vec::new();
            loop {
                let all = dead_letter.all_attributes();
                let own = all.iter().skip_while(|a| a.name.starts_with("dlq_"));
                left.push((all.len(), own.map(|a| a.name.clone()).collect::<Vec<_>>().join(" ")));
                if !dead_letter.shorten() {
                    break;
                }
            }
            let expected = [
                (10, "ExtendedPayloadSize tracestate traceparent alpha"),
                (9, "ExtendedPayloadSize tracestate traceparent"),
                (8, "ExtendedPayloadSize tracestate"),
                (7, "ExtendedPayloadSize"),
                (6, ""),
                (5, ""),
                (2, ""),
                (1, ""),
                (0, ""),
            ];
            assert_eq!(left, expected.map(|(all, own)| (all, own.to_owned())), "{turn}");
        }
    }

    /// An event without an id of its own has its identity from the id of its original message.
    #[test]
    fn the_reason_and_the_originals_id_are_dropped_last() {
        let mut copy = dead_letter("e", vec![]);
        let mut left = Vec::new();
        while copy.shorten() {
            let names: Vec<_> = copy.all_attributes().into_iter().map(|a| a.name).collect();
            left.push(names.join(" "));
        }
        assert_eq!(left[1..], ["dlq_reason dlq_message_id", "dlq_message_id", ""]);
    }

    #[test]
    fn a_header_that_is_refused_is_dropped_last_and_the_attributes_are_tried_again() {
        let mut copy = dead_letter("e", vec![text("own", "v")]);
        copy.trace_header = Some("Root=1".into());
        while copy.trace_header.is_some() {
            assert!(copy.shorten());
        }
        assert_eq!(copy.all_attributes().len(), 7);
        while copy.shorten() {}
        assert!(copy.all_attributes().is_empty() && !copy.shorten());
    }

    #[test]
    fn a_redriven_copy_has_only_the_newer_reason() {
        let all =
            dead_letter("new", vec![text("dlq_error", "old"), text("own", "v")]).all_attributes();
        assert_eq!(value(&all, "dlq_error"), "new");
        assert_eq!(all.iter().filter(|a| a.name == "dlq_error").count(), 1);
        assert_eq!(value(&all, "own"), "v");
    }

    #[test]
    fn a_copy_names_its_queue_where_there_is_room() {
        let own = |count| (0..count).map(|n| text(&format!("own{n}"), "v")).collect();
        for (count, is_named) in [(0, true), (3, true), (4, false)] {
            let mut copy = dead_letter("e", own(count));
            let names = |copy: &DeadLetter| {
                let all = copy.attributes_from("events");
                assert!(all.len() <= ATTRIBUTES_MAX);
                all.iter().filter(|a| **a == text(QUEUE, "events")).count()
            };
            assert_eq!(names(&copy), usize::from(is_named), "{count}");
            assert!(copy.shorten());
            assert_eq!(names(&copy), 0);
        }
        let came_back = dead_letter("e", vec![text(QUEUE, "other")]);
        assert_eq!(value(&came_back.attributes_from("events"), QUEUE), "events");
        assert!(came_back.all_attributes().iter().all(|a| a.name != QUEUE));
    }

    #[test]
    fn the_error_text_is_valid_for_sqs() {
        assert_eq!(value(&dead_letter("", vec![]).all_attributes(), "dlq_error"), "-");
        assert_eq!(
            value(&dead_letter("a\u{0}b\nc\u{FFFF}", vec![]).all_attributes(), "dlq_error"),
            "a b c "
        );
        let long = "é".repeat(2_000);
        assert_eq!(
            value(&dead_letter(&long, vec![]).all_attributes(), "dlq_error").len(),
            ERROR_BYTES_MAX
        );
    }
}
