//! Fair queues: on a standard queue a message group names a tenant and has no order.

use reservation_worker::settle::account::Disposition;
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::Scripted;
use sandbox::sqs::NewMessage;

use crate::support::{World, eventually, expired};

type Http = Scripted<HttpReply>;

const TENANT: &str = "promoter-7";

/// Sends a message of the tenant.
fn send(world: &World, body: String) -> String {
    world.send_message(NewMessage { group: Some(TENANT.to_owned()), ..NewMessage::new(body) })
}

#[tokio::test]
async fn the_events_of_a_tenant_are_handled_concurrently() {
    let world = World::start().await;
    for n in 0..20 {
        send(&world, expired(&format!("evt-{n}"), &format!("r{n}")).to_string());
    }
    let (worker, gate) = world.gated(&["*"], |settings| settings.concurrency = 20).await;
    eventually("all are being handled", || gate.entered().len() == 20).await;
    gate.open();
    world.emptied().await;
    assert_eq!(worker.outcomes("reservation.expired"), [20.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

/// `maxReceiveCount` is 3: events that are handed back with another would be dead-lettered untried.
#[tokio::test]
async fn the_release_of_an_event_does_not_affect_others_of_its_tenant() {
    let world = World::redriving(3).await;
    world.api.script_for("bad", vec![Http::status(500); 100]);
    let bad = send(&world, expired("evt-bad", "bad").to_string());
    let good: Vec<_> = (0..8)
        .map(|n| send(&world, expired(&format!("evt-{n}"), &format!("r{n}")).to_string()))
        .collect();
    let worker = world.worker().await;
    assert_eq!(world.released(&bad).await, 30);
    eventually("only the bad one is left", || world.sqs.counts(&world.queue).total() == 1).await;
    assert!(good.iter().all(|id| world.deliveries(id) == 1));
    assert_eq!(worker.outcomes("reservation.expired"), [8.0, 1.0, 0.0, 2.0]);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::HandedBack), 1);
}

#[tokio::test]
async fn a_dead_letter_keeps_the_message_group() {
    let world = World::start().await;
    send(&world, "not json".to_owned());
    world.api.script_for("refused", [Http::status(422)]);
    send(&world, expired("evt-refused", "refused").to_string());
    world.send_message(NewMessage::new("not json either"));
    let worker = world.worker().await;
    world.emptied().await;
    let mut tenants: Vec<_> = world.dead_letters().into_iter().map(|l| (l.group, l.body)).collect();
    tenants.sort();
    let tenant = Some(TENANT.to_owned());
    assert_eq!(
        tenants.iter().map(|(group, _)| group).collect::<Vec<_>>(),
        [&None, &tenant, &tenant]
    );
    worker.finish(&world).await;
}
