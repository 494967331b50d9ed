//! Queue limits: maximum receives and retention period, kept up to date in the table.
//!
//! A message that goes back to the queue after its last receive is not delivered again: SQS moves
//! it to the dead-letter queue. SQS drops a message at the end of the queue's retention period,
//! held or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{InFlight, Receipt};
use crate::queue::{Queue, QueueErrorKind, QueueLimits};

/// Interval between reads of the limits.
/// A changed redrive policy takes effect within a minute, including the call.
const LOOK: Duration = Duration::from_secs(50);

/// Interval after a failed read.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What is known about the queue's redrive policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceivesMax {
    /// Not read yet.
    #[default]
    Unknown,
    /// No redrive policy: SQS moves no message.
    Unlimited,
    /// Maximum receives of a message.
    Limit(u32),
}

/// Assumed maximum receives of a message handed back to make room, while the policy is unknown.
/// The value is low on purpose, because a hand-back spends a receive.
const ASSUMED: u32 = 3;

impl ReceivesMax {
    /// Returns whether a message with this many receives is not delivered again.
    #[must_use]
    pub const fn is_used_up(self, receives: u32) -> bool {
        match self {
            Self::Unknown | Self::Unlimited => false,
            Self::Limit(max) => receives >= max,
        }
    }

    /// Returns whether the message can spend one receive unhandled and still have one left.
    #[must_use]
    pub const fn is_spare(self, receives: u32) -> bool {
        let max = match self {
            Self::Unlimited => return true,
            Self::Unknown => ASSUMED,
            Self::Limit(max) => max,
        };
        receives.saturating_add(1) < max
    }
}

/// How long before the end of its retention a held message is copied to the dead-letter queue.
/// The copy may need retries. With a short retention, the last tenth of it is used instead.
const COPY_BEFORE_END: Duration = Duration::from_secs(60);

/// Minimum time that a message is hidden when its retention limits the time.
/// A message that cannot be copied comes back until its retention ends.
const HIDDEN_MIN: Duration = Duration::from_secs(1);

/// The queue's limits, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RedriveLimits {
    pub(super) receives_max: ReceivesMax,
    pub(super) retention: Option<Duration>,
}

impl RedriveLimits {
    /// Returns when a message is copied to the dead-letter queue, if its event is still held.
    pub(super) fn copy_at(&self, receipt: &Receipt) -> Option<Instant> {
        let retention = self.retention?;
        self.before_end(receipt, COPY_BEFORE_END.min(retention / 10))
    }

    /// Returns the instant `time` before SQS drops a message.
    fn before_end(&self, receipt: &Receipt, time: Duration) -> Option<Instant> {
        let age = Duration::from_secs(receipt.age_s?.into());
        let left = self.retention?.saturating_sub(time).saturating_sub(age);
        receipt.leased_at.checked_add(left)
    }

    /// Returns how long a message may be hidden, at most `after`.
    /// Divides the remaining retention among the remaining receives, so that the message can use
    /// all of them. Ten receives of eleven hours each are longer than the SQS default of four days.
    pub(super) fn hidden(&self, receipt: &Receipt, after: Duration, now: Instant) -> Duration {
        let Some(end) = self.before_end(receipt, Duration::ZERO) else { return after };
        let times = match self.receives_max {
            ReceivesMax::Unknown | ReceivesMax::Unlimited => 1,
            ReceivesMax::Limit(max) => max.saturating_sub(receipt.receive_count).saturating_add(1),
        };
        let share = end.saturating_duration_since(now) / times.saturating_add(1);
        after.min(share.max(HIDDEN_MIN))
    }
}

/// Reads the limits periodically until stopped.
pub async fn watch(inflight: Arc<InFlight>, queue: Arc<dyn Queue>, stop: CancellationToken) {
    let (mut known, mut was_denied) = (None, false);
    loop {
        let looked_up = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            looked_up = queue.limits() => looked_up,
        };
        let next = match looked_up {
            Ok(limits) => {
                if known != Some(limits) {
                    inflight.set_limits(limits);
                    if known.replace(limits).is_some() {
                        let QueueLimits { receives_max, retention } = limits;
                        let retention_s = retention.map(|retention| retention.as_secs());
                        info!(receives_max, retention_s, "The queue's limits have changed");
                    }
                }
                LOOK
            }
            // The limits known before still apply.
            Err(error) => {
                let is_news = error.kind == QueueErrorKind::Denied && !was_denied;
                was_denied = error.kind == QueueErrorKind::Denied;
                if is_news {
                    warn!(error = %error, "The queue's redrive policy and retention cannot be read: nothing is copied before its retention ends");
                } else {
                    debug!(error = %error, "The queue's limits could not be read");
                }
                LOOK_AGAIN
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(next) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_receive_is_used_up_and_the_second_to_last_is_not_spare() {
        let limit = ReceivesMax::Limit(3);
        assert_eq!([1, 2, 3, 4].map(|n| limit.is_used_up(n)), [false, false, true, true]);
        assert_eq!([1, 2, 3].map(|n| limit.is_spare(n)), [true, false, false]);
        assert!(!ReceivesMax::Limit(1).is_spare(1));
        for max in [ReceivesMax::Unknown, ReceivesMax::Unlimited] {
            assert!(!max.is_used_up(u32::MAX));
        }
        assert_eq!([1, 2].map(|n| ReceivesMax::Unknown.is_spare(n)), [true, false]);
        assert!(ReceivesMax::Unlimited.is_spare(u32::MAX));
    }
}
