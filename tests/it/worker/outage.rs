//! An outage costs time, not events: what opens a breaker and what does not, how little is called while it is open,
//! and how a service that is back is called again.

use std::time::Duration;

use reservation_worker::event::{Step, StepSet, decode};
use reservation_worker::idempotency::{Claim, Token};
use reservation_worker::settle::ledger::Left;
use sandbox::inventory::{ConnectionLife, Reply as RpcReply};
use sandbox::ledger::{Call, Service};
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::{Faults, Scripted};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::support::{LIMIT, Worker, World, event, eventually, expired};

type Http = Scripted<HttpReply>;
type Rpc = Scripted<RpcReply>;

/// Long enough for calls to overlap.
const LATENCY: Duration = Duration::from_millis(30);

/// How a service is away.
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

/// Calls that failed because the service is away, as the worker saw them.
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

/// A payment that names no seats: only the Reservation API is needed.
fn api_only(id: &str, reservation: &str) -> Value {
    event(id, "payment.approved", reservation, json!({"payment_intent_id": "pay_1", "amount": 1}))
}

/// One call at a time at first, and one more with each answer: seen from the service, which knows of an answer
/// before the worker does.
fn assert_slow_start(calls: &[Call]) {
    let mut peak = 0;
    for call in calls {
        let earlier = calls.iter().filter(|other| other.sequence < call.sequence);
        let is_open = |other: &&Call| other.answered_at.is_none_or(|at| at > call.at);
        let (open, answered): (Vec<_>, Vec<_>) = earlier.partition(is_open);
        let (open, answered) = (open.len() + 1, answered.len());
        assert!(open <= 1 + answered, "{open} calls at once after {answered} answers");
        peak = peak.max(open);
    }
    assert!(peak >= 3, "it never became faster: {peak} at once, {} calls", calls.len());
}

/// The most calls that an outage may have cost by now: four that failed and what all workers had under way when the
/// fifth failure opened the breaker, and then the probes, after 1 s, 2 s, 4 s and so on.
fn calls_failed_max(begun: Instant) -> f64 {
    let probes = [1, 3, 7, 15, 31, 61].map(Duration::from_secs);
    let due = probes.iter().filter(|at| begun.elapsed() >= **at).count();
    f64::from(u32::try_from(4 + 20 + due).unwrap())
}

async fn rides_out(service: Service, away: Away) {
    const EVENTS: u32 = 60;
    let world = World::redriving(3).await;
    come_back(&world).await;
    go_away(&world, service, away).await;
    let worker = world.worker().await;
    let begun = Instant::now();
    let names: Vec<_> = (0..EVENTS).map(|n| format!("r{n}")).collect();
    let ids: Vec<_> =
        names.iter().map(|name| world.send(&expired(&format!("evt-{name}"), name))).collect();
    eventually("all are parked", || worker.parked() == f64::from(EVENTS)).await;
    assert_eq!(worker.breaker(label(service)), 2.0);
    let at_first = calls_failed(&worker, service);
    assert!(at_first >= 5.0 && at_first <= calls_failed_max(begun), "{at_first}");

    // It is asked now and then whether it is back, and everything stays where it is.
    let failed_again = |times| calls_failed(&worker, service) >= at_first + times;
    eventually("a probe failed", || failed_again(1.0)).await;
    let first_probe = Instant::now();
    eventually("another one failed", || failed_again(2.0) && worker.parked() == f64::from(EVENTS))
        .await;
    assert!(first_probe.elapsed() >= Duration::from_secs(1), "{:?}", first_probe.elapsed());
    let calls = calls_failed(&worker, service);
    assert!(calls <= calls_failed_max(begun), "{calls}");
    let counts = world.sqs.counts(&world.queue);
    assert_eq!((counts.in_flight, counts.total()), (ids.len(), ids.len()));
    let of_service = |call: &Call| call.service == service && call.method() == method(service);
    let seen: Vec<_> = world.ledger.calls().into_iter().filter(&of_service).collect();
    if let [.., before, last] = &seen[..] {
        assert!(last.at - before.at >= Duration::from_secs(1), "one probe at a time");
    }

    come_back(&world).await;
    world.emptied().await;
    eventually("it is called normally", || worker.breaker(label(service)) == 0.0).await;
    for (id, name) in ids.iter().zip(&names) {
        assert_eq!(world.deliveries(id), 1, "no receive is spent");
        assert_eq!(world.ledger.effects_for(name).len(), 2, "{name}");
    }
    let all = f64::from(EVENTS);
    let failed = calls_failed(&worker, service);
    assert_eq!(worker.outcomes("reservation.expired"), [all, 0.0, 0.0, failed]);
    let good = |call: &Call| of_service(call) && !call.fault;
    assert_slow_start(&world.ledger.calls().into_iter().filter(good).collect::<Vec<_>>());
    assert_eq!(world.dead_letters(), []);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Left::Deleted), u64::from(EVENTS));
}

#[tokio::test]
async fn events_wait_for_a_reservation_api_that_is_gone() {
    rides_out(Service::ReservationApi, Away::PortClosed).await;
}

#[tokio::test]
async fn events_wait_for_a_reservation_api_that_is_unavailable() {
    rides_out(Service::ReservationApi, Away::Unavailable).await;
}

#[tokio::test]
async fn events_wait_for_an_inventory_that_is_gone() {
    rides_out(Service::Inventory, Away::PortClosed).await;
}

#[tokio::test]
async fn events_wait_for_an_inventory_that_is_unavailable() {
    rides_out(Service::Inventory, Away::Unavailable).await;
}

#[tokio::test]
async fn events_that_do_not_need_the_service_that_is_away_go_on() {
    let world = World::start().await;
    world.inventory.go_down().await.unwrap();
    let worker = world.worker().await;
    for n in 0..10 {
        world.send(&expired(&format!("evt-seats-{n}"), &format!("seats-{n}")));
    }
    eventually("they wait", || worker.parked() == 10.0).await;
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
        // What was done before the outage is not done again.
        assert_eq!(world.methods(&format!("seats-{n}")), ["PATCH", "ReleaseHold"]);
    }
    assert_eq!(worker.outcomes("reservation.expired")[..3], [10.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_event_that_fails_alone_is_held_until_others_show_that_it_is_its_own_fault() {
    let world = World::start().await;
    let worker = world.worker().await;
    world.api.script_for("bad", vec![Http::status(503); 20_000]);
    let id = world.send(&expired("evt-bad", "bad"));
    let calls = || world.ledger.calls_for("bad").len();
    // Two retries are allowed; they are not spent while nobody fares better. The first time that
    // somebody does only makes it a suspect: another outage may have begun.
    eventually("it is tried again and again", || calls() >= 30).await;
    let released = || !world.hidden_for(&id).is_empty();
    let mut others = 0;
    while !released() {
        assert_eq!(worker.breaker("reservation"), 0.0);
        world.send(&api_only(&format!("evt-good-{others}"), &format!("good-{others}")));
        let done = |ledger: &sandbox::ledger::Ledger| {
            ledger.calls_for(&format!("good-{others}")).iter().any(Call::applied)
        };
        assert!(world.ledger.wait_until(done, LIMIT).await);
        others += 1;
        // Failures after that success: at most one of them is counted, and none where the two were
        // under way together.
        let then = calls();
        eventually("it goes on", || calls() >= then + 10 || released()).await;
    }
    // How many overlap with one of its calls, and so say nothing, depends on the machine.
    assert!((4..1_000).contains(&others), "{others}");
    assert_eq!(world.released(&id).await, 30);
    let outcomes = worker.outcomes("reservation.expired");
    let calls = f64::from(u32::try_from(calls()).unwrap());
    assert_eq!(outcomes, [0.0, 1.0, 0.0, calls - 1.0], "each call but the last is made again");
    assert_eq!(worker.breaker("reservation"), 0.0);
    assert_eq!((world.deliveries(&id), world.dead_letters().len()), (1, 0));
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Left::HandedBack), 1);
}

#[tokio::test]
async fn refusals_of_three_reservations_in_a_row_are_an_outage() {
    let world = World::start().await;
    let worker = world.worker().await;
    let refused = |name: &str| {
        world.api.script_for(name, [Http::status(403)]);
        world.send(&api_only(&format!("evt-{name}"), name));
    };
    // Two, and a success between them and the next: each is the event's own fault.
    for name in ["a", "b"] {
        refused(name);
        world.emptied().await;
    }
    world.send(&api_only("evt-good", "good"));
    world.emptied().await;
    for name in ["c", "d"] {
        refused(name);
        world.emptied().await;
    }
    assert_eq!(world.dead_letters().len(), 4);
    assert_eq!(worker.breaker("reservation"), 0.0);
    // The third in a row.
    refused("e");
    eventually("it waits", || worker.parked() == 1.0).await;
    assert_eq!(worker.breaker("reservation"), 2.0);
    world.emptied().await;
    assert_eq!(world.methods("e"), ["PATCH", "PATCH"]);
    assert_eq!(world.dead_letters().len(), 4);
    assert_eq!(worker.outcomes("payment.approved"), [2.0, 4.0, 0.0, 1.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_time_that_a_service_names_to_one_event_holds_for_all_that_need_it_and_for_no_others() {
    let world = World::start().await;
    world.api.set_faults(Faults::none().latency(LATENCY, Duration::ZERO));
    let services = world.services();
    let wait = Duration::from_secs(3);
    // An event whose status is set already, so that only its seats are left.
    let seats = expired("evt-seats", "seats");
    let known = decode(&seats.to_string()).unwrap();
    let (token, store) = (Token::unique(), &services.records.store);
    let claim = store.claim(&known.id, known.content_hash(), token, wait).await.unwrap();
    assert_eq!(claim, Claim::Ours(StepSet::EMPTY));
    let mut done = StepSet::EMPTY;
    done.insert(Step::ReservationStatus);
    store.release(&known.id, token, done).await.unwrap();

    let worker = world.worker_of(services, |settings| settings.policy.retries_max = 0).await;
    world.api.script_for("first", [Http::status(429).header("Retry-After", "3")]);
    world.send(&api_only("evt-first", "first"));
    eventually("it is sent back", || worker.parked() == 1.0).await;
    let told = world.ledger.calls_for("first")[0].answered_at.unwrap();
    for n in 0..30 {
        world.send(&api_only(&format!("evt-{n}"), &format!("r{n}")));
    }
    eventually("all wait", || worker.parked() == 31.0).await;
    world.send(&seats);
    let done = |counts: &sandbox::sqs::Counts| counts.total() == 31;
    assert!(world.sqs.wait_until(&world.queue, done, LIMIT).await);
    assert_eq!(world.methods("seats"), ["ReleaseHold"]);
    assert!(world.ledger.calls_for("seats")[0].at < told + wait);
    world.emptied().await;

    let patches = |call: &Call| call.method() == "PATCH" && !call.fault;
    let patches: Vec<_> = world.ledger.calls().into_iter().filter(patches).collect();
    assert_eq!(patches.len(), 31);
    let early = patches.iter().filter(|call| call.at < told + wait).count();
    assert_eq!(early, 0, "nobody calls before the time");
    assert_slow_start(&patches);
    assert_eq!(worker.outcomes("payment.approved"), [31.0, 0.0, 0.0, 1.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn connections_that_the_server_ends_in_good_order_are_no_outage() {
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
