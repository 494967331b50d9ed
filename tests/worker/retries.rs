//! Attempts that fail transiently: timeouts, used-up retries, and retry times given by a service.

use std::time::{Duration, SystemTime};

use reservation_worker::queue::Queue as _;
use reservation_worker::settle::account::Disposition;
use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::Scripted;
use tokio::time::Instant;
use tonic::Code;

use crate::support::{LIMIT, World, expired, settings};

type Http = Scripted<HttpReply>;
type Rpc = Scripted<RpcReply>;

#[tokio::test]
async fn a_call_that_times_out_is_retried() {
    let world = World::start().await;
    let services = world.services_with(Duration::from_millis(300));
    let worker = world.worker_of(services, |_| {}).await;
    // The answer comes after the timeout, and the call takes effect.
    let slow = Duration::from_millis(600);
    world.api.script_for("http", [Http::normal().answering_after(slow)]);
    world.inventory.script_for("grpc", [Rpc::normal().answering_after(slow)]);
    world.send(&expired("evt-http", "http"));
    world.send(&expired("evt-grpc", "grpc"));
    world.emptied().await;
    for (name, method) in [("http", "PATCH"), ("grpc", "ReleaseHold")] {
        let calls = world.ledger.calls_for(name);
        let tries: Vec<_> = calls.iter().filter(|call| call.method() == method).collect();
        assert!(tries.len() >= 2, "{name}: {calls:?}");
        assert!(tries.iter().all(|call| call.key == tries[0].key));
        assert_eq!(world.ledger.effects_for(name).len(), 2, "{name}");
    }
    worker.finish(&world).await;
}

/// Each failure is followed by a success of another event, so it is charged to the event.
#[tokio::test]
async fn an_event_with_used_up_retries_is_released_for_longer_with_each_receive() {
    let world = World::start().await;
    for (name, statuses) in [("a-http", [500, 599, 408]), ("b-http", [500, 425, 501])] {
        world.api.script_for(name, statuses.map(Http::status));
    }
    let codes = [Code::Unknown, Code::Internal, Code::Aborted];
    world.inventory.script_for("a-grpc", codes.map(Rpc::code));
    // Received and handed back twice before.
    let seen_before = world.send(&expired("evt-b-http", "b-http"));
    let queue = world.sqs_queue(&settings()).await;
    for _ in 0..2 {
        let messages = queue.receive(10, settings().visibility).await.unwrap();
        let back: Vec<_> = messages.iter().map(|m| (m.handle.clone(), Duration::ZERO)).collect();
        assert_eq!(queue.hand_back(&back).await.unwrap(), [Ok(())]);
    }
    let worker = world.worker().await;
    assert_eq!(world.released(&seen_before).await, 120);
    for (left, name) in [(2, "a-http"), (3, "a-grpc")] {
        world.send(&expired(&format!("evt-good-{name}"), &format!("good-{name}")));
        let of_rest = |counts: &sandbox::sqs::Counts| counts.total() == left - 1;
        assert!(world.sqs.wait_until(&world.queue, of_rest, LIMIT).await);
        let id = world.send(&expired(&format!("evt-{name}"), name));
        assert_eq!(world.released(&id).await, 30);
    }
    for name in ["a-http", "b-http"] {
        assert_eq!(world.methods(name), ["PATCH"; 3]);
    }
    assert_eq!(world.methods("a-grpc"), ["PATCH", "ReleaseHold", "ReleaseHold", "ReleaseHold"]);
    assert_eq!(worker.outcomes("reservation.expired"), [2.0, 3.0, 0.0, 6.0]);
    assert_eq!(world.dead_letters(), []);
    assert_eq!(world.sqs.counts(&world.queue).total(), 3, "none of the three is deleted");
    let account = worker.drain().await;
    assert!(account.balances(), "{account:?}");
    assert_eq!((account.received_total(), account.left_total(Disposition::HandedBack)), (5, 3));
}

/// No retries are configured: the test fails if a call is too early or if a wait uses up a retry.
#[tokio::test]
async fn a_retry_time_is_respected_and_uses_up_no_retry() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.policy.retries_max = 0).await;
    let second = Duration::from_secs(1);
    // Dates have whole seconds.
    let begun = (Instant::now(), SystemTime::now());
    let date = httpdate::fmt_http_date(begun.1 + 3 * second);
    let named = httpdate::parse_http_date(&date).unwrap().duration_since(begun.1).unwrap();
    world.api.script_for("seconds", [429, 503].map(|s| Http::status(s).header("Retry-After", "1")));
    world.api.script_for("date", [Http::status(429).header("Retry-After", &date)]);
    let paced = Rpc::code_with_retry_info(Code::ResourceExhausted, second);
    world
        .inventory
        .script_for("info", [paced, Rpc::code_with_retry_info(Code::Unavailable, second)]);
    // One by one, so that no other event's retry time applies.
    for name in ["date", "seconds", "info"] {
        world.send(&expired(&format!("evt-{name}"), name));
        world.emptied().await;
    }
    let gaps = |name: &str, method: &str| {
        let calls = world.ledger.calls_for(name);
        let at: Vec<_> =
            calls.iter().filter(|c| c.method() == method).map(|c| (c.at, c.answered_at)).collect();
        at.windows(2).map(|pair| pair[1].0 - pair[0].1.unwrap()).collect::<Vec<_>>()
    };
    for (name, method, count) in [("seconds", "PATCH", 2), ("info", "ReleaseHold", 2)] {
        let gaps = gaps(name, method);
        assert_eq!(gaps.len(), count, "{name}");
        // The stand-in notes the time before the answer is read, so no gap may be shorter.
        assert!(gaps.iter().all(|gap| *gap >= second && *gap < LIMIT), "{name}: {gaps:?}");
    }
    let dated = world.ledger.calls_for("date");
    assert_eq!(world.methods("date"), ["PATCH", "PATCH", "ReleaseHold"]);
    assert!(dated[1].at >= begun.0 + named, "{:?} early", begun.0 + named - dated[1].at);
    assert_eq!(worker.outcomes("reservation.expired"), [3.0, 0.0, 0.0, 5.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn paced_waits_use_up_no_retries() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.policy.retries_max = 1).await;
    let paced = || Http::status(429).header("Retry-After", "0");
    world.api.script_for("a", [paced(), paced(), Http::status(500)]);
    world.send(&expired("evt-a", "a"));
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "PATCH", "PATCH", "PATCH", "ReleaseHold"]);
    assert_eq!(worker.outcomes("reservation.expired"), [1.0, 0.0, 0.0, 3.0]);
    worker.finish(&world).await;
}
