//! The levers: what operators change while the worker runs.
//!
//! A lever holds until its time is over, and then goes back by itself. It is pulled for this
//! process (over the control socket), or for all processes (through the shared store); for this
//! process counts more. [`Controls::watch`] ends levers in time. The parts apply what is in effect:
//! the poller the pause, [`crate::app`] the number of workers, [`crate::telemetry`] the log level.

mod shared;
#[cfg(test)]
mod tests;
mod unreadable;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

pub use self::shared::SharedChange;
use self::unreadable::UnreadableNotice;
use crate::clock::rfc3339;
use crate::config::LogLevel;
use crate::metrics::{ControlLever, Metrics};
use crate::telemetry::CHANGES_TARGET;

/// The longest time that a lever holds.
pub const HOLDS_MAX: Duration = Duration::from_secs(12 * 3600);

/// The maximum length of a reason, in characters.
pub const REASON_CHARS_MAX: usize = 200;

/// A change with its end.
#[derive(Clone, Debug)]
pub struct Lever<T> {
    /// What is in effect.
    pub value: T,
    /// Why, in the operator's words; empty if none were given.
    pub reason: String,
    /// When it was pulled.
    pub since: SystemTime,
    /// When it goes back.
    pub until: SystemTime,
    ends_at: Instant,
}

/// Two readings of one lever are equal, although they count from different moments.
impl<T: PartialEq> PartialEq for Lever<T> {
    fn eq(&self, other: &Self) -> bool {
        let Self { value, reason, since, until: _, ends_at: _ } = self;
        (value, reason, since) == (&other.value, &other.reason, &other.since)
    }
}

impl<T: Eq> Eq for Lever<T> {}

impl<T> Lever<T> {
    /// Creates a lever that holds from now on for `lasts`, but at most [`HOLDS_MAX`].
    #[must_use]
    pub fn new(value: T, lasts: Duration, reason: String) -> Self {
        let lasts = lasts.min(HOLDS_MAX);
        let since = SystemTime::now();
        Self { value, reason, since, until: since + lasts, ends_at: Instant::now() + lasts }
    }
}

/// The levers of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levers {
    /// No message is received.
    pub pause: Option<Lever<()>>,
    /// The number of workers.
    pub concurrency: Option<Lever<NonZeroUsize>>,
    /// The least severe log lines that are written.
    pub log_level: Option<Lever<LogLevel>>,
}

/// Who pulled a lever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An operator of this process.
    Process,
    /// An operator of all processes that share a store.
    All,
}

impl Scope {
    /// Returns the name for logs and the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::All => "all",
        }
    }
}

/// The levers of both scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pulled {
    process: Levers,
    all: Levers,
    /// When the last levers of all whose time is over were pulled: the same notice may be read
    /// again, by a store whose clock has stepped back.
    ended: [Option<SystemTime>; 2],
}

impl Pulled {
    fn scope(&mut self, scope: Scope) -> &mut Levers {
        match scope {
            Scope::Process => &mut self.process,
            Scope::All => &mut self.all,
        }
    }

    fn ends(&self) -> impl Iterator<Item = Instant> {
        [&self.process, &self.all].into_iter().flat_map(|levers| {
            let pause = levers.pause.as_ref().map(|lever| lever.ends_at);
            let concurrency = levers.concurrency.as_ref().map(|lever| lever.ends_at);
            let log_level = levers.log_level.as_ref().map(|lever| lever.ends_at);
            [pause, concurrency, log_level].into_iter().flatten()
        })
    }
}

/// The levers in effect. Share it in an `Arc`.
#[derive(Debug)]
pub struct Controls {
    pulled: watch::Sender<Pulled>,
    metrics: Arc<Metrics>,
    unreadable: Mutex<UnreadableNotice>,
}

impl Controls {
    /// Creates levers of which none is pulled.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let (pulled, _) = watch::channel(Pulled::default());
        Self { pulled, metrics, unreadable: Mutex::default() }
    }

    /// Stops receives for `lasts`, in this process.
    pub fn pause(&self, lasts: Duration, reason: String) {
        let lever = Lever::new((), lasts, reason);
        warn!(target: CHANGES_TARGET,
            reason = lever.reason,
            until = rfc3339(lever.until),
            "Paused by an operator: no message is received, what is held goes on"
        );
        self.pulled.send_modify(|pulled| pulled.process.pause = Some(lever));
        self.show();
    }

    /// Ends a pause of this process. Returns whether there was one.
    pub fn resume(&self) -> bool {
        let was_paused = self.pulled.borrow().process.pause.is_some();
        if was_paused {
            warn!(target: CHANGES_TARGET, "Resumed by an operator");
            self.pulled.send_modify(|pulled| pulled.process.pause = None);
            self.show();
        }
        was_paused
    }

    /// Sets the number of workers of this process for `lasts`.
    pub fn set_concurrency(&self, workers: NonZeroUsize, lasts: Duration) {
        let lever = Lever::new(workers, lasts, String::new());
        warn!(target: CHANGES_TARGET, workers, until = rfc3339(lever.until), "Number of workers changed by an operator");
        self.pulled.send_modify(|pulled| pulled.process.concurrency = Some(lever));
        self.show();
    }

    /// Sets the log level of this process for `lasts`.
    pub fn set_log_level(&self, level: LogLevel, lasts: Duration) {
        let lever = Lever::new(level, lasts, String::new());
        let until = rfc3339(lever.until);
        warn!(target: CHANGES_TARGET, log_level = level.as_str(), until, "Log level changed by an operator");
        self.pulled.send_modify(|pulled| pulled.process.log_level = Some(lever));
        self.show();
    }

    /// Sets the levers that all processes share; says what is new.
    pub fn set_all(&self, mut levers: Levers) {
        let (before, ended) = {
            let pulled = self.pulled.borrow();
            (pulled.all.clone(), pulled.ended)
        };
        levers.pause.take_if(|lever| ended[0] == Some(lever.since));
        levers.concurrency.take_if(|lever| ended[1] == Some(lever.since));
        if before == levers {
            return;
        }
        match (&before.pause, &levers.pause) {
            (_, Some(pause)) if before.pause.as_ref() != Some(pause) => {
                warn!(target: CHANGES_TARGET,
                    reason = pause.reason,
                    until = rfc3339(pause.until),
                    "Paused by an operator of all workers: no message is received, what is held goes on"
                )
            }
            (Some(_), None) => warn!(target: CHANGES_TARGET,
                "The pause of all workers is over: an operator has resumed them, or the store has lost it"
            ),
            (None | Some(_), None | Some(_)) => {}
        }
        match (&before.concurrency, &levers.concurrency) {
            (_, Some(lever)) if before.concurrency.as_ref() != Some(lever) => {
                warn!(target: CHANGES_TARGET,
                    workers = lever.value,
                    until = rfc3339(lever.until),
                    "Number of workers changed by an operator of all workers"
                )
            }
            (Some(_), None) => {
                warn!(target: CHANGES_TARGET, "Number of workers set back by an operator of all workers")
            }
            (None | Some(_), None | Some(_)) => {}
        }
        self.pulled.send_modify(|pulled| pulled.all = levers);
        self.show();
    }

    /// Returns the pause in effect, and who ordered it.
    pub fn paused(&self) -> Option<(Lever<()>, Scope)> {
        let pulled = self.pulled.borrow();
        let own = pulled.process.pause.clone().map(|lever| (lever, Scope::Process));
        own.or_else(|| pulled.all.pause.clone().map(|lever| (lever, Scope::All)))
    }

    /// Returns the number of workers that an operator chose, if any.
    pub fn concurrency(&self) -> Option<NonZeroUsize> {
        let pulled = self.pulled.borrow();
        let lever = pulled.process.concurrency.as_ref().or(pulled.all.concurrency.as_ref());
        lever.map(|lever| lever.value)
    }

    /// Returns the log level that an operator chose, if any.
    pub fn log_level(&self) -> Option<LogLevel> {
        self.pulled.borrow().process.log_level.as_ref().map(|lever| lever.value)
    }

    /// Returns whether what all processes were told cannot be read.
    pub fn is_notice_unreadable(&self) -> bool {
        self.unreadable().is_found()
    }

    /// No value is left half changed under this lock.
    fn unreadable(&self) -> MutexGuard<'_, UnreadableNotice> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the levers that are pulled, in words: name, value, scope and end.
    pub fn in_effect(&self) -> Vec<LeverInEffect> {
        let pulled = self.pulled.borrow();
        let scopes = [(Scope::Process, &pulled.process), (Scope::All, &pulled.all)];
        let of_scope = |(scope, levers): (Scope, &Levers)| {
            let pause = levers
                .pause
                .as_ref()
                .map(|lever| LeverInEffect::new(ControlLever::Pause, String::new(), lever, scope));
            let concurrency = levers.concurrency.as_ref().map(|lever| {
                LeverInEffect::new(ControlLever::Concurrency, lever.value.to_string(), lever, scope)
            });
            let log_level = levers.log_level.as_ref().map(|lever| {
                let level = lever.value.as_str().to_owned();
                LeverInEffect::new(ControlLever::LogLevel, level, lever, scope)
            });
            [pause, concurrency, log_level].into_iter().flatten()
        };
        scopes.into_iter().flat_map(of_scope).collect()
    }

    /// Waits until no pause is in effect. Cancel-safe.
    pub async fn resumed(&self) {
        let is_running =
            |pulled: &Pulled| pulled.process.pause.is_none() && pulled.all.pause.is_none();
        // An error means that the worker is ending: the sender is part of `self`.
        let _ = self.pulled.subscribe().wait_for(is_running).await;
    }

    /// Waits until the number of workers that an operator chose is not `workers`, and returns it.
    /// Cancel-safe.
    pub async fn concurrency_other_than(
        &self,
        workers: Option<NonZeroUsize>,
    ) -> Option<NonZeroUsize> {
        self.changed_from(workers, || self.concurrency()).await
    }

    /// Waits until the log level that an operator chose is not `level`, and returns it.
    /// Cancel-safe.
    pub async fn log_level_other_than(&self, level: Option<LogLevel>) -> Option<LogLevel> {
        self.changed_from(level, || self.log_level()).await
    }

    async fn changed_from<T: PartialEq>(&self, value: T, read: impl Fn() -> T) -> T {
        let mut changes = self.pulled.subscribe();
        loop {
            changes.mark_unchanged();
            let now = read();
            if now != value {
                return now;
            }
            // An error means that the worker is ending: the sender is part of `self`.
            let _ = changes.changed().await;
        }
    }

    /// Ends each lever in time. Never returns.
    pub async fn watch(self: Arc<Self>) {
        let mut changes = self.pulled.subscribe();
        loop {
            let next = changes.borrow_and_update().ends().min();
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.end_due(),
            }
        }
    }

    fn end_due(&self) {
        let now = Instant::now();
        let mut ended = Vec::new();
        self.pulled.send_modify(|pulled| {
            let Levers { pause, concurrency, .. } = &pulled.all;
            let over = [since_if_over(pause, now), since_if_over(concurrency, now)];
            for (ended, over) in pulled.ended.iter_mut().zip(over) {
                *ended = over.or(*ended);
            }
            for scope in [Scope::Process, Scope::All] {
                let Levers { pause, concurrency, log_level } = pulled.scope(scope);
                ended.extend(end(pause, now).then_some((ControlLever::Pause, scope)));
                ended.extend(end(concurrency, now).then_some((ControlLever::Concurrency, scope)));
                ended.extend(end(log_level, now).then_some((ControlLever::LogLevel, scope)));
            }
        });
        for (lever, scope) in ended {
            warn!(target: CHANGES_TARGET,
                lever = lever.as_str(),
                scope = scope.as_str(),
                "The time of a change is over: it is set back"
            );
        }
        self.show();
    }

    fn show(&self) {
        let in_effect = self.in_effect();
        for lever in ControlLever::ALL {
            let is_pulled = in_effect.iter().any(|pulled| pulled.lever == lever);
            self.metrics.control(lever, is_pulled);
        }
    }
}

fn since_if_over<T>(lever: &Option<Lever<T>>, now: Instant) -> Option<SystemTime> {
    lever.as_ref().filter(|lever| lever.ends_at <= now).map(|lever| lever.since)
}

/// Drops a lever whose time is over; returns whether it did.
fn end<T>(lever: &mut Option<Lever<T>>, now: Instant) -> bool {
    lever.take_if(|lever| lever.ends_at <= now).is_some()
}

/// A lever that is pulled, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeverInEffect {
    /// Which lever.
    pub lever: ControlLever,
    /// Its value; empty for a pause.
    pub value: String,
    /// Why.
    pub reason: String,
    /// Who pulled it.
    pub scope: Scope,
    /// When it was pulled.
    pub since: SystemTime,
    /// When it goes back.
    pub until: SystemTime,
}

impl LeverInEffect {
    fn new<T>(which: ControlLever, value: String, lever: &Lever<T>, scope: Scope) -> Self {
        let Lever { reason, since, until, .. } = lever;
        Self { lever: which, value, reason: reason.clone(), scope, since: *since, until: *until }
    }
}
