//! The two line formats, JSON and pretty.
//!
//! JSON is flat, with keys in a fixed order: `ts`, `level`, the keys in [`FIRST`], other fields in
//! the order of the event, `msg`. Pretty is for reading on a terminal.

use std::fmt::Write;
use std::time::SystemTime;

use time::OffsetDateTime;
use tracing::{Event, Level};

use super::fields::{FieldEntry, JsonEscaped, LINE_BYTES_MAX, LogFields};

/// Keys that come first, in this order.
const FIRST: [&str; 7] =
    ["event_type", "reservation_id", "attempt", "latency_ms", "trace_id", "outcome", "error"];
/// Reserved keys: a field with such a name gets an underscore as prefix.
const OWN: [&str; 3] = ["ts", "level", "msg"];

/// Reusable buffers for formatting lines.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    fields: LogFields,
    line: String,
    second: Second,
}

/// Cache of the last formatted second: consecutive lines often have the same one.
#[derive(Debug, Default)]
struct Second {
    unix_s: Option<i64>,
    text: String,
}

impl Second {
    /// Returns the RFC 3339 time up to the decimal point: `2024-01-01T12:00:00.`.
    fn text(&mut self, t: OffsetDateTime) -> &str {
        if self.unix_s != Some(t.unix_timestamp()) {
            self.unix_s = Some(t.unix_timestamp());
            self.text.clear();
            let (year, month, day) = t.to_calendar_date();
            let (hour, minute, second) = t.to_hms();
            let month = u8::from(month);
            let _ = write!(
                self.text,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}."
            );
        }
        &self.text
    }
}

impl Buffers {
    /// Collects the fields of an event.
    pub(super) fn collect(&mut self, event: &Event<'_>, with_target: bool) {
        self.fields.clear();
        event.record(&mut self.fields);
        if with_target {
            let target = event.metadata().target();
            self.fields.put_text("target", format_args!("{target}"));
        }
        self.fields.entries.sort_by_key(|entry| {
            FIRST.iter().position(|first| *first == entry.key).unwrap_or(FIRST.len())
        });
    }

    /// Formats the line as JSON.
    pub(super) fn json(&mut self, level: Level, at: SystemTime) -> &str {
        let Self { fields, line, second } = self;
        line.clear();
        let t = OffsetDateTime::from(at);
        put(line, ["{\"ts\":\"", second.text(t)]);
        put_millis(line, t.millisecond());
        put(line, ["Z\",\"level\":\"", level_name(level), "\""]);
        for entry in &fields.entries {
            line.push_str(if OWN.contains(&entry.key) { ",\"_" } else { ",\"" });
            put_key(line, entry);
            let quote = if entry.is_text { "\"" } else { "" };
            put(line, ["\":", quote, &fields.text[entry.value.clone()], quote]);
        }
        put(line, [",\"msg\":\"", &fields.text[fields.message.clone()], "\"}\n"]);
        debug_assert!(line.len() <= LINE_BYTES_MAX);
        line
    }

    /// Formats the line for reading on a terminal.
    pub(super) fn pretty(&mut self, level: Level, at: SystemTime, color: bool) -> &str {
        let Self { fields, line, .. } = self;
        line.clear();
        let t = OffsetDateTime::from(at);
        let (begin, dim, end) =
            if color { (level_color(level), "\u{1b}[2m", "\u{1b}[0m") } else { ("", "", "") };
        let message = fields.text[fields.message.clone()].replace("\\\"", "\"");
        let _ = write!(
            line,
            "{:02}:{:02}:{:02}.{:03} {begin}{:5}{end} {message}",
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond(),
            level.as_str()
        );
        for entry in &fields.entries {
            let _ = write!(line, " {dim}");
            put_key(line, entry);
            let value = &fields.text[entry.value.clone()];
            let quote = if value.is_empty() || value.contains([' ', '=', '"']) { "\"" } else { "" };
            let _ = write!(line, "={end}{quote}{value}{quote}");
        }
        line.push('\n');
        debug_assert!(line.len() <= LINE_BYTES_MAX);
        line
    }
}

fn put<const N: usize>(line: &mut String, parts: [&str; N]) {
    parts.into_iter().for_each(|part| line.push_str(part));
}

/// Appends `ms` with three digits.
fn put_millis(line: &mut String, ms: u16) {
    for divisor in [100, 10, 1] {
        let digit = u8::try_from(ms / divisor % 10).expect("a digit");
        line.push(char::from(b'0' + digit));
    }
}

fn put_key(line: &mut String, entry: &FieldEntry) {
    let _ = JsonEscaped::new(line, LINE_BYTES_MAX).write_str(entry.key);
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn level_color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    }
}
