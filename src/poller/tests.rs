//! The receive loop on a queue that answers as it is told.
#![allow(clippy::unwrap_used)]

use tokio::task::JoinHandle;

use super::*;
use crate::controls::Controls;
use crate::queue::QueueErrorKind::{Denied, Network};
use crate::settle::tests::engine::{Engine, LEASE};
use crate::settle::tests::told::Told;
use crate::telemetry::{QueueSpans, Tracing};

const SECOND: Duration = Duration::from_secs(1);

impl Engine {
    /// Runs the loop. Each receive waits for `wait` at most.
    fn poll(&self, wait: Duration) -> (JoinHandle<()>, CancellationToken) {
        let controls = Arc::new(Controls::new(Arc::clone(&self.settler.metrics)));
        self.poll_under(controls, wait)
    }

    /// Runs the loop with these levers.
    fn poll_under(
        &self,
        controls: Arc<Controls>,
        wait: Duration,
    ) -> (JoinHandle<()>, CancellationToken) {
        let settler = self.settler.clone();
        let (metrics, account) = (Arc::clone(&settler.metrics), Arc::clone(&settler.account));
        let intake = Intake {
            inflight: Arc::clone(&self.table),
            tracing: Tracing::disabled(),
            spans: QueueSpans::new(Tracing::disabled(), "q"),
            metrics: Arc::clone(&metrics),
            account: Arc::clone(&account),
            queue_name: "q".to_owned(),
            settler,
        };
        let poller = Poller {
            queue: Arc::clone(&self.instrumented),
            limiter: self.limiter.clone(),
            inflight: Arc::clone(&self.table),
            intake,
            actions: Arc::clone(&self.actions),
            controls,
            wait,
            visibility: LEASE,
            concurrency: 4,
            metrics,
            account,
            heartbeat: self.health.register("poller", turn_max(wait)),
            health: Arc::clone(&self.health),
        };
        let stop = CancellationToken::new();
        (tokio::spawn(poller.run(stop.clone())), stop)
    }

    /// Tells what the next receive brings: `count` events.
    fn tell_messages(&mut self, prefix: &str, count: usize) {
        let id = |n| format!("{prefix}-{n}");
        let messages = (0..count).map(|n| self.message(&id(n), &id(n))).collect();
        self.queue.messages.lock().unwrap().push_back(messages);
    }

    /// Makes the next calls for an action fail as if the engine had made them.
    fn note_denied(&self, action: QueueAction) {
        let error = QueueError { kind: Denied, detail: String::new() };
        (0..2).for_each(|_| self.actions.note(action, Instant::now(), Err(&error)));
    }

    fn receives(&self) -> usize {
        self.queue.asked("receive").len()
    }

    fn is_ready(&self) -> bool {
        self.health.ready().is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn receives_that_fail_are_spaced_out_and_never_end_the_loop() {
    let engine = Engine::new();
    engine.queue.break_down("receive", Network);
    let (running, stop) = engine.poll(20 * SECOND);
    sleep(60 * SECOND).await;
    let pauses = engine.queue.pauses("receive");
    assert!((5..60).contains(&pauses.len()), "{} receives in a minute", pauses.len());
    assert!(pauses.iter().all(|pause| *pause >= ERROR_PAUSE_MIN), "{pauses:?}");
    assert!(engine.shows(&format!("sqs_poll_errors_total {}", pauses.len() + 1)));
    engine.queue.mend("receive");
    sleep(11 * SECOND).await;
    assert!(engine.actions.failing(QueueAction::Receive).is_none());
    stop.cancel();
    running.await.unwrap();
}

/// Full jitter may draw nearly zero.
#[tokio::test(start_paused = true)]
async fn the_first_pauses_after_a_failure_are_no_shorter_than_others() {
    for _ in 0..20 {
        let engine = Engine::new();
        engine.queue.break_down("receive", Network);
        let (running, _stop) = engine.poll(20 * SECOND);
        sleep(SECOND).await;
        let pauses = engine.queue.pauses("receive");
        assert!(pauses.iter().all(|pause| *pause >= ERROR_PAUSE_MIN), "{pauses:?}");
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_ready_from_the_first_answer_to_the_third_failure_in_a_row() {
    let engine = Engine::new();
    let late = Told::FailsLate(SECOND, Network);
    let works = Told::Takes(30 * SECOND);
    let first = Told::Takes(SECOND);
    engine.queue.tell("receive", [first, late, late, works, late, late, late]);
    engine.queue.tell("receive", [Told::Takes(300 * SECOND)]);
    assert!(!engine.is_ready());
    let (_running, _stop) = engine.poll(600 * SECOND);
    let mut states = Vec::new();
    for _ in 0..8 {
        let before = engine.receives();
        while engine.receives() == before {
            sleep(Duration::from_millis(10)).await;
        }
        states.push(engine.health.parts_ready()[0].1);
    }
    assert_eq!(states, [false, true, true, true, true, true, true, false]);
}

/// One outage ends them all: it is no evidence of a second failure.
#[tokio::test(start_paused = true)]
async fn receives_that_fail_together_count_as_one_failure() {
    let mut engine = Engine::new();
    engine.tell_messages("a", 10);
    engine.tell_messages("b", 10);
    engine.tell_messages("c", 10);
    engine.queue.tell("receive", [Told::Takes(SECOND); 3]);
    engine.queue.tell("receive", [Told::FailsLate(SECOND, Network); 4]);
    engine.queue.tell("receive", [Told::Takes(300 * SECOND)]);
    let (_running, _stop) = engine.poll(600 * SECOND);
    sleep(2_500 * SECOND / 1_000).await;
    assert_eq!(engine.receives(), 7, "four are open");
    sleep(5 * SECOND).await;
    assert!(engine.shows("sqs_poll_errors_total 4"));
    assert!(engine.health.parts_ready()[0].1);
    assert_eq!(engine.receives(), 8, "one at a time after a failure");
}

#[tokio::test(start_paused = true)]
async fn full_replies_open_more_receives_and_others_fewer() {
    let mut engine = Engine::new();
    for n in 0..7 {
        engine.tell_messages(&format!("m{n}"), 10);
    }
    engine.queue.tell("receive", [Told::Takes(SECOND); 100]);
    let (_running, _stop) = engine.poll(20 * SECOND);
    sleep(10 * SECOND).await;
    let asked = engine.queue.asked("receive");
    let begun = |second: u64| asked.iter().filter(|asked| asked.at.as_secs() == second).count();
    assert_eq!([0, 1, 2].map(begun), [1, 2, 4]);
    assert_eq!([8, 9].map(begun), [1, 1], "the queue is quiet");
}

#[tokio::test(start_paused = true)]
async fn replies_that_are_empty_early_are_spaced_out() {
    for wait in [Duration::ZERO, 20 * SECOND] {
        let mut engine = Engine::new();
        for _ in 0..6 {
            engine.tell_messages("", 0);
        }
        engine.tell_messages("one", 1);
        let (_running, _stop) = engine.poll(wait);
        sleep(5 * SECOND).await;
        let ms: Vec<_> = engine.queue.pauses("receive").iter().map(Duration::as_millis).collect();
        // A reply with a message: the next receive begins at once.
        let wanted = [100, 200, 400, 800, 1_000, 1_000, 0, 100, 200];
        let near = |(seen, wanted): (&u128, u128)| (wanted..=wanted + 3).contains(seen);
        assert!(ms.iter().zip(wanted).all(near), "{ms:?}");
        assert!(ms.len() >= wanted.len());
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_no_longer_that_of_a_pause_which_ends_while_a_receive_is_answered() {
    let mut engine = Engine::new();
    for prefix in ["a", "b", "c"] {
        engine.tell_messages(prefix, 10);
    }
    // Two are open from the first second on; one of them is answered in the pause.
    engine.queue.tell("receive", [1, 10, 5].map(|s| Told::Takes(s * SECOND)));
    engine.queue.tell("receive", [Told::Takes(300 * SECOND); 8]);
    let controls = Arc::new(Controls::new(Arc::clone(&engine.settler.metrics)));
    let (_running, _stop) = engine.poll_under(Arc::clone(&controls), 600 * SECOND);
    sleep(3 * SECOND).await;
    controls.pause(600 * SECOND, String::new());
    sleep(5 * SECOND).await;
    engine.health.polling(false);
    assert!(engine.is_ready(), "it receives nothing because it is told so");
    // The other one is answered at the moment of the end.
    sleep(3 * SECOND).await;
    controls.resume();
    sleep(SECOND).await;
    assert!(engine.receives() > 3, "it receives again");
    engine.health.polling(false);
    assert!(!engine.is_ready(), "it is not paused any more");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_while_deletes_fail() {
    let engine = Engine::new();
    engine.note_denied(QueueAction::Delete);
    let (_running, _stop) = engine.poll(20 * SECOND);
    // Not at a time at which it looks by itself.
    sleep(600 * SECOND + SECOND / 3).await;
    assert_eq!(engine.receives(), 0);
    assert!(engine.health.alive().is_ok(), "the loop waits as it is meant to");
    engine.actions.note(QueueAction::Delete, Instant::now(), Ok(()));
    sleep(Duration::from_millis(100)).await;
    assert!(engine.receives() > 0, "it is told of the change");
}

#[tokio::test(start_paused = true)]
async fn without_extensions_one_message_is_received_with_a_long_lease() {
    let mut engine = Engine::new();
    engine.note_denied(QueueAction::Extend);
    engine.tell_messages("m", 1);
    let (_running, _stop) = engine.poll(20 * SECOND);
    sleep(60 * SECOND).await;
    let asked = engine.queue.asked("receive");
    assert_eq!((asked.len(), asked[0].entries.len()), (1, 1), "it is held");
    assert_eq!(asked[0].hidden, 900 * SECOND);
    assert_eq!(engine.table.held(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_extensions_a_service_that_is_away_is_probed_with_messages_far_apart() {
    use crate::inflight::ParkedAs;
    use crate::outage::Dependency;
    let mut engine = Engine::new();
    engine.note_denied(QueueAction::Extend);
    let parked = engine.begun("parked").await;
    let how = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
    let key = parked.key;
    engine.table.park(parked, Dependency::Inventory, how);
    engine.table.set_away(Dependency::Inventory, true);
    engine.tell_messages("m", 1);
    let (_running, _stop) = engine.poll(20 * SECOND);
    sleep(30 * SECOND + SECOND / 3).await;
    assert_eq!(engine.receives(), 0, "the parked event is enough");
    engine.table.unpark(Dependency::Inventory, 1);
    let parked = engine.start().unwrap();
    assert_eq!(parked.key, key);
    drop(engine.table.take(&parked));
    sleep(SECOND / 10).await;
    let asked = engine.queue.asked("receive");
    assert_eq!((asked.len(), asked[0].hidden), (1, 3_600 * SECOND), "told that one has left");
    let probe = engine.start().unwrap();
    drop(engine.table.take(&probe));
    sleep(5 * SECOND).await;
    assert_eq!(engine.receives(), 1, "the last probe is not long ago");
    sleep(10 * SECOND).await;
    assert!(engine.receives() > 1);
}

#[tokio::test(start_paused = true)]
async fn at_the_stop_the_open_receive_is_awaited_and_what_it_brings_handed_back() {
    let mut engine = Engine::new();
    engine.admit("held", "held").await;
    let mut messages = vec![engine.message("new", "new"), engine.message("held", "held")];
    messages[1].receive_count = 2;
    engine.queue.messages.lock().unwrap().push_back(messages);
    engine.queue.tell("receive", [Told::Takes(5 * SECOND)]);
    let (running, stop) = engine.poll(20 * SECOND);
    sleep(SECOND).await;
    stop.cancel();
    sleep(SECOND).await;
    assert!(!running.is_finished());
    running.await.unwrap();
    engine.settled().await;
    let handed_back = engine.queue.asked("hand_back");
    assert_eq!(handed_back.len(), 1);
    assert!(handed_back[0].entries.len() == 1 && handed_back[0].entries[0].starts_with("new#"));
    assert_eq!(handed_back[0].hidden, Duration::ZERO);
    assert_eq!(engine.left(Disposition::Replaced), 1, "its job has a newer receipt");
    assert_eq!((engine.table.held(), engine.receives()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_last_receive_that_fails_ends_the_loop() {
    let engine = Engine::new();
    engine.queue.tell("receive", [Told::FailsLate(5 * SECOND, Network)]);
    let (running, stop) = engine.poll(20 * SECOND);
    sleep(SECOND).await;
    stop.cancel();
    running.await.unwrap();
    assert_eq!(engine.receives(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_those_asked_for_are_left_to_the_queue() {
    let mut engine = Engine::new();
    engine.tell_messages("m", 12);
    engine.queue.tell("receive", [Told::Works, Told::Takes(300 * SECOND)]);
    let (_running, _stop) = engine.poll(600 * SECOND);
    sleep(SECOND).await;
    assert_eq!((engine.table.held(), engine.left(Disposition::Unsettled)), (10, 2));
    assert_eq!(engine.settler.account.received_total(), 12);
    assert!(engine.shows("worker_messages_received_total 12"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_received_again_replaces_its_receipt() {
    let mut engine = Engine::new();
    engine.admit("e1", "e1").await;
    engine.receive_count = 2;
    let again = engine.message("e1", "e1");
    engine.queue.messages.lock().unwrap().push_back(vec![again]);
    let (_running, _stop) = engine.poll(20 * SECOND);
    sleep(SECOND).await;
    assert_eq!((engine.table.held(), engine.table.extended()), (1, 1));
    assert_eq!(engine.left(Disposition::Replaced), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_loop_is_not_stuck_and_one_without_beats_is() {
    let engine = Engine::new();
    engine.queue.tell("receive", [Told::Takes(20 * SECOND); 60]);
    let (running, _stop) = engine.poll(20 * SECOND);
    for _ in 0..100 {
        sleep(7 * SECOND).await;
        assert!(engine.health.alive().is_ok());
    }
    running.abort();
    sleep(turn_max(20 * SECOND) + 2 * SECOND).await;
    assert!(engine.health.alive().is_err());
}
