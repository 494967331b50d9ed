//! `kill -9` at each moment of a message's life. Nothing is lost, nothing takes effect twice, and
//! only steps that the dead process could not record are repeated.

use std::time::Duration;

use sandbox::redis::{RedisOptions, is_installed};

use super::moment::{Moment, calls_fit};
use crate::account::Account;
use crate::case::{Case, Seen, rounds};
use crate::failed::Failed;
use crate::world::{Setting, Started, World};

/// Concurrent worlds: they mostly wait for a visibility timeout.
const AT_ONCE: usize = 8;

/// Time limit for handling the rest on a busy machine: some visibility timeouts.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "kill",
        injected: "kill -9 at each of 14 moments: received, buffered, before, in and after each call out, before, in and after the delete, waiting, parked",
        must_hold: "every event takes effect once; the next process begins within one visibility timeout (5 s)",
        is_short: true,
        run: |setting| Box::pin(plain(setting)),
    },
    Case {
        name: "kill-store",
        injected: "the same with a shared store (Redis), at those and 6 more: before and after the claim, each record",
        must_hold: "and a step that the store has recorded is not called again",
        is_short: true,
        run: |setting| Box::pin(with_store(setting)),
    },
];

async fn plain(setting: Setting) -> Result<Seen, Failed> {
    let times = if setting.is_short { 1 } else { 8 };
    kill_at(setting, &Moment::PLAIN, times, false).await
}

async fn with_store(setting: Setting) -> Result<Seen, Failed> {
    if !is_installed("kill-store") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let all = [Moment::PLAIN.as_slice(), Moment::STORE.as_slice()].concat();
    let (moments, times) =
        if setting.is_short { (Moment::STORE.as_slice(), 1) } else { (all.as_slice(), 5) };
    kill_at(setting, moments, times, true).await
}

async fn kill_at(
    setting: Setting,
    moments: &[Moment],
    times: usize,
    has_store: bool,
) -> Result<Seen, Failed> {
    let one = |number: usize| {
        let moment = moments[number % moments.len()];
        round(setting.clone(), moment, number, has_store)
    };
    let done = rounds(moments.len() * times, AT_ONCE, one).await?;
    let mut sum = Account::default();
    for account in &done {
        sum += *account;
    }
    Ok(Seen::Held(format!("{} kills, {times} at each moment; {sum}", done.len())))
}

async fn round(
    setting: Setting,
    moment: Moment,
    number: usize,
    has_store: bool,
) -> Result<Account, Failed> {
    let mut world = world(&setting, moment, has_store).await?;
    let mut worker = started(&world).await?;
    let marked = moment.reach(&mut world, &worker, number).await?;
    worker.kill().await?;
    world.harm.killed();
    restore(&world).await?;
    let mut next = world.started().await?;
    let place = || format!("{moment:?}, round {number}");
    let account = Account::settled(&world, LIMIT).await.map_err(|failed| failed.at(place()))?;
    let again = moment.again(has_store);
    calls_fit(&world, &marked, again).map_err(|failed| failed.at(place()))?;
    next.leave(LIMIT).await?;
    Ok(account)
}

/// Starts a worker and waits until it is connected to its dependencies.
pub(super) async fn started(world: &World) -> Result<Started, Failed> {
    let worker = world.started().await?;
    if world.store.is_some() {
        worker.says("Connected to the shared store").await?;
    }
    Ok(worker)
}

/// Creates a world in which this moment can be reached.
pub(super) async fn world(
    setting: &Setting,
    moment: Moment,
    has_store: bool,
) -> Result<World, Failed> {
    let mut world = World::start(setting).await?;
    if has_store {
        let redis = RedisOptions::default().setting("appendonly", "yes");
        world = world.with_redis(redis.setting("appendfsync", "always")).await?;
    }
    if moment == Moment::Buffered {
        world.set("WORKER_CONCURRENCY", 1);
    }
    if moment == Moment::Waiting {
        // Full jitter may draw a delay near zero, so there are several attempts.
        world.set("BACKOFF_BASE_MS", 2_000);
        world.set("BACKOFF_MAX_MS", 2_000);
    }
    Ok(world)
}

/// Drops the bytes of the dead process and removes all faults.
pub(super) async fn restore(world: &World) -> Result<(), Failed> {
    world.forget();
    world.to_api.accept().await?;
    world.api.clear_script();
    world.inventory.clear_script();
    world.sqs.faults(&world.queue).clear();
    Ok(())
}
