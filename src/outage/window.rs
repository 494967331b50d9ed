//! Counts of the latest fresh calls by outcome, in a sliding window of a few buckets.

use std::time::Duration;

use tokio::time::Instant;

/// Buckets of the window and their length: 18 to 20 seconds in all.
const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(2);

/// Calls of the last 20 seconds, by outcome.
#[derive(Debug, Default)]
pub(super) struct CallWindow {
    buckets: [Bucket; BUCKETS],
    /// Start of the first bucket; unset until the first call.
    origin: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Turn (number of the [`BUCKET`] interval) that the bucket counts.
    turn: u64,
    counts: Counts,
}

/// Counts of calls by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u32,
    /// Outage class, or 500 and similar.
    pub(super) failures: u32,
    /// Paced.
    pub(super) paced: u32,
    /// Permanent errors.
    pub(super) refused: u32,
}

impl CallWindow {
    pub(super) fn add_success(&mut self, now: Instant) {
        self.bucket(now).calls += 1;
    }

    pub(super) fn add_failure(&mut self, now: Instant) {
        let counts = self.bucket(now);
        counts.calls += 1;
        counts.failures += 1;
    }

    pub(super) fn add_paced(&mut self, now: Instant) {
        let counts = self.bucket(now);
        counts.calls += 1;
        counts.paced += 1;
    }

    pub(super) fn add_refused(&mut self, now: Instant) {
        let counts = self.bucket(now);
        counts.calls += 1;
        counts.refused += 1;
    }

    fn bucket(&mut self, now: Instant) -> &mut Counts {
        let turn = self.turn(now);
        let bucket = &mut self.buckets[slot(turn)];
        if bucket.turn != turn {
            *bucket = Bucket { turn, counts: Counts::default() };
        }
        &mut bucket.counts
    }

    pub(super) fn totals(&mut self, now: Instant) -> Counts {
        let turn = self.turn(now);
        let oldest = turn.saturating_sub(u64::try_from(BUCKETS).expect("small") - 1);
        let mut totals = Counts::default();
        for bucket in self.buckets.iter().filter(|bucket| bucket.turn >= oldest) {
            totals.calls = totals.calls.saturating_add(bucket.counts.calls);
            totals.failures = totals.failures.saturating_add(bucket.counts.failures);
            totals.paced = totals.paced.saturating_add(bucket.counts.paced);
            totals.refused = totals.refused.saturating_add(bucket.counts.refused);
        }
        totals
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the turn, counted from 1: an unused bucket has turn 0 and is empty.
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

    #[test]
    fn entries_older_than_the_window_do_not_count() {
        let mut window = CallWindow::default();
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        window.add_failure(start);
        window.add_success(after(1));
        window.add_paced(after(10));
        window.add_refused(after(11));
        assert_eq!(
            window.totals(after(11)),
            Counts { calls: 4, failures: 1, paced: 1, refused: 1 }
        );
        assert_eq!(window.totals(after(19)).calls, 4, "less than twenty seconds");
        assert_eq!(
            window.totals(after(21)),
            Counts { calls: 2, failures: 0, paced: 1, refused: 1 }
        );
        assert_eq!(window.totals(after(40)), Counts::default());
        window.add_success(after(100));
        assert_eq!(
            window.totals(after(100)),
            Counts { calls: 1, failures: 0, paced: 0, refused: 0 }
        );
        window.clear();
        assert_eq!(window.totals(after(100)), Counts::default());
    }
}
