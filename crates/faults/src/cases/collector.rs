//! The trace collector, down or hanging. Events are not delayed, and it is logged once.

use std::time::Duration;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::collector::Collector;
use crate::events::crowd;
use crate::failed::{Failed, ensure, eventually};
use crate::proxy::{Course, Proxy, Way};
use crate::worker::{LIMIT, Worker};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// Enough spans (three per event) to fill the worker's buffer.
const EVENTS: usize = 1_500;

/// Allowed increase of the mean latency without the collector, on a busy machine.
const SLOWER_MAX_S: f64 = 0.1;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "collector-down",
        injected: "the collector of traces refuses connections, and comes back",
        must_hold: "events are as fast as before; it is logged once; spans flow again by themselves; exit code 0 in time",
        is_short: false,
        run: |setting| Box::pin(run(setting, Away::Down)),
    },
    Case {
        name: "collector-hangs",
        injected: "the collector accepts connections and calls, and answers nothing",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(run(setting, Away::Hanging)),
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Down,
    Hanging,
}

async fn run(setting: Setting, away: Away) -> Result<Seen, Failed> {
    let collector = Collector::start().await?;
    let proxy = Proxy::start(collector.addr()).await?;
    let mut world = World::start(&setting).await?;
    world.variables.remove("OTEL_SDK_DISABLED");
    world.set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", proxy.addr()));
    let mut worker = world.started().await?;
    let (before, _) = handle(&mut world, &worker, "with").await?;
    eventually("spans arrive", LIMIT, async || collector.spans() > EVENTS).await?;

    match away {
        Away::Down => proxy.refuse().await?,
        Away::Hanging => proxy.set_both(Course::Hold),
    }
    let (without, _) = handle(&mut world, &worker, "without").await?;
    ensure(without < before + SLOWER_MAX_S, || {
        format!("mean latency {without:.3} s without the collector, {before:.3} s with it")
    })?;
    worker.says("Traces are being lost").await?;
    let (_, account) = handle(&mut world, &worker, "still").await?;
    let times = worker.said("Traces are being lost");
    ensure(times == 1, || format!("it was logged {times} times"))?;
    let dropped = worker.metric("worker_spans_dropped_total", &[]).await.unwrap_or_default();
    ensure(dropped > 0.0, || "no lost span is counted".to_owned())?;

    proxy.forget();
    proxy.set(Way::ToServer, Course::Pass);
    proxy.accept().await?;
    handle(&mut world, &worker, "again").await?;
    worker.says("Traces are exported again").await?;
    match away {
        Away::Down => proxy.refuse().await?,
        Away::Hanging => proxy.set_both(Course::Hold),
    }
    // Within the shutdown time, whether or not the spans are exported.
    worker.leave(Duration::from_secs(26)).await?;
    let (before, without) = (before * 1e3, without * 1e3);
    Ok(Seen::Held(format!(
        "{account}; mean latency {before:.0} ms with, {without:.0} ms without it; {dropped} spans lost and counted, logged once"
    )))
}

/// Sends events and waits until all are handled. Returns their mean latency in seconds.
async fn handle(world: &mut World, worker: &Worker, name: &str) -> Result<(f64, Account), Failed> {
    let so_far = latencies(worker).await?;
    world.send_all(crowd(name, EVENTS));
    let account = Account::settled(world, SETTLED_MAX).await?;
    let now = latencies(worker).await?;
    Ok(((now.0 - so_far.0) / (now.1 - so_far.1), account))
}

/// Returns the sum of all latencies in seconds and their number.
async fn latencies(worker: &Worker) -> Result<(f64, f64), Failed> {
    let sum = worker.metric("worker_latency_seconds_sum", &[]).await;
    let count = worker.metric("worker_latency_seconds_count", &[]).await;
    sum.zip(count).ok_or_else(|| Failed("the admin port does not answer".to_owned()))
}
