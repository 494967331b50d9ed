//! Runs one seed, from its plan to its result: starts the worker in the simulated world, kills it,
//! tells it to stop, restarts it, and checks at the end that everything is settled.

use std::sync::Arc;
use std::time::Duration;

use reservation_worker::app::{App, AppParts};
use reservation_worker::controls::Controls;
use reservation_worker::handler::{ServiceEndpoints, Services};
use reservation_worker::health::Health;
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{IdempotencyClient, Store};
use reservation_worker::metrics::Metrics;
use reservation_worker::outage::{OutageSettings, Outages};
use reservation_worker::settle::account::{Disposition, MessageAccount};
use reservation_worker::telemetry::Tracing;
use tokio::time::{Instant, sleep, sleep_until};

use super::calls::SimServices;
use super::coverage::Coverage;
use super::expect;
use super::other;
use super::plan::{CALM_MAX, Plan, What};
use super::points;
use super::sabotage::{self, Sabotage};
use super::shared::SimStore;
use super::sqs::SimQueue;
use super::world::Sim;

/// The result of a seed.
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) cover: Coverage,
    /// Empty unless the run is logged.
    pub(crate) log: Vec<String>,
}

enum Ending {
    Crash,
    Term,
    /// Everything is settled, or the run has failed.
    Over,
}

/// Runs a seed on this thread. The same seed always gives the same report.
pub(crate) fn run(
    seed: u64,
    sabotage: Option<Sabotage>,
    logged: bool,
    metrics: &Arc<Metrics>,
) -> Report {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    points::with(sabotage.and_then(Sabotage::point), || {
        runtime.block_on(story(Plan::draw(seed), sabotage, logged, metrics))
    })
}

async fn story(
    plan: Plan,
    sabotage: Option<Sabotage>,
    logged: bool,
    metrics: &Arc<Metrics>,
) -> Report {
    let sim = Arc::new(Sim::new(plan, logged));
    other::spawn_all(&sim);
    loop {
        let (mut app, health) = start(&sim, sabotage, metrics);
        match live(&sim, &mut app, &health).await {
            Ending::Crash => {
                note_account(&sim, app.account());
                drop(app);
            }
            Ending::Term => leave(&sim, app, &health).await,
            Ending::Over => {
                sim.lock().no_more_interrupts();
                leave(&sim, app, &health).await;
                break;
            }
        }
        let pause = sim.lock().draw_ms(0, 20_000);
        sleep(pause).await;
    }
    let (violations, cover) = {
        let mut world = sim.lock();
        world.check_end();
        (std::mem::take(&mut world.violations), std::mem::take(&mut world.cover))
    };
    Report { violations, cover, log: sim.take_log() }
}

fn start(sim: &Arc<Sim>, sabotage: Option<Sabotage>, metrics: &Arc<Metrics>) -> (App, Arc<Health>) {
    let (life, settings, is_shared) = {
        let mut world = sim.lock();
        world.begin_life();
        (world.life, world.plan.settings.clone(), world.store.is_some())
    };
    let store: Arc<dyn Store> = if is_shared {
        Arc::new(SimStore { sim: Arc::clone(sim), life })
    } else {
        Arc::new(MemoryStore::new(10_000, Duration::from_secs(86_400)))
    };
    let queue = Arc::new(SimQueue { sim: Arc::clone(sim), life });
    let services = Arc::new(SimServices { sim: Arc::clone(sim), life });
    let health = Arc::new(Health::new());
    let outages = Arc::new(Outages::new(limits(settings.concurrency), Arc::clone(metrics)));
    let parts = AppParts {
        controls: Arc::new(Controls::new(Arc::clone(metrics))),
        queue: sabotage::queue(sabotage, queue, sim),
        services: Services {
            reservations: sabotage::reservations(sabotage, Arc::clone(&services) as _),
            inventory: services,
            idempotency: IdempotencyClient {
                store: sabotage::store(sabotage, store),
                is_ordered: false,
                outages: Arc::clone(&outages),
                metrics: Arc::clone(metrics),
                health: Arc::clone(&health),
            },
            outages,
            metrics: Arc::clone(metrics),
            endpoints: Arc::new(ServiceEndpoints::default()),
        },
        tracing: Tracing::disabled(),
    };
    (App::start(parts, settings), health)
}

fn limits(calls_max: usize) -> OutageSettings {
    OutageSettings { calls_max, calls_min: 2, reservation_target: None, inventory_target: None }
}

/// Runs the process until something ends it or no work is left.
async fn live(sim: &Sim, app: &mut App, health: &Health) -> Ending {
    const LOOK_EVERY: Duration = Duration::from_secs(5);
    let began = sim.lock().now();
    // Must be seen twice: a message that is just being settled may have blocked others.
    let mut settled_at = None;
    let mut hidden = Duration::ZERO;
    loop {
        let next = {
            let mut world = sim.lock();
            world.interrupt_timed();
            match world.pending.take() {
                Some(What::Crash) => return Ending::Crash,
                Some(What::Term) => return Ending::Term,
                None => {}
            }
            if let Err(problem) = health.alive() {
                world.violation(|| format!("not alive: {problem}"));
            }
            let now = world.now();
            if now >= world.plan.calm_at {
                if !world.all_settled() {
                    settled_at = None;
                } else if *settled_at.get_or_insert(now) + LOOK_EVERY <= now {
                    return Ending::Over;
                }
                hidden = hidden.max(world.queue.hidden_until(world.life));
                if now > world.plan.calm_at.max(began).max(hidden) + CALM_MAX {
                    world.violation(|| "not settled long after the last fault".to_owned());
                    return Ending::Over;
                }
            }
            let look = now + LOOK_EVERY;
            world.instant(world.next_timed().map_or(look, |at| at.min(look)))
        };
        tokio::select! {
            biased;
            () = sim.interrupted.notified() => {}
            task = app.broken() => {
                sim.lock().violation(|| format!("{task} ended"));
                return Ending::Over;
            }
            () = sleep_until(next) => {}
        }
    }
}

/// Tells the process to stop, and checks what it leaves behind.
async fn leave(sim: &Sim, app: App, health: &Health) {
    let grace = {
        let mut world = sim.lock();
        world.draining = true;
        let until = world.now() + world.plan.grace;
        world.drain_until = Some(until);
        world.log(|| format!("leaving until {until:?}"));
        world.plan.grace
    };
    health.stopping();
    let deadline = Instant::now() + grace;
    let killed = async {
        loop {
            sim.interrupted.notified().await;
            if !sim.lock().alive {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = killed => return,
        account = app.drain(deadline) => {
            note_account(sim, &account);
            check_account(sim, &account);
        }
        () = sleep_until(deadline + Duration::from_millis(100)) => {
            sim.lock().violation(|| "leaving took longer than it may".to_owned());
        }
    }
    let mut world = sim.lock();
    world.log(|| "left".to_owned());
    world.alive = false;
}

fn note_account(sim: &Sim, account: &MessageAccount) {
    let mut world = sim.lock();
    for (how, name) in [
        (Disposition::Deleted, "left: deleted"),
        (Disposition::DeadLettered, "left: dead-lettered"),
        (Disposition::HandedBack, "left: handed back"),
        (Disposition::LeaseLost, "left: lease lost"),
        (Disposition::Replaced, "left: replaced"),
        (Disposition::Unsettled, "left: unsettled"),
    ] {
        if account.left_total(how) > 0 {
            world.cover.met(name);
        }
    }
}

/// Compares the engine's account with the queue's.
fn check_account(sim: &Sim, account: &MessageAccount) {
    let mut world = sim.lock();
    if world.out_of_time() {
        // Work that was cut off is neither settled nor counted.
        world.cover.met("left at the last moment");
        let fine = !expect::BALANCES_LATE || account.balances();
        world.check(fine, || {
            "the account of a process that ran out of time does not balance".to_owned()
        });
        return;
    }
    world.cover.met("left in time");
    let totals = world.queue.totals;
    let left = Disposition::ALL.map(|how| (how, account.left_total(how)));
    let deleted =
        account.left_total(Disposition::Deleted) + account.left_total(Disposition::DeadLettered);
    let received = account.received_total();
    let same = received == totals.received
        && deleted == totals.deleted
        && account.left_total(Disposition::HandedBack) == totals.released;
    world.check(same, || format!("the engine says {received} in, {left:?}; the queue {totals:?}"));
    world.check(account.balances(), || format!("{received} in, {left:?}: no balance"));
    let (calls, asked) = (world.services.open_calls(), world.queue.asked);
    world
        .check(calls == 0 && asked == 0, || format!("{calls} calls, {asked} asked for at the end"));
    world.check_nothing_kept();
    world.check_nothing_claimed();
    world.left = true;
}
