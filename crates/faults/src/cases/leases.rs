//! Leases under stress: a receive response that waits for a paused process, and the maximum number
//! of held messages.

use std::time::Duration;

use rustix::process::Signal;
use sandbox::ledger::{Call, Ledger};
use sandbox::reservation_api::Reply;
use sandbox::script::Faults;
use sandbox::sqs::{Action, Counts};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::{Event, Kind, crowd};
use crate::failed::{Failed, ensure};
use crate::worker::LIMIT;
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(240);

/// Longer than the visibility timeout, which is one second above its minimum.
const PAUSED: Duration = Duration::from_secs(9);
const VISIBILITY_S: u64 = 6;

/// The maximum number of held messages.
const HELD_MAX: usize = 20_000;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "lease-pause",
        injected: "a process is stopped (SIGSTOP) for 9 s while its receive is open, with a visibility timeout of 6 s; the answer waits for it, and another process receives the message meanwhile",
        must_hold: "the first begins no step of it when it goes on",
        is_short: true,
        run: |setting| Box::pin(pause(setting)),
    },
    Case {
        name: "extensions-20000",
        injected: "20,000 messages are held while a service is away, 100 ms for each call that extends leases",
        must_hold: "no lease is lost, no message is delivered twice; once the service is back every event is handled",
        is_short: false,
        run: |setting| Box::pin(extensions(setting)),
    },
];

async fn pause(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    world.set("SQS_VISIBILITY_TIMEOUT", VISIBILITY_S);
    world.set("SQS_WAIT_TIME", 20);
    world.set("RESERVATION_TIMEOUT_MS", 20_000);
    let mut paused = world.started().await?;
    // When one event is done and deleted, the next receive is open.
    world.send(Event::new("first", Kind::Expired));
    let empty = |counts: &Counts| counts.total() == 0;
    ensure(world.sqs.wait_until(&world.queue, empty, LIMIT).await, || "it is idle".to_owned())?;
    // The other process works on the message until long after the first continues.
    let slow = Duration::from_secs(8);
    world.api.set_faults(Faults::<Reply>::none().latency(slow, Duration::ZERO));
    paused.signal(Signal::STOP);
    world.send(Event::new("paused", Kind::Expired));
    let handed_out = |counts: &Counts| counts.in_flight == 1;
    ensure(world.sqs.wait_until(&world.queue, handed_out, LIMIT).await, || {
        "no receive was open".to_owned()
    })?;
    let mut other = world.started().await?;
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(PAUSED).await;
    let begun = |ledger: &Ledger| ledger.calls_for("rsv_paused").len() == 1;
    ensure(world.ledger.wait_until(begun, LIMIT).await, || "the other is idle".to_owned())?;
    paused.signal(Signal::CONT);
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let calls = world.ledger.calls_for("rsv_paused");
    let methods: Vec<_> = calls.iter().map(Call::method).collect();
    ensure(methods == ["PATCH", "ReleaseHold"], || format!("called again: {methods:?}"))?;
    paused.leave(LIMIT).await?;
    other.leave(LIMIT).await?;
    Ok(Seen::Held(account.to_string()))
}

async fn extensions(setting: Setting) -> Result<Seen, Failed> {
    let events = if setting.is_short { HELD_MAX / 10 } else { HELD_MAX };
    let mut world = World::start(&setting).await?;
    world.use_defaults();
    world.use_no_proxies();
    world.set("MAX_IN_FLIGHT", HELD_MAX);
    world.set("WORKER_CONCURRENCY", 100);
    let faults = world.sqs.faults(&world.queue);
    let slow = Duration::from_millis(100);
    faults.latency(Action::ChangeMessageVisibilityBatch, slow, Duration::ZERO);
    world.api.go_down().await?;
    world.send_all(crowd("held", events));
    let mut worker = world.started().await?;
    let all_held = |counts: &Counts| counts.in_flight == events;
    ensure(world.sqs.wait_until(&world.queue, all_held, SETTLED_MAX).await, || {
        format!("not all are held: {:?}", world.sqs.counts(&world.queue))
    })?;
    // Three leases of 30 s each.
    let thrice = f64::from(u32::try_from(events * 4).unwrap_or(u32::MAX));
    let extended = "worker_lease_extensions_total";
    for _ in 0..4 {
        if worker.counts(extended, &[], thrice).await.is_ok() {
            break;
        }
    }
    let total = worker.metric(extended, &[]).await.unwrap_or_default();
    ensure(total >= thrice, || format!("only {total} extensions"))?;
    let lost = worker.metric("worker_leases_lost_total", &[]).await;
    ensure(lost == Some(0.0), || format!("{lost:?} leases were lost"))?;
    world.api.come_back().await?;
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let delivered = world.sqs.ledger(&world.queue).delivered;
    ensure(usize::try_from(delivered) == Ok(events), || format!("{delivered} deliveries"))?;
    worker.leave(LIMIT).await?;
    Ok(Seen::Held(format!("{account}; {total} extensions, none lost")))
}
