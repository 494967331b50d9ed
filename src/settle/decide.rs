//! The decision table: from the end of an attempt to the fate of the message.

use std::time::Duration;

use crate::client::{CallError, Class};
use crate::event::PoisonReason;
use crate::handler::{AttemptOutcome, EventWait};
use crate::idempotency::StoreError;
use crate::inflight::ParkedAs;
use crate::metrics::{Outcome, Service};
use crate::outage::Dependency;
use crate::retry::Backoff;

/// Delay of the first release of a message whose retries are used up.
/// It doubles with each receive. Otherwise a redrive policy with a few receives would be exhausted
/// within a minute.
const RELEASE_BASE: Duration = Duration::from_secs(30);

/// Maximum delay of a release: 15 minutes, so that a recovery is noticed soon.
const RELEASE_CAP: Duration = Duration::from_secs(15 * 60);

/// Maximum wait of an event on its own timer after a failure.
const SUSPECT_CAP: Duration = Duration::from_secs(30);

/// Shortest requested delay that replaces the backoff.
/// With a shorter one, the longer of it and the backoff is used.
const PACED_MIN: Duration = Duration::from_millis(100);

/// Number and spacing of the attempts in one delivery.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub retries_max: u32,
    /// Backoff between the attempts.
    pub backoff: Backoff,
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message is settled: delete it.
    Delete(Outcome),
    /// Retry in this delivery after a delay.
    Retry {
        /// Delay before the retry.
        after: Duration,
        /// Whether it uses up one of the retries.
        counted: bool,
        /// The service at which the event is a suspect.
        suspect: Option<Service>,
    },
    /// Park, held, until the service is called again or has room for a call; uses up no retry.
    Park(Dependency, ParkedAs),
    /// Release the message, visible again after this delay. The queue's redrive policy decides when
    /// it has been received too often.
    Release(Duration),
    /// The event can never succeed: dead-letter it.
    DeadLetter(DeadLetterReason),
    /// The message is not ours any more: do nothing with it.
    Forget,
}

impl Verdict {
    /// Returns what follows a failed attempt, as one word; `None` if nothing failed.
    #[must_use]
    pub const fn after_failure(&self, end: &AttemptOutcome) -> Option<&'static str> {
        match (self, end) {
            (Self::Retry { .. }, _) => Some("retry"),
            (Self::Park(..), AttemptOutcome::Parked { error: Some(_), .. }) => Some("waits"),
            (Self::Release(_), _) => Some("released"),
            (Self::DeadLetter(reason), _) => Some(reason.as_str()),
            (Self::Forget, _) => Some("lease_lost"),
            (Self::Park(..) | Self::Delete(_), _) => None,
        }
    }
}

/// Why a message is in the dead-letter queue: a metric label, and the copy's `dlq_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The body is not a valid event.
    Poison(PoisonReason),
    /// Another event had this id before.
    IdReused,
    /// A service rejected the event permanently.
    Rejected,
    /// A service denied the worker access.
    Forbidden,
    /// A payment was approved for seats that are gone: manual action is needed.
    MoneyWithoutSeat,
    /// The retries were used up in the last receive, and the FIFO group waits for the message.
    RetriesUsedUp,
    /// The event failed or waited until shortly before the message's retention ends.
    RetentionEnds,
}

impl DeadLetterReason {
    /// Returns the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Poison(reason) => reason.as_str(),
            Self::IdReused => "id_reused",
            Self::Rejected => "rejected",
            Self::Forbidden => "forbidden",
            Self::MoneyWithoutSeat => "money_without_seat",
            Self::RetriesUsedUp => "retries_used_up",
            Self::RetentionEnds => "retention_ends",
        }
    }

    /// Returns every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [
            Self::IdReused,
            Self::Rejected,
            Self::Forbidden,
            Self::MoneyWithoutSeat,
            Self::RetriesUsedUp,
            Self::RetentionEnds,
        ];
        PoisonReason::ALL.into_iter().map(Self::Poison).chain(others)
    }
}

/// The state of the event beside the end of the attempt.
#[derive(Clone, Copy, Debug)]
pub struct EventHistory {
    /// Retries used up so far.
    pub retries: u32,
    /// Failed attempts before this one.
    pub failures: u32,
    /// Number of receives, plus the rounds that the event waited in place of a receive.
    pub receive_count: u32,
}

/// Decides what happens to the message.
#[must_use]
pub fn decide(
    attempt_outcome: &AttemptOutcome,
    record: EventHistory,
    policy: &RetryPolicy,
    random: &mut fastrand::Rng,
) -> Verdict {
    match attempt_outcome {
        AttemptOutcome::Applied => Verdict::Delete(Outcome::Success),
        AttemptOutcome::Superseded { .. } => Verdict::Delete(Outcome::Dropped),
        AttemptOutcome::MoneyWithoutSeat { .. } => {
            Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat)
        }
        AttemptOutcome::HoldUnknown => {
            Verdict::DeadLetter(DeadLetterReason::Poison(PoisonReason::InvalidEvent))
        }
        AttemptOutcome::LeaseLost => Verdict::Forget,
        AttemptOutcome::Parked { dependency, how, .. } => Verdict::Park(*dependency, *how),
        // The store operation is retried; meanwhile no step runs without a claim.
        AttemptOutcome::Store(
            StoreError::Away { .. } | StoreError::Unavailable { .. } | StoreError::NotOwner(_),
        ) => retry_or_release(false, record, policy, random),
        AttemptOutcome::Store(StoreError::Unreadable(_))
        | AttemptOutcome::Unclear { .. }
        | AttemptOutcome::Panicked => retry_or_release(true, record, policy, random),
        AttemptOutcome::Failed { error, wait } => match error.class {
            Class::Permanent => Verdict::DeadLetter(DeadLetterReason::Rejected),
            Class::Forbidden => Verdict::DeadLetter(DeadLetterReason::Forbidden),
            Class::MoneyWithoutSeat => Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
            Class::Outage | Class::Transient | Class::Conflict | Class::Paced => {
                wait_or_release(error, *wait, record, policy, random)
            }
        },
    }
}

/// Decides about an event that failed at a service whose breaker lets calls through.
fn wait_or_release(
    error: &CallError,
    wait: EventWait,
    record: EventHistory,
    policy: &RetryPolicy,
    random: &mut fastrand::Rng,
) -> Verdict {
    let EventWait { is_charged, suspect, unless_suspect } = wait;
    let named = error.retry_after;
    if is_charged && record.retries >= policy.retries_max {
        // Not before the time that the service requested.
        return Verdict::Release(
            release_delay(record.receive_count).max(named.unwrap_or_default()),
        );
    }
    let backoff = policy.backoff.delay(record.failures, random).min(SUSPECT_CAP);
    let after = match (named, error.class == Class::Outage && suspect.is_none()) {
        // A very short requested delay does not space the retries, so the backoff is the minimum.
        (Some(named), true | false) if named < PACED_MIN => backoff.max(named),
        (Some(named), true | false) => named,
        (None, true) => backoff.min(unless_suspect),
        (None, false) => backoff,
    };
    Verdict::Retry { after, counted: is_charged, suspect }
}

fn retry_or_release(
    counted: bool,
    record: EventHistory,
    policy: &RetryPolicy,
    random: &mut fastrand::Rng,
) -> Verdict {
    if counted && record.retries >= policy.retries_max {
        return Verdict::Release(release_delay(record.receive_count));
    }
    let after = policy.backoff.delay(record.failures, random);
    Verdict::Retry { after, counted, suspect: None }
}

/// Returns for how long a release hides a message with this receive count.
#[must_use]
pub fn release_delay(receive_count: u32) -> Duration {
    Backoff { base: RELEASE_BASE, cap: RELEASE_CAP }.bound(receive_count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        retries_max: 2,
        backoff: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) },
    };

    fn verdict(attempt_outcome: &AttemptOutcome, retries: u32, receive_count: u32) -> Verdict {
        let record = EventHistory { retries, failures: retries, receive_count };
        decide(attempt_outcome, record, &POLICY, &mut fastrand::Rng::with_seed(3))
    }

    fn failed(class: Class, is_charged: bool) -> AttemptOutcome {
        let (code, detail) = ("code".into(), "detail".to_owned());
        let error = CallError { class, code, detail, retry_after: None, load: class.into() };
        let unless_suspect = Duration::from_millis(800);
        AttemptOutcome::Failed {
            error,
            wait: EventWait { is_charged, suspect: None, unless_suspect },
        }
    }

    #[test]
    fn final_outcomes_are_not_retried() {
        for (attempt_outcome, expected) in [
            (AttemptOutcome::Applied, Verdict::Delete(Outcome::Success)),
            (AttemptOutcome::Superseded { found: "CONFIRMED" }, Verdict::Delete(Outcome::Dropped)),
            (AttemptOutcome::LeaseLost, Verdict::Forget),
            (
                AttemptOutcome::HoldUnknown,
                Verdict::DeadLetter(DeadLetterReason::Poison(PoisonReason::InvalidEvent)),
            ),
            (
                AttemptOutcome::MoneyWithoutSeat { detail: "d".to_owned() },
                Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
            ),
            (failed(Class::Permanent, true), Verdict::DeadLetter(DeadLetterReason::Rejected)),
            (failed(Class::Forbidden, true), Verdict::DeadLetter(DeadLetterReason::Forbidden)),
            (
                failed(Class::MoneyWithoutSeat, true),
                Verdict::DeadLetter(DeadLetterReason::MoneyWithoutSeat),
            ),
        ] {
            for retries in [0, 2] {
                assert_eq!(verdict(&attempt_outcome, retries, 1), expected, "{attempt_outcome:?}");
            }
        }
    }

    #[test]
    fn transient_failures_are_retried_until_the_retries_are_used_up() {
        for attempt_outcome in [
            failed(Class::Outage, true),
            failed(Class::Transient, true),
            AttemptOutcome::Unclear { found: "PENDING".to_owned() },
            AttemptOutcome::Store(StoreError::Unreadable(String::new())),
            AttemptOutcome::Panicked,
        ] {
            for retries in 0..2 {
                let Verdict::Retry { after, counted: true, suspect: None } =
                    verdict(&attempt_outcome, retries, 1)
                else {
                    panic!("{attempt_outcome:?}");
                };
                assert!(after <= POLICY.backoff.bound(retries), "{attempt_outcome:?}");
            }
            assert_eq!(
                verdict(&attempt_outcome, 2, 1),
                Verdict::Release(RELEASE_BASE),
                "{attempt_outcome:?}"
            );
        }
    }

    #[test]
    fn uncharged_failures_use_up_no_retry() {
        for retries in [0, 2, 9] {
            let attempt_outcome = failed(Class::Outage, false);
            assert!(matches!(
                verdict(&attempt_outcome, retries, 1),
                Verdict::Retry { counted: false, .. }
            ));
            let dependency = Dependency::Inventory;
            let how = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
            let attempt_outcome = AttemptOutcome::Parked { dependency, error: None, how };
            assert_eq!(verdict(&attempt_outcome, retries, 1), Verdict::Park(dependency, how));
        }
    }

    #[test]
    fn the_release_delay_grows_with_the_receive_count() {
        let delays: Vec<u64> = (0..8).map(|n| release_delay(n).as_secs()).collect();
        assert_eq!(delays, [30, 30, 60, 120, 240, 480, 900, 900]);
    }

    #[test]
    fn dead_letter_reasons_are_distinct() {
        let mut labels: Vec<_> = DeadLetterReason::all().map(DeadLetterReason::as_str).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DeadLetterReason::all().count());
    }
}
