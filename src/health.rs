//! Whether the worker is alive and whether it is ready, told by the parts themselves. [`crate::admin`] shows it.
//!
//! Alive: each part that should make progress did so lately. A part that has nothing to do says so and is let be; a part
//! that ended without a word goes stale, which is the point. Ready: receives work, so do the queue's
//! other actions and the idempotency store, and nobody asked the worker to stop.
//! Which parts there are, and how long each may be silent, is for those who register them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::millis;
use crate::metrics::QueueAction;

/// In [`Beat`]: the part has nothing to do.
const IDLE: u64 = u64::MAX;

/// What is known of the worker's health. Share it in an `Arc`.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    parts: Mutex<Vec<Part>>,
    polling: AtomicBool,
    store: AtomicBool,
    /// Why each action of the queue fails, where it does.
    actions: Mutex<Vec<(QueueAction, &'static str)>>,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    stale_after: Duration,
    last_ms: Arc<AtomicU64>,
}

/// Why the worker is not alive, or not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A part made no progress for so long.
    Stale {
        /// The part's name.
        part: &'static str,
        /// How long ago it last did.
        silent_for: Duration,
    },
    /// No receive has worked yet, or the last ones failed.
    NotPolling,
    /// The idempotency store cannot be asked.
    StoreAway,
    /// An action of the queue fails, while others may work.
    QueueAction {
        /// Which one.
        action: QueueAction,
        /// Why, as a word.
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
    /// Alive, and not ready until the first receive works.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            parts: Mutex::default(),
            polling: AtomicBool::new(false),
            store: AtomicBool::new(true),
            actions: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Registers a part that is to beat at least every `stale_after` while it is busy. It is busy from now on.
    ///
    /// Registrations last as long as the process: register each part once, not once for each message.
    pub fn register(&self, name: &'static str, stale_after: Duration) -> Beat {
        let beat = Beat { origin: self.origin, last_ms: Arc::default() };
        beat.beat();
        let part = Part { name, stale_after, last_ms: Arc::clone(&beat.last_ms) };
        lock(&self.parts).push(part);
        beat
    }

    /// Whether receives work: `true` from the first that does, `false` from errors that repeat.
    pub fn polling(&self, ok: bool) {
        self.polling.store(ok, Ordering::Relaxed);
    }

    /// Whether the idempotency store is asked: `false` while it is away.
    pub fn store(&self, ok: bool) {
        self.store.store(ok, Ordering::Relaxed);
    }

    /// Whether an action of the queue works; why not, where it does not.
    pub fn queue_action(&self, action: QueueAction, why: Option<&'static str>) {
        let mut actions = lock(&self.actions);
        actions.retain(|(known, _)| *known != action);
        actions.extend(why.map(|why| (action, why)));
    }

    /// Each action of the queue, and why it fails, where it does.
    #[must_use]
    pub fn queue_actions(&self) -> [(QueueAction, Option<&'static str>); QueueAction::ALL.len()] {
        let actions = lock(&self.actions);
        QueueAction::ALL.map(|action| {
            (action, actions.iter().find(|(known, _)| *known == action).map(|(_, why)| *why))
        })
    }

    /// What readiness depends on, by name, and whether each works.
    #[must_use]
    pub fn parts_ready(&self) -> [(&'static str, bool); 2] {
        [
            ("polling", self.polling.load(Ordering::Relaxed)),
            ("store", self.store.load(Ordering::Relaxed)),
        ]
    }

    /// The worker was asked to stop: never ready again, and alive for as long as it takes.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether every part makes progress, or is rightly idle.
    ///
    /// A worker that is stopping is alive: its parts end one after another, and the grace period bounds that.
    ///
    /// # Errors
    /// The part that has been silent longest beyond its time.
    pub fn alive(&self) -> Result<(), Problem> {
        if self.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now_ms = elapsed_ms(self.origin);
        let parts = lock(&self.parts);
        let stale = parts.iter().filter_map(|part| part.problem(now_ms));
        stale.max_by_key(|(beyond, _)| *beyond).map_or(Ok(()), |(_, problem)| Err(problem))
    }

    /// Whether messages are being received and will go on to be.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn ready(&self) -> Result<(), Problem> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Problem::Stopping);
        }
        let failing = self.queue_actions().into_iter();
        if let Some((action, why)) = failing.filter_map(|(action, why)| Some((action, why?))).next()
        {
            return Err(Problem::QueueAction { action, why });
        }
        if !self.polling.load(Ordering::Relaxed) {
            return Err(Problem::NotPolling);
        }
        if !self.store.load(Ordering::Relaxed) {
            return Err(Problem::StoreAway);
        }
        Ok(())
    }
}

/// A push cannot leave a list half made, so a panic elsewhere does not spoil it.
fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Part {
    /// How far beyond its time the part is, and how that is said.
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

/// A part's sign of life. Dropping it is not one: a part that is done says [`Beat::idle`].
#[derive(Clone, Debug)]
#[must_use = "a part that is registered and never beats goes stale"]
pub struct Beat {
    origin: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Beat {
    /// The part made progress just now, and has more to do.
    pub fn beat(&self) {
        self.last_ms.store(elapsed_ms(self.origin), Ordering::Relaxed);
    }

    /// The part has nothing to do until its next beat.
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
    async fn a_part_that_stops_beating_is_named() {
        let health = Health::new();
        let beat = health.register("poll loop", 30 * SECOND);
        advance(30 * SECOND).await;
        assert_eq!(health.alive(), Ok(()));
        advance(SECOND).await;
        let silent_for = 31 * SECOND;
        let part = "poll loop";
        assert_eq!(health.alive(), Err(Problem::Stale { part, silent_for }));
        beat.beat();
        assert_eq!(health.alive(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn idling_is_no_fault_and_vanishing_is() {
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
    async fn the_part_furthest_beyond_its_time_is_named() {
        let health = Health::new();
        let _slow = health.register("slow", 50 * SECOND);
        let _quick = health.register("quick", SECOND);
        let _fine = health.register("fine", 500 * SECOND);
        advance(60 * SECOND).await;
        assert!(matches!(health.alive(), Err(Problem::Stale { part: "quick", .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn ready_from_the_first_receive_to_the_signal() {
        let health = Health::new();
        let _beat = health.register("poll loop", SECOND);
        assert_eq!(health.ready(), Err(Problem::NotPolling));
        health.polling(true);
        assert_eq!(health.ready(), Ok(()));
        health.polling(false);
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
    fn problems_are_said_plainly() {
        let silent_for = Duration::from_millis(75_400);
        let problem = Problem::Stale { part: "poll loop", silent_for };
        assert_eq!(problem.to_string(), "poll loop: no progress for 75 s");
    }
}
