//! Texts of others for a terminal: no control character reaches it, in tables or in JSON.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::letter::Letter;
use crate::ops::text::json;
use crate::queue::{Attribute, AttributeValue, MessageGroup};

/// Characters of a text in a table or in one line at most.
const LINE_CHARS_MAX: usize = 64;

/// Characters of a body or an attribute that `show` prints at most.
const SHOWN_CHARS_MAX: usize = 4_096;

/// The last second that [`OffsetDateTime`] can show.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Escapes control characters and the like; cuts what is too long for a line.
pub(super) fn printable(text: &str) -> String {
    escaped(text, LINE_CHARS_MAX)
}

/// Escapes at most `most` characters, and says how many bytes are left out.
fn escaped(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    let mut left = text.chars();
    for c in left.by_ref().take(most) {
        match c {
            '"' | '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    let left = left.as_str().len();
    if left > 0 {
        // Writing to a `String` cannot fail.
        let _ = write!(out, "... ({left} bytes more)");
    }
    out
}

/// Formats one line of JSON without characters that control a terminal.
pub(super) fn json_line(value: &Value) -> String {
    json(value) + "\n"
}

/// Formats a time as RFC 3339, in UTC, to the second.
pub(super) fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().min(SECONDS_MAX);
    let t = OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(since));
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// Formats an age by its largest unit.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m", s / 60),
        s @ 3_600..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// Returns the object of a letter without body and attributes.
pub(super) fn brief(letter: &Letter) -> Map<String, Value> {
    let message = &letter.message;
    let fields = serde_json::json!({
        "message_id": *message.id.0,
        "original_id": message.original_id(),
        "origin": letter.origin().to_string(),
        "source_queue": letter.source(),
        "reason": letter.reason(),
        "error": letter.error(),
        "event_type": letter.event_type,
        "id": letter.identity(),
        "reservation_id": letter.reservation_id,
        "group": message.group.as_ref().map(MessageGroup::name),
        "sent_at": message.sent_at.map(time),
        "dead_lettered_at": letter.dead_at().map(time),
        "receive_count": message.receive_count,
        "bytes": message.body.len(),
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

/// Returns the object of a letter, whole.
pub(super) fn whole(letter: &Letter) -> Value {
    let mut fields = brief(letter);
    let attributes: Map<_, _> = letter.message.attributes.iter().map(attribute).collect();
    fields.insert("trace_header".to_owned(), serde_json::json!(letter.message.trace_header));
    fields.insert("attributes".to_owned(), Value::Object(attributes));
    fields.insert("body".to_owned(), serde_json::json!(letter.message.body));
    Value::Object(fields)
}

fn attribute(attribute: &Attribute) -> (String, Value) {
    let data_type = &attribute.data_type;
    let value = match &attribute.value {
        AttributeValue::Text(text) => {
            serde_json::json!({"data_type": data_type, "string_value": text})
        }
        AttributeValue::Binary(bytes) => {
            serde_json::json!({"data_type": data_type, "binary_value": BASE64.encode(bytes)})
        }
    };
    (attribute.name.clone(), value)
}

/// The widths of the columns of `list`.
const COLUMNS: [(&str, usize); 7] = [
    ("MESSAGE ID", 36),
    ("AGE", 4),
    ("REASON", 19),
    ("TYPE", 19),
    ("RESERVATION", 20),
    ("EVENT", 20),
    ("RECEIVES", 8),
];

fn row(cells: [&str; 7]) -> String {
    let mut line = String::new();
    for (cell, (_, width)) in cells.into_iter().zip(COLUMNS) {
        let _ = write!(line, "{cell:<width$}  ");
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// Returns the heading of `list`.
pub(super) fn heading() -> String {
    row(COLUMNS.map(|(name, _)| name))
}

/// Returns the line of a letter in `list`.
pub(super) fn line(letter: &Letter, now: SystemTime) -> String {
    let age = letter.since().map(|at| age(now.duration_since(at).unwrap_or_default()));
    row([
        &printable(&letter.message.id.0),
        age.as_deref().unwrap_or("?"),
        &printable(letter.reason().unwrap_or("(moved by SQS)")),
        &printable(&letter.event_type),
        &printable(letter.reservation_id.as_deref().unwrap_or("-")),
        &printable(letter.identity()),
        &letter.message.receive_count.to_string(),
    ])
}

/// Returns a letter for reading, whole but for very long values.
pub(super) fn page(letter: &Letter, now: SystemTime) -> String {
    let message = &letter.message;
    let mut out = format!("Message {}\n", printable(&message.id.0));
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(out, "  {name:<14} {}", escaped(value, SHOWN_CHARS_MAX));
        }
    };
    let ago =
        |at| format!("{} ({} ago)", time(at), age(now.duration_since(at).unwrap_or_default()));
    put("reason", Some(letter.reason().unwrap_or("(moved by SQS)")));
    put("error", letter.error());
    put("type", Some(&letter.event_type));
    put("event", Some(letter.identity()));
    put("reservation", letter.reservation_id.as_deref());
    put("original id", Some(message.original_id()));
    put("queue", letter.source());
    put("dead-lettered", letter.dead_at().map(ago).as_deref());
    put("sent", message.sent_at.map(ago).as_deref());
    put("receives", Some(&message.receive_count.to_string()));
    put("group", message.group.as_ref().map(MessageGroup::name));
    put("trace header", message.trace_header.as_deref());
    if !message.attributes.is_empty() {
        out.push_str("  attributes\n");
    }
    let mut attributes: Vec<_> = message.attributes.iter().collect();
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    for Attribute { name, data_type, value } in attributes {
        let value = match value {
            AttributeValue::Text(text) => escaped(text, SHOWN_CHARS_MAX),
            AttributeValue::Binary(bytes) => escaped(&BASE64.encode(bytes), SHOWN_CHARS_MAX),
        };
        let (name, data_type) = (printable(name), printable(data_type));
        let _ = writeln!(out, "    {name} ({data_type}): {value}");
    }
    let _ = writeln!(out, "  body ({} bytes)", message.body.len());
    let _ = writeln!(out, "    {}\n", escaped(&message.body, SHOWN_CHARS_MAX));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dlq::tests::{body, message, text, the_time};

    /// What a terminal obeys: escape sequences, C1 controls, changes of direction.
    const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{9b}31m\u{7f}\r\n\u{202e}\u{2066}\u{0}end";

    /// What changes the direction of a text.
    const DIRECTIONS: [char; 3] = ['\u{202e}', '\u{2066}', '\u{200f}'];

    fn has_hostile(text: &str) -> bool {
        text.chars().any(|c| (c.is_control() && c != '\n') || DIRECTIONS.contains(&c))
    }

    #[test]
    fn nothing_of_a_letter_reaches_the_terminal_raw() {
        let attributes = vec![
            text("dlq_reason", HOSTILE),
            text("dlq_error", HOSTILE),
            text("dlq_event_type", HOSTILE),
            text(HOSTILE, HOSTILE),
        ];
        let mut letter = Letter::new(message(HOSTILE, HOSTILE, attributes));
        letter.reservation_id = Some(HOSTILE.to_owned());
        letter.message.group = Some(MessageGroup::Tenant(HOSTILE.into()));
        letter.message.trace_header = Some(HOSTILE.into());
        for shown in
            [line(&letter, the_time()), page(&letter, the_time()), json_line(&whole(&letter))]
        {
            assert!(!has_hostile(&shown), "{shown:?}");
            assert!(shown.contains("end"), "{shown:?}");
        }
        assert_eq!(line(&letter, the_time()).lines().count(), 1);
    }

    #[test]
    fn json_keeps_every_character() {
        let letter = Letter::new(message("m-1", HOSTILE, vec![text("own", HOSTILE)]));
        let back: Value = serde_json::from_str(&json_line(&whole(&letter))).expect("JSON");
        assert_eq!(back["body"], HOSTILE);
        assert_eq!(back["attributes"]["own"]["string_value"], HOSTILE);
    }

    #[test]
    fn a_long_body_is_cut_and_the_rest_is_told() {
        let long = "é".repeat(SHOWN_CHARS_MAX + 3);
        let shown = page(&Letter::new(message("m-1", &long, vec![])), the_time());
        assert!(
            shown.contains("... (6 bytes more)") && shown.len() < 3 * SHOWN_CHARS_MAX,
            "{}",
            shown.len()
        );
        assert!(
            !page(&Letter::new(message("m-1", &body("e", "r"), vec![])), the_time())
                .contains("more)")
        );
    }

    #[test]
    fn times_and_ages_are_short() {
        assert_eq!(time(UNIX_EPOCH + Duration::from_millis(1_500)), "1970-01-01T00:00:01Z");
        assert_eq!(time(UNIX_EPOCH + Duration::from_secs(u64::MAX >> 2)), "9999-12-31T23:59:59Z");
        let ages = [59, 60, 3_599, 3_600, 172_799, 172_800].map(|s| age(Duration::from_secs(s)));
        assert_eq!(ages, ["59s", "1m", "59m", "1h", "47h", "2d"]);
    }
}
