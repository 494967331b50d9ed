//! The idempotency store as the worker uses it: claims that last as long as leases, steps that are known before the
//! next begins, others who have an event, and a store that is away.

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
use crate::support::{LIMIT, World, eventually, expired};

const HANDLED: &str = "worker_duplicates_total{reason=\"handled\"}";
const MINUTE: Duration = Duration::from_secs(60);

fn with_store(world: &World) -> (Services, Arc<FlakyStore>) {
    let store = Arc::new(FlakyStore::new());
    let services = world.services();
    let records = IdempotencyClient { store: Arc::clone(&store) as _, ..services.records };
    (Services { records, ..services }, store)
}

fn decoded(event: &Value) -> Event {
    decode(&event.to_string(), "m").unwrap()
}

/// Another worker claims the event.
async fn claimed_elsewhere(
    store: &FlakyStore,
    event: &Value,
    lasts: Duration,
) -> (Event, ClaimToken) {
    let (event, token) = (decoded(event), ClaimToken::unique());
    let claim = store.claim(&event.id, event.content_hash(), token, lasts).await.unwrap();
    assert!(matches!(claim, Claim::Ours(_)), "{claim:?}");
    (event, token)
}

fn status_done() -> StepSet {
    let mut done = StepSet::EMPTY;
    done.insert(Step::ReservationStatus);
    done
}

#[tokio::test]
async fn while_the_store_is_away_events_wait_and_nothing_runs_unguarded() {
    let world = World::redriving(2).await;
    let (services, store) = with_store(&world);
    let worker = world.worker_of(services, |settings| settings.policy.retries_max = 0).await;
    eventually("polling works", || worker.health.ready().is_ok()).await;
    store.set_down(true);
    let ids: Vec<_> =
        (0..20).map(|n| world.send(&expired(&format!("evt-{n}"), &format!("r{n}")))).collect();
    eventually("they wait for it", || worker.parked() == 20.0).await;
    assert_eq!(worker.health.ready(), Err(Problem::StoreAway));
    assert_eq!(worker.breaker("store"), 2.0);
    let asked = store.asked();
    eventually("it is tried again", || store.asked() >= asked + 2).await;
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
async fn no_message_is_deleted_before_the_store_knows_that_its_event_is_handled() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let worker = world.worker_of(services, |_| {}).await;
    let slow = Scripted::<RpcReply>::normal().answering_after(Duration::from_millis(300));
    world.inventory.script_for("a", [slow]);
    world.send(&expired("evt-1", "a"));
    assert!(world.ledger.wait_until(|ledger| ledger.totals().effects == 2, LIMIT).await);
    store.set_down(true);
    let asked = store.asked();
    eventually("it is tried again and again", || store.asked() >= asked + 3).await;
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    store.set_down(false);
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"], "no step is repeated");
    assert_eq!(worker.outcomes("reservation.expired")[..3], [1.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_is_simply_made_again() {
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
async fn an_event_that_was_found_superseded_is_not_asked_about_again_for_the_stores_sake() {
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
async fn an_event_that_another_worker_has_is_held_without_a_worker_until_it_is_handled_there() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let event = expired("evt-1", "a");
    let (other, token) = claimed_elsewhere(&store, &event, MINUTE).await;
    let worker = world.worker_of(services, |settings| settings.concurrency = 1).await;
    let id = world.send(&event);
    eventually("it was asked for twice", || store.asked() >= 3).await;
    // The only worker is free for others.
    world.send(&expired("evt-2", "b"));
    assert!(world.ledger.wait_until(|ledger| ledger.totals().effects == 2, LIMIT).await);
    assert!(world.methods("a").is_empty());
    store.complete(&other.id, token, HandledAs::Applied).await.unwrap();
    world.emptied().await;
    assert_eq!((world.methods("a").len(), world.deliveries(&id)), (0, 1));
    assert_eq!(worker.metric(HANDLED), 1.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_claim_that_runs_out_is_taken_over_where_its_owner_stopped() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let event = expired("evt-1", "a");
    let second = Duration::from_secs(1);
    let (other, token) = claimed_elsewhere(&store, &event, second).await;
    store.record(&other.id, token, status_done()).await.unwrap();
    let worker = world.worker_of(services, |_| {}).await;
    world.send(&event);
    world.emptied().await;
    assert_eq!(world.methods("a"), ["ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_worker_that_lost_its_claim_stops_before_its_next_step() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let (worker, gate) = world.gated_of(services, &["a"], |_| {}).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("its first call is on its way", || gate.entered() == ["a"]).await;
    // It was away for longer than its claim lasted, and somebody else has the event now.
    let event = decoded(&event);
    store.lose_everything();
    let token = ClaimToken::unique();
    let claim = store.claim(&event.id, event.content_hash(), token, MINUTE).await.unwrap();
    assert_eq!(claim, Claim::Ours(StepSet::EMPTY));
    gate.open();
    let done = |ledger: &sandbox::ledger::Ledger| !ledger.calls_for("a").is_empty();
    assert!(world.ledger.wait_until(done, LIMIT).await);
    let asked = store.asked();
    eventually("it asks for the event again", || store.asked() >= asked + 2).await;
    assert_eq!(world.methods("a"), ["PATCH"]);
    store.complete(&event.id, token, HandledAs::Applied).await.unwrap();
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
    eventually("its first call is on its way", || gate.entered() == ["a"]).await;
    let extended = || worker.metric("worker_lease_extensions_total") >= 3.0;
    eventually("its lease was extended beyond its first", extended).await;
    let event = decoded(&event);
    let other = store.claim(&event.id, event.content_hash(), ClaimToken::unique(), MINUTE).await;
    assert!(matches!(other, Ok(Claim::Elsewhere(_))), "{other:?}");
    gate.open();
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn what_is_given_up_is_not_handled_and_a_redrive_resumes_it_where_it_stopped() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    let refused = Scripted::<RpcReply>::code(Code::FailedPrecondition);
    world.inventory.script_for("a", [refused]);
    let worker = world.worker_of(services.clone(), |_| {}).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("it is set aside", || world.dead_letters().len() == 1).await;
    let known = decoded(&event);
    let claim =
        store.claim(&known.id, known.content_hash(), ClaimToken::unique(), Duration::ZERO).await;
    assert_eq!(claim, Ok(Claim::Ours(status_done())));
    worker.finish(&world).await;

    // Somebody has repaired the inventory and redrives: another message, another process.
    let worker = world.worker_of(services, |_| {}).await;
    world.send(&event);
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold", "ReleaseHold"]);
    worker.drain().await;
}

#[tokio::test]
async fn leaving_gives_claims_back_so_that_the_next_process_need_not_wait_for_their_end() {
    let world = World::start().await;
    let (services, store) = with_store(&world);
    world.api.script_for("a", vec![Scripted::<Reply>::status(500); 1_000]);
    let waits = |s: &mut reservation_worker::app::AppSettings| s.policy.retries_max = 1_000;
    let worker = world.worker_of(services, waits).await;
    let event = expired("evt-1", "a");
    world.send(&event);
    eventually("it is tried again and again", || world.methods("a").len() >= 3).await;
    worker.drain().await;
    let known = decoded(&event);
    let claim = store.claim(&known.id, known.content_hash(), ClaimToken::unique(), MINUTE).await;
    assert_eq!(claim, Ok(Claim::Ours(StepSet::EMPTY)));
}
