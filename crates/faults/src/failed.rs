//! The cause of a failed case as text, and waits that name their condition.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Interval between checks of a condition without a notification.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(format!("the harness itself: {error}"))
    }
}

impl Failed {
    /// Adds the place where it happened.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

/// Returns `Ok` if the condition holds.
///
/// # Errors
/// The text from `what`.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed(what())) }
}

/// Checks a condition repeatedly until it holds.
///
/// # Errors
/// If it does not hold within `limit`.
pub async fn eventually<F>(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> F,
) -> Result<(), Failed>
where
    F: Future<Output = bool>,
{
    let looking = async {
        while !holds().await {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(limit, looking)
        .await
        .map_err(|_| Failed(format!("not within {} s: {what}", limit.as_secs())))
}

/// Converts the result of a wait; `true` means success.
///
/// # Errors
/// If the wait timed out.
pub fn came(has_come: bool, what: &str) -> Result<(), Failed> {
    ensure(has_come, || format!("not in time: {what}"))
}
