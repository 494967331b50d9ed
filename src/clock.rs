//! The clock that leases are counted by. SQS and the shared store count on while this machine is suspended, and the
//! clock of [`Instant`] stands still then (`CLOCK_MONOTONIC`). Linux has another one that does not (`CLOCK_BOOTTIME`);
//! elsewhere the two are one here.
//!
//! Timers go by tokio's clock: what is counted here becomes a duration with [`left`] before it is slept for.

use std::time::Duration;

use tokio::time::Instant;

/// Now, with all the time for which the machine was suspended since the process began to count.
pub(crate) fn now() -> Instant {
    Instant::now() + suspension::total()
}

/// How long it is until an instant of this clock.
pub(crate) fn left(at: Instant) -> Duration {
    at.saturating_duration_since(now())
}

/// Whole milliseconds; `u64::MAX` for more than that can hold.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
mod suspension {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// Two clocks are read one after the other, and a thread may have to wait between the readings: less apart than
    /// this is no suspension. Leases have a margin of as much.
    const LEAST_MS: u64 = 500;

    /// For how long in all. Only grows.
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

    /// How far the clock that counts suspension is ahead of the other.
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
        fn what_two_readings_differ_by_is_no_suspension_and_a_suspension_stays_counted() {
            assert_eq!(grown(0, 3), 0);
            assert_eq!(grown(0, 9_000), 9_000);
            assert_eq!(grown(9_000, 9_003), 9_000);
            assert_eq!(grown(9_000, 8_000), 9_000);
            assert_eq!(grown(9_000, 10_000), 10_000);
        }

        #[test]
        fn the_clock_that_counts_suspension_is_never_behind_the_other() {
            let awake = ms(ClockId::Monotonic);
            assert!(awake > 0 && ms(ClockId::Boottime) >= awake);
            assert_eq!(total(), Duration::ZERO, "nobody suspends the machine of the tests");
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
