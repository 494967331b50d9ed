//! An outage delays events and loses none: what opens the circuit breaker and what does not, how
//! few calls are made while it is open, and how calls resume after it.

use std::collections::HashSet;
use std::time::Duration;

use reservation_worker::event::{Step, StepSet, decode};
use reservation_worker::idempotency::{Claim, ClaimToken};
use reservation_worker::settle::account::Disposition;
use sandbox::inventory::{ConnectionLife, Reply as RpcReply};
use sandbox::ledger::{Call, Service};
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::{Faults, Scripted};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::support::{LIMIT, Worker, World, event, eventually, expired, request};

type Http = Scripted<HttpReply>;
type Rpc = Scripted<RpcReply>;

/// Long enough that calls overlap.
const LATENCY: Duration = Duration::from_millis(30);

/// How a service is unreachable.
#[derive(Clone, Copy, Debug)]
enum Away {
    PortClosed,
    Unavailable,
}

fn label(service: Service) -> &'static str {
    match service {
        Service::ReservationApi => "reservation",
        Service::Inventory => "inventory",
    }
}

fn method(service: Service) -> &'static str {
    match service {
        Service::ReservationApi => "PATCH",
        Service::Inventory => "ReleaseHold",
    }
}

/// Returns the number of calls with an outage failure, by the worker's metric.
fn calls_failed(worker: &Worker, service: Service) -> f64 {
    let (method, service) = (method(service), label(service));
    worker.metric(&format!(
        "worker_calls_total{{method=\"{method}\",result=\"outage\",service=\"{service}\"}}"
    ))
}

async fn go_away(world: &World, service: Service, away: Away) {
    let slow = Faults::none().latency(LATENCY, Duration::ZERO);
    match (service, away) {
        (Service::ReservationApi, Away::PortClosed) => world.api.go_down().await.unwrap(),
        (Service::Inventory, Away::PortClosed) => world.inventory.go_down().await.unwrap(),
        (Service::ReservationApi, Away::Unavailable) => {
            world.api.set_faults(slow.with(1.0, Http::status(503)));
        }
        (Service::Inventory, Away::Unavailable) => {
            let faults = Faults::none().latency(LATENCY, Duration::ZERO);
            world.inventory.set_faults(faults.with(1.0, Rpc::code(Code::Unavailable)));
        }
    }
}

async fn come_back(world: &World) {
    world.api.set_faults(Faults::none().latency(LATENCY, Duration::ZERO));
    world.inventory.set_faults(Faults::none().latency(LATENCY, Duration::ZERO));
    world.api.come_back().await.unwrap();
    world.inventory.come_back().await.unwrap();
}

/// A payment without seats: only the Reservation API is called.
fn api_only(id: &str, reservation: &str) -> Value {
    event(id, "payment.approved", reservation, json!({"payment_intent_id": "pay_1", "amount": 1}))
}

/// Checks the slow start: four concurrent calls at first, and one more with each answer. The
/// service counts an answer before the worker does.
fn assert_slow_start(calls: &[Call]) {
    let mut peak = 0;
    for call in calls {
        let earlier = calls.iter().filter(|other| other.sequence < call.sequence);
        let is_open = |other: &&Call| other.answered_at.is_none_or(|at| at > call.at);
        let (open, answered): (Vec<_>, Vec<_>) = earlier.partition(is_open);
        let (open, answered) = (open.len() + 1, answered.len());
        assert!(open <= 4 + answered, "{open} calls at once after {answered} answers");
        peak = peak.max(open);
    }
    assert!(peak >= 5, "only {peak} concurrent calls of {} in all", calls.len());
}

/// The shortest time between rounds of probes, and the most probes of a round.
const PROBES_EVERY: Duration = Duration::from_millis(500);
const PROBES_A_ROUND: u32 = 5;

/// Returns the most calls that may have failed so far.
///
/// These are the calls in progress when the breaker opened, the retries of the first four, and the
/// probes.
fn calls_failed_max(begun: Instant) -> f64 {
    let rounds = u32::try_from(begun.elapsed().as_millis() / PROBES_EVERY.as_millis()).unwrap() + 1;
    f64::from(2 * 20 + PROBES_A_ROUND * rounds)
}

/// Checks that probes prefer events that have not called yet, and that at most three run at once.
fn assert_probes(calls: &[Call], since: u64, all: usize) {
    let (before, probes): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.sequence < since);
    let mut called: HashSet<_> = before.iter().map(|call| &call.reservation_id).collect();
    for (n, probe) in probes.iter().enumerate() {
        let is_out_of_fresh = called.len() == all;
        let is_fresh = called.insert(&probe.reservation_id);
        assert!(
            is_fresh || is_out_of_fresh,
            "{} was probed again before others",
            probe.reservation_id
        );
        let is_open = |other: &&&Call| other.answered_at.is_none_or(|at| at > probe.at);
        let open = probes[..n].iter().filter(is_open).count() + 1;
        assert!(open <= 3, "{open} probes at once");
    }
}

async fn rides_out(service: Service, away: Away) {
    const EVENTS: u32 = 60;
    let world = World::redriving(3).await;
    come_back(&world).await;
    go_away(&world, service, away).await;
    let names: Vec<_> = (0..EVENTS).map(|n| format!("r{n}")).collect();
    let ids: Vec<_> =
        names.iter().map(|name| world.send(&expired(&format!("evt-{name}"), name))).collect();
    let begun = Instant::now();
    let worker = world.worker().await;
    eventually("all are parked", || worker.parked() == f64::from(EVENTS)).await;
    assert_ne!(worker.breaker(label(service)), 0.0);
    let (at_first, since) = (calls_failed(&worker, service), world.ledger.totals().calls);
    assert!(at_first >= 5.0 && at_first <= calls_failed_max(begun), "{at_first}");

    // Probes are sent from time to time, and all events stay parked.
    let then = Instant::now();
    let two_rounds = f64::from(2 * PROBES_A_ROUND);
    eventually("more probes failed than belong to two rounds", || {
        calls_failed(&worker, service) > at_first + two_rounds
            && worker.parked() == f64::from(EVENTS)
    })
    .await;
    assert!(then.elapsed() >= PROBES_EVERY, "{:?}", then.elapsed());
    let calls = calls_failed(&worker, service);
    assert!(calls <= calls_failed_max(begun), "{calls}");
    let counts = world.sqs.counts(&world.queue);
    assert_eq!((counts.in_flight, counts.total()), (ids.len(), ids.len()));
    let of_service = |call: &Call| call.service == service && call.method() == method(service);
    let seen: Vec<_> = world.ledger.calls().into_iter().filter(&of_service).collect();
    assert_probes(&seen, since, names.len());

    come_back(&world).await;
    world.emptied().await;
    eventually("the breaker is closed", || worker.breaker(label(service)) == 0.0).await;
    for (id, name) in ids.iter().zip(&names) {
        assert_eq!(world.deliveries(id), 1, "{id} was received again");
        assert_eq!(world.ledger.effects_for(name).len(), 2, "{name}");
    }
    let all = f64::from(EVENTS);
    let failed = calls_failed(&worker, service);
    assert_eq!(worker.outcomes("reservation.expired"), [all, 0.0, 0.0, failed]);
    let good = |call: &Call| of_service(call) && !call.fault;
    assert_slow_start(&world.ledger.calls().into_iter().filter(good).collect::<Vec<_>>());
    assert_eq!(world.dead_letters(), []);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), u64::from(EVENTS));
}

#[tokio::test]
async fn events_wait_while_the_reservation_api_is_unreachable() {
    rides_out(Service::ReservationApi, Away::PortClosed).await;
}

#[tokio::test]
async fn events_wait_while_the_reservation_api_answers_503() {
    rides_out(Service::ReservationApi, Away::Unavailable).await;
}

#[tokio::test]
async fn events_wait_while_the_inventory_is_unreachable() {
    rides_out(Service::Inventory, Away::PortClosed).await;
}

#[tokio::test]
async fn events_wait_while_the_inventory_answers_unavailable() {
    rides_out(Service::Inventory, Away::Unavailable).await;
}

#[tokio::test]
async fn events_that_do_not_need_the_failing_service_are_handled() {
    let world = World::start().await;
    world.inventory.go_down().await.unwrap();
    let worker = world.worker().await;
    for n in 0..10 {
        world.send(&expired(&format!("evt-seats-{n}"), &format!("seats-{n}")));
    }
    eventually("the events with seats are parked", || worker.parked() == 10.0).await;
    assert_eq!([worker.breaker("reservation"), worker.breaker("inventory")], [0.0, 2.0]);
    for n in 0..30 {
        world.send(&api_only(&format!("evt-money-{n}"), &format!("money-{n}")));
    }
    let others_done = |counts: &sandbox::sqs::Counts| counts.total() == 10;
    assert!(world.sqs.wait_until(&world.queue, others_done, LIMIT).await);
    assert_eq!(worker.outcomes("payment.approved"), [30.0, 0.0, 0.0, 0.0]);
    assert_eq!(worker.outcomes("reservation.expired")[..3], [0.0; 3]);
    assert_ne!(worker.breaker("inventory"), 0.0);
    world.inventory.come_back().await.unwrap();
    world.emptied().await;
    for n in 0..10 {
        // The step that was done before the outage is not repeated.
        assert_eq!(world.methods(&format!("seats-{n}")), ["PATCH", "ReleaseHold"]);
    }
    assert_eq!(worker.outcomes("reservation.expired")[..3], [10.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

/// The breaker opens after failures of five reservations; here are four.
#[tokio::test]
async fn failures_of_too_few_events_for_the_breaker_are_retried_and_use_up_no_retries() {
    let world = World::redriving(1).await;
    world.inventory.go_down().await.unwrap();
    let worker = world.worker_with(|settings| settings.policy.retries_max = 0).await;
    let names = ["a", "b", "c", "d"];
    let ids = names.map(|name| world.send(&expired(&format!("evt-{name}"), name)));
    eventually("the events are retried", || calls_failed(&worker, Service::Inventory) >= 40.0)
        .await;
    eventually("all wait", || worker.waiting() == 4.0).await;
    assert_eq!((worker.breaker("inventory"), worker.parked()), (0.0, 0.0));
    assert_eq!(worker.outcomes("reservation.expired")[..3], [0.0; 3]);
    world.inventory.come_back().await.unwrap();
    world.emptied().await;
    assert!(ids.iter().all(|id| world.deliveries(id) == 1));
    for name in names {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold"]);
    }
    assert_eq!(worker.outcomes("reservation.expired")[..3], [4.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_retry_time_given_to_several_events_applies_to_all_events_of_the_service_only() {
    let world = World::start().await;
    world.api.set_faults(Faults::none().latency(LATENCY, Duration::ZERO));
    let services = world.services();
    let wait = Duration::from_secs(3);
    // An event whose status is set already: only its seats are left.
    let seats = expired("evt-seats", "seats");
    let known = decode(&seats.to_string(), "m").unwrap();
    let (token, store) = (ClaimToken::unique(), &services.idempotency.store);
    let claim =
        store.claim((&known.id).into(), request(known.content_hash(), token, wait)).await.unwrap();
    assert_eq!(claim, Claim::Ours(StepSet::EMPTY));
    let mut done = StepSet::EMPTY;
    done.insert(Step::ReservationStatus);
    store.release((&known.id).into(), token, done).await.unwrap();

    let worker = world.worker_of(services, |settings| settings.policy.retries_max = 0).await;
    // Four retry times in a row make it apply to the whole service.
    let first: Vec<_> = (0..4).map(|n| format!("first-{n}")).collect();
    for name in &first {
        world.api.script_for(name, [Http::status(429).header("Retry-After", "3")]);
        world.send(&api_only(&format!("evt-{name}"), name));
    }
    eventually("the first events wait", || worker.waiting() == 4.0).await;
    let told = first.iter().map(|name| world.ledger.calls_for(name)[0].answered_at.unwrap());
    let told = told.min().unwrap();
    for n in 0..30 {
        world.send(&api_only(&format!("evt-{n}"), &format!("r{n}")));
    }
    eventually("the others wait", || worker.buffered() == 30.0).await;
    assert_eq!(worker.breaker("reservation"), 2.0);
    assert_eq!(worker.metric("worker_paced_total{scope=\"service\",service=\"reservation\"}"), 1.0);
    world.send(&seats);
    let done = |counts: &sandbox::sqs::Counts| counts.total() == 34;
    assert!(world.sqs.wait_until(&world.queue, done, LIMIT).await);
    assert_eq!(world.methods("seats"), ["ReleaseHold"]);
    assert!(world.ledger.calls_for("seats")[0].at < told + wait);
    world.emptied().await;

    let patches = |call: &Call| call.method() == "PATCH" && !call.fault;
    let patches: Vec<_> = world.ledger.calls().into_iter().filter(patches).collect();
    assert_eq!(patches.len(), 34);
    let early = patches.iter().filter(|call| call.at < told + wait).count();
    assert_eq!(early, 0, "calls before the retry time");
    assert_slow_start(&patches);
    assert_eq!(worker.outcomes("payment.approved"), [34.0, 0.0, 0.0, 4.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn connections_closed_by_the_server_in_an_orderly_way_are_no_outage() {
    let world = World::start().await;
    world.inventory.set_faults(Faults::none().latency(LATENCY, Duration::ZERO));
    world.inventory.set_connection_life(ConnectionLife { calls_max: Some(30), age_max: None });
    let worker = world.worker().await;
    for n in 0..300 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    world.emptied().await;
    assert_eq!(calls_failed(&worker, Service::Inventory), 0.0);
    assert_eq!(world.ledger.totals().repeated_keys, 0);
    worker.finish(&world).await;
}
