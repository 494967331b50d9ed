//! Events that are parked for a service count as in flight, keep their leases, and are handed back
//! on a drain.

use std::time::Duration;

use reservation_worker::handler::Services;
use reservation_worker::settle::account::Disposition;
use sandbox::sqs::MessageState;
use tokio::time::Instant;

use crate::support::{World, eventually, expired};

const EXTENDED: &str = "worker_lease_extensions_total";
const LOST: &str = "worker_leases_lost_total";

#[tokio::test]
async fn no_message_is_received_while_the_in_flight_limit_is_parked() {
    let world = World::redriving(3).await;
    world.api.go_down().await.unwrap();
    let worker = world.worker_with(|settings| settings.in_flight_max = 20).await;
    let ids: Vec<_> =
        (0..50).map(|n| world.send(&expired(&format!("evt-{n}"), &format!("r{n}")))).collect();
    eventually("the in-flight limit is parked", || worker.parked() == 20.0).await;
    eventually("no receive is open", || worker.spy.receives_open() == 0).await;
    let receives = worker.spy.receive_sizes();
    let probes = "worker_calls_total{method=\"PATCH\",result=\"outage\",service=\"reservation\"}";
    let failed = worker.metric(probes);
    eventually("two probes failed", || {
        worker.metric(probes) >= failed + 2.0 && worker.parked() == 20.0
    })
    .await;
    assert_eq!(worker.spy.receive_sizes(), receives, "a receive was sent meanwhile");
    let counts = world.sqs.counts(&world.queue);
    assert_eq!((counts.in_flight, counts.visible), (20, 30));

    world.api.come_back().await.unwrap();
    world.emptied().await;
    assert!(worker.spy.receive_sizes().len() > receives.len());
    assert!(ids.iter().all(|id| world.deliveries(id) == 1));
    assert_eq!(worker.outcomes("reservation.expired")[..3], [50.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_that_is_parked_longer_than_the_visibility_timeout_keeps_its_lease() {
    let world = World::redriving(1).await;
    world.inventory.go_down().await.unwrap();
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(6)).await;
    let names = ["a", "b", "c", "d", "e"];
    let ids = names.map(|name| world.send(&expired(&format!("evt-{name}"), name)));
    eventually("all are parked", || worker.parked() == 5.0).await;
    // Extensions are half a timeout apart: the third comes after the end of the first timeout.
    eventually("each is extended three times", || worker.metric(EXTENDED) >= 15.0).await;
    assert_eq!(world.sqs.counts(&world.queue).in_flight, 5);
    world.inventory.come_back().await.unwrap();
    world.emptied().await;
    assert!(ids.iter().all(|id| world.deliveries(id) == 1));
    for name in names {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold"]);
    }
    assert_eq!(worker.metric(LOST), 0.0);
    assert_eq!(world.dead_letters(), []);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_drain_hands_parked_events_back_at_once_and_the_next_process_continues() {
    let world = World::start().await;
    world.inventory.go_down().await.unwrap();
    let services = world.services();
    let worker = world.worker_of(services.clone(), |_| {}).await;
    let names: Vec<_> = (0..30).map(|n| format!("r{n}")).collect();
    let ids: Vec<_> =
        names.iter().map(|name| world.send(&expired(&format!("evt-{name}"), name))).collect();
    eventually("all are parked", || worker.parked() == 30.0).await;
    let begun = Instant::now();
    let account = worker.finish(&world).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((account.received_total(), account.left_total(Disposition::HandedBack)), (30, 30));
    for id in &ids {
        assert_eq!(world.hidden_for(id), [0]);
    }
    for message in world.sqs.peek_all(&world.queue) {
        assert_eq!((message.receive_count, message.state), (1, MessageState::Visible));
    }
    assert_eq!(world.sqs.ledger(&world.queue).visibility_to_zero, 30);

    // The next process shares the store, but not the state of the circuit breaker.
    world.inventory.come_back().await.unwrap();
    let next = Services { outages: world.services().outages, ..services };
    let worker = world.worker_of(next, |_| {}).await;
    world.emptied().await;
    for name in &names {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold"], "{name}");
    }
    worker.drain().await;
}
