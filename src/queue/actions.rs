//! Tracks which actions of the queue fail while others work, and since when. Other modules react:
//! the poller receives less, the batches keep messages that they cannot delete.
//!
//! Calls that overlap and fail together count as one failure. Throttling and broken connections are
//! common, so they count only if they last. A denied action stays denied until the policy changes,
//! so it counts at the second denied call.
//!
//! A successful probe ends the failure but not the doubt: entries of a batch may still fail. An
//! action is doubted until one of its real calls succeeds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::{QueueError, QueueErrorKind};
use crate::clock::millis;
use crate::health::Health;
use crate::metrics::{Metrics, QueueAction};

/// Consecutive denied calls before the action counts as failing. One is not enough: its credentials
/// may have expired in transit.
const DENIED_MIN: u32 = 2;

/// Consecutive calls with another error before the action counts as failing.
const FAILED_MIN: u32 = 3;

/// Minimum duration of these failures.
const FAILED_FOR: Duration = Duration::from_secs(3);

/// Divisor of the visibility timeout for extensions: they count as failing after one fifth of it.
/// Extensions have only half of a lease to succeed.
const LEASE_SHARE: u32 = 5;

/// The evidence about one action.
#[derive(Clone, Copy, Debug, Default)]
struct ActionRecord {
    /// Consecutive failed calls, each of which began after the previous one ended.
    failures: u32,
    /// End of the first failed call.
    first_at: Option<Instant>,
    /// End of the last failed call.
    last_at: Option<Instant>,
    /// Start and kind of the failure, while the action counts as failing.
    failing: Option<(Instant, QueueErrorKind)>,
    /// The action failed, and none of its real calls has succeeded since.
    is_doubted: bool,
}

/// The effect of one call on the state of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActionChange {
    /// The action fails, or fails for a new reason.
    Fails(QueueErrorKind),
    /// The action works again, after this duration.
    Works(Duration),
}

impl ActionRecord {
    /// Records a call that ran from `began_at` to `now`.
    fn note(
        &mut self,
        began_at: Instant,
        now: Instant,
        answer: Result<(), QueueErrorKind>,
        failed_for: Duration,
    ) -> Option<ActionChange> {
        match answer {
            Ok(()) => self.works(began_at, now, false),
            Err(kind) => self.fails(began_at, now, kind, failed_for),
        }
    }

    fn works(&mut self, began_at: Instant, now: Instant, is_doubted: bool) -> Option<ActionChange> {
        // A call that began before the first failure is no evidence about the time after it.
        if self.first_at.is_some_and(|at| began_at < at) {
            return None;
        }
        let failing = self.failing;
        *self = Self { is_doubted: is_doubted && self.is_doubted, ..Self::default() };
        failing.map(|(since, _)| ActionChange::Works(now - since))
    }

    fn fails(
        &mut self,
        began_at: Instant,
        now: Instant,
        kind: QueueErrorKind,
        failed_for: Duration,
    ) -> Option<ActionChange> {
        if self.last_at.is_some_and(|at| began_at < at) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let first_at = *self.first_at.get_or_insert(now);
        self.last_at = Some(now);
        let (least, for_long) = match kind {
            QueueErrorKind::Denied | QueueErrorKind::NoSuchQueue => (DENIED_MIN, Duration::ZERO),
            QueueErrorKind::Throttled
            | QueueErrorKind::Timeout
            | QueueErrorKind::Network
            | QueueErrorKind::Refused
            | QueueErrorKind::NoDeadLetterQueue
            | QueueErrorKind::Other => (FAILED_MIN, failed_for),
        };
        let since = match self.failing {
            Some((_, known)) if known == kind => return None,
            Some((since, _)) => since,
            None if self.failures < least || now - first_at < for_long => return None,
            None => first_at,
        };
        self.failing = Some((since, kind));
        self.is_doubted = true;
        Some(ActionChange::Fails(kind))
    }
}

/// The evidence about every action. Shared by all callers of the queue.
#[derive(Debug)]
pub struct QueueActions {
    records: Mutex<[ActionRecord; QueueAction::ALL.len()]>,
    /// Per action: number of waiting items that retry the action themselves.
    waiting: [AtomicUsize; QueueAction::ALL.len()],
    changed: watch::Sender<()>,
    visibility: Duration,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl QueueActions {
    /// Creates the state in which no action fails. Leases last for `visibility`.
    #[must_use]
    pub fn new(health: Arc<Health>, metrics: Arc<Metrics>, visibility: Duration) -> Self {
        let changed = watch::Sender::new(());
        let (records, waiting) = (Mutex::default(), Default::default());
        Self { records, waiting, changed, visibility, health, metrics }
    }

    /// Records a successful probe.
    pub fn probed(&self, action: QueueAction, began_at: Instant) {
        let change = self.lock()[action.index()].works(began_at, Instant::now(), true);
        self.tell_change(action, change, Ok(()));
    }

    /// Records a call that began at `began_at` and has just ended.
    pub fn note(&self, action: QueueAction, began_at: Instant, answer: Result<(), &QueueError>) {
        if let Err(error) = answer {
            self.metrics.queue_action_failed(action, error.kind);
        }
        let kind = answer.map_err(|error| error.kind);
        let failed_for = match action {
            QueueAction::Extend => FAILED_FOR.min(self.visibility / LEASE_SHARE),
            QueueAction::Receive
            | QueueAction::Delete
            | QueueAction::DeadLetter
            | QueueAction::Attributes => FAILED_FOR,
        };
        let change = self.lock()[action.index()].note(began_at, Instant::now(), kind, failed_for);
        self.tell_change(action, change, answer);
    }

    fn tell_change(
        &self,
        action: QueueAction,
        change: Option<ActionChange>,
        answer: Result<(), &QueueError>,
    ) {
        match (change, answer) {
            (Some(ActionChange::Fails(kind)), Err(error)) => {
                self.report(action, Some(kind));
                error!(
                    action = action.as_str(),
                    api = action.api_name(),
                    error = %error,
                    "An action of the queue fails: what cannot be settled is not received until it works"
                );
            }
            (Some(ActionChange::Works(failed_for)), _) => {
                self.report(action, None);
                info!(
                    action = action.as_str(),
                    api = action.api_name(),
                    failed_ms = millis(failed_for),
                    "The action of the queue works again"
                );
            }
            (Some(ActionChange::Fails(_)), Ok(())) | (None, _) => {}
        }
    }

    /// Returns why an action fails, or `None` if it does not fail.
    pub fn failing(&self, action: QueueAction) -> Option<QueueErrorKind> {
        self.lock()[action.index()].failing.map(|(_, kind)| kind)
    }

    /// Whether an action fails.
    pub fn is_failing(&self, action: QueueAction) -> bool {
        self.failing(action).is_some()
    }

    /// Whether an action fails, or failed and no real call has succeeded since (probes do not
    /// count).
    pub fn is_doubted(&self, action: QueueAction) -> bool {
        self.lock()[action.index()].is_doubted
    }

    /// Sets how many items wait for an action and retry it themselves.
    pub fn set_waiting(&self, action: QueueAction, count: usize) {
        self.waiting[action.index()].store(count, Ordering::Relaxed);
    }

    /// Whether items wait for an action and retry it themselves.
    pub fn is_waited_for(&self, action: QueueAction) -> bool {
        self.waiting[action.index()].load(Ordering::Relaxed) > 0
    }

    /// Returns a receiver that is notified when an action starts to fail or works again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn report(&self, action: QueueAction, why: Option<QueueErrorKind>) {
        self.metrics.queue_action_failing(action, why.is_some());
        self.health.queue_action(action, why.map(QueueErrorKind::as_str));
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, [ActionRecord; QueueAction::ALL.len()]> {
        self.records.lock().expect("no panic happens under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DENIED: Result<(), QueueErrorKind> = Err(QueueErrorKind::Denied);
    const THROTTLED: Result<(), QueueErrorKind> = Err(QueueErrorKind::Throttled);

    /// Returns the change after each call. Begin and end are in seconds after the start.
    fn changes(calls: &[(u32, u32, Result<(), QueueErrorKind>)]) -> Vec<Option<ActionChange>> {
        let (mut record, start) = (ActionRecord::default(), Instant::now());
        let note = |(began, ended, answer): &(u32, u32, _)| {
            record.note(start + SECOND * *began, start + SECOND * *ended, *answer, FAILED_FOR)
        };
        calls.iter().map(note).collect()
    }

    #[test]
    fn an_action_fails_after_the_second_denied_call() {
        let fails = Some(ActionChange::Fails(QueueErrorKind::Denied));
        let works = Some(ActionChange::Works(9 * SECOND));
        let seen = changes(&[(0, 1, DENIED), (1, 1, DENIED), (2, 2, DENIED), (9, 10, Ok(()))]);
        assert_eq!(seen, [None, fails, None, works]);
        let seen = changes(&[(0, 1, DENIED), (1, 1, Ok(())), (2, 2, DENIED)]);
        assert_eq!(seen, [None, None, None]);
    }

    #[test]
    fn transient_errors_count_only_if_they_last() {
        let fails = Some(ActionChange::Fails(QueueErrorKind::Throttled));
        let often = [(0, 0, THROTTLED), (1, 1, THROTTLED), (2, 2, THROTTLED), (3, 3, THROTTLED)];
        assert_eq!(changes(&often), [None, None, None, fails]);
        let seldom = [(0, 0, THROTTLED), (9, 9, THROTTLED), (19, 19, THROTTLED)];
        assert_eq!(changes(&seldom), [None, None, fails]);
    }

    #[test]
    fn concurrent_failed_calls_count_as_one_failure() {
        assert_eq!(changes(&[(0, 2, DENIED), (1, 2, DENIED), (1, 3, DENIED)]), [None; 3]);
    }

    #[test]
    fn a_success_that_began_before_the_failure_does_not_count() {
        let fails = Some(ActionChange::Fails(QueueErrorKind::Denied));
        let seen = changes(&[(1, 2, DENIED), (2, 3, DENIED), (0, 4, Ok(())), (4, 5, DENIED)]);
        assert_eq!(seen, [None, fails, None, None]);
    }

    #[test]
    fn after_a_successful_probe_an_action_is_doubted_until_a_call_succeeds() {
        let visibility = 5 * SECOND;
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new(&[])));
        let actions = QueueActions::new(health, metrics, visibility);
        let extend = QueueAction::Extend;
        let detail = "on purpose".to_owned();
        let denied = QueueError { kind: QueueErrorKind::Denied, detail };
        let state = || (actions.is_failing(extend), actions.is_doubted(extend));
        assert_eq!(state(), (false, false));
        (0..2).for_each(|_| actions.note(extend, Instant::now(), Err(&denied)));
        assert_eq!(state(), (true, true));
        actions.probed(extend, Instant::now());
        assert_eq!(state(), (false, true));
        actions.note(extend, Instant::now(), Ok(()));
        assert_eq!(state(), (false, false));
    }

    #[test]
    fn a_change_of_the_reason_is_reported() {
        let seen = changes(&[(0, 0, DENIED), (1, 1, DENIED), (2, 2, THROTTLED)]);
        assert_eq!(seen[2], Some(ActionChange::Fails(QueueErrorKind::Throttled)));
    }
}
