//! Carries requests out.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{ControlRequest, ControlResponse};
use crate::clock::rfc3339;
use crate::config::LogLevel;
use crate::controls::{Controls, HOLDS_MAX, REASON_CHARS_MAX, Scope, SharedChange};
use crate::escaped::Escaped;
use crate::idempotency::Store;
use crate::status::Status;

/// How soon the other processes follow: their regular look at the store.
const ALL_SOON: &str = ", within 10 s";

/// What requests need.
pub struct ControlParts {
    /// The status.
    pub status: Arc<Status>,
    /// The levers.
    pub controls: Arc<Controls>,
    /// The store, which the processes may share.
    pub store: Arc<dyn Store>,
    /// The most workers there can be: the held messages at most.
    pub workers_max: usize,
}

impl ControlParts {
    pub(super) async fn carry_out(&self, request: ControlRequest) -> ControlResponse {
        let done = match request {
            ControlRequest::Status => {
                Ok(ControlResponse::done("status").with(&self.status.fresh_report()))
            }
            ControlRequest::Pause { for_s, reason, all } => self.pause(for_s, reason, all).await,
            ControlRequest::Resume { all } => self.resume(all).await,
            ControlRequest::Concurrency { workers, for_s, all } => {
                self.concurrency(workers, for_s, all).await
            }
            ControlRequest::LogLevel { level, for_s } => self.log_level(&level, for_s),
            ControlRequest::Event { id } => Ok(self.event(&id)),
        };
        done.unwrap_or_else(ControlResponse::refused)
    }

    async fn pause(
        &self,
        for_s: NonZeroU64,
        reason: String,
        all: bool,
    ) -> Result<ControlResponse, String> {
        let lasts = lasts(for_s)?;
        if reason.chars().count() > REASON_CHARS_MAX || reason.contains(char::is_control) {
            return Err(format!(
                "reason: at most {REASON_CHARS_MAX} characters, none of them a control character"
            ));
        }
        let until = rfc3339(SystemTime::now() + lasts);
        if all {
            self.change_all(SharedChange::Pause(lasts, reason)).await?;
            return Ok(ControlResponse::done(format!(
                "all workers are paused until {until}{ALL_SOON}"
            )));
        }
        self.controls.pause(lasts, reason);
        Ok(ControlResponse::done(format!(
            "paused until {until}: no message is received; a receive that is open may still bring some, and what is held goes on"
        )))
    }

    async fn resume(&self, all: bool) -> Result<ControlResponse, String> {
        if all {
            self.change_all(SharedChange::Resume).await?;
        }
        let was_paused = !all && self.controls.resume();
        Ok(ControlResponse::done(match (self.controls.paused(), all, was_paused) {
            (Some((_, Scope::All)), ..) => {
                "still paused, as all workers are: end that with `ctl --all resume`".to_owned()
            }
            (Some((_, Scope::Process)), ..) => {
                format!("all others go on{ALL_SOON}; this one is paused by itself: `ctl resume`")
            }
            (None, true, _) => format!("all workers go on{ALL_SOON}"),
            (None, false, true) => "resumed".to_owned(),
            (None, false, false) => "it was not paused".to_owned(),
        }))
    }

    async fn concurrency(
        &self,
        workers: usize,
        for_s: NonZeroU64,
        all: bool,
    ) -> Result<ControlResponse, String> {
        let lasts = lasts(for_s)?;
        let workers = NonZeroUsize::new(workers)
            .filter(|workers| workers.get() <= self.workers_max)
            .ok_or_else(|| format!("concurrency {workers}: 1 to {}", self.workers_max))?;
        let until = rfc3339(SystemTime::now() + lasts);
        if all {
            self.change_all(SharedChange::Concurrency(workers, lasts)).await?;
            let text = format!("{workers} workers in each process until {until}{ALL_SOON}");
            return Ok(ControlResponse::done(text));
        }
        self.controls.set_concurrency(workers, lasts);
        Ok(ControlResponse::done(format!("{workers} workers until {until}")))
    }

    async fn change_all(&self, change: SharedChange) -> Result<(), String> {
        let changed = self.controls.change_all(&self.store, change).await;
        changed.map_err(|error| {
            format!("--all needs a shared store (IDEMPOTENCY_STORE) that can be reached: {error}")
        })
    }

    fn log_level(&self, level: &str, for_s: NonZeroU64) -> Result<ControlResponse, String> {
        let lasts = lasts(for_s)?;
        let level = LogLevel::parse(level).ok_or_else(|| {
            format!("log-level {}: one of debug, info, warn, error", Escaped(level))
        })?;
        self.controls.set_log_level(level, lasts);
        let until = rfc3339(SystemTime::now() + lasts);
        Ok(ControlResponse::done(format!("log level {} until {until}", level.as_str())))
    }

    fn event(&self, id: &str) -> ControlResponse {
        match self.status.event(id) {
            Some(event) => ControlResponse::done(event.state.clone()).with(&event),
            None => ControlResponse::done(format!(
                "this process does not hold {}; `reservation-worker event` asks the shared store",
                Escaped(id)
            )),
        }
    }
}

fn lasts(for_s: NonZeroU64) -> Result<Duration, String> {
    let lasts = Duration::from_secs(for_s.get());
    if lasts > HOLDS_MAX {
        return Err(format!("{for_s} s: at most {} s (12 h)", HOLDS_MAX.as_secs()));
    }
    Ok(lasts)
}
