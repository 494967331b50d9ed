//! Services of limited capacity: many processes find the limit together.

use std::time::Duration;

use sandbox::ledger::{Call, Ledger, Service, Tally};
use sandbox::reservation_api::Reply;
use sandbox::script::{Capacity, Faults};
use tokio::time::{Instant, sleep};

use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::progress::{per_second, quantile};
use crate::world::{Setting, Started, World};

const BEGUN_MAX: Duration = Duration::from_secs(60);

/// The small service: concurrent calls and their duration.
const SERVERS: u32 = 2;
const SERVICE_TIME: Duration = Duration::from_millis(100);

/// Time in which overload is allowed, until all processes have adapted.
const FOUND_OUT: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(60);

const TARGET_MS: u64 = 500;

/// The slow service.
const SLOW: Duration = Duration::from_secs(2);
const AT_ONCE: u32 = 20;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "small-service",
        injected: "a Reservation API of 2 servers at 100 ms, one queue before them; 10 processes of WORKER_CONCURRENCY=20, a backlog",
        must_hold: "after 30 s at most 10% of its work is thrown away, and at least 85% of its capacity is of use",
        is_short: false,
        run: |setting| Box::pin(small(setting, None)),
    },
    Case {
        name: "small-service-target",
        injected: "the same, with RESERVATION_LATENCY_TARGET_MS=500 and CONCURRENCY_MIN=1",
        must_hold: "after 30 s at least 95% of its capacity is of use, and its median latency is at most 750 ms, 95% at most 1 s",
        is_short: false,
        run: |setting| Box::pin(small(setting, Some(TARGET_MS))),
    },
    Case {
        name: "slow-service",
        injected: "a Reservation API that takes 2 s for a call, however many there are; no target, and a target of 3 s",
        must_hold: "at least 90% of the throughput of 20 calls at once: neither a target that is met nor the lack of one lowers it",
        is_short: false,
        run: |setting| Box::pin(slow(setting)),
    },
];

/// The work of the Reservation API in a period.
struct Work {
    rate: f64,
    thrown_away_percent: f64,
    latencies: Vec<Duration>,
}

impl Work {
    /// Counts the calls that it answered between two moments.
    fn of(world: &World, from: Instant, to: Instant) -> Self {
        let is_in = |call: &&Call| {
            let at = call.answered_at.filter(|at| *at >= from && *at < to);
            at.is_some() && call.service == Service::ReservationApi
        };
        let calls: Vec<Call> = world.ledger.calls().iter().filter(is_in).cloned().collect();
        let tally = Tally::of(&calls, Service::ReservationApi);
        let worked = tally.served + tally.thrown_away;
        let thrown_away = per_second(tally.thrown_away, Duration::from_secs(worked.max(1)));
        let latency = |call: &Call| Some(call.answered_at?.duration_since(call.at));
        Self {
            rate: per_second(tally.served, to - from),
            thrown_away_percent: 100.0 * thrown_away,
            latencies: calls.iter().filter_map(latency).collect(),
        }
    }

    fn latency(&self, share: f64) -> Duration {
        quantile(self.latencies.clone(), share)
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most] = [0.5, 0.95].map(|share| self.latency(share).as_secs_f64());
        write!(
            out,
            "{:.1}/s of use, {:.1}% of its work thrown away, its latency p50 {half:.2} s, p95 {most:.2} s",
            self.rate, self.thrown_away_percent
        )
    }
}

async fn small(setting: Setting, target_ms: Option<u64>) -> Result<Seen, Failed> {
    let (found_out, window) =
        if setting.is_short { (FOUND_OUT / 2, WINDOW / 4) } else { (FOUND_OUT, WINDOW) };
    let mut world = World::start(&setting).await?;
    world.use_defaults();
    world.use_no_proxies();
    world.set("WORKER_CONCURRENCY", AT_ONCE);
    if let Some(target_ms) = target_ms {
        world.set("RESERVATION_LATENCY_TARGET_MS", target_ms);
        // Ten processes with the default of 2 make 20 concurrent calls, twice the number that meets
        // the target.
        world.set("CONCURRENCY_MIN", 1);
    }
    let servers = usize::try_from(SERVERS).expect("the number is small");
    world.api.set_capacity(Some(Capacity::new(servers, SERVICE_TIME)));
    world.send_all(crowd("some", 4_000));
    let (_workers, began) = begun(&world, 10).await?;
    // The length of the period is what is measured.
    sleep(found_out + window).await;
    let work = Work::of(&world, began + found_out, began + found_out + window);
    let capacity = f64::from(SERVERS) / SERVICE_TIME.as_secs_f64();
    let used = 100.0 * work.rate / capacity;
    let figures = format!("{used:.0}% of {capacity:.0}/s used: {work}");
    let holds = match target_ms.map(Duration::from_millis) {
        None => used >= 85.0 && work.thrown_away_percent <= 10.0,
        Some(target) => {
            used >= 95.0 && work.latency(0.5) <= target * 3 / 2 && work.latency(0.95) <= target * 2
        }
    };
    ensure(holds, || figures.clone())?;
    let letters = world.sqs.counts(&world.dlq).total();
    ensure(letters == 0, || format!("{letters} good events dead-lettered; {figures}"))?;
    Ok(Seen::Held(figures))
}

/// Starts workers and returns the time of the first call.
async fn begun(world: &World, count: usize) -> Result<(Vec<Started>, Instant), Failed> {
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(world.worker()?);
    }
    let has_begun = |ledger: &Ledger| ledger.totals().calls > 0;
    ensure(world.ledger.wait_until(has_begun, BEGUN_MAX).await, || "no call".to_owned())?;
    Ok((workers, Instant::now()))
}

async fn slow(setting: Setting) -> Result<Seen, Failed> {
    let (without, with) = tokio::join!(slowly(&setting, None), slowly(&setting, Some(3_000)));
    let (without, with) = (without?, with?);
    let fixed = f64::from(AT_ONCE) / SLOW.as_secs_f64();
    let percent = |work: &Work| 100.0 * work.rate / fixed;
    let figures = format!(
        "of {fixed:.0}/s: {:.0}% without a target, {:.0}% with one; {without}",
        percent(&without),
        percent(&with)
    );
    // The second step and the machine take the rest. A limit that mistakes slowness for overload
    // loses half or more.
    ensure(percent(&without) >= 90.0 && percent(&with) >= 90.0, || figures.clone())?;
    Ok(Seen::Held(figures))
}

async fn slowly(setting: &Setting, target_ms: Option<u64>) -> Result<Work, Failed> {
    let window = if setting.is_short { WINDOW / 4 } else { WINDOW };
    let mut world = World::start(setting).await?;
    world.use_defaults();
    world.use_no_proxies();
    if let Some(target_ms) = target_ms {
        world.set("RESERVATION_LATENCY_TARGET_MS", target_ms);
    }
    // Spread out: one wave more or less in the window would be 3%.
    let jitter = SLOW / 10;
    let latency = Faults::<Reply>::none().latency(SLOW - jitter / 2, jitter);
    world.api.set_faults(latency);
    world.send_all(crowd("some", 1_500));
    let (_workers, began) = begun(&world, 1).await?;
    let warm_up = SLOW * 5;
    // The length of the period is what is measured.
    sleep(warm_up + window).await;
    Ok(Work::of(&world, began + warm_up, began + warm_up + window))
}
