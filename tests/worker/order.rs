//! Events of one reservation are handled one by one in the order received; others do not wait. A
//! waiting event occupies no worker.

use std::time::Duration;

use reservation_worker::retry::Backoff;
use sandbox::inventory::Reply as RpcReply;
use sandbox::script::{Rule, Scripted};
use tonic::Code;

use crate::support::{World, approved, event, eventually, expired, failed};
use serde_json::json;

type Http = Scripted<sandbox::reservation_api::Reply>;

#[tokio::test]
async fn a_second_event_of_a_reservation_waits_and_other_reservations_do_not() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a"], |settings| settings.concurrency = 3).await;
    world.send(&approved("evt-a1", "a"));
    eventually("the first event is being handled", || gate.entered() == ["a"]).await;
    for n in 2..8 {
        world.send(&expired(&format!("evt-a{n}"), "a"));
    }
    for n in 0..20 {
        world.send(&expired(&format!("evt-b{n}"), &format!("b{n}")));
    }
    eventually("the others are done", || {
        (0..20).all(|n| world.methods(&format!("b{n}")) == ["PATCH", "ReleaseHold"])
    })
    .await;
    eventually("all are received", || worker.app.account().received_total() == 27).await;
    assert_eq!(gate.entered().iter().filter(|id| *id == "a").count(), 1);
    assert_eq!(world.methods("a"), [""; 0]);
    gate.open();
    world.emptied().await;
    let mut expected = vec!["PATCH", "CommitReservation"];
    expected.extend(["PATCH", "GET"].repeat(6));
    assert_eq!(world.methods("a"), expected);
    worker.finish(&world).await;
}

#[tokio::test]
async fn the_order_is_kept_while_the_first_event_waits_for_its_retry() {
    let world = World::start().await;
    let worker = world.worker().await;
    let second = Http::status(429).header("Retry-After", "1");
    world.api.script_for("a", [second.clone(), second]);
    let types = ["payment.failed", "payment.approved", "reservation.expired"];
    for (n, event_type) in types.into_iter().enumerate() {
        let payload = json!({"qty": 1, "payment_intent_id": format!("pay-{n}")});
        world.send(&event(&format!("evt-{n}"), event_type, "a", payload));
        eventually("it is received", || worker.app.account().received_total() > n as u64).await;
    }
    world.emptied().await;
    let expected = [
        "PATCH",
        "PATCH",
        "PATCH",
        "ReleaseHold", // cancelled, after two paced attempts
        "PATCH",
        "GET", // approved: money without a seat
        "PATCH",
        "GET",
        "ReleaseHold", // expired: counts as done
    ];
    assert_eq!(world.methods("a"), expected);
    worker.finish(&world).await;
}

/// The waits are random. It is practically impossible that all three end before the fourth event is
/// handled.
#[tokio::test]
async fn an_event_that_waits_for_its_retry_occupies_no_worker() {
    let world = World::start().await;
    let long = Duration::from_secs(10);
    let worker = world
        .worker_with(|settings| {
            settings.concurrency = 1;
            settings.policy.backoff = Backoff { base: long, cap: long };
        })
        .await;
    let waiting = ["a0", "a1", "a2"];
    for name in waiting {
        world.api.script_for(name, [Http::status(500)]);
        world.send(&failed(&format!("evt-{name}"), name));
    }
    eventually("each has failed once", || worker.outcomes("payment.failed")[3] == 3.0).await;
    world.send(&expired("evt-b", "b"));
    world.emptied().await;
    let done = world.ledger.calls_for("b")[1].answered_at.unwrap();
    // The only worker handled it before the last retry of the others.
    let again = waiting.map(|name| world.ledger.calls_for(name)[1].at);
    assert!(again.iter().any(|at| done < *at), "{done:?} {again:?}");
    for name in waiting {
        assert_eq!(world.methods(name), ["PATCH", "PATCH", "ReleaseHold"]);
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn events_that_wait_for_a_service_occupy_no_worker() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.concurrency = 1).await;
    let wait = Duration::from_secs(3);
    // After four answers in a row with a retry time, it applies to all events of the service.
    let paced = Scripted::<RpcReply>::code_with_retry_info(Code::Unavailable, wait);
    for n in 0..4 {
        world.inventory.script_for(&format!("a{n}"), [paced.clone()]);
    }
    for n in 0..6 {
        world.send(&failed(&format!("evt-a{n}"), &format!("a{n}")));
    }
    eventually("all six wait", || (worker.waiting(), worker.buffered()) == (4.0, 2.0)).await;
    assert_eq!(worker.metric("worker_pool_active_gauge"), 0.0);
    // An event without seats needs the Reservation API only.
    let payment = json!({"payment_intent_id": "pay-b", "amount": 1});
    world.send(&event("evt-b", "payment.approved", "b", payment));
    eventually("the other event is handled", || world.sqs.counts(&world.queue).total() == 6).await;
    assert_eq!(world.methods("b"), ["PATCH"]);
    assert_eq!(worker.buffered(), 2.0);
    let inventory_calls = || {
        let calls = (0..6).flat_map(|n| world.ledger.calls_for(&format!("a{n}")));
        calls.filter(|call| call.method() == "ReleaseHold").collect::<Vec<_>>()
    };
    let told = inventory_calls();
    assert_eq!(told.len(), 4, "no further call before the retry time");
    let first = told.iter().map(|call| call.answered_at.unwrap()).min().unwrap();
    world.emptied().await;
    assert_eq!(inventory_calls().len(), 10);
    let early = inventory_calls().iter().filter(|call| call.at < first + wait).count();
    assert_eq!(early, 4, "only the first four calls are before the retry time");
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_dead_lettered_or_released_event_does_not_block_its_reservation() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["a", "b"], |settings| settings.policy.retries_max = 0).await;
    world.api.script_for("a", [Http::status(422)]);
    world.api.script_for("b", [Http::status(500)]);
    let mut released = String::new();
    for reservation in ["a", "b"] {
        released = world.send(&failed(&format!("evt-{reservation}1"), reservation));
        eventually("the first event is being handled", || {
            gate.entered().last().is_some_and(|id| id == reservation)
        })
        .await;
        world.send(&expired(&format!("evt-{reservation}2"), reservation));
    }
    eventually("all are received", || worker.app.account().received_total() == 4).await;
    gate.open();
    assert_eq!(world.released(&released).await, 30);
    for reservation in ["a", "b"] {
        eventually("the second event is handled", || world.methods(reservation).len() == 3).await;
        assert_eq!(world.methods(reservation), ["PATCH", "PATCH", "ReleaseHold"]);
    }
    // The reservation did not wait for the copy.
    eventually("the first event is copied", || world.dead_letters().len() == 1).await;
    worker.finish(&world).await;
}

/// `maxReceiveCount` is 3. Events handed back to make way for others must keep their receives.
#[tokio::test]
async fn the_backlog_of_one_reservation_does_not_hold_up_others() {
    let world = World::redriving(3).await;
    let slow = Scripted::normal().delayed(Duration::from_millis(20));
    world.api.set_rules([Rule::of(|id| id == "hot", slow)]);
    let backlog: Vec<_> =
        (0..120).map(|n| world.send(&expired(&format!("evt-{n}"), "hot"))).collect();
    let worker = world
        .worker_with(|settings| (settings.in_flight_max, settings.concurrency) = (40, 4))
        .await;
    eventually("part of the backlog is received", || worker.app.account().received_total() >= 40)
        .await;
    let others: Vec<_> = (0..50).map(|n| format!("r{n}")).collect();
    for name in &others {
        world.send(&expired(&format!("evt-{name}"), name));
    }
    eventually("the others are done", || {
        others.iter().all(|name| world.methods(name) == ["PATCH", "ReleaseHold"])
    })
    .await;
    // If the backlog filled the in-flight limit, the others would be received only at its end.
    let done = world.methods("hot").iter().filter(|method| **method == "PATCH").count();
    assert!(done < 80, "the others waited for {done} events of the backlog");
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), 0);
    let most = backlog.iter().map(|id| world.deliveries(id)).max();
    assert!(most <= Some(3), "{most:?} receives");
    assert_eq!(worker.outcomes("reservation.expired"), [170.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}
