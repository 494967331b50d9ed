//! A notice that cannot be read: when it is logged, and whether the store has one now.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two lines. Every look finds the notice again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What was seen of notices that cannot be read.
#[derive(Debug, Default)]
pub(super) struct UnreadableNotice {
    /// The hash of the one that was found last; `None` once another one could be read.
    found: Option<u64>,
    /// The hash of the one that was logged last.
    logged: Option<u64>,
    logged_at: Option<Instant>,
}

impl UnreadableNotice {
    /// Notes a notice that cannot be read. Returns whether to log it: it is another one than the
    /// one that was logged last, and that is a minute ago.
    pub(super) fn found(&mut self, text: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        self.found = Some(hasher.finish());
        let is_due = self.found != self.logged
            && self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if is_due {
            (self.logged, self.logged_at) = (self.found, Some(Instant::now()));
        }
        is_due
    }

    /// Notes a notice that can be read, or that there is none.
    pub(super) const fn readable(&mut self) {
        (self.found, self.logged) = (None, None);
    }

    /// Returns whether the last notice cannot be read.
    pub(super) const fn is_found(&self) -> bool {
        self.found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LOOK: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_notice_is_logged_again_when_it_changes_but_once_a_minute_at_most() {
        let mut notice = UnreadableNotice::default();
        assert!(notice.found(b"one"), "the first is logged at once");
        for _ in 0..100 {
            advance(LOOK).await;
            assert!(!notice.found(b"one"), "it has not changed");
        }
        assert!(notice.found(b"two"));
        for n in 1..=17_u32 {
            advance(LOOK).await;
            assert_eq!(notice.found(&n.to_be_bytes()), n % 6 == 0, "{n}");
        }
        notice.readable();
        assert!(!notice.is_found());
        assert!(!notice.found(b"two"), "the last line is not a minute old");
        assert!(notice.is_found());
        advance(LOOK).await;
        assert!(notice.found(b"two"), "it has come back");
    }
}
