//! A timeout that accepts an answer that arrived in time but could not be read in time: the process
//! was paused by its cgroup or with its machine, or starved of CPU. With a plain timeout such a
//! pause would look like an outage.

use std::pin::pin;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

/// Yields to all other ready tasks before an operation is given up. After each yield tokio may
/// process more I/O events. 64 yields are enough to read a hundred answers, on one connection or on
/// one each.
const YIELDS_MAX: usize = 64;

/// Returns the future's output, or `None` if there was none by the deadline.
/// Cancel-safe if the future is; the future is dropped at the deadline.
pub(super) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Ok(output) = timeout_at(deadline, &mut future).await {
        return Some(output);
    }
    let yields = async {
        for _ in 0..YIELDS_MAX {
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = future => Some(output),
        () = yields => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::sync::oneshot::{self, Receiver};

    use super::*;

    /// Tasks that pass on the answer, each of which must run: more than tokio runs before it checks
    /// timers (61).
    const TASKS: usize = 150;

    /// Sends an answer, then blocks the thread past the deadline that `wait` gets.
    fn answered_in_a_pause<T, F: Future<Output = T>>(
        wait: impl FnOnce(Instant, Receiver<()>) -> F,
    ) -> T {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (answer, mut arrives) = oneshot::channel();
            for _ in 0..TASKS {
                let (pass_on, next) = oneshot::channel();
                tokio::spawn(async move {
                    arrives.await.unwrap();
                    pass_on.send(()).unwrap();
                });
                arrives = next;
            }
            yield_now().await;
            let deadline = Instant::now() + Duration::from_millis(20);
            let pause = async {
                answer.send(()).unwrap();
                thread::sleep(Duration::from_millis(60));
            };
            tokio::join!(wait(deadline, arrives), pause).0
        })
    }

    #[test]
    fn an_answer_that_arrived_during_a_pause_counts_after_the_deadline() {
        assert_eq!(answered_in_a_pause(within), Some(Ok(())));
        let plain = answered_in_a_pause(|deadline, answer| timeout_at(deadline, answer));
        assert!(plain.is_err(), "a plain timeout must miss this answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_answer_times_out_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_secs(1);
        assert_eq!(within(deadline, std::future::pending::<()>()).await, None);
        assert_eq!(Instant::now(), deadline);
    }
}
