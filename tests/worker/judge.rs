//! Failures of one event do not affect others, and answers that all events get are final for few of
//! them.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Reservation, ReservationApi, TargetStatus,
};
use reservation_worker::event::ReservationId;
use reservation_worker::handler::Services;
use reservation_worker::outage::{OutageSettings, Outages};
use reservation_worker::retry::Backoff;
use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::Call;
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::{Faults, Scripted};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tonic::Code;

use crate::support::{LIMIT, World, event, eventually, expired, limits};

type Http = Scripted<HttpReply>;
type Rpc = Scripted<RpcReply>;

const REFUSING: &str = "worker_refusing{service=\"reservation\"}";

/// A payment without seats: only the Reservation API is called.
fn api_only(id: &str, reservation: &str) -> Value {
    event(id, "payment.approved", reservation, json!({"payment_intent_id": "pay_1", "amount": 1}))
}

/// Sends one good event and waits until it is applied.
async fn succeed_once(world: &World, name: &str) {
    world.send(&api_only(&format!("evt-{name}"), name));
    let done = |ledger: &sandbox::ledger::Ledger| ledger.calls_for(name).iter().any(Call::applied);
    assert!(world.ledger.wait_until(done, LIMIT).await, "{name}");
}

#[tokio::test]
async fn an_event_that_fails_as_in_an_outage_while_others_succeed_is_held_uncharged() {
    let world = World::redriving(1).await;
    let worker = world.worker_with(|settings| settings.policy.retries_max = 0).await;
    world.api.script_for("bad", vec![Http::status(503); 20_000]);
    let id = world.send(&expired("evt-bad", "bad"));
    let calls = || world.ledger.calls_for("bad").len();
    eventually("it is retried", || calls() >= 10).await;
    assert_eq!(worker.suspects("reservation"), 0.0, "a suspect without a success of another event");
    for n in 0..20 {
        succeed_once(&world, &format!("good-{n}")).await;
    }
    eventually("it is a suspect", || worker.suspects("reservation") == 1.0).await;
    let then = calls();
    eventually("the suspect is still retried", || calls() >= then + 10).await;
    assert_eq!((worker.breaker("reservation"), worker.parked()), (0.0, 0.0));
    assert!(world.hidden_for(&id).is_empty(), "the suspect was handed back");
    world.api.clear_script();
    world.emptied().await;
    assert_eq!((world.deliveries(&id), world.dead_letters().len()), (1, 0));
    let retried = f64::from(u32::try_from(calls()).unwrap()) - 2.0;
    assert_eq!(worker.outcomes("reservation.expired"), [1.0, 0.0, 0.0, retried]);
    assert_eq!(worker.suspects("reservation"), 0.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn suspects_use_at_most_a_quarter_of_the_workers() {
    const BAD: usize = 12;
    let world = World::redriving(1).await;
    let worker = world.worker_with(|settings| settings.concurrency = 8).await;
    let bad: Vec<_> = (0..BAD).map(|n| format!("bad-{n}")).collect();
    for name in &bad {
        // Slow from the second call on, so that calls of suspects can overlap.
        let slow = Http::status(503).delayed(Duration::from_millis(100));
        let mut replies = vec![slow; 1_000];
        replies.insert(0, Http::status(503));
        world.api.script_for(name, replies);
        world.send(&api_only(&format!("evt-{name}"), name));
        succeed_once(&world, &format!("after-{name}")).await;
    }
    // A success counts against calls that ended before it started.
    for n in 0..BAD {
        succeed_once(&world, &format!("once-more-{n}")).await;
    }
    eventually("all are suspects", || worker.suspects("reservation") == 12.0).await;
    let since = world.ledger.totals().calls;
    for n in 0..100 {
        world.send(&api_only(&format!("evt-{n}"), &format!("good-{n}")));
    }
    let done = |counts: &sandbox::sqs::Counts| counts.total() == BAD;
    assert!(world.sqs.wait_until(&world.queue, done, LIMIT).await);
    let again = |ledger: &sandbox::ledger::Ledger| {
        let of_bad = |call: &&Call| call.reservation_id.starts_with("bad");
        ledger.calls_since(since).iter().filter(of_bad).count() >= 2 * BAD
    };
    assert!(world.ledger.wait_until(again, LIMIT).await);
    let calls = world.ledger.calls_since(since);
    let tries: Vec<_> = calls.iter().filter(|c| c.reservation_id.starts_with("bad")).collect();
    let is_open_at = |other: &Call, call: &Call| {
        other.sequence <= call.sequence && other.answered_at.is_none_or(|at| at > call.at)
    };
    let open = |call: &Call| tries.iter().filter(|other| is_open_at(other, call)).count();
    let peak = tries.iter().map(|call| open(call)).max();
    assert_eq!(peak, Some(2), "two of eight workers");
    let tried = |name: &str| tries.iter().any(|call| call.reservation_id == name);
    assert!(bad.iter().all(|name| tried(name)), "each suspect is retried");
    assert_eq!(worker.breaker("reservation"), 0.0);

    world.api.clear_script();
    world.emptied().await;
    assert_eq!(world.dead_letters(), []);
    assert_eq!(worker.outcomes("payment.approved")[..3], [136.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn suspects_fill_at_most_half_of_the_in_flight_limit_and_the_oldest_are_released() {
    let world = World::start().await;
    // Long enough that the events are found waiting.
    let long = Duration::from_secs(30);
    let worker = world
        .worker_with(|settings| {
            settings.in_flight_max = 10;
            settings.policy.backoff = Backoff { base: long, cap: long };
        })
        .await;
    let mut ids = Vec::new();
    for n in 0..7_u32 {
        let name = format!("bad-{n}");
        world.api.script_for(&name, vec![Http::status(503); 1_000]);
        ids.push(world.send(&api_only(&format!("evt-{name}"), &name)));
        eventually("it has failed", || worker.waiting() == f64::from(n.min(5) + 1)).await;
        succeed_once(&world, &format!("good-{n}")).await;
        let given_up = || worker.outcomes("payment.approved")[1];
        let suspects = || worker.suspects("reservation") + given_up();
        eventually("it is a suspect", || suspects() == f64::from(n + 1)).await;
    }
    assert_eq!(worker.suspects("reservation"), 5.0);
    // Hidden for 15 minutes, the oldest first.
    for id in &ids[..2] {
        assert_eq!(world.released(id).await, 15 * 60);
    }
    assert!(ids[2..].iter().all(|id| world.hidden_for(id).is_empty()));
    assert_eq!(world.dead_letters(), []);
    // Other events are still received.
    for n in 0..30 {
        world.send(&api_only(&format!("evt-{n}"), &format!("more-{n}")));
    }
    let done = |counts: &sandbox::sqs::Counts| counts.total() == 7;
    assert!(world.sqs.wait_until(&world.queue, done, LIMIT).await);
    assert_eq!(worker.outcomes("payment.approved")[..3], [37.0, 2.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn rejections_are_final_while_other_events_succeed_between_them() {
    let world = World::start().await;
    let worker = world.worker().await;
    let refused = |name: &str| {
        world.api.script_for(name, [Http::status(403)]);
        world.send(&api_only(&format!("evt-{name}"), name));
    };
    // Four rejections, a success, and four more.
    for n in 0..8 {
        refused(&format!("bad-{n}"));
        world.emptied().await;
        if n == 3 {
            succeed_once(&world, "good").await;
            world.emptied().await;
        }
    }
    assert_eq!(world.dead_letters().len(), 8);
    assert_eq!((worker.breaker("reservation"), worker.metric(REFUSING)), (0.0, 0.0));
    // The fifth in a row makes the service count as refusing.
    refused("fifth");
    eventually("the fifth is parked", || worker.parked() == 1.0).await;
    assert_eq!(worker.metric(REFUSING), 1.0);
    world.emptied().await;
    assert_eq!(world.methods("fifth"), ["PATCH", "PATCH"]);
    assert_eq!(world.dead_letters().len(), 8);
    assert_eq!(worker.outcomes("payment.approved"), [2.0, 8.0, 0.0, 1.0]);
    assert_eq!(worker.metric(REFUSING), 0.0);
    worker.finish(&world).await;
}

/// Sends events to a service that rejects all calls, then repairs it.
async fn refuses_everybody(service: &str, refuse: impl Fn(&World), cure: impl Fn(&World)) {
    const EVENTS: usize = 100;
    let world = World::redriving(1).await;
    refuse(&world);
    for n in 0..EVENTS {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let worker = world.worker().await;
    let refusing = format!("worker_refusing{{service=\"{service}\"}}");
    eventually("the service counts as refusing", || worker.metric(&refusing) == 1.0).await;
    eventually("the other events are parked", || {
        let gone = u32::try_from(world.dead_letters().len()).unwrap();
        worker.parked() == 100.0 - f64::from(gone)
    })
    .await;
    let calls = world.ledger.totals().calls;
    eventually("the service is probed", || world.ledger.totals().calls > calls + 10).await;
    let gone = world.dead_letters().len();
    assert!(gone <= 5, "{gone} dead letters");
    cure(&world);
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), gone);
    let effects = |n: &usize| world.ledger.effects_for(&format!("r{n}")).len() == 2;
    assert_eq!((0..EVENTS).filter(effects).count(), EVENTS - gone);
    let gone = f64::from(u32::try_from(gone).unwrap());
    assert_eq!(worker.outcomes("reservation.expired")[..3], [100.0 - gone, gone, 0.0]);
    assert_eq!(worker.metric(&refusing), 0.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_reservation_api_that_rejects_all_calls_costs_at_most_five_dead_letters() {
    let faults = || {
        let all = [400, 403, 404, 422].map(Http::status);
        all.into_iter().fold(Faults::none(), |faults, reply| faults.with(0.25, reply))
    };
    let refuse = |world: &World| world.api.set_faults(faults());
    refuses_everybody("reservation", refuse, |world| world.api.set_faults(Faults::none())).await;
}

#[tokio::test]
async fn an_inventory_that_rejects_all_calls_costs_at_most_five_dead_letters() {
    let faults = || {
        let denied = Rpc::code(Code::PermissionDenied);
        Faults::none().with(0.5, denied).with(0.5, Rpc::status_value(4))
    };
    let refuse = |world: &World| world.inventory.set_faults(faults());
    refuses_everybody("inventory", refuse, |world| world.inventory.set_faults(Faults::none()))
        .await;
}

#[tokio::test]
async fn answers_of_a_proxy_lose_no_event() {
    const EVENTS: usize = 200;
    let world = World::redriving(1).await;
    let faults = [200, 400, 404, 421].map(|status| Http::status(status).without_error_body());
    let faults = faults.into_iter().fold(Faults::none(), |all, reply| {
        all.with(0.25, reply.header("Content-Type", "text/html"))
    });
    world.api.set_faults(faults);
    for n in 0..EVENTS {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let worker = world.worker_with(|settings| settings.policy.retries_max = 0).await;
    eventually("all are parked", || worker.parked() == 200.0).await;
    let calls = world.ledger.totals().calls;
    eventually("the service is probed", || world.ledger.totals().calls > calls + 10).await;
    assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, 0);
    assert_eq!((world.dead_letters().len(), world.ledger.totals().effects), (0, 0));
    world.api.set_faults(Faults::none());
    world.emptied().await;
    assert_eq!(world.dead_letters(), []);
    for n in 0..EVENTS {
        assert_eq!(world.ledger.effects_for(&format!("r{n}")).len(), 2, "r{n}");
    }
    assert_eq!(worker.outcomes("reservation.expired")[..3], [200.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_retry_time_for_one_event_does_not_hold_up_others() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.policy.retries_max = 0).await;
    world.api.script_for("http", [Http::status(503).header("Retry-After", "300")]);
    let later = Duration::from_secs(300);
    world.inventory.script_for("grpc", [Rpc::code_with_retry_info(Code::Aborted, later)]);
    let ids = ["http", "grpc"].map(|name| world.send(&expired(&format!("evt-{name}"), name)));
    eventually("they wait", || worker.waiting() == 2.0).await;
    for n in 0..100 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let done = |counts: &sandbox::sqs::Counts| counts.total() == 2;
    assert!(world.sqs.wait_until(&world.queue, done, LIMIT).await);
    assert_eq!((worker.waiting(), worker.parked()), (2.0, 0.0));
    for (service, name) in [("reservation", "http"), ("inventory", "grpc")] {
        let paced = |scope: &str| {
            worker.metric(&format!("worker_paced_total{{scope=\"{scope}\",service=\"{service}\"}}"))
        };
        assert_eq!((paced("event"), paced("service")), (1.0, 0.0), "{service}");
        assert_eq!(worker.breaker(service), 0.0);
        assert_eq!(world.ledger.calls_for(name).iter().filter(|call| call.fault).count(), 1);
    }
    assert_eq!(worker.outcomes("reservation.expired"), [100.0, 0.0, 0.0, 2.0]);
    worker.finish(&world).await;
    // Each stays hidden until its retry time.
    for id in ids {
        let [rest] = world.hidden_for(&id)[..] else { panic!("handed back once") };
        assert!((200..=300).contains(&rest), "{rest}");
    }
}

/// Serves two calls at once; further calls queue in front of it and look slow to the caller.
struct Small {
    api: Arc<dyn ReservationApi>,
    servers: Semaphore,
    open: AtomicUsize,
    peak: AtomicUsize,
}

#[async_trait]
impl ReservationApi for Small {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(open, Ordering::SeqCst);
        let server = self.servers.acquire().await.unwrap();
        let answer = self.api.set_status(call, id, target, payment_intent_id).await;
        drop(server);
        self.open.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        self.api.reservation(call, id).await
    }
}

/// The target is ten times the latency of a lone call. A busy machine does not exceed it.
#[tokio::test]
async fn a_latency_target_limits_the_calls_to_a_small_service_and_the_buffered_events() {
    const EVENTS: usize = 300;
    const WORKERS: usize = 50;
    let world = World::start().await;
    world.api.set_faults(Faults::none().latency(Duration::from_millis(20), Duration::ZERO));
    let services = world.services();
    let target = Some(Duration::from_millis(200));
    let limits = OutageSettings { calls_max: WORKERS, reservation_target: target, ..limits() };
    let outages = Arc::new(Outages::new(limits, Arc::clone(&services.metrics)));
    let small = Arc::new(Small {
        api: Arc::clone(&services.reservations),
        servers: Semaphore::new(2),
        open: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
    });
    let mut idempotency = services.idempotency.clone();
    idempotency.outages = Arc::clone(&outages);
    let reservations = Arc::clone(&small) as Arc<dyn ReservationApi>;
    let services = Services { reservations, outages, idempotency, ..services };
    for n in 0..EVENTS {
        world.send(&api_only(&format!("evt-{n}"), &format!("r{n}")));
    }
    let worker = world.worker_of(services, |settings| settings.concurrency = WORKERS).await;
    let limit = || worker.metric("worker_concurrency_limit{service=\"reservation\"}");
    let buffered = || worker.metric("worker_messages_in_flight{state=\"buffered\"}");
    let largest = Cell::new(limit());
    eventually("all are done", || {
        let now = buffered();
        largest.set(largest.get().max(limit()));
        let largest = largest.get();
        assert!(now <= 4.0 * largest, "{now} buffered, the largest limit was {largest}");
        world.sqs.counts(&world.queue).total() == 0
    })
    .await;
    let peak = small.peak.load(Ordering::SeqCst);
    assert!(peak <= 30, "{peak} calls at once");
    assert_eq!(worker.outcomes("payment.approved"), [300.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}
