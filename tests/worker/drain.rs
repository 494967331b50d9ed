//! A drain finishes or hands back every message, whatever its state. Nothing is lost, and the
//! message account agrees with the ledger of SQS.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use reservation_worker::app::AppSettings;
use reservation_worker::handler::Services;
use reservation_worker::retry::Backoff;
use reservation_worker::settle::account::Disposition;
use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::{Faults, Scripted};
use sandbox::sqs::{MessageState, Outcome};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::support::{LIMIT, Worker, World, eventually, expired};

#[tokio::test]
async fn a_drain_awaits_an_open_receive_and_hands_its_messages_back_at_once() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.wait = Duration::from_secs(10)).await;
    // The first receive does not wait.
    eventually("a receive has succeeded", || worker.health.ready().is_ok()).await;
    eventually("a receive is open", || worker.spy.receives_open() == 1).await;
    let sent = async {
        // `join!` polls the drain first.
        world.send(&expired("evt-1", "a"))
    };
    let (account, id) = tokio::join!(worker.finish(&world), sent);
    assert_eq!((account.received_total(), account.left_total(Disposition::HandedBack)), (1, 1));
    assert_eq!(world.hidden_for(&id), [0]);
    assert_eq!(world.sqs.counts(&world.queue).visible, 1);
    assert_eq!(world.ledger.totals().calls, 0);
}

#[tokio::test]
async fn workers_that_leave_together_do_not_use_up_a_message_s_receives() {
    const WORKERS: usize = 20;
    let world = World::start().await;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let worker = world.worker_with(|settings| settings.wait = Duration::from_secs(6)).await;
        // The first receive does not wait.
        eventually("a receive has succeeded", || worker.health.ready().is_ok()).await;
        eventually("a receive is open", || worker.spy.receives_open() == 1).await;
        workers.push(worker);
    }
    let leaving = join_all(workers.into_iter().map(Worker::drain));
    // `join!` polls the drains first.
    let ((), id) = tokio::join!(leaving.map(drop), async { world.send(&expired("evt-1", "a")) });
    let entries = world.sqs.ledger(&world.queue).entries;
    let deliveries = entries.iter().filter(|entry| {
        entry.message_id.as_deref() == Some(&*id)
            && matches!(entry.outcome, Outcome::Delivered { .. })
    });
    let deliveries = deliveries.count();
    // At once, after 1 s, after 2 s; the next would be after the end of all receives.
    assert!((1..=4).contains(&deliveries), "{deliveries} deliveries");
    assert_eq!(world.sqs.counts(&world.queue).total(), 1);
    assert!(world.dead_letters().is_empty());
}

#[tokio::test]
async fn a_drain_awaits_an_open_receive_that_stays_empty() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.wait = Duration::from_secs(2)).await;
    // The first receive does not wait.
    eventually("a receive has succeeded", || worker.health.ready().is_ok()).await;
    eventually("a receive is open", || worker.spy.receives_open() == 1).await;
    let account = worker.finish(&world).await;
    assert_eq!(account.received_total(), 0);
    // It was answered and not aborted.
    assert_eq!(world.sqs.ledger(&world.queue).receives_empty, 2);
}

#[tokio::test]
async fn a_drain_finishes_running_events_and_hands_back_queued_ones() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["*"], |settings| settings.concurrency = 2).await;
    for reservation in ["a", "b"] {
        world.send(&expired(&format!("evt-{reservation}"), reservation));
        eventually("the event is being handled", || {
            gate.entered().iter().any(|id| id == reservation)
        })
        .await;
    }
    // Two are ready, two wait in the lane of reservation a.
    for (id, reservation) in [("c", "c"), ("d", "d"), ("a2", "a"), ("a3", "a")] {
        world.send(&expired(&format!("evt-{id}"), reservation));
    }
    eventually("all are received", || worker.app.account().received_total() == 6).await;
    let opened = async {
        eventually("the other four are visible", || world.sqs.counts(&world.queue).visible == 4)
            .await;
        gate.open();
    };
    let (account, ()) = tokio::join!(worker.finish(&world), opened);
    // Each was received once: messages are handed back only when no receive is open.
    let left = [Disposition::Deleted, Disposition::HandedBack].map(|left| account.left_total(left));
    assert_eq!((account.received_total(), left), (6, [2, 4]), "{account:?}");
    for reservation in ["a", "b"] {
        assert_eq!(world.methods(reservation), ["PATCH", "ReleaseHold"]);
    }
    assert_eq!(world.ledger.totals().calls, 4);
    assert_eq!(world.sqs.ledger(&world.queue).visibility_to_zero, 4);
    for message in world.sqs.peek_all(&world.queue) {
        assert_eq!((message.receive_count, message.state), (1, MessageState::Visible));
    }

    // The next process handles the rest.
    let worker = world.worker().await;
    world.emptied().await;
    assert_eq!(world.ledger.totals().effects, 8, "seats and status of reservations a to d");
    worker.drain().await;
}

/// The waits are random, 0 to 20 s: some may end before the drain does.
#[tokio::test]
async fn an_event_that_waits_for_its_retry_is_handed_back_for_the_rest_of_the_wait() {
    let world = World::start().await;
    let services = world.services();
    let long = Duration::from_secs(20);
    let slow = |settings: &mut AppSettings| {
        settings.policy.backoff = Backoff { base: long, cap: long };
    };
    let worker = world.worker_of(services.clone(), slow).await;
    let names = ["a", "b", "c", "d"];
    let ids = names.map(|name| {
        world.inventory.script_for(name, [Scripted::<RpcReply>::code(Code::Internal)]);
        world.send(&expired(&format!("evt-{name}"), name))
    });
    eventually("each has failed once", || worker.outcomes("reservation.expired")[3] == 4.0).await;
    let account = worker.finish(&world).await;
    let [deleted, handed_back] =
        [Disposition::Deleted, Disposition::HandedBack].map(|l| account.left_total(l));
    assert_eq!(deleted + handed_back, 4, "{account:?}");
    // Each is hidden for the rest of its wait.
    let rests: Vec<_> = ids.iter().flat_map(|id| world.hidden_for(id)).collect();
    assert_eq!(u64::try_from(rests.len()).unwrap(), handed_back);
    assert!(
        rests.iter().all(|rest| *rest <= 20) && rests.iter().any(|rest| *rest > 0),
        "{rests:?}"
    );

    // Another worker with the same store starts with the step that failed.
    let worker = world.worker_of(services, |_| {}).await;
    world.emptied().await;
    for name in names {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold", "ReleaseHold"]);
    }
    worker.drain().await;
}

/// Events that were told to retry later stay hidden until then. An event that waits only because of
/// them is handed back at once: the next process finds out whether the service is back.
#[tokio::test]
async fn only_events_that_got_a_retry_time_themselves_are_handed_back_with_it() {
    let world = World::start().await;
    let services = world.services();
    let worker = world.worker_of(services.clone(), |_| {}).await;
    let wait = Duration::from_secs(40);
    let paced = Scripted::<RpcReply>::code_with_retry_info(Code::Unavailable, wait);
    let told = ["a", "b", "c", "d"].map(|name| {
        world.inventory.script_for(name, [paced.clone()]);
        world.send(&expired(&format!("evt-{name}"), name))
    });
    eventually("they wait", || worker.waiting() == 4.0).await;
    let other = world.send(&expired("evt-e", "e"));
    eventually("the other one waits", || worker.parked() == 1.0).await;
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::HandedBack), 5);
    assert_eq!(world.methods("e"), ["PATCH"], "the retry time applies to all events");
    assert_eq!(world.hidden_for(&other), [0]);
    for id in told {
        let [rest] = world.hidden_for(&id)[..] else { panic!("handed back once") };
        assert!((1..=40).contains(&rest), "{rest}");
    }
    assert_eq!(world.sqs.counts(&world.queue).visible, 1);

    // A new process: it has the store's records, but no outage state.
    let fresh = Services { outages: world.services().outages, ..services };
    let worker = world.worker_of(fresh, |_| {}).await;
    eventually("the other event is done", || world.methods("e") == ["PATCH", "ReleaseHold"]).await;
    world.emptied().await;
    for name in ["a", "b", "c", "d"] {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold", "ReleaseHold"]);
    }
    worker.drain().await;
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_is_cut_off_and_its_message_stays_hidden() {
    let world = World::start().await;
    let (worker, gate) =
        world.gated(&["a"], |settings| settings.call_timeout_max = Duration::from_secs(7)).await;
    let id = world.send(&expired("evt-1", "a"));
    eventually("the event is being handled", || gate.entered() == ["a"]).await;
    let begun = Instant::now();
    let grace = Duration::from_secs(5);
    let account = timeout(LIMIT, worker.app.drain(begun + grace)).await.expect("the drain ends");
    assert!(account.balances(), "{account:?}");
    assert_eq!(account.left_total(Disposition::HandedBack), 1);
    assert_eq!(world.hidden_for(&id), [7]);
    assert!(begun.elapsed() < grace + Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(world.sqs.counts(&world.queue).total(), 1);
}

#[tokio::test]
async fn a_drain_waits_for_slow_deletes() {
    let world = World::start().await;
    let worker = world.worker().await;
    let faults = world.sqs.faults(&world.queue);
    let second = Duration::from_secs(1);
    faults.latency(sandbox::sqs::Action::DeleteMessageBatch, second, Duration::ZERO);
    for n in 0..30 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let effects = world.ledger.wait_until(|ledger| ledger.totals().effects == 60, LIMIT).await;
    assert!(effects);
    let account = worker.finish(&world).await;
    assert_eq!(account.left_total(Disposition::Deleted), 30);
    assert_eq!(world.sqs.counts(&world.queue).total(), 0);
}

/// A worker without memory of the last one starts and drains repeatedly during a burst.
#[tokio::test]
async fn a_burst_survives_restarts_and_takes_effect_once() {
    let world = World::start().await;
    let busy = Faults::none().latency(Duration::from_millis(2), Duration::from_millis(10));
    world.api.set_faults(busy.seed(3).with(0.1, Scripted::<HttpReply>::lost_reply()));
    let count = 300;
    for n in 0..count {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let mut deleted = 0;
    for round in 1..4 {
        let worker = world.worker().await;
        let target = 2 * 60 * round;
        let reached =
            world.ledger.wait_until(|ledger| ledger.totals().effects >= target, LIMIT).await;
        assert!(reached, "round {round}");
        deleted += worker.drain().await.left_total(Disposition::Deleted);
        assert_eq!(world.sqs.ledger(&world.queue).deletes_effective, deleted, "round {round}");
    }
    let worker = world.worker().await;
    world.emptied().await;
    worker.drain().await;
    assert_eq!(world.ledger.totals().effects, 2 * count);
    for n in 0..count {
        assert_eq!(world.ledger.effects_for(&format!("r{n}")).len(), 2, "r{n}");
    }
    assert_eq!(world.dead_letters(), []);
}

/// A crash: all tasks are dropped at once, and no message is handed back.
#[tokio::test]
async fn a_crash_during_a_burst_loses_no_event() {
    let world = World::start().await;
    let busy = Faults::none().latency(Duration::from_millis(2), Duration::from_millis(10));
    world.api.set_faults(busy);
    let count = 100;
    for n in 0..count {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    let worker = world.worker_with(|settings| settings.visibility = Duration::from_secs(5)).await;
    let middle = world.ledger.wait_until(|ledger| ledger.totals().effects >= 60, LIMIT).await;
    assert!(middle);
    drop(worker);
    let worker = world.worker().await;
    world.emptied().await;
    assert_eq!(world.ledger.totals().effects, 2 * count, "repeated calls carry the same keys");
    worker.drain().await;
}
