//! The idempotency store as the worker uses it: claims last as long as leases, steps are recorded
//! before the next one starts, other processes hold claims, and the store can be down.

use std::sync::Arc;
use std::time::Duration;

use reservation_worker::event::{Event, Step, StepSet, decode};
use reservation_worker::handler::Services;
use reservation_worker::health::Problem;
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, IdempotencyClient, Store};
use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::{Reply, ReservationStatus};
use sandbox::script::Scripted;
use serde_json::Value;
use tonic::Code;

use crate::flaky::FlakyStore;
use crate::support::{LIMIT, World, eventually, expired, request};

const HANDLED: &str = "worker_duplicates_total{reason=\"handled\"}";
const MINUTE: Duration = Duration::from_secs(60);

fn with_store(world: &World) -> (Services, Arc<FlakyStore>) {
    let store = Arc::new(FlakyStore::new());
    let services = world.services();
    let idempotency = IdempotencyClient { store: Arc::clone(&store) as _, ..services.idempotency };
    (Services { idempotency, ..services }, store)
}

fn decoded(event: &Value) -> Event {
    decode(&event.to_string(), "m").unwrap()
}

/// Claims the event as another worker.
async fn claimed_elsewhere(
    store: &FlakyStore,
    event: &Value,
    lasts: Duration,
) -> (Event, ClaimToken) {
    let (event, token) = (decoded(event), ClaimToken::unique());
    let claim =
        store.claim((&event.id).into(), request(event.content_hash(), token, lasts)).await.unwrap();
    assert!(matches!(claim, Claim::Ours(_)), "{claim:?}");
    (event, token)
}

fn status_done() -> StepSet {
    let mut done = StepSet::EMPTY;
    done.insert(Step::ReservationStatus);
    done
}

#[tokio::test]
async fn while_the_store_is_down_events_wait_and_no_calls_are_made() {
    let world = World::redriving(2).await;
    let (services, store) = with_store(&world);
    let worker = world.worker_of(services, |settings| settings.policy.retries_max = 0).await;
    eventually("a receive has succeeded", || worker.health.ready().is_ok()).await;
    store.set_down(true);
    let ids: Vec<_> =
        (0..20).map(|n| world.send(&expired(&format!("evt-{n}"), &format!("r{n}")))).collect();
    eventually("all are parked", || worker.parked() == 20.0).await;
    assert_eq!(worker.health.ready(), Err(Problem::StoreAway));
    assert_eq!(worker.breaker("store"), 2.0);
    let asked = store.asked();
    eventually("the store is probed", || store.asked() >= asked + 2).await;
    assert_eq!(world.ledger.totals().calls, 0);

    store.set_down(false);
    world.emptied().await;
    assert_eq!(worker.health.ready(), Ok(()));
    assert!(ids.iter().all(|id| world.deliveries(id) == 1));
    assert_eq!(world.ledger.totals().effects, 40);
    assert_eq!(worker.outcomes("reservation.expired")[..3], [20.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn no_message_is_deleted_before_its_event_is_completed_in_the_store() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let worker = world.worker_of(services, |_| {}).await;
    let slow = Scripted::<RpcReply>::normal().answering_after(Duration::from_millis(300));
    world.inventory.script_for("a", [slow]);
    world.send(&expired("evt-1", "a"));
    assert!(world.ledger.wait_until(|ledger| ledger.totals().effects == 2, LIMIT).await);
    store.set_down(true);
    let asked = store.asked();
    eventually("the completion is retried", || store.asked() >= asked + 3).await;
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    store.set_down(false);
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"], "a step was repeated");
    assert_eq!(worker.outcomes("reservation.expired")[..3], [1.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_repeated() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let worker = world.worker_of(services, |_| {}).await;
    store.lose_completions(2);
    world.send(&expired("evt-1", "a"));
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(worker.outcomes("reservation.expired")[..3], [1.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_superseded_event_is_not_looked_up_again_when_its_completion_fails() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let worker = world.worker_of(services, |_| {}).await;
    world.api.set_status("a", ReservationStatus::Confirmed);
    store.lose_completions(2);
    world.send(&expired("evt-1", "a"));
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "GET"]);
    assert_eq!(worker.outcomes("reservation.expired")[2], 1.0, "dropped");
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_claimed_by_another_process_is_held_without_occupying_a_worker() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let event = expired("evt-1", "a");
    let (other, token) = claimed_elsewhere(&store, &event, MINUTE).await;
    let worker = world.worker_of(services, |settings| settings.concurrency = 1).await;
    let id = world.send(&event);
    eventually("two claims were tried", || store.asked() >= 3).await;
    // The only worker is free for other events.
    world.send(&expired("evt-2", "b"));
    assert!(world.ledger.wait_until(|ledger| ledger.totals().effects == 2, LIMIT).await);
    assert!(world.methods("a").is_empty());
    store.complete((&other.id).into(), token, HandledAs::Applied).await.unwrap();
    world.emptied().await;
    assert_eq!((world.methods("a").len(), world.deliveries(&id)), (0, 1));
    assert_eq!(worker.metric(HANDLED), 1.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_expired_claim_is_taken_over_with_its_recorded_steps() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let event = expired("evt-1", "a");
    let second = Duration::from_secs(1);
    let (other, token) = claimed_elsewhere(&store, &event, second).await;
    store.record((&other.id).into(), token, status_done()).await.unwrap();
    let worker = world.worker_of(services, |_| {}).await;
    world.send(&event);
    world.emptied().await;
    assert_eq!(world.methods("a"), ["ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_worker_whose_claim_is_lost_makes_no_further_step() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let (worker, gate) = world.gated_of(services, &["a"], |_| {}).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("the first call is at the gate", || gate.entered() == ["a"]).await;
    // The worker outlived its claim, and another process holds the event now.
    let event = decoded(&event);
    store.lose_everything();
    let token = ClaimToken::unique();
    let claim = store
        .claim((&event.id).into(), request(event.content_hash(), token, MINUTE))
        .await
        .unwrap();
    assert_eq!(claim, Claim::Ours(StepSet::EMPTY));
    gate.open();
    let done = |ledger: &sandbox::ledger::Ledger| !ledger.calls_for("a").is_empty();
    assert!(world.ledger.wait_until(done, LIMIT).await);
    let asked = store.asked();
    eventually("the worker claims the event again", || store.asked() >= asked + 2).await;
    assert_eq!(world.methods("a"), ["PATCH"]);
    store.complete((&event.id).into(), token, HandledAs::Applied).await.unwrap();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH"]);
    assert_eq!(worker.outcomes("reservation.expired")[..3], [0.0, 0.0, 1.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_claim_lasts_as_long_as_its_message_is_held() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let (worker, gate) =
        world.gated_of(services, &["a"], |s| s.visibility = Duration::from_secs(5)).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("the first call is at the gate", || gate.entered() == ["a"]).await;
    let extended = || worker.metric("worker_lease_extensions_total") >= 3.0;
    eventually("the lease is extended beyond the first timeout", extended).await;
    let event = decoded(&event);
    let other = store
        .claim((&event.id).into(), request(event.content_hash(), ClaimToken::unique(), MINUTE))
        .await;
    assert!(matches!(other, Ok(Claim::Elsewhere(_))), "{other:?}");
    gate.open();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_redriven_event_continues_with_its_recorded_steps() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let refused = Scripted::<RpcReply>::code(Code::FailedPrecondition);
    world.inventory.script_for("a", [refused]);
    let worker = world.worker_of(services.clone(), |_| {}).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("the event is dead-lettered", || world.dead_letters().len() == 1).await;
    let known = decoded(&event);
    let claim = store
        .claim(
            (&known.id).into(),
            request(known.content_hash(), ClaimToken::unique(), Duration::ZERO),
        )
        .await;
    assert_eq!(claim, Ok(Claim::Ours(status_done())));
    worker.finish(&world).await;

    // The inventory is repaired and the message redriven: another message, another process.
    let worker = world.worker_of(services, |_| {}).await;
    world.send(&event);
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold", "ReleaseHold"]);
    worker.drain().await;
}

#[tokio::test]
async fn a_drain_releases_claims_for_the_next_process() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    world.api.script_for("a", vec![Scripted::<Reply>::status(500); 1_000]);
    let waits = |s: &mut reservation_worker::app::AppSettings| s.policy.retries_max = 1_000;
    let worker = world.worker_of(services, waits).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("the event is retried", || world.methods("a").len() >= 3).await;
    worker.drain().await;
    let known = decoded(&event);
    let claim = store
        .claim((&known.id).into(), request(known.content_hash(), ClaimToken::unique(), MINUTE))
        .await;
    assert_eq!(claim, Ok(Claim::Ours(StepSet::EMPTY)));
}
