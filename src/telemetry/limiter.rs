//! Limits how often a line is logged whose cause others control.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Allows one line a minute, and counts what is not logged.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<Occurrences>);

#[derive(Debug, Default)]
struct Occurrences {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogLimiter {
    /// Notes an occurrence. If a line is due, returns the number of occurrences since the last
    /// line, with this one.
    pub fn note(&self) -> Option<u64> {
        // Both values are set at once: a panic leaves nothing half changed.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.unlogged += 1;
        let now = Instant::now();
        if seen.logged_at.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            return None;
        }
        seen.logged_at = Some(now);
        Some(std::mem::take(&mut seen.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_has_the_number_since_the_last() {
        let limiter = LogLimiter::default();
        assert_eq!(limiter.note(), Some(1), "the first is logged at once");
        for _ in 0..59 {
            advance(Duration::from_secs(1)).await;
            assert_eq!(limiter.note(), None);
        }
        advance(Duration::from_secs(1)).await;
        assert_eq!(limiter.note(), Some(60));
        assert_eq!(limiter.note(), None);
        advance(Duration::from_secs(600)).await;
        assert_eq!(limiter.note(), Some(2));
    }
}
