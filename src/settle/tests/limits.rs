//! The queue's limits: read again and again, and applied to what is held.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::told::Told;
use crate::inflight::{GroupFate, redrive};
use crate::queue::QueueErrorKind::Denied;
use crate::queue::QueueLimits;

const SECOND: Duration = Duration::from_secs(1);

impl Engine {
    fn set_queue_limits(&self, receives_max: Option<u32>, retention_s: Option<u32>) {
        let retention = retention_s.map(|retention_s| SECOND * retention_s);
        *self.queue.limits.lock().unwrap() = QueueLimits { receives_max, retention };
    }

    fn watch(&self) -> (tokio::task::JoinHandle<()>, CancellationToken) {
        let stop = CancellationToken::new();
        let (table, queue) = (Arc::clone(&self.table), Arc::clone(&self.instrumented));
        (tokio::spawn(redrive::watch(table, queue, stop.clone())), stop)
    }
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_apply_within_a_minute() {
    let mut engine = Engine::new();
    engine.group = Some("g");
    let job = engine.begun("e1").await;
    let (running, stop) = engine.watch();
    sleep(SECOND).await;
    assert_eq!(engine.table.group_fate(&job), GroupFate::Release);
    engine.set_queue_limits(Some(1), None);
    sleep(60 * SECOND).await;
    assert_eq!(engine.table.group_fate(&job), GroupFate::LastReceive);
    engine.set_queue_limits(Some(2), None);
    sleep(60 * SECOND).await;
    assert_eq!(engine.table.group_fate(&job), GroupFate::Release);
    assert_eq!(engine.queue.asked("limits").len(), 3);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_that_cannot_be_read_stay_as_they_were_and_are_read_again_soon() {
    let mut engine = Engine::new();
    engine.group = Some("g");
    let job = engine.begun("e1").await;
    engine.set_queue_limits(Some(1), None);
    engine.queue.tell("limits", [Told::Works, Told::Fails(Denied), Told::Fails(Denied)]);
    let (_running, _stop) = engine.watch();
    sleep(75 * SECOND).await;
    let pauses: Vec<_> = engine.queue.pauses("limits").iter().map(Duration::as_secs).collect();
    assert_eq!(pauses, [50, 10, 10]);
    assert_eq!(engine.table.group_fate(&job), GroupFate::LastReceive);
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_a_held_message_is_due_as_soon_as_its_retention_is_known() {
    let mut engine = Engine::new();
    engine.age = Some(530 * SECOND);
    let job = engine.begun("e1").await;
    let now = Instant::now();
    let before = engine.table.next_renewal().unwrap() - now;
    engine.set_queue_limits(None, Some(600));
    let (_running, _stop) = engine.watch();
    sleep(SECOND).await;
    let at = engine.table.next_renewal().unwrap() - now;
    assert!(before == 15 * SECOND && at == 10 * SECOND, "{before:?} {at:?}");
    sleep(9 * SECOND).await;
    let due = engine.table.renewals_due(Instant::now()).due;
    assert_eq!(due.len(), 1);
    drop(engine.table.take(&job));
    assert_eq!((engine.table.next_renewal(), engine.table.extended()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_due_early_is_not_due_after_the_settlement() {
    let mut engine = Engine::new();
    engine.age = Some(530 * SECOND);
    let job = engine.begun("e1").await;
    engine.set_queue_limits(None, Some(600));
    let (_running, _stop) = engine.watch();
    sleep(SECOND).await;
    drop(engine.table.take(&job));
    assert_eq!(engine.table.next_renewal(), None);
}
