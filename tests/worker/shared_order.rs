//! Two workers that share a Redis work on one event of a reservation at a time, in both of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reservation_worker::event::Step;
use reservation_worker::handler::Services;
use reservation_worker::idempotency::redis::RedisStore;
use reservation_worker::idempotency::{IdempotencyClient, Store};
use sandbox::redis::{Redis, RedisCluster, is_installed};
use sandbox::script::Faults;

use crate::support::{World, eventually, expired, key};

const RESERVATIONS: usize = 40;

/// Events of each reservation, in each of the two queues.
const EVENTS: usize = 2;

/// On a busy machine, one worker may be done before the other begins: then they run again.
const RUNS_MAX: usize = 10;

/// Returns the services of one process: with a client of its own on the shared store.
fn sharing(world: &World, redis: &Redis, is_ordered: bool) -> Services {
    let url = redis.url().parse().unwrap();
    let store = Arc::new(RedisStore::new(&url, "order:", Duration::from_secs(3600)).unwrap());
    let services = world.services();
    let store = store as Arc<dyn Store>;
    let idempotency = IdempotencyClient { store, is_ordered, ..services.idempotency };
    Services { idempotency, ..services }
}

/// Returns how many reservations have a call of one event between two calls of another.
fn mixed(world: &World) -> usize {
    let is_mixed = |reservation: &usize| {
        let events: Vec<_> = (0..2 * EVENTS).map(|n| format!("evt-{reservation}-{n}")).collect();
        let keys = |event: &String| {
            [Step::ReservationStatus, Step::InventoryRelease].map(|step| key(event, step))
        };
        let of = |call: &str| events.iter().position(|event| keys(event).iter().any(|k| k == call));
        let calls = world.ledger.calls_for(&format!("rsv-{reservation}"));
        let mut order: Vec<_> = calls.iter().filter_map(|call| of(call.key.as_deref()?)).collect();
        order.dedup();
        let distinct: BTreeSet<_> = order.iter().collect();
        distinct.len() < order.len()
    };
    (0..RESERVATIONS).filter(is_mixed).count()
}

/// Two workers, each with a queue of its own, handle several events of each reservation. Returns
/// how many reservations were mixed up, and how many events waited for their turn.
async fn handled_by_two(is_ordered: bool) -> (usize, f64) {
    let (world, other) = (World::start().await, World::start().await);
    let redis = Redis::plain().await.unwrap();
    let (least, jitter) = (Duration::from_millis(10), Duration::from_millis(20));
    world.api.set_faults(Faults::none().latency(least, jitter));
    world.inventory.set_faults(Faults::none().latency(least, jitter));
    for n in 0..2 * EVENTS {
        for reservation in 0..RESERVATIONS {
            let event = expired(&format!("evt-{reservation}-{n}"), &format!("rsv-{reservation}"));
            if n % 2 == 0 {
                world.send(&event)
            } else {
                other.send(&event)
            };
        }
    }
    let workers = [
        world.worker_of(sharing(&world, &redis, is_ordered), |_| {}).await,
        other.worker_of(sharing(&world, &redis, is_ordered), |_| {}).await,
    ];
    eventually("all events are settled", || {
        [&world, &other].iter().all(|world| world.sqs.counts(&world.queue).total() == 0)
    })
    .await;
    let mut waited = 0.0;
    for worker in workers {
        waited += worker.metric("worker_order_waits_total");
        assert!(worker.drain().await.balances());
    }
    (mixed(&world), waited)
}

#[tokio::test]
async fn two_workers_take_turns_at_a_reservation() {
    if !is_installed("two workers on one store") {
        return;
    }
    for _ in 0..RUNS_MAX {
        let (mixed, waited) = handled_by_two(true).await;
        assert_eq!(mixed, 0, "reservations had calls of two events at once");
        if waited > 0.0 {
            return;
        }
    }
    panic!("the workers never met");
}

#[tokio::test]
async fn without_shared_order_two_workers_meet_at_a_reservation() {
    if !is_installed("two workers without order") {
        return;
    }
    for _ in 0..RUNS_MAX {
        let (mixed, waited) = handled_by_two(false).await;
        assert!(waited.abs() < f64::EPSILON, "{waited}");
        if mixed > 0 {
            return;
        }
    }
    panic!("this world cannot show the fault");
}

/// Returns the node of a key: the nodes have a third of the slots each, in order.
async fn node_of(cluster: &RedisCluster, key: &str) -> usize {
    let asked = ["CLUSTER", "KEYSLOT", key];
    let slot = cluster.nodes[0].command(&asked).await.unwrap().number();
    usize::from(slot > 5_460) + usize::from(slot > 10_922)
}

#[tokio::test]
async fn with_one_node_of_three_away_only_events_that_need_it_wait() {
    const AWAY: usize = 2;
    if !is_installed("a worker on a cluster that loses a node") {
        return;
    }
    let (world, mut cluster) = (World::start().await, RedisCluster::start().await.unwrap());
    for node in &cluster.nodes {
        let set = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        node.command(&set).await.unwrap();
    }
    let worker = world.worker_of(sharing(&world, &cluster.nodes[0], true), |_| {}).await;
    cluster.nodes[AWAY].kill().await.unwrap();
    let mut waiting = Vec::new();
    for n in 0..120 {
        let (event, reservation) = (format!("evt-{n}"), format!("rsv-{n}"));
        let record = node_of(&cluster, &format!("order:{event}")).await;
        let lane = node_of(&cluster, &format!("order:\u{1}{reservation}")).await;
        if [record, lane].contains(&AWAY) {
            waiting.push(reservation.clone());
        }
        world.send(&expired(&event, &reservation));
    }
    assert!(waiting.len() > 30 && waiting.len() < 90, "{} need the node", waiting.len());
    eventually("the events of the other nodes are done", || {
        world.sqs.counts(&world.queue).total() == waiting.len()
    })
    .await;
    for reservation in &waiting {
        let calls = world.ledger.calls_for(reservation);
        assert!(calls.is_empty(), "{reservation} went on without its record or its lane");
    }
    cluster.nodes[AWAY].start().await.unwrap();
    eventually("the node is back", || world.sqs.counts(&world.queue).total() == 0).await;
    assert!(worker.drain().await.balances());
}
