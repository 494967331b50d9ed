//! The table: from how an attempt ended to what becomes of the message.

use std::time::Duration;

use crate::client::{CallError, Class};
use crate::event::PoisonReason;
use crate::handler::End;
use crate::metrics::Outcome;
use crate::retry::Backoff;

/// How long the first release hides a message whose retries are used up; it doubles with each
/// receive, so that a redrive policy with a handful of receives is not run through in a minute.
const RELEASE_BASE: Duration = Duration::from_secs(30);

/// The longest that a release hides a message: 15 minutes, so that a cure is noticed soon.
const RELEASE_CAP: Duration = Duration::from_secs(15 * 60);

/// A paced wait that names no time to speak of still is a wait.
const PACED_MIN: Duration = Duration::from_millis(100);

/// How often, and how far apart, an event is tried in one delivery.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub retries_max: u32,
    /// The delays between them.
    pub backoff: Backoff,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is settled: delete it.
    Delete(Outcome),
    /// Try again after that time, in this delivery.
    Retry {
        /// How long to wait.
        after: Duration,
        /// Whether it uses up one of the retries.
        counted: bool,
    },
    /// Give it back, to be seen again after that time; the queue's redrive policy decides when it
    /// has been seen often enough.
    Release(Duration),
    /// It can never succeed: set it aside, whole.
    DeadLetter(DeadLetterReason),
    /// It is not ours any more: leave it alone.
    Forget,
}

/// Why a message is in the dead-letter queue: a label, and the `dlq_reason` of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The body is no event.
    Poison(PoisonReason),
    /// Another event had this id before.
    IdReused,
    /// A service refused the event for good.
    Rejected,
    /// A service says that we may not.
    Forbidden,
    /// A payment was approved for seats that are gone: somebody must act.
    MoneyWithoutSeat,
}

impl DeadLetterReason {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Poison(reason) => reason.as_str(),
            Self::IdReused => "id_reused",
            Self::Rejected => "rejected",
            Self::Forbidden => "forbidden",
            Self::MoneyWithoutSeat => "money_without_seat",
        }
    }

    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [Self::IdReused, Self::Rejected, Self::Forbidden, Self::MoneyWithoutSeat];
        PoisonReason::ALL.into_iter().map(Self::Poison).chain(others)
    }
}

/// The table. `retries` are those used up so far, `receive_count` SQS's.
#[must_use]
pub fn decide(
    end: &End,
    retries: u32,
    receive_count: u32,
    policy: &RetryPolicy,
    random: &mut fastrand::Rng,
) -> Verdict {
    match end {
        End::Applied => Verdict::Delete(Outcome::Success),
        End::Superseded { .. } => Verdict::Delete(Outcome::Dropped),
        End::MoneyWithoutSeat { .. } => Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
        End::LeaseLost => Verdict::Forget,
        // What the store does not answer is asked again; nothing runs unguarded meanwhile.
        End::Store(_) | End::Unclear { .. } | End::Panicked => {
            retry_or_release(retries, receive_count, policy, random)
        }
        End::Failed(error) => match error.class {
            Class::Permanent => Verdict::DeadLetter(DeadLetterReason::Rejected),
            Class::Forbidden => Verdict::DeadLetter(DeadLetterReason::Forbidden),
            Class::MoneyWithoutSeat => Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
            Class::Paced => paced(error, policy, random),
            Class::Outage | Class::Transient | Class::Conflict => {
                retry_or_release(retries, receive_count, policy, random)
            }
        },
    }
}

/// The named time, and up to a tenth more, so that all who wait for it do not come at once.
fn paced(error: &CallError, policy: &RetryPolicy, random: &mut fastrand::Rng) -> Verdict {
    let named = error.retry_after.unwrap_or(policy.backoff.base).max(PACED_MIN);
    let after = named + named.mul_f64(random.f64() / 10.0);
    Verdict::Retry { after, counted: false }
}

fn retry_or_release(
    retries: u32,
    receive_count: u32,
    policy: &RetryPolicy,
    random: &mut fastrand::Rng,
) -> Verdict {
    if retries < policy.retries_max {
        Verdict::Retry { after: policy.backoff.delay(retries, random), counted: true }
    } else {
        Verdict::Release(release_delay(receive_count))
    }
}

/// How long a release hides a message that has been received that often.
#[must_use]
pub fn release_delay(receive_count: u32) -> Duration {
    Backoff { base: RELEASE_BASE, cap: RELEASE_CAP }.bound(receive_count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency::StoreError;

    const POLICY: RetryPolicy = RetryPolicy {
        retries_max: 2,
        backoff: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) },
    };

    fn verdict(end: &End, retries: u32, receive_count: u32) -> Verdict {
        decide(end, retries, receive_count, &POLICY, &mut fastrand::Rng::with_seed(3))
    }

    fn failed(class: Class, retry_after: Option<Duration>) -> End {
        End::Failed(CallError {
            class,
            code: "code".into(),
            detail: "detail".to_owned(),
            retry_after,
        })
    }

    #[test]
    fn what_is_final_at_once() {
        for (end, expected) in [
            (End::Applied, Verdict::Delete(Outcome::Success)),
            (End::Superseded { found: "CONFIRMED" }, Verdict::Delete(Outcome::Dropped)),
            (End::LeaseLost, Verdict::Forget),
            (
                End::MoneyWithoutSeat { detail: "d".to_owned() },
                Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
            ),
            (failed(Class::Permanent, None), Verdict::DeadLetter(DeadLetterReason::Rejected)),
            (failed(Class::Forbidden, None), Verdict::DeadLetter(DeadLetterReason::Forbidden)),
            (
                failed(Class::MoneyWithoutSeat, None),
                Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
            ),
        ] {
            for retries in [0, 2] {
                assert_eq!(verdict(&end, retries, 1), expected, "{end:?}");
            }
        }
    }

    #[test]
    fn what_may_pass_is_retried_until_the_retries_are_used_up() {
        for end in [
            failed(Class::Outage, None),
            failed(Class::Transient, None),
            End::Unclear { found: "PENDING".to_owned() },
            End::Store(StoreError::NotOwner),
            End::Panicked,
        ] {
            for retries in 0..2 {
                let Verdict::Retry { after, counted: true } = verdict(&end, retries, 1) else {
                    panic!("{end:?}");
                };
                assert!(after <= POLICY.backoff.bound(retries), "{end:?}");
            }
            assert_eq!(verdict(&end, 2, 1), Verdict::Release(RELEASE_BASE), "{end:?}");
        }
    }

    #[test]
    fn pacing_waits_for_the_named_time_and_costs_no_retry() {
        let named = Duration::from_secs(20);
        for retries in [0, 2, 9] {
            let end = failed(Class::Paced, Some(named));
            let Verdict::Retry { after, counted: false } = verdict(&end, retries, 1) else {
                panic!("paced");
            };
            assert!(after >= named && after <= named.mul_f64(1.1), "{after:?}");
        }
        let Verdict::Retry { after, .. } =
            verdict(&failed(Class::Paced, Some(Duration::ZERO)), 0, 1)
        else {
            panic!("paced");
        };
        assert!(after >= PACED_MIN);
    }

    #[test]
    fn a_release_hides_longer_the_more_often_the_message_was_seen() {
        let delays: Vec<u64> = (0..8).map(|n| release_delay(n).as_secs()).collect();
        assert_eq!(delays, [30, 30, 60, 120, 240, 480, 900, 900]);
    }

    #[test]
    fn reasons_are_distinct_labels() {
        let mut labels: Vec<_> = DeadLetterReason::all().map(DeadLetterReason::as_str).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DeadLetterReason::all().count());
    }
}
