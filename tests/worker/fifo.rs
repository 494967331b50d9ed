//! FIFO queues: the events of a message group are handled one by one, whatever their reservations.
//! When one is handed back, the later ones of its group are handed back too.

use std::time::Duration;

use reservation_worker::handler::Services;
use reservation_worker::queue::{Queue as _, ReceiptHandle};
use reservation_worker::settle::account::Disposition;
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

/// Returns the reservations of the calls since call number `since`, without repeats in a row.
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

/// Makes a received message visible again early, by its receipt handle.
async fn show_again(world: &World, message_id: &str) {
    let entries = world.sqs.ledger(&world.queue).entries;
    let received = entries.iter().rfind(|entry| {
        entry.message_id.as_deref() == Some(message_id)
            && matches!(entry.outcome, Outcome::Delivered { .. })
    });
    let handle = received.unwrap().receipt_handle.as_deref().unwrap();
    let queue = world.sqs_queue(&settings()).await;
    let change = [(ReceiptHandle(handle.into()), Duration::ZERO)];
    assert_eq!(queue.hand_back(&change).await.unwrap(), [Ok(())]);
}

#[tokio::test]
async fn a_group_is_handled_in_order_and_does_not_hold_up_other_groups() {
    let world = World::fifo().await;
    let names = ["r0", "r1", "r2", "r3", "r4", "r5"];
    send_all(&world, "g", names);
    send_all(&world, "h", ["s0", "s1"]);
    let (worker, gate) = world.gated(&["r0"], |_| {}).await;
    eventually("the other group is done", || world.methods("s1") == ["PATCH", "ReleaseHold"]).await;
    eventually("all are received", || worker.app.account().received_total() == 8).await;
    assert_eq!(gate.entered().iter().filter(|name| names.contains(&name.as_str())).count(), 1);
    gate.open();
    world.emptied().await;
    assert_eq!(turns(&world, &names, 0), names);
    assert_eq!(turns(&world, &["s0", "s1"], 0), ["s0", "s1"]);
    assert_eq!(worker.outcomes("reservation.expired"), [8.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_that_waits_for_its_retry_blocks_its_group() {
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
async fn the_release_of_an_event_hands_back_the_later_ones_of_its_group_in_order() {
    let world = World::fifo().await;
    let names = ["r0", "r1", "r2"];
    world.api.script_for("r0", [500, 500, 500].map(Http::status));
    let ids = send_all(&world, "g", names);
    send_all(&world, "h", ["s0"]);
    // With a higher in-flight limit, the group would wait here.
    let worker =
        world.worker_with(|settings| (settings.in_flight_max, settings.concurrency) = (4, 2)).await;
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
    assert_eq!(account.left_total(Disposition::HandedBack), 3);
}

#[tokio::test]
async fn a_group_continues_after_its_head_is_copied_to_the_dead_letter_queue() {
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
    assert!(at("r1") >= begun + second, "r1 was called before the copy of the poison");
    assert!(at("r2") >= at("r1") + second, "r2 was called before the copy of r1");
    let dead_letters = world.dead_letters();
    let originals =
        dead_letters.iter().map(|l| l.attributes["dlq_message_id"].string_value.as_deref());
    assert_eq!(originals.collect::<Vec<_>>(), [Some(poison.as_str()), Some(refused.as_str())]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn poison_that_cannot_be_copied_is_held_and_blocks_its_group() {
    let world = World::fifo().await;
    let refused = Fault::Error(ErrorCode::AccessDenied);
    world.sqs.faults(&world.dlq).fail_sometimes(Action::SendMessage, 1.0, refused);
    let poison = send_to(&world, "g", "poison", "not json".to_owned());
    let [later] = send_all(&world, "g", ["r0"]);
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(5)).await;
    let extended = || worker.metric("worker_lease_extensions_total") >= 6.0;
    eventually("both are held for longer than a lease", extended).await;
    assert_eq!(world.methods("r0"), [""; 0]);
    world.sqs.faults(&world.dlq).clear();
    world.emptied().await;
    // Neither was received a second time.
    assert_eq!((world.deliveries(&poison), world.deliveries(&later)), (1, 1));
    assert_eq!(world.dead_letters().len(), 1);
    assert_eq!(world.methods("r0"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_group_that_is_parked_is_handed_back_whole_and_keeps_its_order() {
    let world = World::fifo().await;
    world.api.go_down().await.unwrap();
    let groups = ["g", "h", "i", "j", "k"];
    let names = groups.map(|group| [0, 1].map(|n| format!("{group}{n}")));
    let ids: Vec<_> = (groups.iter().zip(&names))
        .flat_map(|(group, names)| send_all(&world, group, names.each_ref().map(String::as_str)))
        .collect();
    let services = world.services();
    let worker = world.worker_of(services.clone(), |_| {}).await;
    // The heads of the groups, five reservations, are parked; the others wait behind them.
    eventually("all groups are parked", || worker.parked() == 5.0).await;
    eventually("all are received", || worker.app.account().received_total() == 10).await;
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::HandedBack), 10);
    for id in &ids {
        assert_eq!(world.hidden_for(id), [0]);
    }
    world.api.come_back().await.unwrap();
    let next = Services { outages: world.services().outages, ..services };
    let worker = world.worker_of(next, |_| {}).await;
    world.emptied().await;
    for names in &names {
        let names = names.each_ref().map(String::as_str);
        assert_eq!(turns(&world, &names, 0), names);
    }
    assert!(ids.iter().all(|id| world.deliveries(id) == 2));
    worker.drain().await;
}

/// Two failing heads do not open the circuit breaker: each waits for its own retry.
#[tokio::test]
async fn a_group_with_a_failing_head_keeps_its_order_and_does_not_affect_others() {
    let world = World::fifo().await;
    let bad = ["g", "h"];
    for group in bad {
        world.api.script_for(&format!("{group}0"), vec![Http::status(503); 10_000]);
        send_all(
            &world,
            group,
            [0, 1, 2].map(|n| format!("{group}{n}")).each_ref().map(String::as_str),
        );
    }
    let worker = world.worker().await;
    eventually("each head has failed often", || {
        bad.iter().all(|group| world.methods(&format!("{group}0")).len() >= 5)
    })
    .await;
    let good: Vec<_> = (0..20).map(|n| format!("s{n}")).collect();
    for name in &good {
        send_to(&world, name, name, expired(&format!("evt-{name}"), name).to_string());
    }
    eventually("other groups are done", || world.sqs.counts(&world.queue).total() == 6).await;
    eventually("both are suspects", || worker.suspects("reservation") == 2.0).await;
    assert_eq!((worker.breaker("reservation"), worker.parked()), (0.0, 0.0));
    world.api.clear_script();
    world.emptied().await;
    for group in bad {
        let names = [0, 1, 2].map(|n| format!("{group}{n}"));
        let names = names.each_ref().map(String::as_str);
        assert_eq!(turns(&world, &names, 0), names);
    }
    assert_eq!(worker.outcomes("reservation.expired")[..3], [26.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

/// If the group were handed back, each event would use up a receive because of the head.
#[tokio::test]
async fn a_group_is_held_for_a_head_whose_retries_are_used_up() {
    let world = World::fifo_redriving(3).await;
    world.api.script_for("r0", [500, 500, 500].map(Http::status));
    let ids = send_all(&world, "g", ["r0", "r1", "r2"]);
    let worker = world.worker().await;
    eventually("the retries are used up", || worker.outcomes("reservation.expired")[3] == 3.0)
        .await;
    eventually("the head waits", || worker.waiting() == 1.0).await;
    assert!(ids.iter().all(|id| world.hidden_for(id).is_empty()));
    assert_eq!(worker.outcomes("reservation.expired"), [0.0, 0.0, 0.0, 3.0]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::HandedBack), 3);
    let after = world.hidden_for(&ids[0]);
    assert!(after.len() == 1 && (25..=30).contains(&after[0]), "the rest of its wait: {after:?}");
    assert!(ids[1..].iter().all(|id| world.hidden_for(id) == [0]));
    assert!(ids.iter().all(|id| world.deliveries(id) == 1));
}

#[tokio::test]
async fn a_head_without_receives_left_is_dead_lettered_and_its_group_continues() {
    let world = World::fifo_redriving(1).await;
    let names = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];
    world.api.script_for("r0", vec![Http::status(500); 100]);
    let ids = send_all(&world, "g", names);
    let worker = world.worker().await;
    world.emptied().await;
    let dead_letters = world.dead_letters();
    assert_eq!(
        dead_letters.iter().map(|dead_letter| dead_letter.group.as_deref()).collect::<Vec<_>>(),
        [Some("g")]
    );
    let attribute = |name: &str| dead_letters[0].attributes[name].string_value.as_deref();
    assert_eq!(attribute("dlq_message_id"), Some(ids[0].as_str()));
    assert_eq!(attribute("dlq_reason"), Some("retries_used_up"));
    assert_eq!(turns(&world, &names, 0), names);
    assert!(ids.iter().all(|id| world.deliveries(id) == 1));
    assert_eq!(worker.outcomes("reservation.expired"), [7.0, 1.0, 0.0, 2.0]);
    worker.finish(&world).await;
}

/// SQS delivers no more of a group until its messages are deleted. The delete waits for no batch.
#[tokio::test]
async fn a_handled_message_of_a_fifo_queue_is_deleted_at_once() {
    let world = World::fifo().await;
    let worker = world.worker().await;
    let mut lags = Vec::new();
    for n in 0..8 {
        let name = format!("r{n}");
        send_all(&world, "g", [name.as_str()]);
        world.emptied().await;
        lags.push(world.ledger.calls_for(&name)[1].at.elapsed());
    }
    let shortest = lags.iter().min().unwrap();
    assert!(*shortest < Duration::from_millis(80), "{lags:?}");
    worker.finish(&world).await;
}

/// SQS drops a message whose deduplication id it has seen within five minutes, and reports success.
#[tokio::test]
async fn poison_that_was_redriven_is_copied_again() {
    let world = World::fifo_redriving(3).await;
    let worker = world.worker().await;
    send_to(&world, "g", "first", "not json".to_owned());
    eventually("the poison is copied", || world.dead_letters().len() == 1).await;
    let copy = world.dead_letters().remove(0);
    let original = copy.attributes["dlq_message_id"].string_value.clone().unwrap();
    world.send_message(NewMessage {
        group: Some("g".to_owned()),
        deduplication_id: Some("second".to_owned()),
        ..NewMessage::new("not json").attribute("dlq_message_id", original)
    });
    eventually("the redriven one is copied too", || world.dead_letters().len() == 2).await;
    world.emptied().await;
    worker.finish(&world).await;
}
