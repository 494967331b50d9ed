//! Liveness and readiness of the worker, reported by its parts. [`crate::admin`] serves them.
//!
//! Alive: each busy part made progress recently. A part without work reports idle and is not
//! checked; a part that ends without that report becomes stale, as intended. Ready: receives, the
//! other queue actions and the idempotency store work, and the worker was not asked to stop. The
//! code that registers a part sets its stale time.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::millis;
use crate::metrics::QueueAction;

/// Value in [`Heartbeat`] of a part without work.
const IDLE: u64 = u64::MAX;

/// Health state of the worker. Share it in an `Arc`.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    parts: Mutex<Vec<HealthPart>>,
    polling: AtomicBool,
    paused: AtomicBool,
    store: AtomicBool,
    /// Failing queue actions with their reasons.
    actions: Mutex<Vec<(QueueAction, &'static str)>>,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct HealthPart {
    name: &'static str,
    stale_after: Duration,
    last_ms: Arc<AtomicU64>,
}

/// Reason why the worker is not alive or not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A part made no progress for longer than its stale time.
    Stale {
        /// The part's name.
        part: &'static str,
        /// Time since its last progress.
        silent_for: Duration,
    },
    /// No receive has succeeded yet, or the last ones failed.
    NotPolling,
    /// The idempotency store is not available.
    StoreAway,
    /// A queue action fails, while others may work.
    QueueAction {
        /// The action.
        action: QueueAction,
        /// The reason, as one word.
        why: &'static str,
    },
    /// The worker was asked to stop.
    Stopping,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { part, silent_for } => {
                write!(f, "{part}: no progress for {} s", silent_for.as_secs())
            }
            Self::NotPolling => f.write_str(
                "no receive from the queue has been answered yet, or the last ones failed",
            ),
            Self::StoreAway => f.write_str("the idempotency store is away"),
            Self::QueueAction { action, why } => {
                write!(
                    f,
                    "the queue's action {} ({}) fails: {why}",
                    action.as_str(),
                    action.api_name()
                )
            }
            Self::Stopping => f.write_str("shutting down"),
        }
    }
}

impl Health {
    /// Creates a state that is alive, and not ready until the first receive succeeds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            parts: Mutex::default(),
            polling: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            store: AtomicBool::new(true),
            actions: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Registers a part that must beat at least every `stale_after` while busy. It starts busy.
    ///
    /// A registration lasts as long as the process, unless its heartbeats are dropped while idle.
    pub fn register(&self, name: &'static str, stale_after: Duration) -> Heartbeat {
        let beat = Heartbeat { origin: self.origin, last_ms: Arc::default() };
        beat.beat();
        let part = HealthPart { name, stale_after, last_ms: Arc::clone(&beat.last_ms) };
        let mut parts = lock(&self.parts);
        parts.retain(|part| !part.has_ended());
        parts.push(part);
        drop(parts);
        beat
    }

    /// Sets whether receives work: `true` from the first success, `false` after repeated errors.
    pub fn polling(&self, ok: bool) {
        self.polling.store(ok, Ordering::Relaxed);
    }

    /// Sets whether an operator has paused receives.
    pub fn paused(&self, is_paused: bool) {
        self.paused.store(is_paused, Ordering::Relaxed);
    }

    /// Sets whether the idempotency store is available.
    pub fn store(&self, ok: bool) {
        self.store.store(ok, Ordering::Relaxed);
    }

    /// Sets whether a queue action works; `why` is the reason if it does not.
    pub fn queue_action(&self, action: QueueAction, why: Option<&'static str>) {
        let mut actions = lock(&self.actions);
        actions.retain(|(known, _)| *known != action);
        actions.extend(why.map(|why| (action, why)));
    }

    /// Returns each queue action, with its reason if it fails.
    #[must_use]
    pub fn queue_actions(&self) -> [(QueueAction, Option<&'static str>); QueueAction::ALL.len()] {
        let actions = lock(&self.actions);
        QueueAction::ALL.map(|action| {
            (action, actions.iter().find(|(known, _)| *known == action).map(|(_, why)| *why))
        })
    }

    /// Returns the parts that readiness depends on, and whether each works.
    #[must_use]
    pub fn parts_ready(&self) -> [(&'static str, bool); 2] {
        [
            ("polling", self.polling.load(Ordering::Relaxed)),
            ("store", self.store.load(Ordering::Relaxed)),
        ]
    }

    /// Marks the worker as stopping: never ready again, but alive until it ends.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Checks that every part makes progress or is idle.
    ///
    /// A stopping worker is alive: its parts end one after another, and the grace period limits
    /// that.
    ///
    /// # Errors
    /// The part that exceeds its stale time the most.
    pub fn alive(&self) -> Result<(), Problem> {
        if self.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now_ms = elapsed_ms(self.origin);
        let parts = lock(&self.parts);
        let stale = parts.iter().filter_map(|part| part.problem(now_ms));
        stale.max_by_key(|(beyond, _)| *beyond).map_or(Ok(()), |(_, problem)| Err(problem))
    }

    /// Checks that messages are received and can be processed.
    ///
    /// # Errors
    /// The first problem that was found.
    pub fn ready(&self) -> Result<(), Problem> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Problem::Stopping);
        }
        let failing = self.queue_actions().into_iter();
        if let Some((action, why)) = failing.filter_map(|(action, why)| Some((action, why?))).next()
        {
            return Err(Problem::QueueAction { action, why });
        }
        // A paused worker is ready: a roll-out would wait for it otherwise.
        let is_paused = self.paused.load(Ordering::Relaxed);
        if !is_paused && !self.polling.load(Ordering::Relaxed) {
            return Err(Problem::NotPolling);
        }
        if !self.store.load(Ordering::Relaxed) {
            return Err(Problem::StoreAway);
        }
        Ok(())
    }
}

/// A push leaves the list consistent, so a panic under the lock does no damage.
fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthPart {
    /// Returns whether its heartbeats are dropped, and the last one said that it is idle.
    fn has_ended(&self) -> bool {
        Arc::strong_count(&self.last_ms) == 1 && self.last_ms.load(Ordering::Relaxed) == IDLE
    }

    /// Returns how far the part exceeds its stale time, and the problem to report.
    fn problem(&self, now_ms: u64) -> Option<(Duration, Problem)> {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        if last_ms == IDLE {
            return None;
        }
        let silent_for = Duration::from_millis(now_ms.saturating_sub(last_ms));
        let beyond = silent_for.checked_sub(self.stale_after)?;
        let part = self.name;
        (!beyond.is_zero()).then_some((beyond, Problem::Stale { part, silent_for }))
    }
}

/// Heartbeat of a part.
///
/// Dropping it does not count as idle: a finished part calls [`Heartbeat::idle`].
#[derive(Clone, Debug)]
#[must_use = "a part that is registered and never beats goes stale"]
pub struct Heartbeat {
    origin: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Reports progress; the part has more work.
    pub fn beat(&self) {
        self.last_ms.store(elapsed_ms(self.origin), Ordering::Relaxed);
    }

    /// Reports that the part has no work until its next beat.
    pub fn idle(&self) {
        self.last_ms.store(IDLE, Ordering::Relaxed);
    }
}

fn elapsed_ms(origin: Instant) -> u64 {
    millis(origin.elapsed()).min(IDLE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_part_without_beats_is_stale() {
        let health = Health::new();
        let heartbeat = health.register("poll loop", 30 * SECOND);
        advance(30 * SECOND).await;
        assert_eq!(health.alive(), Ok(()));
        advance(SECOND).await;
        let silent_for = 31 * SECOND;
        let part = "poll loop";
        assert_eq!(health.alive(), Err(Problem::Stale { part, silent_for }));
        heartbeat.beat();
        assert_eq!(health.alive(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_part_is_alive_and_a_dropped_one_is_not() {
        let health = Health::new();
        let worker = health.register("worker", SECOND);
        worker.idle();
        advance(1000 * SECOND).await;
        assert_eq!(health.alive(), Ok(()));
        worker.beat();
        drop(worker);
        advance(2 * SECOND).await;
        assert!(health.alive().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_part_furthest_past_its_limit_is_reported() {
        let health = Health::new();
        let _slow = health.register("slow", 50 * SECOND);
        let _quick = health.register("quick", SECOND);
        let _fine = health.register("fine", 500 * SECOND);
        advance(60 * SECOND).await;
        assert!(matches!(health.alive(), Err(Problem::Stale { part: "quick", .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn ready_from_the_first_receive_until_the_stop() {
        let health = Health::new();
        let _beat = health.register("poll loop", SECOND);
        assert_eq!(health.ready(), Err(Problem::NotPolling));
        health.polling(true);
        assert_eq!(health.ready(), Ok(()));
        health.polling(false);
        assert_eq!(health.ready(), Err(Problem::NotPolling));
        health.paused(true);
        assert_eq!(health.ready(), Ok(()), "it receives nothing because it is told so");
        health.paused(false);
        assert_eq!(health.ready(), Err(Problem::NotPolling));
        health.polling(true);
        health.store(false);
        assert_eq!(health.ready(), Err(Problem::StoreAway));
        health.store(true);
        assert_eq!(health.ready(), Ok(()));
        health.queue_action(QueueAction::Delete, Some("denied"));
        let problem = Problem::QueueAction { action: QueueAction::Delete, why: "denied" };
        assert_eq!(health.ready(), Err(problem));
        let said = "the queue's action delete (DeleteMessage) fails: denied";
        assert_eq!(problem.to_string(), said);
        health.queue_action(QueueAction::Delete, None);
        assert_eq!(health.ready(), Ok(()));
        health.stopping();
        assert_eq!(health.ready(), Err(Problem::Stopping));
        advance(100 * SECOND).await;
        assert_eq!(health.alive(), Ok(()));
    }

    #[test]
    fn a_stale_part_is_described_with_its_silence() {
        let silent_for = Duration::from_millis(75_400);
        let problem = Problem::Stale { part: "poll loop", silent_for };
        assert_eq!(problem.to_string(), "poll loop: no progress for 75 s");
    }
}
