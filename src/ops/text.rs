//! Writes values from outside so that a terminal shows them as text: bodies, ids and stored records
//! may hold control characters, and others that move or hide the text around them.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use time::OffsetDateTime;

/// Writes a value as one line of JSON in which every character can be seen: the others are escaped
/// as `\uXXXX`, so that it is the same JSON.
///
/// # Panics
/// If the value cannot be JSON: a map whose keys are no texts.
#[must_use]
pub fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("texts, numbers and lists of them");
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_visible(character) {
            safe.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a `String` cannot fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

/// Writes a text in quotes, whole; what cannot be seen is escaped as in [`json`].
#[must_use]
pub fn quoted(text: &str) -> String {
    json(&text)
}

/// Writes a time as RFC 3339 in UTC, to the second; one that no calendar has is written in seconds.
#[must_use]
pub fn utc(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let date = i64::try_from(seconds).ok();
    let Some(t) = date.and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok()) else {
        return format!("{seconds} s after 1970");
    };
    let (year, month, day) = t.to_calendar_date();
    let (hour, minute, second) = t.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns whether a character shows as itself and leaves what is around it alone.
fn is_visible(character: char) -> bool {
    // Quotes and backslashes are part of the JSON.
    matches!(character, '"' | '\\' | '\'') || character.escape_debug().len() == 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped_and_stays_the_same_json() {
        for hostile in
            ["\u{1b}[2J\r\n", "\u{7f}", "\u{9b}31m", "\u{202e}txt", "\u{e0041}", "\u{0301}", "\0"]
        {
            let line = json(&hostile);
            assert!(line.chars().all(|c| c.is_ascii_graphic()), "{line}");
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
        }
        assert_eq!(quoted("a\u{1b}b"), "\"a\\u001bb\"");
        assert_eq!(json(&"좌석 \"A\\1\" 'é'"), "\"좌석 \\\"A\\\\1\\\" 'é'\"");
    }

    #[test]
    fn times_are_in_utc_and_none_panics() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_704_110_400), "2024-01-01T12:00:00Z");
        assert_eq!(at(1 << 53), "9007199254740992 s after 1970");
    }
}
