//! How many of the latest calls failed: a sliding window in a few buckets.

use std::time::Duration;

use tokio::time::Instant;

/// The window's buckets and their length: the last 18 to 20 seconds.
const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(2);

/// Calls and failures of the last 20 seconds.
#[derive(Debug, Default)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS],
    /// The first bucket's beginning; unset until the first call.
    origin: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The turn of the window that it counts for.
    turn: u64,
    calls: u32,
    failures: u32,
    /// The reservation that failed first.
    first: Option<u64>,
    /// Whether another one failed too.
    is_shared: bool,
}

/// What the window shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) calls: u32,
    pub(super) failures: u32,
    /// Whether more than one reservation failed.
    pub(super) is_shared: bool,
}

impl Window {
    /// Books a call: a failure of that reservation, or none.
    pub(super) fn add(&mut self, failed: Option<u64>, now: Instant) {
        let turn = self.turn(now);
        let bucket = &mut self.buckets[slot(turn)];
        if bucket.turn != turn {
            *bucket = Bucket { turn, ..Bucket::default() };
        }
        bucket.calls = bucket.calls.saturating_add(1);
        if let Some(reservation) = failed {
            bucket.failures = bucket.failures.saturating_add(1);
            bucket.is_shared |= *bucket.first.get_or_insert(reservation) != reservation;
        }
    }

    pub(super) fn totals(&mut self, now: Instant) -> Seen {
        let turn = self.turn(now);
        let oldest = turn.saturating_sub(u64::try_from(BUCKETS).expect("small") - 1);
        let mut seen = Seen::default();
        let mut first = None;
        for bucket in self.buckets.iter().filter(|bucket| bucket.turn >= oldest) {
            seen.calls = seen.calls.saturating_add(bucket.calls);
            seen.failures = seen.failures.saturating_add(bucket.failures);
            seen.is_shared |= bucket.is_shared;
            if let Some(reservation) = bucket.first {
                seen.is_shared |= *first.get_or_insert(reservation) != reservation;
            }
        }
        seen
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Turns are counted from 1: a bucket that was never used has turn 0 and nothing in it.
    fn turn(&mut self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_insert(now);
        now.saturating_duration_since(origin).as_secs() / BUCKET.as_secs() + 1
    }
}

fn slot(turn: u64) -> usize {
    usize::try_from(turn % u64::try_from(BUCKETS).expect("small")).expect("small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(calls: u32, failures: u32, is_shared: bool) -> Seen {
        Seen { calls, failures, is_shared }
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let mut window = Window::default();
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        window.add(Some(1), start);
        window.add(None, after(1));
        window.add(Some(2), after(10));
        assert_eq!(window.totals(after(10)), seen(3, 2, true));
        assert_eq!(window.totals(after(21)), seen(1, 1, false));
        assert_eq!(window.totals(after(40)), seen(0, 0, false));
        window.add(None, after(100));
        assert_eq!(window.totals(after(100)), seen(1, 0, false));
    }

    #[test]
    fn one_reservation_that_fails_again_and_again_is_one() {
        let mut window = Window::default();
        let start = Instant::now();
        for s in 0..8 {
            window.add(Some(7), start + Duration::from_secs(s));
        }
        assert_eq!(window.totals(start + Duration::from_secs(8)), seen(8, 8, false));
        window.add(Some(8), start + Duration::from_secs(8));
        assert_eq!(window.totals(start + Duration::from_secs(8)), seen(9, 9, true));
    }
}
