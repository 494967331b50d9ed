//! A real SIGTERM while events are parked, while a probe has no answer yet, and while deletes are
//! on their way.

use std::time::{Duration, Instant};

use sandbox::reservation_api::Reply;
use sandbox::script::Scripted;
use sandbox::sqs::{Action, MessageState};
use serde_json::{Value, json};
use tokio::time::timeout;

use sandbox::testing::program::{Running, env};
use sandbox::testing::world::{LIMIT, World, expired};

/// Sends SIGTERM and returns the message account of the clean end.
async fn left(worker: &mut Running) -> Value {
    let begun = Instant::now();
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log());
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let account: Value = serde_json::from_str(worker.log().lines().last().unwrap()).unwrap();
    assert_eq!((&account["msg"], &account["balanced"]), (&json!("Stopped"), &json!(true)));
    account
}

/// Checks that all messages are visible and were received once.
fn are_back(world: &World, count: usize) {
    let messages = world.sqs.peek_all(&world.queue);
    assert_eq!(messages.len(), count);
    for message in messages {
        assert_eq!((message.receive_count, message.state), (1, MessageState::Visible));
    }
    assert_eq!(world.sqs.peek_all(&world.dlq), []);
}

async fn parked(worker: &Running, count: usize) {
    let line = format!("worker_messages_in_flight{{state=\"parked\"}} {count}\n");
    let waiting = async { while !worker.answers("/metrics", 200).await.contains(&line) {} };
    assert!(timeout(LIMIT, waiting).await.is_ok(), "not all are parked: {}", worker.log());
}

#[tokio::test]
async fn parked_events_are_visible_again_after_sigterm() {
    let world = World::start().await;
    world.api.go_down().await.unwrap();
    let mut worker = Running::started(&env(&world)).await;
    for n in 0..30 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    parked(&worker, 30).await;
    let account = left(&mut worker).await;
    assert_eq!((&account["received"], &account["handed_back"]), (&json!(30), &json!(30)));
    are_back(&world, 30);
}

#[tokio::test]
async fn an_event_whose_probe_times_out_is_handed_back_with_the_others() {
    let world = World::start().await;
    world.api.go_down().await.unwrap();
    let mut variables = env(&world);
    variables.insert("RESERVATION_TIMEOUT_MS", "2000".to_owned());
    let mut worker = Running::started(&variables).await;
    for n in 0..10 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    parked(&worker, 10).await;
    // The service is back but does not answer: the next probe is open for two seconds.
    let minute = Duration::from_secs(60);
    world.api.script((0..20).map(|_| Scripted::<Reply>::hang_up().delayed(minute)));
    world.api.come_back().await.unwrap();
    assert!(world.ledger.wait_until(|ledger| ledger.totals().calls == 1, LIMIT).await);
    let account = left(&mut worker).await;
    assert_eq!((&account["received"], &account["handed_back"]), (&json!(10), &json!(10)));
    are_back(&world, 10);
}

#[tokio::test]
async fn deletes_in_progress_are_finished_after_sigterm() {
    let world = World::start().await;
    let mut worker = Running::started(&env(&world)).await;
    let second = Duration::from_secs(1);
    world.sqs.faults(&world.queue).latency(Action::DeleteMessageBatch, second, Duration::ZERO);
    for n in 0..30 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    assert!(world.ledger.wait_until(|ledger| ledger.totals().effects == 60, LIMIT).await);
    assert_eq!(world.sqs.counts(&world.queue).total(), 30, "a message is deleted already");
    let account = left(&mut worker).await;
    assert_eq!((&account["received"], &account["deleted"]), (&json!(30), &json!(30)));
    assert_eq!(world.sqs.counts(&world.queue).total(), 0);
}
