//! Formats an external value for a log line or an error text: quoted, escaped, truncated.
//!
//! The caller decides what may be shown: never a body, never a secret.

use std::fmt::{self, Write as _};

/// The maximum number of characters shown.
pub(crate) const CHARACTERS_MAX: usize = 64;

/// Shows a value as `"..."`; escapes control characters, quotes and backslashes as Rust does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(CHARACTERS_MAX) {
            write!(f, "{}", character.escape_debug())?;
        }
        f.write_char('"')?;
        if characters.next().is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn a_value_is_quoted_escaped_and_cut() {
        assert_eq!(Escaped("a\nb\"\u{1b}").to_string(), r#""a\nb\"\u{1b}""#);
        let shown = Escaped(&"é".repeat(65)).to_string();
        assert_eq!(shown, format!("\"{}\"...", "é".repeat(64)));
        assert_eq!(Escaped(&"x".repeat(64)).to_string(), format!("\"{}\"", "x".repeat(64)));
    }
}
