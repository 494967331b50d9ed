//! The levers that all processes with one store share: a notice in the store, which each of them
//! reads at its regular look.
//!
//! The notice has the times of the store's clock. Each process counts from when it read them, so
//! that their own clocks do not matter.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Controls, Lever, Levers};
use crate::clock::millis;
use crate::idempotency::{Notice, Store, StoreError};

/// The version of the notice. A process ignores a notice of a version that it does not know.
const VERSION: u32 = 1;

/// The maximum length of a notice: two levers and a reason.
const NOTICE_BYTES_MAX: usize = 4 * 1024;

/// The notice as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LeverNotice {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause: Option<NoticeLever<()>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<NoticeLever<NonZeroUsize>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NoticeLever<T> {
    value: T,
    #[serde(default)]
    reason: String,
    since_ms: u64,
    until_ms: u64,
}

/// A change of the levers that all processes share.
#[derive(Clone, Debug)]
pub enum SharedChange {
    /// Stops receives, for this time and this reason.
    Pause(Duration, String),
    /// Ends a pause.
    Resume,
    /// Sets the number of workers, for this time.
    Concurrency(NonZeroUsize, Duration),
}

impl Controls {
    /// Applies the notice of a shared store, which was read now.
    pub fn apply_notice(&self, notice: &Notice) {
        match read(notice) {
            Ok(stored) => self.set_all(stored.levers(notice.at)),
            Err(error) => self.note_unreadable(&error),
        }
    }

    /// Changes the levers that all processes share, and applies them here at once.
    ///
    /// Of two changes at the same time one may be lost: the later one counts.
    ///
    /// # Errors
    /// If the store is not shared, or cannot be reached.
    pub async fn change_all(
        &self,
        store: &Arc<dyn Store>,
        change: SharedChange,
    ) -> Result<(), StoreError> {
        let notice = store.ping().await?;
        let now_ms = unix_ms(notice.at);
        // A notice that cannot be read is replaced: an operator wants to be obeyed.
        let mut stored = read(&notice).unwrap_or_default();
        stored.version = VERSION;
        stored.pause = stored.pause.filter(|lever| lever.until_ms > now_ms);
        stored.concurrency = stored.concurrency.filter(|lever| lever.until_ms > now_ms);
        match change {
            SharedChange::Pause(lasts, reason) => {
                stored.pause = Some(NoticeLever::new((), reason, now_ms, lasts));
            }
            SharedChange::Resume => stored.pause = None,
            SharedChange::Concurrency(workers, lasts) => {
                let reason = String::new();
                stored.concurrency = Some(NoticeLever::new(workers, reason, now_ms, lasts));
            }
        }
        let ends = [
            stored.pause.as_ref().map(|lever| lever.until_ms),
            stored.concurrency.as_ref().map(|lever| lever.until_ms),
        ];
        match ends.into_iter().flatten().max() {
            Some(until_ms) => {
                let text = serde_json::to_vec(&stored)
                    .map_err(|error| StoreError::Unreadable(error.to_string()))?;
                let lasts = Duration::from_millis(until_ms.saturating_sub(now_ms).max(1));
                store.post_notice(&text, lasts).await?;
            }
            None => store.post_notice(b"", Duration::from_millis(1)).await?,
        }
        self.set_all(stored.levers(notice.at));
        Ok(())
    }

    fn note_unreadable(&self, error: &serde_json::Error) {
        if !self.is_unreadable_said.swap(true, std::sync::atomic::Ordering::Relaxed) {
            warn!(
                error = %error,
                "What an operator told all workers cannot be read: another version may have written it"
            );
        }
    }
}

/// An empty text is no notice.
fn read(notice: &Notice) -> Result<LeverNotice, serde_json::Error> {
    if notice.text.is_empty() {
        return Ok(LeverNotice::default());
    }
    if notice.text.len() > NOTICE_BYTES_MAX {
        return Err(serde::de::Error::custom("it is too long"));
    }
    let stored: LeverNotice = serde_json::from_slice(&notice.text)?;
    if stored.version == VERSION {
        return Ok(stored);
    }
    let version = stored.version;
    Err(serde::de::Error::custom(format_args!("it has version {version}")))
}

impl LeverNotice {
    fn levers(self, now: SystemTime) -> Levers {
        let now_ms = unix_ms(now);
        Levers {
            pause: self.pause.and_then(|lever| lever.at(now_ms)),
            concurrency: self.concurrency.and_then(|lever| lever.at(now_ms)),
            log_level: None,
        }
    }
}

impl<T> NoticeLever<T> {
    fn new(value: T, reason: String, now_ms: u64, lasts: Duration) -> Self {
        let until_ms = now_ms.saturating_add(millis(lasts));
        Self { value, reason, since_ms: now_ms, until_ms }
    }

    /// Returns the lever, unless its time is over.
    fn at(self, now_ms: u64) -> Option<Lever<T>> {
        // A clock that steps back makes it last no longer than it was asked for.
        let asked_ms = self.until_ms.checked_sub(self.since_ms)?;
        let left_ms = self.until_ms.checked_sub(now_ms).filter(|left| *left > 0)?;
        let left = Duration::from_millis(left_ms.min(asked_ms));
        let since = UNIX_EPOCH.checked_add(Duration::from_millis(self.since_ms.min(now_ms)))?;
        Some(Lever { since, ..Lever::new(self.value, left, self.reason) })
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}
