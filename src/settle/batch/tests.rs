//! Tests when deletes are sent and in which batches. The tests in `tests/` cover the rest on the
//! whole engine.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::*;
use crate::health::Health;
use crate::inflight::SuspectBounds;
use crate::inflight::capacity::InFlightLimiter;
use crate::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, MessageId, QueueError, QueueErrorKind,
    ReceiptHandle,
};
use crate::telemetry::Tracing;

const SUSPECTS: SuspectBounds = SuspectBounds { held_max: 50, tried_max: 5 };

/// How a call fails.
#[derive(Clone, Copy)]
enum Fault {
    NoConnection,
    EntriesRefused,
    EntriesLost,
}

/// How a queue behaves.
#[derive(Clone, Copy)]
struct Course {
    /// The number of first calls that fail.
    fail: usize,
    fault: Fault,
    /// The time that each call takes.
    takes: Duration,
    is_fifo: bool,
    /// The lease of each message.
    lease: Duration,
}

const USUAL: Course = Course {
    fail: 0,
    fault: Fault::NoConnection,
    takes: Duration::ZERO,
    is_fifo: false,
    lease: Duration::from_secs(30),
};

/// A queue that records each delete: time after the start, and number of entries.
struct Noted {
    began_at: Instant,
    deletes: Mutex<Vec<(Duration, usize)>>,
    course: Course,
}

#[async_trait]
impl Queue for Noted {
    async fn receive(&self, _: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
        unreachable!("only deletes are settled here")
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        let calls = {
            let mut deletes = self.deletes.lock().unwrap();
            deletes.push((self.began_at.elapsed(), handles.len()));
            deletes.len()
        };
        sleep(self.course.takes).await;
        if calls > self.course.fail {
            return Ok(vec![Ok(()); handles.len()]);
        }
        let detail = "as it is to".to_owned();
        match self.course.fault {
            Fault::NoConnection => Err(QueueError { kind: QueueErrorKind::Network, detail }),
            Fault::EntriesRefused => Ok(vec![Err(EntryError::Retry(detail)); handles.len()]),
            Fault::EntriesLost => Ok(vec![Err(EntryError::Lost(detail)); handles.len()]),
        }
    }

    async fn extend(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        unreachable!("only deletes are settled here")
    }

    async fn hand_back(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        unreachable!("only deletes are settled here")
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        unreachable!("only deletes are settled here")
    }

    fn is_fifo(&self) -> bool {
        self.course.is_fifo
    }
}

/// Time of a call in milliseconds, and number of entries.
type Sent = (u128, usize);

/// Hands in groups of deletes, `apart` from each other. Returns the calls.
async fn sent(counts: &[usize], apart: Duration, course: Course) -> Vec<Sent> {
    let limiter = InFlightLimiter::new(100, 1 << 30);
    let mut permits = Vec::new();
    for _ in 0..counts.iter().sum() {
        permits.push(limiter.reserve().await.take(10).unwrap());
    }
    let queue = Arc::new(Noted { began_at: Instant::now(), deletes: Mutex::default(), course });
    let (batches, batcher) = Batcher::new(
        Arc::clone(&queue) as Arc<dyn Queue>,
        Arc::new(Metrics::new(&[])),
        Arc::new(MessageAccount::default()),
        QueueSpans::new(Tracing::disabled(), "q"),
        Arc::new(InFlight::new(100, 100, SUSPECTS, course.lease).0),
        Arc::new(QueueActions::new(
            Arc::new(Health::new()),
            Arc::new(Metrics::new(&[])),
            course.lease,
        )),
        100,
    );
    let running = tokio::spawn(batcher.run());
    for (at, count) in counts.iter().enumerate() {
        if at > 0 {
            sleep(apart).await;
        }
        for number in 0..*count {
            let receipt = Receipt {
                message_id: MessageId(format!("{at}-{number}").into()),
                handle: ReceiptHandle("handle".into()),
                receive_count: 1,
                leased_at: Instant::now(),
                deadline: Instant::now() + course.lease,
                age_s: None,
                permit: permits.pop().unwrap(),
                span: None,
            };
            batches.send(Settlement::Delete(receipt, Disposition::Deleted)).await;
        }
    }
    let settled = async {
        while batches.outstanding().count() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), settled).await.expect("all are settled");
    drop(batches);
    running.await.unwrap();
    let deletes = queue.deletes.lock().unwrap();
    deletes.iter().map(|(after, count)| (after.as_millis(), *count)).collect()
}

/// Allows 3 ms, because each timer fires up to a millisecond late.
fn is_about(seen: &[Sent], wanted: &[Sent]) -> bool {
    let near = |(seen, wanted): (&Sent, &Sent)| {
        (wanted.0..=wanted.0 + 3).contains(&seen.0) && seen.1 == wanted.1
    };
    seen.len() == wanted.len() && seen.iter().zip(wanted).all(near)
}

#[tokio::test(start_paused = true)]
async fn full_batches_are_sent_in_pairs_and_no_batch_waits_long() {
    let table: [(&[usize], u64, &[Sent]); 6] = [
        (&[3], 0, &[(100, 3)]),
        (&[20], 0, &[(0, 10), (0, 10)]),
        (&[10, 10], 5, &[(5, 10), (5, 10)]),
        // A full batch waits for a second one only for `PAIR_WITHIN`.
        (&[10], 0, &[(10, 10)]),
        // Deletes that arrive during the wait are not sent with the full batch: at a moderate rate
        // that would double the calls.
        (&[10, 2], 5, &[(10, 10), (110, 2)]),
        (&[9, 2], 95, &[(100, 10), (200, 1)]),
    ];
    for (counts, apart_ms, wanted) in table {
        let seen = sent(counts, Duration::from_millis(apart_ms), USUAL).await;
        assert!(is_about(&seen, wanted), "{counts:?} {apart_ms} ms apart: {seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_is_tried_again_until_it_works_and_not_at_once() {
    for fault in [Fault::NoConnection, Fault::EntriesRefused] {
        let calls = sent(&[3], Duration::ZERO, Course { fail: 4, fault, ..USUAL }).await;
        assert_eq!(calls.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3; 5]);
        let pauses = calls.windows(2).map(|calls| calls[1].0 - calls[0].0);
        assert!(pauses.min() >= Some(100), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_a_fifo_queue_waits_for_the_call_before_it_only() {
    let course = Course { takes: Duration::from_millis(20), is_fifo: true, ..USUAL };
    let table: [(&[usize], u64, &[Sent]); 3] = [
        (&[1, 1], 50, &[(0, 1), (50, 1)]),
        (&[1, 2, 3], 5, &[(0, 1), (20, 5)]),
        (&[12], 0, &[(0, 10), (0, 2)]),
    ];
    for (counts, apart_ms, wanted) in table {
        let seen = sent(counts, Duration::from_millis(apart_ms), course).await;
        assert!(is_about(&seen, wanted), "{counts:?} {apart_ms} ms apart: {seen:?}");
    }
}

/// A third of a short lease may never be enough for SQS.
#[tokio::test(start_paused = true)]
async fn a_delete_that_timed_out_is_given_more_time() {
    let (takes, lease) = (Duration::from_millis(3_500), Duration::from_secs(9));
    let calls = sent(&[1], Duration::ZERO, Course { takes, lease, ..USUAL }).await;
    assert_eq!(calls.len(), 2, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_receipt_is_lost_or_runs_out_is_given_up() {
    let fail = usize::MAX;
    let course = Course { fail, fault: Fault::EntriesLost, ..USUAL };
    assert_eq!(sent(&[3], Duration::ZERO, course).await.len(), 1);
    let course = Course { fail, lease: Duration::from_secs(3), ..USUAL };
    assert!(sent(&[3], Duration::ZERO, course).await.len() > 1);
}
