//! Keeps the table told of the queue's limits: how many receives a message has, and how long it is kept.
//!
//! What uses up its last receive and goes back to the queue does not come again: SQS moves it to the dead-letter queue. What is
//! kept for as long as the queue's retention, SQS drops, held or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{InFlight, Receipt};
use crate::queue::{Queue, QueueErrorKind, QueueLimits};

/// How often they are looked up: a redrive policy that is set, changed or removed counts within a minute, the call included.
const LOOK: Duration = Duration::from_secs(50);

/// The same, where they could not be read.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What is known of the queue's redrive policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceivesMax {
    /// It was not read yet.
    #[default]
    Unknown,
    /// SQS moves nothing.
    Unlimited,
    /// A message has so many receives.
    Limit(u32),
}

/// Where the policy is not known, what is handed back for others' sake counts as if it had this many receives: few.
const ASSUMED: u32 = 3;

impl ReceivesMax {
    /// Whether a message that was received so often is not handed out again.
    #[must_use]
    pub const fn is_used_up(self, receives: u32) -> bool {
        match self {
            Self::Unknown | Self::Unlimited => false,
            Self::Limit(max) => receives >= max,
        }
    }

    /// Whether a message that was received so often may come back for nothing, and has a receive to spare even then.
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

/// An event that is held is copied to the dead-letter queue so long before SQS drops its message, or in the last tenth of a
/// short retention: a copy may have to be tried again.
const COPY_BEFORE_END: Duration = Duration::from_secs(60);

/// The shortest time that a message is hidden on account of its retention: what nobody can copy comes back for a while.
const HIDDEN_MIN: Duration = Duration::from_secs(1);

/// The queue's limits, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) receives_max: ReceivesMax,
    pub(super) retention: Option<Duration>,
}

impl Limits {
    /// When a message is to be copied to the dead-letter queue, if its event is still held.
    pub(super) fn copy_at(&self, receipt: &Receipt) -> Option<Instant> {
        let retention = self.retention?;
        self.before_end(receipt, COPY_BEFORE_END.min(retention / 10))
    }

    /// So long before SQS drops a message.
    fn before_end(&self, receipt: &Receipt, time: Duration) -> Option<Instant> {
        let age = Duration::from_secs(receipt.age_s?.into());
        let left = self.retention?.saturating_sub(time).saturating_sub(age);
        receipt.leased_at.checked_add(left)
    }

    /// For how long a message may be hidden, where `after` is wanted to space its receives: it must be seen again as often as it
    /// may come back. Ten times eleven hours are longer than the four days that are SQS's default.
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

/// The task that looks the limits up.
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
            // What was known before still counts.
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
    fn the_last_receive_is_used_up_and_the_one_before_is_not_spare() {
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
