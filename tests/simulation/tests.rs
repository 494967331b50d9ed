//! Tests of the simulated queue and of the order check.

use std::sync::Arc;
use std::time::Duration;

use reservation_worker::queue::{EntryError, Queue, ReceiptHandle};
use tokio::time::advance;

use super::order::{Lane, Order};
use super::plan::{Kind, MessageSpec, Plan, QueueWeather, secs};
use super::queue::{Change, State};
use super::sqs::SimQueue;
use super::world::Sim;

const LANE: Lane = Lane::Reservation(0);

/// A world with three poison messages, no faults and a running process.
fn sim(fifo: bool, max_receives: u32) -> Arc<Sim> {
    let mut plan = Plan::draw(0);
    plan.fifo = fifo;
    plan.has_dlq = true;
    plan.max_receives = max_receives;
    plan.queue = QueueWeather::default();
    plan.interrupts.clear();
    plan.settings.in_flight_max = 1_000;
    plan.settings.visibility = secs(31);
    plan.settings.wait = secs(20);
    plan.calm_at = secs(0);
    plan.messages = (0..3)
        .map(|_| MessageSpec {
            at: secs(0),
            kind: Kind::Poison("invalid_json"),
            body: "{".to_owned(),
            group: fifo.then_some(0),
        })
        .collect();
    let sim = Arc::new(Sim::new(plan, true));
    sim.lock().begin_life();
    sim
}

fn queue(sim: &Arc<Sim>) -> SimQueue {
    SimQueue { sim: Arc::clone(sim), life: 1 }
}

/// Receives until `count` messages are held.
async fn receive(queue: &SimQueue, count: usize) -> Vec<ReceiptHandle> {
    let mut handles = Vec::new();
    while handles.len() < count {
        let messages = queue.receive(10, secs(30)).await.expect("no faults are planned");
        handles.extend(messages.into_iter().map(|message| message.handle));
    }
    handles
}

#[tokio::test(start_paused = true)]
async fn a_message_is_hidden_until_its_visibility_timeout_ends() {
    let sim = sim(false, 10);
    let queue = queue(&sim);
    assert_eq!(receive(&queue, 3).await.len(), 3);
    assert!(
        queue.receive(10, secs(30)).await.expect("no faults are planned").is_empty(),
        "all messages are hidden for longer than the long poll"
    );
    advance(secs(31)).await;
    assert_eq!(receive(&queue, 3).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stale_handle_deletes_nothing_and_extends_nothing() {
    let sim = sim(false, 10);
    let queue = queue(&sim);
    let old = receive(&queue, 3).await;
    advance(secs(31)).await;
    receive(&queue, 3).await;
    for _ in 0..20 {
        let answers = queue.delete(&old).await.expect("no faults are planned");
        assert!(answers.iter().all(|a| !matches!(a, Err(EntryError::Retry(_)))), "{answers:?}");
    }
    let changes: Vec<_> = old.iter().map(|handle| (handle.clone(), Duration::ZERO)).collect();
    let answers = queue.hand_back(&changes).await.expect("no faults are planned");
    assert!(answers.iter().all(|answer| matches!(answer, Err(EntryError::Lost(_)))));
    assert!(sim.lock().queue.msgs.iter().all(|msg| msg.state == State::Live));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_without_a_copy_or_an_effect_is_a_violation() {
    let sim = sim(false, 10);
    let queue = queue(&sim);
    let handles = receive(&queue, 1).await;
    queue
        .delete(&handles[..1])
        .await
        .expect("no faults are planned")
        .remove(0)
        .expect("the receipt is valid");
    let violations = sim.lock().violations.clone();
    assert!(violations[0].contains("deleted before its effects"), "{violations:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_received_too_often_is_redriven() {
    let sim = sim(false, 2);
    let queue = queue(&sim);
    for _ in 0..2 {
        receive(&queue, 3).await;
        advance(secs(31)).await;
    }
    assert!(queue.receive(10, secs(30)).await.expect("no faults are planned").is_empty());
    assert!(sim.lock().queue.msgs.iter().all(|msg| msg.state == State::Redriven));
}

#[tokio::test(start_paused = true)]
async fn a_group_is_locked_while_one_of_its_messages_is_in_flight() {
    let sim = sim(true, 10);
    {
        let mut world = sim.lock();
        assert_eq!(world.queue.visible(secs(0), true), [0, 1, 2]);
        let receipt = world.hand_out(0, secs(30)).expect("the message is not redriven");
        assert!(world.queue.visible(secs(1), true).is_empty());
        assert!(world.change(receipt, Change::Extend(secs(9))));
        assert!(world.queue.visible(secs(8), true).is_empty());
        assert_eq!(world.queue.visible(secs(9), true), [0, 1, 2]);
    }
}

#[test]
fn overtaking_is_detected_and_waiting_is_allowed() {
    let mut order = Order::default();
    order.received(LANE, "a", 0);
    order.received(LANE, "b", 1);
    assert_eq!(order.called(LANE, "a"), Ok(false));
    order.settled(LANE, "a", 0);
    assert_eq!(order.called(LANE, "b"), Ok(true), "b waited for a");
    order.received(LANE, "c", 2);
    order.received(LANE, "d", 3);
    assert_eq!(order.called(LANE, "d"), Ok(false));
    assert_eq!(order.called(LANE, "c"), Err("d".to_owned()));
}

#[test]
fn a_message_received_again_may_lose_its_place() {
    let mut order = Order::default();
    order.received(LANE, "a", 0);
    order.received(LANE, "b", 1);
    assert_eq!(order.called(LANE, "b"), Ok(false));
    order.received(LANE, "a", 0);
    assert_eq!(order.called(LANE, "a"), Ok(false));
}
