//! The prober: which actions it asks for, and how often.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::told::Told;
use crate::inflight::probe::Prober;
use crate::metrics::QueueAction;
use crate::queue::QueueErrorKind::Denied;

const SECOND: Duration = Duration::from_secs(1);

impl Engine {
    fn run_prober(&self) -> (JoinHandle<()>, CancellationToken) {
        let prober = Prober {
            inflight: Arc::clone(&self.table),
            queue: Arc::clone(&self.instrumented),
            actions: Arc::clone(&self.actions),
        };
        let stop = CancellationToken::new();
        (tokio::spawn(prober.run(stop.clone())), stop)
    }

    /// Returns the actions that were probed so far, with the times in tenths of a second.
    fn probed(&self) -> Vec<(String, u128)> {
        let asked = self.queue.asked("probe").into_iter();
        asked.map(|asked| (asked.says, asked.at.as_millis() / 100)).collect()
    }

    /// Makes an action fail as if the engine had called it.
    async fn make_fail(&self, action: QueueAction) {
        for _ in 0..2 {
            let failed = match action {
                QueueAction::Extend => self.instrumented.extend(&[]).await.is_err(),
                QueueAction::Delete => self.instrumented.delete(&[]).await.is_err(),
                QueueAction::Receive | QueueAction::DeadLetter | QueueAction::Attributes => false,
            };
            assert!(failed);
        }
        assert!(self.actions.is_failing(action));
    }
}

#[tokio::test(start_paused = true)]
async fn every_action_is_probed_once_at_the_start_and_twice_if_it_fails() {
    let engine = Engine::new();
    engine.queue.tell("probe", [Told::Works, Told::Fails(Denied), Told::Works]);
    let (running, stop) = engine.run_prober();
    sleep(600 * SECOND).await;
    let probed = engine.probed();
    let probed: Vec<_> = probed.iter().map(|(action, at)| (action.as_str(), *at)).collect();
    let wanted =
        [("extend", 0), ("delete", 0), ("delete", 1), ("attributes", 1), ("dead_letter", 1)];
    assert_eq!(probed, wanted);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_action_that_nothing_waits_for_is_probed_until_it_works() {
    let engine = Engine::new();
    let (_running, _stop) = engine.run_prober();
    sleep(SECOND).await;
    let before = engine.probed().len();
    engine.queue.break_down("delete", Denied);
    engine.queue.tell("probe", [Told::Fails(Denied), Told::Fails(Denied)]);
    engine.make_fail(QueueAction::Delete).await;
    sleep(60 * SECOND).await;
    let probes = engine.probed().split_off(before);
    assert!(probes.iter().all(|(action, _)| action == "delete"), "{probes:?}");
    let pauses: Vec<_> = probes.windows(2).map(|two| two[1].1 - two[0].1).collect();
    assert_eq!(pauses, [40, 40], "{probes:?}");
    assert!(!engine.actions.is_failing(QueueAction::Delete));
    assert!(engine.actions.is_doubted(QueueAction::Delete));
}

#[tokio::test(start_paused = true)]
async fn an_action_that_something_waits_for_is_probed_by_that() {
    let engine = Engine::new();
    let (_running, _stop) = engine.run_prober();
    sleep(SECOND).await;
    let before = engine.probed().len();
    engine.queue.break_down("delete", Denied);
    engine.make_fail(QueueAction::Delete).await;
    engine.actions.set_waiting(QueueAction::Delete, 1);
    sleep(60 * SECOND).await;
    assert_eq!(engine.probed().len(), before);
    assert!(engine.actions.is_failing(QueueAction::Delete));
}

/// Only the extension of a real lease shows whether extensions work.
#[tokio::test(start_paused = true)]
async fn failing_extensions_are_probed_with_a_held_lease() {
    let mut engine = Engine::new();
    let (_running, _stop) = engine.run_prober();
    sleep(SECOND).await;
    let before = engine.probed().len();
    engine.admit("e1", "r1").await;
    engine.table.renewals_changed().now_or_never();
    engine.queue.break_down("extend", Denied);
    engine.make_fail(QueueAction::Extend).await;
    sleep(5 * SECOND).await;
    assert_eq!(engine.probed().len(), before);
    assert!(engine.table.next_renewal().is_some_and(|at| at <= Instant::now()), "due at once");
    assert!(engine.table.renewals_changed().now_or_never().is_some(), "the keeper is told");
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_failing_extensions_are_probed_and_then_doubted() {
    let mut engine = Engine::new();
    let (_running, _stop) = engine.run_prober();
    sleep(SECOND).await;
    engine.queue.break_down("extend", Denied);
    engine.make_fail(QueueAction::Extend).await;
    sleep(10 * SECOND).await;
    assert!(!engine.actions.is_failing(QueueAction::Extend));
    assert!(engine.actions.is_doubted(QueueAction::Extend));
    engine.admit("e1", "r1").await;
    sleep(2 * SECOND).await;
    assert!(engine.table.next_renewal().is_some_and(|at| at <= Instant::now()), "due at once");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_given_up() {
    let engine = Engine::new();
    engine.queue.tell("probe", [Told::Takes(3_600 * SECOND), Told::Takes(3_600 * SECOND)]);
    let (_running, _stop) = engine.run_prober();
    sleep(11 * SECOND).await;
    assert_eq!(engine.probed().len(), 5);
}
