//! How many extensions are open at once, and how long each is waited for.

use std::time::Duration;

use tokio::time::Instant;

use crate::queue::QueueErrorKind;

/// One call for each so many receipts. Half of the shortest lease (5 s) is time for 2.5 calls of a second each, one
/// after the other, of ten receipts each: slower than that SQS cannot be.
const RECEIPTS_PER_CALL: usize = 40;

/// At least so many: a few calls that hang must not hold up the others.
const CALLS_MIN: usize = 8;

/// At most so many, each with a connection of its own: at ten receipts and 100 ms a call they extend 25,600 a second,
/// where 20,000 may be held and half of a lease is at least 2.5 s.
const CALLS_MAX: usize = 256;

/// A call is given at least this long, where there is so much: SQS answers in tens of milliseconds.
const CALL_MIN: Duration = Duration::from_millis(500);

/// And no longer than this, where a lease is long: the next call may be answered.
const CALL_MAX: Duration = Duration::from_secs(5);

/// How much longer the next call is waited for where one was given up: half of the shortest lease has time for one that
/// is given up after [`CALL_MIN`], and for one that then takes a second.
const GIVEN_UP_FACTOR: u32 = 4;

/// Beyond so many in a row it grows no further: it is above [`CALL_MAX`] by then.
const GIVEN_UP_MAX: u32 = 2;

/// How many calls may be open while so many receipts are held.
pub(super) fn calls_max(receipts: usize) -> usize {
    receipts.div_ceil(RECEIPTS_PER_CALL).clamp(CALLS_MIN, CALLS_MAX)
}

/// What calls take, learnt as TCP learns its retransmission timeout (RFC 6298): the mean, and how far off it calls are.
/// A call that takes longer than four times that hangs, and another will be answered sooner.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// `None` until a call was answered.
    learnt: Option<Learnt>,
    /// When the last of those that were answered began.
    answered: Option<Instant>,
    /// Calls in a row that were given up, each begun after all that were answered: SQS may have become slow. Others hang.
    given_up: u32,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    mean: Duration,
    deviation: Duration,
}

impl Patience {
    /// A call took so long since it began, and failed in that way or not at all.
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
            // How fast a call is refused says nothing of how long one takes.
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
                    None => Learnt { mean: took, deviation: took / 2 },
                    Some(Learnt { mean, deviation }) => Learnt {
                        mean: (mean * 7 + took) / 8,
                        deviation: (deviation * 3 + mean.abs_diff(took)) / 4,
                    },
                });
            }
        }
    }

    /// How long a call is waited for where so much is left of a lease. One that hangs must leave time for another; two
    /// at once would be safe from that, but the one that is not waited for could overtake what is said of its message
    /// later.
    pub(super) fn for_call(self, left: Duration) -> Duration {
        let most = (left * 2 / 3).clamp(CALL_MIN, CALL_MAX).min(left);
        let Some(Learnt { mean, deviation }) = self.learnt else { return most };
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
        let (mut patience, mut began_at) = (Patience::default(), Instant::now());
        for (took, is_answered) in calls {
            let error = (!is_answered).then_some(QueueErrorKind::Timeout);
            patience.learn(began_at, ms(*took), error);
            began_at += ms(*took);
        }
        patience.for_call(LEFT)
    }

    #[test]
    fn calls_grow_with_what_is_held() {
        assert_eq!([0, 300, 1_000, 8_000, 20_000].map(calls_max), [8, 8, 25, 200, 256]);
    }

    #[test]
    fn a_call_is_given_up_near_what_calls_take() {
        assert_eq!(after(&[]), CALL_MAX, "nothing is known");
        assert_eq!(after(&[(10, true); 20]), CALL_MIN);
        let slow = after(&[(300, true); 20]);
        assert!((ms(1_200)..ms(1_300)).contains(&slow), "{slow:?}");
    }

    #[test]
    fn calls_that_hang_while_others_are_answered_are_not_slow() {
        let (mut patience, began_at) = (Patience::default(), Instant::now());
        (0..20).for_each(|n| patience.learn(began_at + ms(n), ms(10), None));
        (0..10).for_each(|n| {
            patience.learn(began_at + ms(n), CALL_MIN, Some(QueueErrorKind::Timeout))
        });
        assert_eq!(patience.for_call(LEFT), CALL_MIN);
    }

    #[test]
    fn calls_that_become_slow_are_waited_for_before_long() {
        let slower = |given_up| [vec![(10, true); 20], vec![(500, false); given_up]].concat();
        assert_eq!([1, 2, 3].map(|n| after(&slower(n))), [ms(2_000), CALL_MAX, CALL_MAX]);
        assert_eq!(after(&slower(1_000)), CALL_MAX);
    }

    #[test]
    fn what_is_left_of_a_lease_bounds_every_call() {
        assert_eq!(Patience::default().for_call(ms(3_000)), ms(2_000));
        assert_eq!(Patience::default().for_call(ms(200)), ms(200));
        assert_eq!(Patience::default().for_call(Duration::ZERO), Duration::ZERO);
    }
}
