//! Fuzzes `Retry-After`: the result is never above the maximum, digits are seconds, and a date
//! never yields a later time.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use reservation_worker::client::error::PACE_MAX;
use reservation_worker::client::fuzz_api::retry_after;

fuzz_target!(|input: (u32, &[u8])| {
    let (now, value) = input;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(now));
    let found = retry_after(value, now);
    assert!(found.is_none_or(|wait| wait <= PACE_MAX));
    // Spaces around a header value do not change the result.
    let spaced = [b" \t", value, b"\t "].concat();
    assert_eq!(retry_after(&spaced, now), found);
    let text = std::str::from_utf8(value).unwrap_or("").trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = text.trim_start_matches('0');
        let seconds = if digits.len() > 3 { 1000 } else { digits.parse().unwrap_or(0) };
        assert_eq!(found, Some(Duration::from_secs(seconds).min(PACE_MAX)));
    } else if let Some(wait) = found {
        // A date: a later current time gives a shorter wait. It has a day of the week and a time.
        assert!(text.len() >= 24 && text.contains(':'), "{text:?}");
        let later = retry_after(value, now + Duration::from_secs(7));
        assert!(later.is_some_and(|later| later <= wait));
    }
});
