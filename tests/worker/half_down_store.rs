//! A store of several parts, all or some of them down. Events that wait for a part are not released
//! while the parts come back one by one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::flaky::FlakyStore;
use crate::support::{Worker, World, event, eventually};

/// The in-flight limit.
const ROOM: usize = 200;

async fn worker_with(world: &World, store: &Arc<FlakyStore>) -> Worker {
    let mut services = world.services();
    services.idempotency.store = Arc::clone(store) as _;
    world.worker_of(services, |settings| settings.in_flight_max = ROOM).await
}

/// Payments without seats: only the Reservation API is called.
fn send_many(world: &World, name: &str, count: usize) {
    for n in 0..count {
        let payload = json!({"payment_intent_id": "pay_1", "amount": 1});
        let (id, reservation) = (format!("evt-{name}-{n}"), format!("{name}-{n}"));
        world.send(&event(&id, "payment.approved", &reservation, payload));
    }
}

/// Waits until all events are handled, once and within a minute. Released ones would stay hidden
/// for 15 minutes.
async fn all_are_done(world: &World, worker: Worker, events: u64) {
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), 0);
    assert_eq!(world.ledger.totals().effects, events);
    worker.finish(world).await;
}

#[tokio::test]
async fn no_event_is_released_while_the_parts_of_a_store_come_back_one_by_one() {
    let world = World::start().await;
    let store = Arc::new(FlakyStore::of_parts());
    let worker = worker_with(&world, &store).await;
    send_many(&world, "early", ROOM);
    world.emptied().await;
    store.set_down(true);
    send_many(&world, "late", 2 * ROOM);
    eventually("the in-flight limit is reached", || worker.parked() >= 0.99 * ROOM as f64).await;
    sleep(Duration::from_secs(6)).await;
    store.set_down(false);
    all_are_done(&world, worker, 600).await;
}

#[tokio::test]
async fn events_that_wait_for_a_third_of_the_store_are_handled_when_it_is_back() {
    let world = World::start().await;
    let store = Arc::new(FlakyStore::of_parts());
    let worker = worker_with(&world, &store).await;
    store.set_third_down(true);
    // A third of them is parked: above half of the in-flight limit the oldest would be handed back.
    send_many(&world, "r", ROOM);
    eventually("a third of the events is parked", || worker.parked() >= 0.2 * ROOM as f64).await;
    sleep(Duration::from_secs(4)).await;
    store.set_third_down(false);
    all_are_done(&world, worker, 200).await;
}
