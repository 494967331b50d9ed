//! Copies to the dead-letter queue that fail: tried again, kept, or left to the redrive policy.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::engine::{Engine, LEASE};
use super::told::Told;
use crate::metrics::QueueAction;
use crate::queue::QueueErrorKind::{Denied, Network, NoDeadLetterQueue, Refused};
use crate::settle::DeadLetterReason;
use crate::settle::account::Disposition;

const SECOND: Duration = Duration::from_secs(1);

impl Engine {
    /// Admits an event, and sends it to the dead-letter queue.
    async fn reject(&mut self, id: &str) {
        let job = self.begun(id).await;
        let reason = DeadLetterReason::Rejected;
        self.settler.dead_letter(job, reason, "on purpose".to_owned()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_is_tried_again_and_the_message_deleted_after_it() {
    let mut engine = Engine::new();
    engine.queue.tell("dead_letter", [Told::Fails(Network); 3]);
    engine.reject("e1").await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("dead_letter").len(), 4);
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
    let (copied, deleted) = (engine.queue.asked("dead_letter"), engine.queue.asked("delete"));
    assert!(deleted.len() == 1 && deleted[0].at >= copied[3].at);
    assert!(engine.shows(r#"worker_settlement_failures_total{kind="dead_letter"} 3"#));
    assert!(engine.shows(r#"worker_settlements_total{kind="dead_letter"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_timed_out_is_given_more_time() {
    let mut engine = Engine::new();
    engine.lease = 12 * SECOND;
    // Half of the lease is for copies: a third of that is not enough.
    engine.queue.tell("dead_letter", [Told::Takes(Duration::from_millis(3_000)); 9]);
    engine.reject("e1").await;
    engine.settled().await;
    assert_eq!(engine.queue.asked("dead_letter").len(), 2);
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_sent_is_kept_and_tried_until_it_works() {
    let mut engine = Engine::new();
    engine.lease = 2 * LEASE;
    let began_at = Instant::now();
    engine.queue.break_down("dead_letter", Network);
    engine.reject("e1").await;
    sleep(LEASE - SECOND).await;
    let in_time = engine.queue.asked("dead_letter").len();
    assert!((10..100).contains(&in_time), "{in_time} calls in half of the lease");
    assert!(!engine.actions.is_waited_for(QueueAction::DeadLetter));
    sleep(8 * SECOND).await;
    let kept = engine.queue.asked("dead_letter").len() - in_time;
    assert!((1..=40).contains(&kept), "{kept} probes");
    assert!(engine.actions.is_waited_for(QueueAction::DeadLetter));
    assert!(engine.queue.asked("hand_back").is_empty());
    assert_eq!(engine.table.extended(), 1, "its lease is extended between the probes");
    engine.queue.mend("dead_letter");
    engine.settled().await;
    assert!(began_at.elapsed() <= LEASE + 13 * SECOND, "{:?}", began_at.elapsed());
    assert_eq!(engine.left(Disposition::DeadLettered), 1);
    assert!(!engine.actions.is_waited_for(QueueAction::DeadLetter));
}

/// Each waits in a group of its own; the later messages of a group would come again with it.
#[tokio::test(start_paused = true)]
async fn kept_copies_of_ordered_messages_are_all_sent_once_one_works() {
    const GROUPS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut engine = Engine::new();
    engine.queue.break_down("dead_letter", Denied);
    for group in GROUPS {
        engine.group = Some(group);
        engine.reject(group).await;
    }
    sleep(10 * SECOND).await;
    assert!(engine.queue.asked("hand_back").is_empty(), "all stay held");
    let before = engine.queue.asked("dead_letter").len();
    assert!(before <= 12 + 20, "{before} calls: one message probes for all");
    engine.queue.mend("dead_letter");
    timeout(6 * SECOND, engine.settled()).await.expect("soon after the first probe that works");
    assert_eq!(engine.left(Disposition::DeadLettered), 12);
    assert_eq!(engine.queue.asked("dead_letter").len() - before, 12, "each copy is sent once");
}

#[tokio::test(start_paused = true)]
async fn while_copies_fail_one_message_probes_and_the_others_are_handed_back() {
    let mut engine = Engine::new();
    engine.queue.break_down("dead_letter", Denied);
    engine.reject("e1").await;
    sleep(2 * SECOND).await;
    assert!(engine.actions.is_failing(QueueAction::DeadLetter));
    // The probe may be in progress: then the first of these would be kept in its place.
    engine.receive_count = 3;
    for id in ["e2", "e3"] {
        engine.reject(id).await;
    }
    sleep(SECOND).await;
    let handed_back = engine.queue.asked("hand_back");
    assert_eq!(engine.left(Disposition::HandedBack), 2);
    assert_eq!(handed_back[0].hidden, 120 * SECOND, "longer with each receive");
    let asked = engine.queue.asked("dead_letter");
    assert!(asked.iter().all(|asked| asked.entries == ["message-e1"]), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_copy_is_shortened_step_by_step_and_then_given_up() {
    let mut engine = Engine::new();
    engine.queue.break_down("dead_letter", Refused);
    engine.reject("e1").await;
    engine.settled().await;
    let says: Vec<_> = engine.queue.asked("dead_letter").into_iter().map(|it| it.says).collect();
    let attributes: Vec<usize> =
        says.iter().map(|says| says.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(attributes.windows(2).all(|two| two[1] < two[0]), "{attributes:?}");
    assert_eq!(attributes.last(), Some(&0));
    let handed_back = engine.queue.asked("hand_back");
    assert_eq!(handed_back[0].hidden, 30 * SECOND);
    assert_eq!(engine.left(Disposition::HandedBack), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_dead_letter_queue_a_message_is_hidden_for_long_unless_it_is_ordered() {
    for (group, hidden) in [(None, 11 * 3_600 * SECOND), (Some("g"), 30 * SECOND)] {
        let mut engine = Engine::new();
        engine.group = group;
        engine.queue.break_down("dead_letter", NoDeadLetterQueue);
        engine.reject("e1").await;
        engine.settled().await;
        assert_eq!(engine.queue.asked("dead_letter").len(), 1, "no retry can help");
        assert_eq!(engine.queue.asked("hand_back")[0].hidden, hidden);
    }
}

/// They would be handled before it, although it comes again.
#[tokio::test(start_paused = true)]
async fn the_later_messages_of_its_group_go_back_with_a_copy_that_is_given_up() {
    let mut engine = Engine::new();
    engine.group = Some("g");
    engine.queue.break_down("dead_letter", NoDeadLetterQueue);
    let first = engine.begun("e1").await;
    engine.admit("e2", "another").await;
    engine.settler.dead_letter(first, DeadLetterReason::Rejected, String::new()).await;
    engine.settled().await;
    assert!(engine.start().is_none());
    assert_eq!(engine.table.take_abandoned().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn kept_copies_are_handed_back_at_the_end_and_none_is_kept_from_then_on() {
    let mut engine = Engine::new();
    engine.queue.break_down("dead_letter", Denied);
    engine.reject("e1").await;
    sleep(12 * SECOND).await;
    let closing_at = Instant::now();
    let closed = engine.close().await;
    assert!(closing_at.elapsed() < Duration::from_millis(10), "the next probe is not waited for");
    assert_eq!(closed.account.left_total(Disposition::HandedBack), 1);
    assert_eq!(closed.queue.asked("hand_back")[0].hidden, 30 * SECOND);

    let mut engine = Engine::new();
    engine.queue.break_down("dead_letter", Denied);
    engine.reject("e1").await;
    let closed = engine.close().await;
    assert_eq!(closed.account.left_total(Disposition::HandedBack), 1);
    assert_eq!(closed.queue.asked("dead_letter").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kept_copy_whose_lease_ends_is_left_to_the_next_receiver() {
    let mut engine = Engine::new();
    engine.queue.break_down("dead_letter", Denied);
    engine.reject("e1").await;
    engine.settled().await;
    assert_eq!(engine.left(Disposition::Unsettled), 1);
    assert!(engine.queue.asked("delete").is_empty());
    engine.reject("e2").await;
    sleep(SECOND).await;
    engine.queue.mend("dead_letter");
    engine.settled().await;
    assert_eq!(engine.left(Disposition::DeadLettered), 1, "the next one is tried again");
}
