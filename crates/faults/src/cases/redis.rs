//! The shared store, killed, restarted, slow or full. No event is handled without a claim, and
//! nothing is lost.

use std::time::{Duration, Instant};

use sandbox::redis::{Redis, RedisOptions, is_installed, is_on_path};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::{Event, crowd};
use crate::failed::{Failed, ensure};
use crate::proxy::{Course, Way};
use crate::world::{Setting, Store, World, address};

const SETTLED_MAX: Duration = Duration::from_secs(90);

/// Duration of the fault.
const LASTS: Duration = Duration::from_secs(10);

const EVENTS: usize = 200;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "redis-killed",
        injected: "Redis (appendfsync always) is killed under load, and started again after 10 s",
        must_hold: "events wait, held, and none begins without its claim; each takes effect once",
        is_short: false,
        run: |setting| Box::pin(run(setting, Harm::Killed)),
    },
    Case {
        name: "redis-restarted",
        injected: "Redis is shut down under load, and started again after 10 s",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(run(setting, Harm::Stopped)),
    },
    Case {
        name: "redis-paused",
        injected: "Redis is stopped (SIGSTOP) for 10 s: connections stay, nothing is answered",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(run(setting, Harm::Paused)),
    },
    Case {
        name: "redis-slow",
        injected: "every answer of Redis takes 300 ms for 10 s, then 1.5 s (over the worker's limit of 1 s) for 10 s",
        must_hold: "each takes effect once; all go on when it is fast again",
        is_short: false,
        run: |setting| Box::pin(slow(setting)),
    },
    Case {
        name: "redis-full",
        injected: "Redis has no memory left (maxmemory, noeviction) for 10 s: writes are refused",
        must_hold: "events wait, held, and none begins without its claim; each takes effect once",
        is_short: false,
        run: |setting| Box::pin(run(setting, Harm::Full)),
    },
    Case {
        name: "redis-failover",
        injected: "under load Redis hands over to its replica (FAILOVER) and becomes the replica of that; connections to it stay",
        must_hold: "each takes effect once, and none waits for more than a few seconds: a client whose write is refused connects again",
        is_short: false,
        run: |setting| Box::pin(failover(setting, None)),
    },
    Case {
        name: "redis6-failover",
        injected: "the same with Redis 6.2, which reports READONLY only inside a script's error, with the code ERR",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(failover(setting, Some(REDIS_6))),
    },
];

/// Redis 6.2, under the name that `make stores` installs it.
const REDIS_6: &str = "redis-server-6.2";

/// Time limit for all events sent before and after a failover: the failover takes one second, a
/// claim one more.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Killed,
    Stopped,
    Paused,
    Full,
}

impl Harm {
    async fn begin(self, redis: &mut Redis) -> Result<(), Failed> {
        match self {
            Self::Killed => redis.kill().await?,
            Self::Stopped => redis.stop().await?,
            Self::Paused => redis.pause(),
            Self::Full => {
                redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await?;
            }
        }
        Ok(())
    }

    async fn end(self, redis: &mut Redis) -> Result<(), Failed> {
        match self {
            Self::Killed | Self::Stopped => redis.start().await?,
            Self::Paused => redis.resume(),
            Self::Full => {
                redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
            }
        }
        Ok(())
    }
}

fn store(world: &mut World) -> &mut Store {
    world.store.as_mut().expect("the case has a store")
}

async fn world(setting: &Setting) -> Result<World, Failed> {
    let options = RedisOptions::default().setting("appendonly", "yes");
    let options = options.setting("appendfsync", "always");
    Ok(World::start(setting).await?.with_redis(options).await?)
}

async fn run(setting: Setting, harm: Harm) -> Result<Seen, Failed> {
    if !is_installed("a shared store that fails") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let mut world = world(&setting).await?;
    let mut workers = [world.started().await?, world.started().await?];
    for worker in &workers {
        worker.says("Connected to the shared store").await?;
    }
    world.harm.begin();
    // The fault comes while these are in progress.
    world.send_all(crowd("under_way", EVENTS));
    let some = |ledger: &sandbox::ledger::Ledger| ledger.totals().effects >= 20;
    ensure(world.ledger.wait_until(some, SETTLED_MAX).await, || "no effects".to_owned())?;
    harm.begin(&mut store(&mut world).redis).await?;
    let during = crowd("during", EVENTS);
    world.send_all(during.clone());
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(LASTS).await;
    let unguarded = begun(&world, &during);
    harm.end(&mut store(&mut world).redis).await?;
    ensure(unguarded == 0, || format!("{unguarded} events were handled without a claim"))?;
    let account = Account::settled(&world, SETTLED_MAX).await?;
    world.harm.end();
    for worker in &mut workers {
        worker.leave(SETTLED_MAX).await?;
    }
    Ok(Seen::Held(format!(
        "{account}; {EVENTS} sent while it was away: none begun before its return"
    )))
}

/// Returns how many of these events caused a call to a service.
fn begun(world: &World, events: &[Event]) -> usize {
    events.iter().filter(|it| !world.ledger.calls_for(&it.reservation).is_empty()).count()
}

async fn slow(setting: Setting) -> Result<Seen, Failed> {
    if !is_installed("a shared store that is slow") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let mut world = world(&setting).await?;
    let mut worker = world.started().await?;
    worker.says("Connected to the shared store").await?;
    world.harm.begin();
    let proxy = store(&mut world).proxy.clone();
    proxy.set(Way::ToClient, Course::Delay(Duration::from_millis(300)));
    world.send_all(crowd("slow", EVENTS));
    tokio::time::sleep(LASTS).await;
    let done = world.ledger.totals().effects / 2;
    ensure(done > 0, || "nothing is done while it is slow".to_owned())?;
    proxy.set(Way::ToClient, Course::Delay(Duration::from_millis(1_500)));
    world.send_all(crowd("slower", EVENTS));
    tokio::time::sleep(LASTS).await;
    proxy.set(Way::ToClient, Course::Pass);
    let account = Account::settled(&world, SETTLED_MAX).await?;
    world.harm.end();
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {done} done in the first 10 s")))
}

async fn failover(setting: Setting, program: Option<&str>) -> Result<Seen, Failed> {
    let mut options = RedisOptions::default().setting("repl-diskless-sync-delay", "0");
    if let Some(program) = program {
        if !is_on_path(program) {
            return Ok(Seen::LeftOut(format!("{program} is not installed (make stores)")));
        }
        options = options.program(program);
    } else if !is_installed("a shared store that fails over") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let replica = options.clone().start().await?;
    let mut world = World::start(&setting).await?.with_redis(options).await?;
    let (port, proxy) =
        (store(&mut world).redis.port().to_string(), store(&mut world).proxy.clone());
    let follows = replica.command(&["REPLICAOF", "127.0.0.1", &port]).await?;
    ensure(follows.text() == "OK", || format!("REPLICAOF: {follows:?}"))?;
    role(&replica, "slave", "connected").await?;
    let mut workers = [world.started().await?, world.started().await?];
    for worker in &workers {
        worker.says("Connected to the shared store").await?;
    }
    world.harm.begin();
    world.send_all(crowd("before", EVENTS));
    let some = |ledger: &sandbox::ledger::Ledger| ledger.totals().effects >= 20;
    ensure(world.ledger.wait_until(some, SETTLED_MAX).await, || "no effects".to_owned())?;
    let to = replica.port().to_string();
    let handed_over =
        store(&mut world).redis.command(&["FAILOVER", "TO", "127.0.0.1", &to]).await?;
    ensure(handed_over.text() == "OK", || format!("FAILOVER: {handed_over:?}"))?;
    role(&replica, "master", "").await?;
    role(&store(&mut world).redis, "slave", "").await?;
    // As a DNS name does that now leads to the new master.
    proxy.lead_to(address(&format!("127.0.0.1:{to}"))?);
    let began = Instant::now();
    world.send_all(crowd("after", EVENTS));
    let account = Account::settled(&world, FAILOVER_MAX).await?;
    let took_s = began.elapsed().as_secs_f64();
    world.harm.end();
    for worker in &mut workers {
        worker.leave(SETTLED_MAX).await?;
    }
    Ok(Seen::Held(format!("{account}; all done {took_s:.1} s after the failover")))
}

/// Waits until a server reports this role and state.
async fn role(redis: &Redis, role: &str, state: &str) -> Result<(), Failed> {
    let began = Instant::now();
    loop {
        let said = redis.command(&["ROLE"]).await?.text();
        if said.contains(role) && said.contains(state) {
            return Ok(());
        }
        ensure(began.elapsed() < SETTLED_MAX, || format!("no {role} {state}: {said}"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
