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
use crate::telemetry::CHANGES_TARGET;

/// The version of the notice. A process ignores a notice of a version that it does not know.
const VERSION: u32 = 1;

/// The maximum length of a notice: two levers and a reason.
const NOTICE_BYTES_MAX: usize = 4 * 1024;

/// Attempts at a change: another process may make one between the read and the write.
const TRIES_MAX: u32 = 20;

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
            Ok(stored) => {
                self.unreadable().readable();
                self.set_all(stored.levers(notice.at));
            }
            Err(error) => {
                if self.unreadable().found(&notice.text) {
                    warn!(target: CHANGES_TARGET,
                        error = %error,
                        "What an operator told all workers cannot be read: another version may have written it"
                    );
                }
            }
        }
    }

    /// Changes the levers that all processes share, and applies them here at once. A change that
    /// another process makes meanwhile is kept.
    ///
    /// # Errors
    /// If the store is not shared, or cannot be reached, or others change it all the time.
    pub async fn change_all(
        &self,
        store: &Arc<dyn Store>,
        change: SharedChange,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            let notice = store.ping().await?;
            // A notice that cannot be read is replaced: otherwise nothing could be changed.
            let mut stored = read(&notice).unwrap_or_default();
            stored.change(&change, unix_ms(notice.at));
            let (text, lasts) = stored.to_text(unix_ms(notice.at))?;
            if store.post_notice(&notice.text, &text, lasts).await? {
                self.unreadable().readable();
                self.set_all(stored.levers(notice.at));
                return Ok(());
            }
        }
        Err(StoreError::unavailable("others change it at the same time, again and again"))
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
    /// Makes a change, and drops the levers whose time is over.
    fn change(&mut self, change: &SharedChange, now_ms: u64) {
        self.version = VERSION;
        self.pause.take_if(|lever| lever.until_ms <= now_ms);
        self.concurrency.take_if(|lever| lever.until_ms <= now_ms);
        match change {
            SharedChange::Pause(lasts, reason) => {
                self.pause = Some(NoticeLever::new((), reason.clone(), now_ms, *lasts));
            }
            SharedChange::Resume => self.pause = None,
            SharedChange::Concurrency(workers, lasts) => {
                let reason = String::new();
                self.concurrency = Some(NoticeLever::new(*workers, reason, now_ms, *lasts));
            }
        }
    }

    /// Returns the text and how long it lasts: until the last lever ends. Without levers it is
    /// empty.
    fn to_text(&self, now_ms: u64) -> Result<(Vec<u8>, Duration), StoreError> {
        let ends = [
            self.pause.as_ref().map(|lever| lever.until_ms),
            self.concurrency.as_ref().map(|lever| lever.until_ms),
        ];
        let Some(until_ms) = ends.into_iter().flatten().max() else {
            return Ok((Vec::new(), Duration::from_millis(1)));
        };
        let text =
            serde_json::to_vec(self).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        Ok((text, Duration::from_millis(until_ms.saturating_sub(now_ms).max(1))))
    }

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
