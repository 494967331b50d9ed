//! One receive: its deadline, and the start of the leases of its messages.
//!
//! SQS counts the visibility timeout from the moment it hands messages out. In a long poll this is
//! usually long after the request. The time at which the response was *read* is not safe either: if
//! the process was paused or its machine suspended, the response may have waited here for that
//! time. Therefore an open receive samples the clock at intervals, and a lease counts from a sample
//! at which the response cannot have arrived yet. If the response arrives at once, the lease counts
//! from the request.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::clock;
use crate::inflight::capacity::ReservedPermits;
use crate::intake::Received;
use crate::queue::{Message, Queue, QueueError, QueueErrorKind};

/// Time beyond the long-poll wait after which a receive is abandoned; above the SDK's own deadline.
pub(super) const MARGIN: Duration = Duration::from_secs(8);

/// The sampling interval is the lease divided by this. A lease loses up to the last two intervals.
const LOOK_SHARE: u32 = 20;

/// Upper bound of the sampling interval.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The response to a receive, and the room for its messages.
pub(super) struct ReceiveReply {
    pub(super) permits: ReservedPermits,
    pub(super) asked: usize,
    pub(super) answer: Result<Vec<Message>, QueueError>,
    pub(super) received: Received,
}

/// The last two clock samples taken before the response was read.
struct AnswerWatch {
    last_but_one: Instant,
    last: Instant,
}

impl AnswerWatch {
    fn first() -> Self {
        let now = clock::now();
        Self { last_but_one: now, last: now }
    }

    fn again(&mut self) {
        *self = Self { last_but_one: self.last, last: clock::now() };
    }

    /// Returns a time at which the response had certainly not arrived. The last sample may be the
    /// first after a pause, taken before a response that arrived during the pause was read. By the
    /// next sample, that response is read.
    const fn before_answer(&self) -> Instant {
        self.last_but_one
    }
}

/// Requests up to `asked` messages.
pub(super) async fn receive(
    queue: Arc<dyn Queue>,
    permits: ReservedPermits,
    asked: usize,
    wait: Duration,
    visibility: Duration,
) -> ReceiveReply {
    let began_at = Instant::now();
    let mut watch = AnswerWatch::first();
    let answer = {
        let mut call = pin!(queue.receive(asked, visibility));
        // The SDK has this deadline too; a queue that keeps neither must not block the loop.
        let mut given_up = pin!(sleep_until(began_at + wait + MARGIN));
        loop {
            tokio::select! {
                biased;
                answer = &mut call => break answer,
                () = &mut given_up => {
                    let detail = "no answer to a receive".to_owned();
                    break Err(QueueError { kind: QueueErrorKind::Timeout, detail });
                }
                () = sleep(LOOK_MAX.min(visibility / LOOK_SHARE)) => watch.again(),
            }
        }
    };
    let leased_at = watch.before_answer();
    let received = Received { began_at, received_at: Instant::now(), leased_at, visibility };
    ReceiveReply { permits, asked, answer, received }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use tokio::sync::oneshot;
    use tokio::time::advance;

    use super::*;
    use crate::inflight::capacity::InFlightLimiter;
    use crate::queue::{BatchAnswer, DeadLetter, ReceiptHandle};

    const VISIBILITY: Duration = Duration::from_secs(6);

    /// A queue whose single receive is answered on demand.
    struct Slow(Mutex<Option<oneshot::Receiver<()>>>);

    #[async_trait]
    impl Queue for Slow {
        async fn receive(&self, _: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
            let answered = self.0.lock().unwrap().take().unwrap();
            answered.await.unwrap();
            Ok(Vec::new())
        }

        async fn delete(&self, _: &[ReceiptHandle]) -> BatchAnswer {
            Ok(Vec::new())
        }

        async fn extend(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
            Ok(Vec::new())
        }

        async fn hand_back(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
            Ok(Vec::new())
        }

        async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
            Ok(())
        }
    }

    /// Returns the reply to a receive that is open for `open`, then answered while the process is
    /// paused for `paused`.
    async fn answered(open: Duration, paused: Duration) -> ReceiveReply {
        let (answer, answered) = oneshot::channel();
        let queue = Arc::new(Slow(Mutex::new(Some(answered))));
        let permits = InFlightLimiter::new(10, 64 << 20).reserve().await;
        let wait = Duration::from_secs(20);
        let receiving = tokio::spawn(receive(queue, permits, 10, wait, VISIBILITY));
        sleep(open).await;
        answer.send(()).unwrap();
        // No task runs during this time: the clock jumps.
        advance(paused).await;
        receiving.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_starts_before_a_pause_during_which_the_answer_came() {
        let (began, open) = (Instant::now(), Duration::from_secs(7));
        let received = answered(open, Duration::from_secs(9)).await.received;
        let since = received.leased_at - began;
        assert!(since <= open, "counted from {since:?}, but delivered after {open:?}");
        assert!(since >= open - VISIBILITY / 10, "counted too early: {since:?}");
        assert_eq!(received.received_at - began, open + Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_starts_at_the_request_if_the_answer_comes_at_once() {
        let began = Instant::now();
        let received = answered(Duration::from_millis(100), Duration::ZERO).await.received;
        assert_eq!(received.leased_at, began);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_reading_shortly_before_the_answer_does_not_count() {
        let mut watch = AnswerWatch::first();
        let before = watch.last;
        advance(Duration::from_secs(9)).await;
        watch.again();
        assert_eq!(watch.before_answer(), before);
        watch.again();
        assert_eq!(watch.before_answer() - before, Duration::from_secs(9));
    }
}
