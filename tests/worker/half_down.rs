//! Services in partial outages: back but rejecting all calls, back for one call only, silent for
//! some reservations, or asking for immediate retries. The cost is bounded, and events that succeed
//! are not held up.

use std::sync::Arc;
use std::time::Duration;

use reservation_worker::app::AppSettings;
use reservation_worker::handler::Services;
use reservation_worker::idempotency::IdempotencyClient;
use reservation_worker::outage::{OutageSettings, Outages};
use reservation_worker::retry::Backoff;
use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, Scripted};
use sandbox::sqs::{Action, ErrorCode, Fault};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Worker, World, event, eventually, limits};

type Http = Scripted<Reply>;

/// Events of an outage, each for its own reservation.
const EVENTS: usize = 30;

/// The default backoff.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };

/// A payment without seats: only the Reservation API is called.
fn send(world: &World, reservation: &str) {
    let payload = json!({"payment_intent_id": "pay_1", "amount": 1});
    let id = format!("evt-{reservation}");
    world.send(&event(&id, "payment.approved", reservation, payload));
}

fn send_many(world: &World, name: &str, count: usize) {
    (0..count).for_each(|n| send(world, &format!("{name}-{n}")));
}

/// Makes the Reservation API give this answer to every call.
fn answer_all(world: &World, reply: Http) {
    world.api.set_faults(Faults::none().with(1.0, reply));
}

/// Twenty concurrent calls, the default.
fn with_20_calls(services: Services) -> Services {
    let limits = OutageSettings { calls_max: 20, ..limits() };
    let outages = Arc::new(Outages::new(limits, Arc::clone(&services.metrics)));
    let idempotency = IdempotencyClient { outages: Arc::clone(&outages), ..services.idempotency };
    Services { outages, idempotency, ..services }
}

/// Waits until all events have made a call. Those after the breaker opened were probes.
async fn all_have_called(world: &World, worker: &Worker) {
    let has_called = |n| !world.ledger.calls_for(&format!("r-{n}")).is_empty();
    eventually("all events have made a call", || (0..EVENTS).all(has_called)).await;
    let waiting = (EVENTS - 1) as f64;
    eventually("all events are parked", || worker.parked() >= waiting).await;
}

fn given_up(worker: &Worker) -> f64 {
    worker.outcomes("payment.approved")[1]
}

#[tokio::test]
async fn a_service_that_rejects_all_calls_after_an_outage_costs_few_dead_letters() {
    let world = World::start().await;
    answer_all(&world, Http::status(503));
    send_many(&world, "r", EVENTS);
    let worker = world.worker().await;
    all_have_called(&world, &worker).await;
    answer_all(&world, Http::status(403));
    let series = "worker_refusing{service=\"reservation\"}";
    eventually("the service counts as refusing", || worker.metric(series) == 1.0).await;
    // Its probes continue and dead-letter no further events.
    sleep(Duration::from_secs(3)).await;
    let dead = world.dead_letters().len();
    assert!(dead <= 5, "{dead} of {EVENTS}");
}

/// One call succeeds during an outage.
async fn one_success_within(failing: Http, in_flight_max: usize) {
    let world = World::redriving(1).await;
    answer_all(&world, failing);
    send_many(&world, "r", EVENTS);
    let worker = world
        .worker_with(|settings| {
            settings.policy.backoff = BACKOFF;
            settings.policy.retries_max = 5;
            settings.in_flight_max = in_flight_max;
        })
        .await;
    all_have_called(&world, &worker).await;
    world.api.script([Http::normal()]);
    eventually("one event succeeds", || worker.outcomes("payment.approved")[0] == 1.0).await;
    sleep(Duration::from_secs(6)).await;
    assert!(worker.breaker("reservation") > 0.0, "the breaker is open again");
    assert_eq!(given_up(&worker), 0.0);
    let calls = world.ledger.totals().calls;
    sleep(Duration::from_secs(2)).await;
    let more = world.ledger.totals().calls - calls;
    // Five in a round, with at least half a second between rounds.
    assert!(more <= 25, "{more} calls in two seconds, expected only probes");
}

#[tokio::test]
async fn one_success_in_an_outage_with_status_500_uses_up_no_retries() {
    one_success_within(Http::status(500), 1_000).await;
}

#[tokio::test]
async fn one_success_in_an_outage_near_the_in_flight_limit_releases_no_event() {
    one_success_within(Http::status(503), 40).await;
}

/// This many reservations get no answer; one good event per second is completed at once.
async fn go_on_beside_silent(reservations: usize) {
    let world = World::start().await;
    // The default settings, divided by five.
    let services = with_20_calls(world.services_with(Duration::from_secs(1)));
    let worker = world
        .worker_of(services, |settings| {
            let (base, cap) = (BACKOFF.base / 5, BACKOFF.cap / 5);
            settings.policy.backoff = Backoff { base, cap };
            settings.policy.retries_max = 5;
        })
        .await;
    for n in 0..reservations {
        let silent = Http::status(503).delayed(Duration::from_secs(30));
        world.api.script_for(&format!("silent-{n}"), vec![silent; 1_000]);
        send(&world, &format!("silent-{n}"));
        send(&world, &format!("other-{n}"));
        sleep(Duration::from_millis(100)).await;
    }
    // During the first good events the suspects are identified.
    for n in 0..10 {
        let name = format!("good-{n}");
        let sent_at = Instant::now();
        send(&world, &name);
        eventually("the good event is handled", || !world.ledger.effects_for(&name).is_empty())
            .await;
        let took = sent_at.elapsed();
        let (limit, breaker) = (
            worker.metric("worker_concurrency_limit{service=\"reservation\"}"),
            worker.breaker("reservation"),
        );
        assert!(
            n < 4 || took < Duration::from_secs(2),
            "{name}: {took:?}, limit {limit}, breaker {breaker}"
        );
        sleep(Duration::from_secs(1).saturating_sub(took)).await;
    }
}

#[tokio::test]
async fn twelve_silent_reservations_do_not_hold_up_others() {
    go_on_beside_silent(12).await;
}

#[tokio::test]
async fn forty_silent_reservations_do_not_hold_up_others() {
    go_on_beside_silent(40).await;
}

#[tokio::test]
async fn a_conflict_whose_lookup_fails_makes_a_suspect_and_is_retried_with_backoff() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.policy.backoff = BACKOFF).await;
    let answers = (0..1_000).flat_map(|_| [Http::status(409), Http::status(503)]);
    world.api.script_for("bad", answers.collect::<Vec<_>>());
    send(&world, "bad");
    let calls = || world.ledger.calls_for("bad").len();
    let mut before = 0;
    for n in 0..130 {
        if n == 60 {
            before = calls();
        }
        send(&world, &format!("good-{n}"));
        sleep(Duration::from_millis(95)).await;
    }
    let lately = calls() - before;
    assert!(lately <= 6, "{lately} calls in six seconds, expected at most three attempts");
    assert_eq!(worker.suspects("reservation"), 1.0);
}

#[tokio::test]
async fn retry_after_zero_does_not_lead_to_a_flood_of_calls() {
    let world = World::start().await;
    answer_all(&world, Http::status(429).header("Retry-After", "0"));
    let services = with_20_calls(world.services());
    let with_backoff = |settings: &mut AppSettings| settings.policy.backoff = BACKOFF;
    let worker = world.worker_of(services, with_backoff).await;
    send_many(&world, "r", 200);
    sleep(Duration::from_secs(8)).await;
    let before = world.ledger.totals().calls;
    sleep(Duration::from_secs(4)).await;
    let a_second = (world.ledger.totals().calls - before) / 4;
    assert!(a_second < 50, "{a_second} calls a second");
    assert_eq!(given_up(&worker), 0.0);
}

#[tokio::test]
async fn without_lease_extensions_two_suspects_do_not_hold_up_others() {
    let world = World::start().await;
    let denied = Fault::Error(ErrorCode::AccessDenied);
    let extend = Action::ChangeMessageVisibilityBatch;
    world.sqs.faults(&world.queue).fail_sometimes(extend, 1.0, denied);
    let worker = world
        .worker_with(|settings| {
            settings.visibility = Duration::from_secs(30);
            settings.policy.backoff = BACKOFF;
        })
        .await;
    let series = "worker_queue_action_failing{action=\"extend\"}";
    eventually("extensions are known to fail", || worker.metric(series) == 1.0).await;
    // A success shows that the failure of another event is its own.
    send(&world, "first");
    world.emptied().await;
    for bad in ["bad-1", "bad-2"] {
        world.api.script_for(bad, vec![Http::status(503); 1_000]);
        send(&world, bad);
    }
    let called = |bad| !world.ledger.calls_for(bad).is_empty();
    eventually("both have failed", || called("bad-1") && called("bad-2")).await;
    send_many(&world, "good", 50);
    let done = || worker.outcomes("payment.approved")[0] == 51.0;
    let all = timeout(Duration::from_secs(10), eventually("the good ones are done", done)).await;
    assert!(all.is_ok(), "{:?} done", worker.outcomes("payment.approved")[0]);
}
