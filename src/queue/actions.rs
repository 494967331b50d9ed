//! Which actions of the queue fail while others work: the evidence of each, and since when. What is done about it is
//! others' work: the poller receives less, the batches keep what they cannot delete.
//!
//! A call that fails because another fails with it at the same time is no further evidence. SQS throttles, and
//! connections break, every day: that is a failure only where it lasts. What a policy denies is denied until somebody
//! changes the policy, and is believed at the second call.
//!
//! A probe that is answered well ends the failure, not the doubt: entries of a batch may fail all the same. An action is
//! doubted until one of its real calls works.

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

/// Calls in a row that are denied before the action counts as failing: one may have had credentials that ran out on
/// its way.
const DENIED_MIN: u32 = 2;

/// Calls in a row that fail in another way before the action counts as failing.
const FAILED_MIN: u32 = 3;

/// For how long they must have failed.
const FAILED_FOR: Duration = Duration::from_secs(3);

/// Extensions have no more time than half of a lease: they count as failing after this share of it, one over it.
const LEASE_SHARE: u32 = 5;

/// What the calls of one action say.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// Calls in a row that failed, each of which began after the last one had ended.
    failures: u32,
    /// When the first of them ended.
    first_at: Option<Instant>,
    /// When the last of them ended.
    last_at: Option<Instant>,
    /// The action fails since then.
    failing: Option<(Instant, QueueErrorKind)>,
    /// It failed, and none of its real calls has worked since.
    is_doubted: bool,
}

/// What a call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The action fails, or for another reason than before.
    Fails(QueueErrorKind),
    /// It works again, after so long.
    Works(Duration),
}

impl Record {
    /// Books a call that began then and ended now.
    fn note(
        &mut self,
        began_at: Instant,
        now: Instant,
        answer: Result<(), QueueErrorKind>,
        failed_for: Duration,
    ) -> Option<Change> {
        match answer {
            Ok(()) => self.works(began_at, now, false),
            Err(kind) => self.fails(began_at, now, kind, failed_for),
        }
    }

    fn works(&mut self, began_at: Instant, now: Instant, is_doubted: bool) -> Option<Change> {
        // A call that was under way before the first one failed says nothing about the time since.
        if self.first_at.is_some_and(|at| began_at < at) {
            return None;
        }
        let failing = self.failing;
        *self = Self { is_doubted: is_doubted && self.is_doubted, ..Self::default() };
        failing.map(|(since, _)| Change::Works(now - since))
    }

    fn fails(
        &mut self,
        began_at: Instant,
        now: Instant,
        kind: QueueErrorKind,
        failed_for: Duration,
    ) -> Option<Change> {
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
        Some(Change::Fails(kind))
    }
}

/// The evidence of every action. Shared by all who call the queue.
#[derive(Debug)]
pub struct Actions {
    records: Mutex<[Record; QueueAction::ALL.len()]>,
    /// What waits for each to work again, and asks by itself.
    waiting: [AtomicUsize; QueueAction::ALL.len()],
    changed: watch::Sender<()>,
    visibility: Duration,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Actions {
    /// Every action works, for all that is known. Leases last for `visibility`.
    #[must_use]
    pub fn new(health: Arc<Health>, metrics: Arc<Metrics>, visibility: Duration) -> Self {
        let changed = watch::Sender::new(());
        let (records, waiting) = (Mutex::default(), Default::default());
        Self { records, waiting, changed, visibility, health, metrics }
    }

    /// Books a probe that was answered well.
    pub fn probed(&self, action: QueueAction, began_at: Instant) {
        let change = self.lock()[action.index()].works(began_at, Instant::now(), true);
        self.tell_change(action, change, Ok(()));
    }

    /// Books a call that began then and has just ended.
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
        change: Option<Change>,
        answer: Result<(), &QueueError>,
    ) {
        match (change, answer) {
            (Some(Change::Fails(kind)), Err(error)) => {
                self.tell(action, Some(kind));
                error!(
                    action = action.as_str(),
                    api = action.api_name(),
                    error = %error,
                    "An action of the queue fails: what cannot be settled is not received until it works"
                );
            }
            (Some(Change::Works(failed_for)), _) => {
                self.tell(action, None);
                info!(
                    action = action.as_str(),
                    api = action.api_name(),
                    failed_ms = millis(failed_for),
                    "The action of the queue works again"
                );
            }
            (Some(Change::Fails(_)), Ok(())) | (None, _) => {}
        }
    }

    /// Why an action fails, where it does.
    pub fn failing(&self, action: QueueAction) -> Option<QueueErrorKind> {
        self.lock()[action.index()].failing.map(|(_, kind)| kind)
    }

    /// Whether an action fails.
    pub fn is_failing(&self, action: QueueAction) -> bool {
        self.failing(action).is_some()
    }

    /// Whether an action fails, or failed and was not seen to work since but by a probe.
    pub fn is_doubted(&self, action: QueueAction) -> bool {
        self.lock()[action.index()].is_doubted
    }

    /// So much waits for an action to work again, and asks by itself.
    pub fn set_waiting(&self, action: QueueAction, count: usize) {
        self.waiting[action.index()].store(count, Ordering::Relaxed);
    }

    /// Whether something waits for an action to work again, and asks by itself.
    pub fn is_waited_for(&self, action: QueueAction) -> bool {
        self.waiting[action.index()].load(Ordering::Relaxed) > 0
    }

    /// Tells when an action begins to fail, or works again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn tell(&self, action: QueueAction, why: Option<QueueErrorKind>) {
        self.metrics.queue_action_failing(action, why.is_some());
        self.health.queue_action(action, why.map(QueueErrorKind::as_str));
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, [Record; QueueAction::ALL.len()]> {
        self.records.lock().expect("no panic happens under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DENIED: Result<(), QueueErrorKind> = Err(QueueErrorKind::Denied);
    const THROTTLED: Result<(), QueueErrorKind> = Err(QueueErrorKind::Throttled);

    /// Notes calls, each of which began and ended so long after the start; what each changed.
    fn changes(calls: &[(u32, u32, Result<(), QueueErrorKind>)]) -> Vec<Option<Change>> {
        let (mut record, start) = (Record::default(), Instant::now());
        let note = |(began, ended, answer): &(u32, u32, _)| {
            record.note(start + SECOND * *began, start + SECOND * *ended, *answer, FAILED_FOR)
        };
        calls.iter().map(note).collect()
    }

    #[test]
    fn what_is_denied_is_believed_at_the_second_call() {
        let fails = Some(Change::Fails(QueueErrorKind::Denied));
        let works = Some(Change::Works(9 * SECOND));
        let seen = changes(&[(0, 1, DENIED), (1, 1, DENIED), (2, 2, DENIED), (9, 10, Ok(()))]);
        assert_eq!(seen, [None, fails, None, works]);
        let seen = changes(&[(0, 1, DENIED), (1, 1, Ok(())), (2, 2, DENIED)]);
        assert_eq!(seen, [None, None, None]);
    }

    #[test]
    fn what_may_pass_counts_where_it_lasts() {
        let fails = Some(Change::Fails(QueueErrorKind::Throttled));
        let often = [(0, 0, THROTTLED), (1, 1, THROTTLED), (2, 2, THROTTLED), (3, 3, THROTTLED)];
        assert_eq!(changes(&often), [None, None, None, fails]);
        let seldom = [(0, 0, THROTTLED), (9, 9, THROTTLED), (19, 19, THROTTLED)];
        assert_eq!(changes(&seldom), [None, None, fails]);
    }

    #[test]
    fn calls_that_fail_together_are_one_failure() {
        assert_eq!(changes(&[(0, 2, DENIED), (1, 2, DENIED), (1, 3, DENIED)]), [None; 3]);
    }

    #[test]
    fn a_call_from_before_the_failure_cures_nothing() {
        let fails = Some(Change::Fails(QueueErrorKind::Denied));
        let seen = changes(&[(1, 2, DENIED), (2, 3, DENIED), (0, 4, Ok(())), (4, 5, DENIED)]);
        assert_eq!(seen, [None, fails, None, None]);
    }

    #[test]
    fn after_a_probe_an_action_is_doubted_until_a_real_call_works() {
        let visibility = 5 * SECOND;
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new(&[])));
        let actions = Actions::new(health, metrics, visibility);
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
    fn another_reason_is_told() {
        let seen = changes(&[(0, 0, DENIED), (1, 1, DENIED), (2, 2, THROTTLED)]);
        assert_eq!(seen[2], Some(Change::Fails(QueueErrorKind::Throttled)));
    }
}
