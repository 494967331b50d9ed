//! A store of several parts: all of them away, or some. What waits for them is not given up while they come back one
//! after the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::flaky::FlakyStore;
use crate::support::{Worker, World, event, eventually};

/// Events that are held at most.
const ROOM: usize = 200;

async fn worker_with(world: &World, store: &Arc<FlakyStore>) -> Worker {
    let mut services = world.services();
    services.records.store = Arc::clone(store) as _;
    world.worker_of(services, |settings| settings.in_flight_max = ROOM).await
}

/// Payments that name no seats: only the Reservation API is needed.
fn send_many(world: &World, name: &str, count: usize) {
    for n in 0..count {
        let payload = json!({"payment_intent_id": "pay_1", "amount": 1});
        let (id, reservation) = (format!("evt-{name}-{n}"), format!("{name}-{n}"));
        world.send(&event(&id, "payment.approved", &reservation, payload));
    }
}

/// All is done, once, and within a minute: what is given up is hidden for a quarter of an hour.
async fn all_are_done(world: &World, worker: Worker, events: u64) {
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), 0);
    assert_eq!(world.ledger.totals().effects, events);
    worker.finish(world).await;
}

#[tokio::test]
async fn a_store_whose_parts_come_back_one_after_the_other_gives_nothing_up() {
    let world = World::start().await;
    let store = Arc::new(FlakyStore::of_parts());
    let worker = worker_with(&world, &store).await;
    send_many(&world, "early", ROOM);
    world.emptied().await;
    store.set_down(true);
    send_many(&world, "late", 2 * ROOM);
    eventually("the room is full", || worker.parked() >= 0.99 * ROOM as f64).await;
    sleep(Duration::from_secs(6)).await;
    store.set_down(false);
    all_are_done(&world, worker, 600).await;
}

#[tokio::test]
async fn what_waits_for_a_third_of_the_store_is_done_when_that_is_back() {
    let world = World::start().await;
    let store = Arc::new(FlakyStore::of_parts());
    let worker = worker_with(&world, &store).await;
    store.set_third_down(true);
    // A third of them: less than half of the room, beyond which the oldest would be handed back for the others' sake.
    send_many(&world, "r", ROOM);
    eventually("a third waits", || worker.parked() >= 0.2 * ROOM as f64).await;
    sleep(Duration::from_secs(4)).await;
    store.set_third_down(false);
    all_are_done(&world, worker, 200).await;
}
