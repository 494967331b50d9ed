//! Fields of one log event: text values are escaped, and truncated to bound the line's length.
//! [`super::format`] arranges them in the line.

use std::fmt::{self, Debug, Write};
use std::ops::Range;

use tracing::field::{Field, Visit};

/// Maximum line length in bytes, newline included. Container runtimes split lines at 16 KiB; the
/// rest is left for the data that they add.
pub(super) const LINE_BYTES_MAX: usize = 8 * 1024;
/// Bytes reserved for the fixed parts: time, level, braces, keys of `msg` and `target`, colours.
const OVERHEAD_BYTES: usize = 256;
/// Maximum length of one escaped value in bytes; twice as much for `message` and `error`.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes per field for quotes, colon and comma, or for colours.
const KEY_OVERHEAD_BYTES: usize = 24;
/// Maximum length of a number in bytes: a 128-bit integer, or an `f64` with all its digits.
const NUMBER_BYTES_MAX: usize = 400;
/// Marks the end of a truncated text.
const CUT: &str = "…";

/// The field name that the `tracing` macros use for the message.
const MESSAGE: &str = "message";

/// One field; `value` is the range of its escaped text or number in [`LogFields::text`].
#[derive(Debug)]
pub(super) struct FieldEntry {
    pub(super) key: &'static str,
    pub(super) value: Range<usize>,
    pub(super) is_text: bool,
}

/// The fields of one event.
#[derive(Debug, Default)]
pub(super) struct LogFields {
    pub(super) entries: Vec<FieldEntry>,
    pub(super) message: Range<usize>,
    pub(super) text: String,
    bytes_left: usize,
}

impl LogFields {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.text.clear();
        self.message = 0..0;
        self.bytes_left = LINE_BYTES_MAX - OVERHEAD_BYTES;
    }

    /// Adds a text field, or omits it if there is no space left.
    pub(super) fn put_text(&mut self, key: &'static str, value: fmt::Arguments<'_>) {
        self.put_escaped(key, |escaped| escaped.write_fmt(value));
    }

    fn put_escaped(
        &mut self,
        key: &'static str,
        write: impl FnOnce(&mut JsonEscaped<'_>) -> fmt::Result,
    ) {
        let long = matches!(key, MESSAGE | "error");
        let bytes_max = if long { 2 * VALUE_BYTES_MAX } else { VALUE_BYTES_MAX };
        let Some(free) = self.free_bytes(key) else { return };
        let start = self.text.len();
        // `Escaped` never fails. If a `Display` fails, its output so far is kept.
        let _ = write(&mut JsonEscaped::new(&mut self.text, bytes_max.min(free)));
        self.add(key, start, true);
    }

    fn put_number(&mut self, key: &'static str, value: fmt::Arguments<'_>) {
        if self.free_bytes(key).is_some_and(|free| free >= NUMBER_BYTES_MAX) {
            let start = self.text.len();
            let _ = self.text.write_fmt(value);
            self.add(key, start, false);
        }
    }

    /// Returns the bytes left for a value. `None` if too few are left or the key is a duplicate.
    fn free_bytes(&self, key: &str) -> Option<usize> {
        if self.entries.iter().any(|entry| entry.key == key) {
            return None;
        }
        let free = self.bytes_left.checked_sub(6 * key.len() + KEY_OVERHEAD_BYTES)?;
        (free > CUT.len()).then_some(free)
    }

    fn add(&mut self, key: &'static str, start: usize, is_text: bool) {
        let value = start..self.text.len();
        self.bytes_left -= (6 * key.len() + KEY_OVERHEAD_BYTES + value.len()).min(self.bytes_left);
        if key == MESSAGE {
            self.message = value;
        } else {
            self.entries.push(FieldEntry { key, value, is_text });
        }
    }
}

impl Visit for LogFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field.name(), format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_escaped(field.name(), |escaped| escaped.write_str(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field.name(), format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_number(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_number(field.name(), format_args!("{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put_number(field.name(), format_args!("{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put_number(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put_number(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.put_number(field.name(), format_args!("{value:?}"));
        } else {
            self.put_number(field.name(), format_args!("null"));
        }
    }
}

/// Writer that escapes text for a JSON string and a terminal, up to a maximum of bytes.
pub(super) struct JsonEscaped<'a> {
    out: &'a mut String,
    bytes_left: usize,
    cut: bool,
}

impl<'a> JsonEscaped<'a> {
    /// `bytes_max` must be at least 3, the length of [`CUT`].
    pub(super) fn new(out: &'a mut String, bytes_max: usize) -> Self {
        let bytes_left = bytes_max.saturating_sub(CUT.len());
        Self { out, bytes_left, cut: false }
    }

    fn put(&mut self, piece: &str) {
        if let Some(left) = self.bytes_left.checked_sub(piece.len()) {
            self.bytes_left = left;
            self.out.push_str(piece);
        } else if !self.cut {
            self.cut = true;
            self.out.push_str(CUT);
        }
    }

    fn put_escaped(&mut self, c: char) {
        match c {
            '"' => self.put("\\\""),
            '\\' => self.put("\\\\"),
            '\n' => self.put("\\n"),
            '\r' => self.put("\\r"),
            '\t' => self.put("\\t"),
            c if must_escape(c) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let code = u32::from(c);
                let digit = |shift: u32| {
                    let nibble = usize::try_from(code >> shift & 15).expect("four bits fit");
                    char::from(DIGITS[nibble])
                };
                let escape = ['\\', 'u', digit(12), digit(8), digit(4), digit(0)];
                self.put(&String::from_iter(escape));
            }
            c => self.put(c.encode_utf8(&mut [0; 4])),
        }
    }
}

impl Write for JsonEscaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
        if text.len() <= self.bytes_left && text.as_bytes().iter().all(plain) {
            self.put(text);
            return Ok(());
        }
        for c in text.chars() {
            if self.cut {
                break;
            }
            self.put_escaped(c);
        }
        Ok(())
    }
}

/// Returns whether a character must be escaped: control characters, the line terminators of
/// JavaScript (U+2028, U+2029), and characters that change the text direction on a terminal. All
/// are below U+10000.
fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
