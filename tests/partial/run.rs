//! One run: starts the processes, each with the real engine, lets them run, and returns the final
//! state.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use reservation_worker::app::{App, AppParts};
use reservation_worker::controls::Controls;
use reservation_worker::handler::{ServiceEndpoints, Services};
use reservation_worker::health::Health;
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{IdempotencyClient, Store};
use reservation_worker::metrics::Metrics;
use reservation_worker::outage::{Dependency, OutageSettings, Outages};
use reservation_worker::telemetry::Tracing;
use tokio::time::{Instant, sleep_until};

use super::plan::{Fate, Plan, StorePlan, millis, secs};
use super::points;
use super::sabotage::{self, Sabotage};
use super::service::SimServices;
use super::sqs::{SimQueue, wake_receives};
use super::store::SharedStore;
use super::world::{Sim, World};

/// The time that a process is given to stop.
const STOPS_WITHIN: Duration = secs(20);

/// The final state of a run.
pub(crate) struct Outcome {
    pub(crate) world: World,
    pub(crate) ended: Duration,
    /// Empty unless the run is logged.
    pub(crate) log: Vec<String>,
}

/// Runs a plan on this thread, with the engine broken by the sabotage, if any. The same plan always
/// gives the same outcome.
pub(crate) fn run(
    plan: Plan,
    sabotage: Option<Sabotage>,
    logged: bool,
    metrics: &Arc<Metrics>,
) -> Outcome {
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let (sim, ended) = points::with(sabotage.and_then(Sabotage::point), || {
        let done = runtime.block_on(story(plan, sabotage, logged, metrics));
        // Drops the remaining tasks.
        drop(runtime);
        done
    });
    let mut world = sim.into_world().expect("nobody else has it");
    let log = world.take_log();
    Outcome { world, ended, log }
}

async fn story(
    plan: Plan,
    sabotage: Option<Sabotage>,
    logged: bool,
    metrics: &Arc<Metrics>,
) -> (Arc<Sim>, Duration) {
    const LOOK_EVERY: Duration = millis(500);
    let sim = Arc::new(Sim::new(plan, logged));
    let plan = Arc::clone(&sim.lock().plan);
    tokio::spawn(wake_receives(Arc::clone(&sim)));
    let shared = Arc::new(MemoryStore::new(1_000_000, secs(86_400)));
    let changes = changes(&plan);
    let mut changed = 0;
    let mut apps: Vec<Option<App>> = plan.starts.iter().map(|_| None).collect();
    let mut judges: Vec<Arc<Outages>> = Vec::new();
    loop {
        let now = sim.lock().now();
        while let Some((_, process, change)) = changes.get(changed).filter(|(at, ..)| *at <= now) {
            changed += 1;
            sim.lock().log(|| format!("p{process}: {change:?}"));
            match change {
                Change::Start => {
                    let judge = Arc::new(outages(&plan, metrics));
                    let app = start(&sim, sabotage, *process, &shared, (&judge, metrics));
                    apps[*process] = Some(app);
                    judges.push(judge);
                }
                Change::Kill => drop(apps[*process].take()),
                Change::Stop => {
                    let app = apps[*process].take().expect("it runs");
                    tokio::spawn(app.drain(Instant::now() + STOPS_WITHIN));
                }
            }
        }
        let services = [Dependency::ReservationApi, Dependency::Inventory];
        let is_away = |judge: &Arc<Outages>| services.iter().any(|it| judge.is_away(*it));
        if judges.iter().any(is_away) {
            sim.lock().away += LOOK_EVERY;
        }
        for (process, app) in apps.iter_mut().enumerate() {
            if let Some(task) = app.as_mut().and_then(|app| app.broken().now_or_never()) {
                sim.lock().violations.push(format!("process {process}: {task} ended"));
                return (sim, now);
            }
        }
        let is_done = sim.lock().open == 0 && now >= plan.lasts.0;
        if is_done || now >= plan.lasts.1 {
            return (sim, now);
        }
        let next = changes.get(changed).map_or(plan.lasts.1, |(at, ..)| *at);
        let at = sim.lock().instant(next.min(now + LOOK_EVERY));
        sleep_until(at).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Start,
    Kill,
    Stop,
}

/// When processes start and end, in order.
fn changes(plan: &Plan) -> Vec<(Duration, usize, Change)> {
    let mut starts = plan.starts.clone();
    starts.sort_unstable();
    let starts = starts.into_iter().enumerate().map(|(process, at)| (at, process, Change::Start));
    let mut changes: Vec<_> = starts.collect();
    for fault in &plan.fates {
        let end = match fault.fate {
            Fate::Killed => Change::Kill,
            Fate::Stopped => Change::Stop,
            Fate::Frozen => continue,
        };
        changes.push((fault.from, fault.process, end));
        changes.push((fault.to, fault.process, Change::Start));
    }
    changes.sort_by_key(|(at, ..)| *at);
    changes
}

/// The engine's circuit breakers and concurrency limits.
fn outages(plan: &Plan, metrics: &Arc<Metrics>) -> Outages {
    let [api, inventory] = &plan.services;
    let settings = OutageSettings {
        calls_max: plan.settings.concurrency,
        calls_min: plan.calls_min,
        reservation_target: api.target,
        inventory_target: inventory.target,
    };
    Outages::new(settings, Arc::clone(metrics))
}

fn start(
    sim: &Arc<Sim>,
    sabotage: Option<Sabotage>,
    process: usize,
    shared: &Arc<MemoryStore>,
    (outages, metrics): (&Arc<Outages>, &Arc<Metrics>),
) -> App {
    let plan = Arc::clone(&sim.lock().plan);
    let store: Arc<dyn Store> = match plan.store {
        StorePlan::Memory => Arc::new(MemoryStore::new(100_000, secs(86_400))),
        StorePlan::Shards { .. } => {
            let (sim, records) = (Arc::clone(sim), Arc::clone(shared));
            sabotage::store(sabotage, Arc::new(SharedStore { sim, records, process }))
        }
    };
    let services = Arc::new(SimServices { sim: Arc::clone(sim), process });
    let (reservations, inventory) = sabotage::services(sabotage, services);
    let parts = AppParts {
        controls: Arc::new(Controls::new(Arc::clone(metrics))),
        queue: Arc::new(SimQueue { sim: Arc::clone(sim), process }),
        services: Services {
            reservations,
            inventory,
            idempotency: IdempotencyClient {
                store,
                is_ordered: plan.is_ordered,
                outages: Arc::clone(outages),
                metrics: Arc::clone(metrics),
                health: Arc::new(Health::new()),
            },
            outages: Arc::clone(outages),
            metrics: Arc::clone(metrics),
            endpoints: Arc::new(ServiceEndpoints::default()),
        },
        tracing: Tracing::disabled(),
    };
    App::start(parts, plan.settings.clone())
}
