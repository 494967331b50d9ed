//! What a copy in the dead-letter queue carries: the body untouched, and why it is there.
//!
//! Sending it is the queue's work, deciding that it must be sent is `settle`'s.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Attribute, AttributeValue, MessageId};

/// SQS allows ten attributes on a message (AWS: "Amazon SQS message metadata").
const ATTRIBUTES_MAX: usize = 10;

/// Longest error text in an attribute, in bytes: enough to read, small beside a 1 MiB body.
const ERROR_BYTES_MAX: usize = 512;

/// A message on its way to the dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The original body, untouched.
    pub body: String,
    /// The original's SQS id, by which repeated copies can be told.
    pub message_id: MessageId,
    /// The original's FIFO group.
    pub group_id: Option<Box<str>>,
    /// Why, as a fixed word.
    pub reason: &'static str,
    /// Why, in words.
    pub error: String,
    /// The event's type, or `unknown`.
    pub event_type: &'static str,
    /// How often the original had been received.
    pub receive_count: u32,
    /// When it was given up.
    pub at: SystemTime,
    /// The original's own attributes.
    pub attributes: Vec<Attribute>,
}

impl DeadLetter {
    /// The copy's attributes: ours first, then the original's own as far as SQS's limit allows.
    /// One of the original's that has the name of one of ours (a copy that came back and failed
    /// again) gives way to ours.
    #[must_use]
    pub fn all_attributes(&self) -> Vec<Attribute> {
        let at_ms = self.at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        let mut all = vec![
            text("dlq_reason", self.reason),
            text("dlq_error", &sqs_text(&self.error)),
            text("dlq_event_type", self.event_type),
            text("dlq_message_id", &self.message_id.0),
            number("dlq_receive_count", &self.receive_count.to_string()),
            number("dlq_at_ms", &at_ms.to_string()),
        ];
        for attribute in &self.attributes {
            if all.len() == ATTRIBUTES_MAX {
                break;
            }
            if all.iter().all(|ours| ours.name != attribute.name) {
                all.push(attribute.clone());
            }
        }
        all
    }
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

/// What SQS accepts as an attribute's value: not empty, no control characters and no
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

    fn letter(error: &str, attributes: Vec<Attribute>) -> DeadLetter {
        DeadLetter {
            body: "{}".to_owned(),
            message_id: MessageId("m-1".into()),
            group_id: None,
            reason: "unknown_type",
            error: error.to_owned(),
            event_type: "unknown",
            receive_count: 3,
            at: UNIX_EPOCH + Duration::from_millis(1_500),
            attributes,
        }
    }

    fn value<'a>(all: &'a [Attribute], name: &str) -> &'a str {
        match &all.iter().find(|a| a.name == name).expect("attribute").value {
            AttributeValue::Text(text) => text,
            AttributeValue::Binary(_) => panic!("binary"),
        }
    }

    #[test]
    fn says_why_and_whence() {
        let all = letter("type: \"x\" is not known", vec![]).all_attributes();
        assert_eq!(value(&all, "dlq_reason"), "unknown_type");
        assert_eq!(value(&all, "dlq_error"), "type: \"x\" is not known");
        assert_eq!(value(&all, "dlq_message_id"), "m-1");
        assert_eq!(value(&all, "dlq_receive_count"), "3");
        assert_eq!(value(&all, "dlq_at_ms"), "1500");
    }

    #[test]
    fn keeps_the_originals_attributes_up_to_sqs_limit_of_ten() {
        let own = (0..9).map(|n| text(&format!("own{n}"), "v")).collect();
        let all = letter("e", own).all_attributes();
        assert_eq!(all.len(), ATTRIBUTES_MAX);
        assert_eq!(all.iter().filter(|a| a.name.starts_with("own")).count(), 4);
    }

    #[test]
    fn a_copy_that_failed_again_carries_the_newer_reason_once() {
        let all = letter("new", vec![text("dlq_error", "old"), text("own", "v")]).all_attributes();
        assert_eq!(value(&all, "dlq_error"), "new");
        assert_eq!(all.iter().filter(|a| a.name == "dlq_error").count(), 1);
        assert_eq!(value(&all, "own"), "v");
    }

    #[test]
    fn error_text_is_what_sqs_accepts() {
        assert_eq!(value(&letter("", vec![]).all_attributes(), "dlq_error"), "-");
        assert_eq!(
            value(&letter("a\u{0}b\nc\u{FFFF}", vec![]).all_attributes(), "dlq_error"),
            "a b c "
        );
        let long = "é".repeat(2_000);
        assert_eq!(
            value(&letter(&long, vec![]).all_attributes(), "dlq_error").len(),
            ERROR_BYTES_MAX
        );
    }
}
