//! Why a case failed, in words; and waits that say what they waited for.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Between two looks at something that cannot be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What did not hold.
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
    /// The same, with where it happened.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

/// `Ok` where it holds.
///
/// # Errors
/// What did not, in the words of `what`.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed(what())) }
}

/// Looks again and again, until it holds.
///
/// # Errors
/// That it did not within `limit`.
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

/// For waits whose end is told by `true`.
///
/// # Errors
/// That it did not come.
pub fn came(has_come: bool, what: &str) -> Result<(), Failed> {
    ensure(has_come, || format!("not in time: {what}"))
}
