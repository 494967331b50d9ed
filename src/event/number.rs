//! JSON numbers as text: whether one is whole, and how it is shown.
//!
//! `validate` checks the ranges.

use std::fmt;

use crate::escaped::CHARACTERS_MAX;

/// The limit for exponents: no body has enough digits for a larger one.
const EXPONENT_MAX: i64 = 1 << 32;

/// Returns the value of a JSON number that is whole and fits 64 bits.
///
/// The notation does not matter: `2`, `2.0` and `20e-1` are equal.
pub(super) fn whole(json: &str) -> Option<i64> {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{after}");
    let significant = digits.trim_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let length = |text: &str| i64::try_from(text.len()).ok();
    // The number of digits before the decimal point, from the first nonzero digit.
    let point = length(before)? + self::exponent(exponent) - i64::try_from(leading).ok()?;
    let zeros = usize::try_from(point - length(significant)?).ok()?;
    let is_short = point <= 19;
    is_short.then(|| format!("{sign}{significant}{}", "0".repeat(zeros)).parse().ok()).flatten()
}

fn exponent(digits: &str) -> i64 {
    let limit = if digits.starts_with('-') { -EXPONENT_MAX } else { EXPONENT_MAX };
    digits.parse().map_or(limit, |exponent: i64| exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX))
}

/// A number for a log line or an error text: truncated, as it may have a million digits.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..CHARACTERS_MAX) {
            Some(start) if start.len() < self.0.len() => write!(f, "{start}..."),
            Some(_) | None => f.write_str(self.0),
        }
    }
}

/// Returns a text such as `a number, 42`.
pub(super) fn described(json: &str) -> String {
    format!("a number, {}", Shown(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_recognised_in_every_notation() {
        for (json, expected) in [
            ("2", Some(2)),
            ("2.0", Some(2)),
            ("2e0", Some(2)),
            ("2E+0", Some(2)),
            ("20e-1", Some(2)),
            ("0.2e1", Some(2)),
            ("0.00020e4", Some(2)),
            ("-2.0", Some(-2)),
            ("12.50e2", Some(1250)),
            ("0.0", Some(0)),
            ("-0", Some(0)),
            ("0e999999999999999999999", Some(0)),
            ("9223372036854775807.0", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("2.5", None),
            ("2.00000000000000000000000001", None),
            ("1e-400", None),
            ("1e400", None),
            ("1e99999999999999999999", None),
            ("1e-99999999999999999999", None),
            ("25e-1", None),
        ] {
            assert_eq!(whole(json), expected, "{json}");
        }
    }

    #[test]
    fn a_long_number_is_cut() {
        assert_eq!(Shown("2.5").to_string(), "2.5");
        assert_eq!(Shown(&"9".repeat(64)).to_string(), "9".repeat(64));
        assert_eq!(Shown(&"9".repeat(65)).to_string(), "9".repeat(64) + "...");
    }
}
