//! Two processes that share a store take turns at a reservation: while one of them is killed or
//! frozen at each moment of an event, and while the store is away. Each process has a queue of its
//! own, so that it is known who waits for whom.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sandbox::inventory::Reply as RpcReply;
use sandbox::redis::{Redis, RedisCluster, RedisOptions, is_installed};
use sandbox::reservation_api::Reply;
use sandbox::script::Faults;
use sandbox::sqs::{QueueSpec, Redrive};

use super::kill::{self, restore};
use super::moment::Moment;
use super::order;
use crate::account::{Account, Expected};
use crate::case::{Case, Seen, rounds};
use crate::events::{Event, Kind};
use crate::failed::{Failed, came, ensure, eventually};
use crate::turns::Turns;
use crate::world::{Setting, Started, World};

/// Concurrent worlds: they mostly wait for a lease to end.
const AT_ONCE: usize = 6;

/// Time limit for single conditions on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Time limit for all events after the fault: some leases of 5 s.
const DONE_WITHIN: Duration = Duration::from_secs(30);

/// More than two leases.
const FROZEN: Duration = Duration::from_secs(12);

/// How long the store is away: more than a lease.
const AWAY: Duration = Duration::from_secs(8);

/// Reservations whose order is judged: a busy process may ask too late to keep its ticket.
const FEW: usize = 12;

/// Reservations under load, with three events each.
const RESERVATIONS: usize = 40;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "order-pods-kill",
        injected: "kill -9 of one of two processes with a shared store (Redis) at each of 20 moments of an event, while the other has an event of the same reservation, and a third one follows",
        must_hold: "calls of two events of a reservation never overlap, and of those that wait the one sent first goes next; each event takes effect once; all done within 30 s",
        is_short: true,
        run: |setting| Box::pin(at_moments(setting, Strike::Kill)),
    },
    Case {
        name: "order-pods-stop",
        injected: "the same, stopped (SIGSTOP) for 12 s, more than two leases; then it goes on (SIGCONT), and what it had on the wire arrives",
        must_hold: "the same, but for a call that was on the wire when the process stopped",
        is_short: false,
        run: |setting| Box::pin(at_moments(setting, Strike::Stop)),
    },
    Case {
        name: "order-pods-redis",
        injected: "two processes get 40 reservations with three events each, and 40 while it is away, and 12 later; Redis (appendfsync always) is killed under that load and started again after 8 s, more than a lease",
        must_hold: "the same, all done within 60 s of its return; without SHARED_ORDER events of a reservation meet",
        is_short: false,
        run: |setting| Box::pin(redis_killed(setting)),
    },
    Case {
        name: "order-pods-cluster",
        injected: "the same on a cluster of three nodes, one of which is killed and started again",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(node_killed(setting)),
    },
];

/// What happens to one of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    Kill,
    Stop,
}

/// A world with a second queue.
struct Pods {
    world: World,
    other_queue: String,
}

impl Pods {
    fn new(world: World) -> Self {
        let redrive = Some(Redrive { dlq: "dlq".to_owned(), max_receive_count: 100 });
        let spec = QueueSpec { redrive, ..QueueSpec::default() };
        let other_queue = world.sqs.create_queue("other", spec);
        Self { world, other_queue }
    }

    /// Starts a process on this queue that no proxy can hold up.
    async fn beside(&self, queue: &str) -> Result<Started, Failed> {
        let world = &self.world;
        let (mut launch, port) = world.launch()?;
        let variables = &mut launch.variables;
        variables.insert("SQS_QUEUE_URL", queue.to_owned());
        variables.insert("AWS_ENDPOINT_URL", world.sqs.endpoint_url());
        variables.insert("RESERVATION_API_BASE", world.api.base_url());
        variables.insert("INVENTORY_GRPC_ADDR", world.inventory.addr());
        if let Some(store) = &world.store {
            variables.insert("IDEMPOTENCY_STORE", store.redis.url());
        }
        let worker = world.start_worker(&launch, port)?;
        worker.says("Worker started").await?;
        worker.says("Connected to the shared store").await?;
        Ok(worker)
    }

    /// Waits until both queues are empty.
    async fn emptied(&self) -> Result<(), Failed> {
        let Self { world, other_queue } = self;
        for queue in [&world.queue, other_queue] {
            let emptied = world.sqs.wait_until(queue, |it| it.total() == 0, LIMIT).await;
            let counts = world.sqs.counts(queue);
            ensure(emptied, || format!("{queue} is not empty: {counts:?}"))?;
        }
        Ok(())
    }

    /// Waits until both queues are empty, then checks the account, the turns, and that the events
    /// of each reservation came to one end.
    async fn settled(&self) -> Result<(Account, Turns), Failed> {
        self.emptied().await?;
        let Self { world, other_queue } = self;
        let mut account = Account::judge(world)?;
        account.deliveries += world.sqs.ledger(other_queue).delivered;
        let judged = world.sent.iter().filter(|sent| sent.expected == Expected::Judged);
        for event in judged.filter_map(|sent| sent.event.as_ref()) {
            order::judge(world, None, &event.reservation)?;
            let calls = world.ledger.calls_for(&event.reservation);
            let first_key = &event.keys()[0];
            ensure(calls.iter().any(|call| call.key.as_ref() == Some(first_key)), || {
                format!("{} was never called for", event.id)
            })?;
        }
        let turns = Turns::judge(world, &[&world.queue, other_queue])?;
        Ok((account, turns))
    }
}

/// The counts of a round.
#[derive(Default)]
struct Sum {
    account: Account,
    turns: Turns,
    slowest: Duration,
}

async fn at_moments(setting: Setting, strike: Strike) -> Result<Seen, Failed> {
    if !is_installed("order among processes that are harmed") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let all = [Moment::PLAIN.as_slice(), Moment::STORE.as_slice()].concat();
    let (moments, times) =
        if setting.is_short { (Moment::STORE.as_slice(), 1) } else { (all.as_slice(), 3) };
    let one = |number: usize| {
        let (setting, moment) = (setting.clone(), moments[number % moments.len()]);
        async move {
            let done = round(&setting, moment, number, strike).await;
            done.map_err(|failed| failed.at(format!("{moment:?}, round {number}")))
        }
    };
    let done = rounds(moments.len() * times, AT_ONCE, one).await?;
    let mut sum = Sum::default();
    for round in &done {
        sum.account += round.account;
        sum.turns += round.turns;
        sum.slowest = sum.slowest.max(round.slowest);
    }
    let Sum { account, turns, slowest } = sum;
    let count = done.len();
    let slowest = slowest.as_secs_f64();
    Ok(Seen::Held(format!(
        "{count} times, {times} at each moment; {turns}; all done {slowest:.1} s after; {account}"
    )))
}

async fn round(
    setting: &Setting,
    moment: Moment,
    number: usize,
    strike: Strike,
) -> Result<Sum, Failed> {
    let mut pods = Pods::new(kill::world(setting, moment, true).await?);
    // From when on bytes are held back: what was not recorded may be called again.
    pods.world.harm.begin();
    let mut victim = kill::started(&pods.world).await?;
    let mut other = pods.beside(&pods.other_queue).await?;
    let marked = moment.reach(&mut pods.world, &victim, number).await?;
    rivals(&mut pods, &other, &marked).await?;
    pods.world.harm.strike();
    let next = match strike {
        Strike::Kill => {
            victim.kill().await?;
            pods.world.harm.killed();
            restore(&pods.world).await?;
            pods.world.started().await?
        }
        Strike::Stop => {
            victim.signal(Signal::STOP);
            let next = pods.beside(&pods.world.queue).await?;
            // The duration is part of the fault; there is no condition to wait for.
            tokio::time::sleep(FROZEN).await;
            pods.world.harm.strike();
            victim.signal(Signal::CONT);
            pods.world.let_pass();
            pods.world.to_api.accept().await?;
            pods.world.api.clear_script();
            pods.world.sqs.faults(&pods.world.queue).clear();
            next
        }
    };
    let began = Instant::now();
    let (account, turns) = pods.settled().await?;
    let slowest = began.elapsed();
    ensure(slowest <= DONE_WITHIN, || format!("all done only {slowest:?} after"))?;
    pods.world.harm.end();
    let mut leaving = vec![next];
    if strike == Strike::Stop {
        leaving.push(victim);
    }
    for mut worker in leaving {
        worker.leave(LIMIT).await?;
    }
    other.leave(LIMIT).await?;
    Ok(Sum { account, turns, slowest })
}

/// Sends two more events of the marked one's reservation: to the other process, then to this one.
/// Returns when the first of them waits, or has begun.
async fn rivals(pods: &mut Pods, other: &Started, marked: &Event) -> Result<(), Failed> {
    for sent in &mut pods.world.sent {
        if sent.event.as_ref() == Some(marked) {
            sent.expected = Expected::Judged;
        }
    }
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| *kind != marked.kind).collect();
    let rival = |n: usize| {
        let name = format!("{}_{}", marked.id.trim_start_matches("evt_"), n + 2);
        Event::new(&name, kinds[n]).about(&marked.reservation)
    };
    let Pods { world, other_queue } = pods;
    world.send_judged_to(other_queue, rival(0));
    let second_key = &rival(0).keys()[0];
    eventually("the other process has an event of the reservation", LIMIT, async || {
        let calls = world.ledger.calls_for(&marked.reservation);
        calls.iter().any(|call| call.key.as_ref() == Some(second_key))
            || other.metric("worker_order_waits_total", &[]).await.is_some_and(|it| it > 0.0)
    })
    .await?;
    world.send_judged(rival(1));
    Ok(())
}

/// Sends three events of each of these reservations, in turn to both processes.
async fn crowd(pods: &mut Pods, name: &str, reservations: usize) {
    for turn in 0..Kind::ALL.len() {
        for n in 0..reservations {
            let kind = Kind::ALL[(n + turn) % Kind::ALL.len()];
            let event = Event::new(&format!("{name}_{n}_{turn}"), kind);
            let event = event.about(&format!("rsv_{name}_{n}"));
            let queue = if (n + turn) % 2 == 0 { &pods.world.queue } else { &pods.other_queue };
            pods.world.send_judged_to(&queue.clone(), event);
        }
        // Apart, so that the queue's clock tells who was sent first.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns a world with services that take their time.
async fn slow_world(setting: &Setting) -> Result<World, Failed> {
    let mut world = World::start(setting).await?;
    // A busy pod may ask too late to keep its ticket.
    world.set("WORKER_CONCURRENCY", 100);
    let (least, spread) = (Duration::from_millis(150), Duration::from_millis(300));
    world.api.set_faults(Faults::<Reply>::none().latency(least, spread).seed(1));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(least, spread).seed(2));
    Ok(world)
}

/// Checks that without order the judge sees events of a reservation meet.
async fn control(setting: &Setting) -> Result<(), Failed> {
    let mut world = slow_world(setting).await?.with_redis(RedisOptions::default()).await?;
    world.set("SHARED_ORDER", false);
    let mut pods = Pods::new(world);
    crowd(&mut pods, "control", RESERVATIONS).await;
    let workers = [pods.beside(&pods.world.queue).await?, pods.beside(&pods.other_queue).await?];
    pods.emptied().await?;
    drop(workers);
    let met = Turns::judge(&pods.world, &[&pods.world.queue, &pods.other_queue]);
    ensure(met.is_err(), || format!("without SHARED_ORDER no events met: {met:?}"))
}

fn redis(pods: &mut Pods) -> &mut Redis {
    &mut pods.world.store.as_mut().expect("the case has a store").redis
}

async fn redis_killed(setting: Setting) -> Result<Seen, Failed> {
    if !is_installed("order while the store is away") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    control(&setting).await?;
    let options = RedisOptions::default().append_only();
    let mut pods = Pods::new(slow_world(&setting).await?.with_redis(options).await?);
    let workers = started(&mut pods).await?;
    redis(&mut pods).kill().await?;
    while_away(&mut pods).await;
    redis(&mut pods).start().await?;
    ended(pods, workers).await
}

async fn node_killed(setting: Setting) -> Result<Seen, Failed> {
    if !is_installed("order while a node of the store is away") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let mut cluster = RedisCluster::start_with(&RedisOptions::default().append_only()).await?;
    let mut world = slow_world(&setting).await?;
    world.set("IDEMPOTENCY_STORE", cluster.nodes[0].url());
    let mut pods = Pods::new(world);
    let workers = started(&mut pods).await?;
    cluster.nodes[1].kill().await?;
    while_away(&mut pods).await;
    cluster.nodes[1].start().await?;
    ended(pods, workers).await
}

/// Starts both processes under load, and waits until it takes effect.
async fn started(pods: &mut Pods) -> Result<[Started; 2], Failed> {
    let workers = [pods.beside(&pods.world.queue).await?, pods.beside(&pods.other_queue).await?];
    crowd(pods, "under_way", RESERVATIONS).await;
    let some = |ledger: &sandbox::ledger::Ledger| ledger.totals().effects >= 20;
    came(pods.world.ledger.wait_until(some, LIMIT).await, "effects")?;
    pods.world.harm.begin();
    pods.world.harm.strike();
    Ok(workers)
}

async fn while_away(pods: &mut Pods) {
    crowd(pods, "during", RESERVATIONS).await;
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(AWAY).await;
    pods.world.harm.strike();
}

/// Waits until all is done, then sends more events, whose order nothing disturbs.
async fn ended(mut pods: Pods, workers: [Started; 2]) -> Result<Seen, Failed> {
    let began = Instant::now();
    pods.emptied().await?;
    let took = began.elapsed();
    ensure(took <= LIMIT, || format!("all done only {took:?} after its return"))?;
    crowd(&mut pods, "after", FEW).await;
    let (account, turns) = pods.settled().await?;
    pods.world.harm.end();
    ensure(turns.waited_for > 0, || "no event waited for the other process".to_owned())?;
    for mut worker in workers {
        worker.leave(LIMIT).await?;
    }
    let took_s = took.as_secs_f64();
    Ok(Seen::Held(format!("{turns}; all done {took_s:.1} s after its return; {account}")))
}
