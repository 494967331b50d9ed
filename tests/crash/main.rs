//! Two real workers with one queue and one real Redis; a fifth of all messages is delivered twice.
//! Every second one of the workers is killed (`kill -9`), and Redis is killed once. No event may be
//! lost, no effect may happen twice, and each repeated call must have a known cause.
//!
//! `CRASH_SECONDS` sets the duration: a few seconds in `make test`, a minute in `make test-crash`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reservation_worker::event::{EventId, Step, idempotency_key};
use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::{Answer, Call, Service};
use sandbox::redis::{Redis, RedisOptions, is_installed};
use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, Scripted};
use sandbox::sqs::{Entry, Outcome};
use tokio::time::{Instant, interval};

use sandbox::testing::program::{Env, Running, env, free_port};
use sandbox::testing::world::{World, expired};

/// Events sent per second: enough that a kill always hits events in progress.
const EVENTS_A_SECOND: u64 = 40;

/// The longest time between the effect of a step and its record in the store.
const WINDOW: Duration = Duration::from_millis(400);

/// The longest time until a busy worker on a busy machine has read a reply.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// The kills so far.
#[derive(Default)]
struct Harm {
    kills: Vec<Instant>,
    /// From the kill of the store until the workers have found it again.
    store_away: Option<(Instant, Instant)>,
}

impl Harm {
    /// Whether the process of this call, or the store, was killed before the step was recorded.
    fn explains(&self, call: &Call) -> bool {
        let until = call.answered_at.map_or(call.at, |at| at) + WINDOW;
        let until = match self.store_away {
            // Steps that cannot be recorded yet are lost if the process is killed meanwhile.
            Some((from, to)) if call.at <= to && from <= until => to.max(until),
            Some(_) | None => until,
        };
        // The service may read a request shortly after the end of the process that sent it.
        self.kills.iter().any(|kill| call.at <= *kill + ON_ITS_WAY && *kill <= until)
    }
}

fn seconds() -> u64 {
    std::env::var("CRASH_SECONDS")
        .map_or(8, |text| text.parse().expect("CRASH_SECONDS: whole seconds"))
}

/// Sets short latencies, and now and then a reply that is lost after the effect.
fn set_faults(world: &World) {
    let (least, spread) = (Duration::from_millis(2), Duration::from_millis(20));
    let faults = Faults::none().latency(least, spread).seed(7);
    world.api.set_faults(faults.with(0.02, Scripted::<Reply>::lost_reply()));
    let faults = Faults::none().latency(least, spread).seed(8);
    world.inventory.set_faults(faults.with(0.02, Scripted::<RpcReply>::lost_reply()));
    world.sqs.faults(&world.queue).duplicate_sometimes(0.2);
}

/// Sends, kills and restarts until the time is over; returns the number of events sent.
async fn rage(
    world: &World,
    redis: &mut Redis,
    environments: &[Env; 2],
    workers: &mut [Running; 2],
    harm: &mut Harm,
) -> u64 {
    let (last, mut ticks) = (seconds() * EVENTS_A_SECOND, interval(Duration::from_secs(1) / 40));
    for n in 0..last {
        ticks.tick().await;
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
        let (second, part) = (n / EVENTS_A_SECOND, n % EVENTS_A_SECOND);
        if part == EVENTS_A_SECOND / 2 {
            let victim = usize::try_from(second % 2).unwrap();
            workers[victim].kill().await;
            harm.kills.push(Instant::now());
            assert_eq!(workers[victim].exit_code().await, None, "an exit code after a kill");
            workers[victim] = Running::start(&environments[victim]);
        }
        if n == last / 2 {
            let from = Instant::now();
            redis.kill().await.unwrap();
            redis.start().await.unwrap();
            // After so short an outage, probes are at most a second apart.
            harm.store_away = Some((from, Instant::now() + Duration::from_secs(4)));
        }
    }
    last
}

/// Returns the environment of a worker, with its own admin port.
fn environment(world: &World, redis: &Redis) -> Env {
    let mut variables = env(world);
    variables.insert("IDEMPOTENCY_STORE", redis.url());
    variables.insert("SQS_VISIBILITY_TIMEOUT", "5".to_owned());
    variables.insert("SERVER_PORT", free_port().to_string());
    variables
}

#[tokio::test]
async fn two_workers_that_are_killed_repeatedly_lose_no_event_and_repeat_no_effect() {
    if !is_installed("redis-server") {
        return;
    }
    // Redis keeps all acknowledged writes after a kill.
    let options =
        RedisOptions::default().setting("appendonly", "yes").setting("appendfsync", "always");
    let mut redis = options.start().await.unwrap();
    let world = World::start().await;
    set_faults(&world);
    let environments = [environment(&world, &redis), environment(&world, &redis)];
    let mut workers = [Running::start(&environments[0]), Running::start(&environments[1])];
    let mut harm = Harm::default();
    let sent = rage(&world, &mut redis, &environments, &mut workers, &mut harm).await;
    world.emptied().await;

    judge(&world, sent, &harm);
    for worker in &mut workers {
        worker.process.terminate();
        assert_eq!(worker.exit_code().await, Some(0), "{}", worker.log());
    }
}

fn is_reply_lost(call: &Call) -> bool {
    call.fault || call.answer == Answer::Pending || call.abandoned
}

/// A cut connection loses all gRPC replies that are on their way on it.
fn connection_was_cut(call: &Call, calls_lost: &[&Call]) -> bool {
    let until = call.answered_at.map(|at| at + ON_ITS_WAY);
    let cuts = |lost: &&&Call| {
        lost.answered_at.is_some_and(|at| call.at <= at && until.is_some_and(|until| at <= until))
    };
    call.service == Service::Inventory
        && calls_lost.iter().any(|lost| lost.service == Service::Inventory && cuts(&lost))
}

fn judge(world: &World, sent: u64, harm: &Harm) {
    for n in 0..sent {
        assert_eq!(
            world.ledger.effects_for(&format!("r{n}")).len(),
            2,
            "r{n}: not each effect once"
        );
    }
    let (calls, totals) = (world.ledger.calls(), world.ledger.totals());
    assert_eq!(totals.effects, 2 * sent);
    assert_eq!(world.dead_letters(), []);
    let keys: BTreeSet<String> = (0..sent)
        .flat_map(|n| {
            let id = EventId::new(&format!("evt-{n}")).unwrap();
            [Step::ReservationStatus, Step::InventoryRelease]
                .map(|step| idempotency_key(&id, step).to_string())
        })
        .collect();
    let mut by_key: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in &calls {
        let key = call.key.as_deref().expect("every call has a key");
        assert!(keys.contains(key), "the key belongs to no event: {call:?}");
        by_key.entry(key).or_default().push(call);
    }
    let calls_lost: Vec<&Call> = calls.iter().filter(|call| is_reply_lost(call)).collect();
    let (mut lost_replies, mut by_kills) = (0, 0);
    for calls in by_key.values() {
        for earlier in &calls[..calls.len() - 1] {
            if is_reply_lost(earlier) || connection_was_cut(earlier, &calls_lost) {
                lost_replies += 1;
            } else {
                assert!(harm.explains(earlier), "repeated without a known cause: {earlier:?}");
                by_kills += 1;
            }
        }
    }
    let is_delivery = |entry: &&Entry| matches!(entry.outcome, Outcome::Delivered { .. });
    let deliveries = world.sqs.ledger(&world.queue).entries.iter().filter(is_delivery).count();
    println!(
        "{sent} events, {deliveries} deliveries, {} kills, Redis killed once: lost 0, applied twice 0; {} calls, \
         {lost_replies} made again after a lost reply or a cut connection, {by_kills} after a kill before the record, \
         unexplained 0",
        harm.kills.len(),
        calls.len(),
    );
}
