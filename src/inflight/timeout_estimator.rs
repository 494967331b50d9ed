//! Limits for extension calls: how many are open at once, and the timeout of each.

use std::time::Duration;

use tokio::time::Instant;

use crate::queue::QueueErrorKind;

/// Receipts per open call.
/// Half of the shortest lease (5 s) has time for 2.5 sequential calls of one second, each for ten
/// receipts. SQS must not be slower than that.
const RECEIPTS_PER_CALL: usize = 25;

/// Minimum number of open calls. A few calls that hang must not block the others.
const CALLS_MIN: usize = 8;

/// Maximum number of open calls, each with its own connection.
/// With ten receipts and 100 ms per call they extend 25,600 receipts per second. 20,000 may be
/// held, and half of a lease is at least 2.5 s.
const CALLS_MAX: usize = 256;

/// Minimum timeout of a call, if the lease has that much left.
/// SQS answers in tens of milliseconds.
const CALL_MIN: Duration = Duration::from_millis(500);

/// Maximum timeout of a call, also for a long lease: the next call may be answered.
const CALL_MAX: Duration = Duration::from_secs(5);

/// Factor by which the timeout grows after a call timed out.
/// Half of the shortest lease has time for one call that times out after [`CALL_MIN`] and one that
/// then takes a second.
const GIVEN_UP_FACTOR: u32 = 4;

/// Number of consecutive timeouts after which the timeout stops growing.
/// It exceeds [`CALL_MAX`] then.
const GIVEN_UP_MAX: u32 = 2;

/// Returns how many calls may be open while `receipts` receipts are held.
pub(super) fn calls_max(receipts: usize) -> usize {
    receipts.div_ceil(RECEIPTS_PER_CALL).clamp(CALLS_MIN, CALLS_MAX)
}

/// Estimates the call duration like TCP's retransmission timer (RFC 6298): mean and deviation.
/// A call that takes longer than four times the estimate hangs, and a new call will be answered
/// sooner.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeoutEstimator {
    /// `None` until a call was answered.
    learnt: Option<RoundTrips>,
    /// Start time of the last answered call.
    answered: Option<Instant>,
    /// Consecutive timeouts of calls started after all answered ones.
    /// They suggest that SQS has become slow. Other calls that time out just hang.
    given_up: u32,
}

#[derive(Clone, Copy, Debug)]
struct RoundTrips {
    mean: Duration,
    deviation: Duration,
}

impl TimeoutEstimator {
    /// Records the duration of a call and its error, if any.
    pub(super) fn learn(
        &mut self,
        began_at: Instant,
        took: Duration,
        error: Option<QueueErrorKind>,
    ) {
        match error {
            Some(QueueErrorKind::Timeout) => {
                let is_slow = self.answered.is_none_or(|answered| began_at > answered);
                self.given_up = self.given_up.saturating_add(u32::from(is_slow));
            }
            // The duration of a refused call does not predict the duration of a successful one.
            Some(
                QueueErrorKind::Throttled
                | QueueErrorKind::Denied
                | QueueErrorKind::NoSuchQueue
                | QueueErrorKind::Network
                | QueueErrorKind::Refused
                | QueueErrorKind::NoDeadLetterQueue
                | QueueErrorKind::Other,
            ) => {}
            None => {
                self.given_up = 0;
                self.answered = self.answered.max(Some(began_at));
                self.learnt = Some(match self.learnt {
                    None => RoundTrips { mean: took, deviation: took / 2 },
                    Some(RoundTrips { mean, deviation }) => RoundTrips {
                        mean: (mean * 7 + took) / 8,
                        deviation: (deviation * 3 + mean.abs_diff(took)) / 4,
                    },
                });
            }
        }
    }

    /// Returns the timeout of a call, given the time `left` of the lease.
    /// A call that hangs must leave time for another. Two concurrent calls would avoid that, but
    /// the abandoned one could overtake a later change to its message.
    pub(super) fn for_call(self, left: Duration) -> Duration {
        let most = (left * 2 / 3).clamp(CALL_MIN, CALL_MAX).min(left);
        let Some(RoundTrips { mean, deviation }) = self.learnt else { return most };
        let longer = GIVEN_UP_FACTOR.pow(self.given_up.min(GIVEN_UP_MAX));
        (((mean + deviation * 4) * 4).max(CALL_MIN) * longer).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(15);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(calls: &[(u64, bool)]) -> Duration {
        let (mut estimator, mut began_at) = (TimeoutEstimator::default(), Instant::now());
        for (took, is_answered) in calls {
            let error = (!is_answered).then_some(QueueErrorKind::Timeout);
            estimator.learn(began_at, ms(*took), error);
            began_at += ms(*took);
        }
        estimator.for_call(LEFT)
    }

    #[test]
    fn the_number_of_calls_grows_with_the_held_messages() {
        assert_eq!([0, 300, 1_000, 8_000, 20_000].map(calls_max), [8, 12, 40, 256, 256]);
    }

    #[test]
    fn the_timeout_follows_the_duration_of_calls() {
        assert_eq!(after(&[]), CALL_MAX, "without samples the timeout must be the maximum");
        assert_eq!(after(&[(10, true); 20]), CALL_MIN);
        let slow = after(&[(300, true); 20]);
        assert!((ms(1_200)..ms(1_300)).contains(&slow), "{slow:?}");
    }

    #[test]
    fn hanging_calls_among_answered_ones_do_not_raise_the_timeout() {
        let (mut estimator, began_at) = (TimeoutEstimator::default(), Instant::now());
        (0..20).for_each(|n| estimator.learn(began_at + ms(n), ms(10), None));
        (0..10).for_each(|n| {
            estimator.learn(began_at + ms(n), CALL_MIN, Some(QueueErrorKind::Timeout))
        });
        assert_eq!(estimator.for_call(LEFT), CALL_MIN);
    }

    #[test]
    fn slower_calls_raise_the_timeout_soon() {
        let slower = |given_up| [vec![(10, true); 20], vec![(500, false); given_up]].concat();
        assert_eq!([1, 2, 3].map(|n| after(&slower(n))), [ms(2_000), CALL_MAX, CALL_MAX]);
        assert_eq!(after(&slower(1_000)), CALL_MAX);
    }

    #[test]
    fn the_rest_of_the_lease_limits_the_timeout() {
        assert_eq!(TimeoutEstimator::default().for_call(ms(3_000)), ms(2_000));
        assert_eq!(TimeoutEstimator::default().for_call(ms(200)), ms(200));
        assert_eq!(TimeoutEstimator::default().for_call(Duration::ZERO), Duration::ZERO);
    }
}
