//! The clock of leases, which includes suspension of the machine.
//!
//! SQS and the shared store continue to count while this machine is suspended; the clock of
//! [`Instant`] (`CLOCK_MONOTONIC`) does not. Linux also has a clock that does (`CLOCK_BOOTTIME`).
//! On other systems this module uses only [`Instant`].
//!
//! Timers use tokio's clock: convert an instant of this clock to a duration with [`left`] first.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tokio::time::Instant;

/// Returns the current time, including all suspensions since the process began to count.
pub(crate) fn now() -> Instant {
    Instant::now() + suspension::total()
}

/// Returns the time until an instant of this clock.
pub(crate) fn left(at: Instant) -> Duration {
    at.saturating_duration_since(now())
}

/// Converts to whole milliseconds; saturates at `u64::MAX`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Formats a time as RFC 3339, in UTC, to the second: `2024-01-01T12:00:00Z`.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(target_os = "linux")]
mod suspension {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// Smallest difference that counts as a suspension. The two clocks are read one after the
    /// other, and the thread may be delayed between the readings. The margin of leases covers this
    /// error.
    const LEAST_MS: u64 = 500;

    /// Returns the total time of suspension. Never decreases.
    pub(super) fn total() -> Duration {
        static AT_FIRST_MS: OnceLock<u64> = OnceLock::new();
        static KNOWN_MS: AtomicU64 = AtomicU64::new(0);
        let ahead_ms = ahead_ms();
        let at_first_ms = *AT_FIRST_MS.get_or_init(|| ahead_ms);
        let known_ms = KNOWN_MS.load(Ordering::Relaxed);
        let new_ms = grown(known_ms, ahead_ms.saturating_sub(at_first_ms));
        if new_ms > known_ms {
            KNOWN_MS.fetch_max(new_ms, Ordering::Relaxed);
        }
        Duration::from_millis(new_ms)
    }

    /// Returns how far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`.
    fn ahead_ms() -> u64 {
        let awake = ms(ClockId::Monotonic);
        ms(ClockId::Boottime).saturating_sub(awake)
    }

    fn ms(clock: ClockId) -> u64 {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
        seconds * 1_000 + nanos / 1_000_000
    }

    const fn grown(known_ms: u64, seen_ms: u64) -> u64 {
        if seen_ms >= known_ms + LEAST_MS { seen_ms } else { known_ms }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn clock_jitter_does_not_count_as_suspension() {
            assert_eq!(grown(0, 3), 0);
            assert_eq!(grown(0, 9_000), 9_000);
            assert_eq!(grown(9_000, 9_003), 9_000);
            assert_eq!(grown(9_000, 8_000), 9_000);
            assert_eq!(grown(9_000, 10_000), 10_000);
        }

        #[test]
        fn the_boottime_clock_is_never_behind_the_monotonic_clock() {
            let awake = ms(ClockId::Monotonic);
            assert!(awake > 0 && ms(ClockId::Boottime) >= awake);
            assert_eq!(total(), Duration::ZERO, "the test machine was suspended");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod suspension {
    use std::time::Duration;

    pub(super) const fn total() -> Duration {
        Duration::ZERO
    }
}
