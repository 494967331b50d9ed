//! Parses `Retry-After` (RFC 9110, 10.2.3): a number of seconds or an HTTP date.

use std::time::{Duration, SystemTime};

use super::error::PACE_MAX;

/// Returns the requested delay from `now` (the local clock), at most [`PACE_MAX`].
///
/// A date in the past is zero. A value that is neither a number nor a date is ignored.
pub(crate) fn parse(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // The text has only digits, so a parse error is an overflow: use the maximum.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(PACE_MAX));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO).min(PACE_MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn every_form_of_retry_after_is_parsed() {
        let table: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("7", Some(7)),
            (" 120\t", Some(120)),
            ("0120", Some(120)),
            ("300", Some(300)),
            ("301", Some(300)),
            ("86400", Some(300)),
            ("99999999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(300)),
            ("", None),
            (" ", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1e3", None),
            ("1 2", None),
            ("soon", None),
            ("Sun, 06 Nov 1994", None),
            ("Sun, 99 Nov 1994 08:49:47 GMT", None),
        ];
        for (value, seconds) in table {
            assert_eq!(
                parse(value.as_bytes(), now()),
                seconds.map(Duration::from_secs),
                "{value:?}"
            );
        }
        assert_eq!(parse(b"\xff\xfe", now()), None);
    }
}
