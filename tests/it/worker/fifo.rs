//! FIFO queues: the events of a message group one after another, whatever their reservations; what goes back takes
//! along what comes after it.

use std::time::Duration;

use reservation_worker::handler::Services;
use reservation_worker::queue::{Queue as _, ReceiptHandle};
use reservation_worker::settle::ledger::Left;
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::Scripted;
use sandbox::sqs::{Action, ErrorCode, Fault, NewMessage, Outcome};
use tokio::time::Instant;

use crate::support::{World, eventually, expired, settings};

type Http = Scripted<HttpReply>;

/// Sends a message to a group.
fn send_to(world: &World, group: &str, id: &str, body: String) -> String {
    world.send_message(NewMessage {
        group: Some(group.to_owned()),
        deduplication_id: Some(id.to_owned()),
        ..NewMessage::new(body)
    })
}

/// Sends an event for each reservation to a group.
fn send_all<const N: usize>(world: &World, group: &str, names: [&str; N]) -> [String; N] {
    names.map(|name| {
        let id = format!("evt-{name}");
        send_to(world, group, &id, expired(&id, name).to_string())
    })
}

/// Whose calls came one after another, from call number `since` on, and whose turn it was how often.
fn turns(world: &World, names: &[&str], since: u64) -> Vec<String> {
    let mut turns = Vec::new();
    for call in world.ledger.calls_since(since) {
        if names.contains(&call.reservation_id.as_str()) {
            turns.push(call.reservation_id);
        }
    }
    turns.dedup();
    turns
}

/// Makes a message visible again before its time, by the handle that it was received with.
async fn show_again(world: &World, message_id: &str) {
    let entries = world.sqs.ledger(&world.queue).entries;
    let received = entries.iter().rfind(|entry| {
        entry.message_id.as_deref() == Some(message_id)
            && matches!(entry.outcome, Outcome::Delivered { .. })
    });
    let handle = received.unwrap().receipt_handle.as_deref().unwrap();
    let queue = world.sqs_queue(&settings()).await;
    let change = [(ReceiptHandle(handle.into()), Duration::ZERO)];
    assert_eq!(queue.change_visibility(&change).await.unwrap(), [Ok(())]);
}

#[tokio::test]
async fn a_group_is_handled_in_order_over_its_reservations_and_other_groups_do_not_wait() {
    let world = World::fifo().await;
    let names = ["r0", "r1", "r2", "r3", "r4", "r5"];
    send_all(&world, "g", names);
    send_all(&world, "h", ["s0", "s1"]);
    let (worker, gate) = world.gated(&["r0"], |_| {}).await;
    eventually("the other group is done", || world.methods("s1") == ["PATCH", "ReleaseHold"]).await;
    eventually("all are received", || worker.app.ledger().received_total() == 8).await;
    assert_eq!(gate.entered().iter().filter(|name| names.contains(&name.as_str())).count(), 1);
    gate.open();
    world.emptied().await;
    assert_eq!(turns(&world, &names, 0), names);
    assert_eq!(turns(&world, &["s0", "s1"], 0), ["s0", "s1"]);
    assert_eq!(worker.outcomes("reservation.expired"), [8.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_that_waits_for_its_retry_holds_its_group_back() {
    let world = World::fifo().await;
    let names = ["r0", "r1", "r2"];
    world.api.script_for("r0", [500, 500].map(Http::status));
    send_all(&world, "g", names);
    let worker = world.worker().await;
    world.emptied().await;
    assert_eq!(world.methods("r0"), ["PATCH", "PATCH", "PATCH", "ReleaseHold"]);
    assert_eq!(turns(&world, &names, 0), names);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_that_is_released_takes_the_later_ones_of_its_group_back_and_they_keep_their_order()
 {
    let world = World::fifo().await;
    let names = ["r0", "r1", "r2"];
    world.api.script_for("r0", [500, 500, 500].map(Http::status));
    let ids = send_all(&world, "g", names);
    send_all(&world, "h", ["s0"]);
    let worker = world.worker().await;
    assert_eq!(world.released(&ids[0]).await, 30);
    eventually("the later ones are back", || ids[1..].iter().all(|id| world.hidden_for(id) == [0]))
        .await;
    eventually("the other group is done", || world.methods("s0") == ["PATCH", "ReleaseHold"]).await;
    assert_eq!(world.methods("r0"), ["PATCH"; 3]);
    assert_eq!([world.methods("r1"), world.methods("r2")], [[""; 0]; 2]);
    let since = world.ledger.totals().calls;

    show_again(&world, &ids[0]).await;
    world.emptied().await;
    assert_eq!(turns(&world, &names, since), names);
    assert!(ids.iter().all(|id| world.deliveries(id) == 2));
    assert_eq!(worker.outcomes("reservation.expired"), [4.0, 1.0, 0.0, 2.0]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Left::HandedBack), 3);
}

#[tokio::test]
async fn what_is_dead_lettered_lets_its_group_go_on_once_it_is_copied() {
    let world = World::fifo().await;
    let second = Duration::from_secs(1);
    world.sqs.faults(&world.dlq).latency(Action::SendMessage, second, Duration::ZERO);
    world.api.script_for("r1", [Http::status(422)]);
    send_all(&world, "g", ["r0"]);
    let poison = send_to(&world, "g", "poison", "not json".to_owned());
    let [refused, _] = send_all(&world, "g", ["r1", "r2"]);
    let begun = Instant::now();
    let worker = world.worker().await;
    world.emptied().await;
    assert_eq!(turns(&world, &["r0", "r1", "r2"], 0), ["r0", "r1", "r2"]);
    let at = |name| world.ledger.calls_for(name)[0].at;
    assert!(at("r1") >= begun + second, "the poison was copied first");
    assert!(at("r2") >= at("r1") + second, "the refused event was copied first");
    let letters = world.dead_letters();
    let originals = letters.iter().map(|l| l.attributes["dlq_message_id"].string_value.as_deref());
    assert_eq!(originals.collect::<Vec<_>>(), [Some(poison.as_str()), Some(refused.as_str())]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn poison_that_cannot_be_copied_takes_the_later_ones_of_its_group_back() {
    let world = World::fifo().await;
    let refused = Fault::Error(ErrorCode::AccessDenied);
    world.sqs.faults(&world.dlq).fail_next(Action::SendMessage, 1, refused);
    let poison = send_to(&world, "g", "poison", "not json".to_owned());
    let [later] = send_all(&world, "g", ["r0"]);
    let worker = world.worker().await;
    assert_eq!(world.released(&poison).await, 30);
    eventually("the later one is back", || world.hidden_for(&later) == [0]).await;
    assert_eq!(world.methods("r0"), [""; 0]);
    show_again(&world, &poison).await;
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), 1);
    assert_eq!(world.methods("r0"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_group_that_waits_for_a_service_is_handed_back_whole_and_keeps_its_order() {
    let world = World::fifo().await;
    world.api.go_down().await.unwrap();
    let (names, others) = (["r0", "r1", "r2"], ["s0", "s1", "s2"]);
    let ids = [send_all(&world, "g", names), send_all(&world, "h", others)].concat();
    let services = world.services();
    let worker = world.worker_of(services.clone(), |_| {}).await;
    // The first of each group; the others wait behind them.
    eventually("both groups wait", || worker.parked() == 2.0).await;
    eventually("all are received", || worker.app.ledger().received_total() == 6).await;
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Left::HandedBack), 6);
    for id in &ids {
        assert_eq!(world.hidden_for(id), [0]);
    }
    world.api.come_back().await.unwrap();
    let next = Services { outages: world.services().outages, ..services };
    let worker = world.worker_of(next, |_| {}).await;
    world.emptied().await;
    assert_eq!(turns(&world, &names, 0), names);
    assert_eq!(turns(&world, &others, 0), others);
    assert!(ids.iter().all(|id| world.deliveries(id) == 2));
    worker.drain().await;
}
