//! A deadline that counts what arrived in time, also where the process was paused meanwhile and could not look: frozen by its cgroup or
//! with its machine, or starved of CPU. What is ready is read a few answers at a time; tokio's own timeout, late itself, would not wait
//! for the next few, and a pause would look like an outage.

use std::pin::pin;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

/// How often all else that is ready goes first before a call is given up; each time, tokio looks at a few more sockets. A hundred
/// answers, on a connection each or all on one, are read by then.
const LOOKS: usize = 64;

/// The future's output, or `None` where it had none by the deadline. As cancel-safe as the future, which is dropped at the deadline.
pub(crate) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Ok(output) = timeout_at(deadline, &mut future).await {
        return Some(output);
    }
    let looks = async {
        for _ in 0..LOOKS {
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = future => Some(output),
        () = looks => None,
    }
}
