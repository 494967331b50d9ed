//! Faults: services that throttle, are too small, fail for some, or are away. The sandbox's queue
//! and services, which are never ideal, say what became of the events.

use std::time::Duration;

use faults::account::Sent;
use faults::events::{Event, Kind, crowd};
use faults::failed::{Failed, ensure};
use faults::progress::feed;
use faults::world::World;
use sandbox::ledger::Ledger;
use sandbox::reservation_api::Reply;
use sandbox::script::{Capacity, Faults, Rule, Scripted, is_in_share};
use tokio::time::{Instant, sleep};

use super::fate::Fates;
use super::peer::{Outcome, Peer, Setting};
use super::scene::Scene;
use crate::services::count as number;

/// Effects of an event: status and seats.
const EFFECTS: u64 = 2;
/// Time to the first effect, and for the rest once the fault is over.
const PATIENCE: Duration = Duration::from_secs(180);
/// How much longer than a measurement under load a fault is there that must pass.
const OUTAGE_TIMES: u64 = 3;

/// The throttled service: the latency of a call, and the backlog for each second.
const LATENCY: Duration = Duration::from_millis(5);
const BACKLOG_PER_S: u64 = 1_000;
/// The small service, and the number of processes that share it.
const SERVERS: usize = 2;
const SERVICE_TIME: Duration = Duration::from_millis(100);
const PROCESSES: usize = 10;
/// The part of reservations that always fail, and the rate of events.
const SICK: f64 = 0.1;
const PER_S: u32 = 20;
/// The number of the first event of the feed, beyond that of the event before it.
const FIRST: usize = 1_000;
/// Time that the last good events have before the others are cured.
const LAST_WITHIN: Duration = Duration::from_secs(5);
/// Events that come during an outage.
const DURING: usize = 200;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// A fifth of the PATCHes is answered 429.
    ThrottledFifth,
    /// Ten processes share a service with little capacity.
    SmallService,
    /// A tenth of the reservations always fails.
    SickTenth,
    /// Something else answers for the Reservation API, with 200.
    PageWith200,
    /// Both services are away, and the program is killed meanwhile.
    OutageAndKill,
}

impl Bad {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ThrottledFifth => "throttled-fifth",
            Self::SmallService => "small-service",
            Self::SickTenth => "sick-tenth",
            Self::PageWith200 => "page-with-200",
            Self::OutageAndKill => "outage-and-kill",
        }
    }

    pub(super) fn about(self, seconds: u64) -> String {
        let outage = seconds * OUTAGE_TIMES;
        match self {
            Self::ThrottledFifth => format!(
                "a backlog, 20 at once; a random fifth of the PATCHes is answered 429 with `Retry-After: 1`, the others after 5 ms; {seconds} s"
            ),
            Self::SmallService => format!(
                "a backlog, 10 processes of 20 at once; the Reservation API does 20 calls a second, at most; {} s, after {outage} s to start and adapt. Figures are of all processes; `RESERVATION_LATENCY_TARGET_MS=500` and `CONCURRENCY_MIN=1` are set",
                seconds * 2
            ),
            Self::SickTenth => format!(
                "20 events a second for {outage} s; a tenth of the reservations is always answered 503, until 5 s after the last event. Last: what a good event took at most"
            ),
            Self::PageWith200 => format!(
                "200 events; for {outage} s each PATCH is answered 200 with a page of HTML. Last: from the cure to the last effect"
            ),
            Self::OutageAndKill => format!(
                "200 events; for {outage} s both services refuse connections, and after a third of it the program is ended with `kill -9` and started again. Last: from the services' return to the last effect"
            ),
        }
    }
}

pub(super) async fn run(bad: Bad, peer: &Peer, setting: &Setting<'_>) -> Result<Outcome, Failed> {
    let mut scene = Scene::new(peer, setting).await?;
    let load = Duration::from_secs(setting.seconds);
    let outage = Duration::from_secs(setting.seconds * OUTAGE_TIMES);
    match bad {
        Bad::ThrottledFifth => throttled(scene, load, setting.seconds).await,
        Bad::SmallService => small(scene, outage, load * 2).await,
        Bad::SickTenth => sick(scene, outage).await,
        Bad::PageWith200 => page(scene, outage).await,
        Bad::OutageAndKill => {
            scene.use_proxies();
            away(scene, outage).await
        }
    }
}

async fn throttled(mut scene: Scene, load: Duration, seconds: u64) -> Result<Outcome, Failed> {
    let latency = Faults::<Reply>::none().latency(LATENCY, Duration::ZERO);
    let later = Scripted::<Reply>::status(429).header("Retry-After", "1");
    scene.world.api.set_faults(latency.clone().seed(9).with(0.2, later));
    let events = BACKLOG_PER_S * seconds;
    scene.world.send_all(crowd("some", usize::try_from(events).unwrap_or(usize::MAX)));
    scene.start()?;
    // The last part of a backlog is not done at full rate.
    let measured = measured(&scene, load / 4, load, events * EFFECTS * 8 / 10).await?;
    scene.world.api.set_faults(latency);
    settled(&scene, measured).await
}

async fn small(mut scene: Scene, warm_up: Duration, lasts: Duration) -> Result<Outcome, Failed> {
    scene.world.api.set_capacity(Some(Capacity::new(SERVERS, SERVICE_TIME)));
    scene.world.set("RESERVATION_LATENCY_TARGET_MS", 500);
    scene.world.set("CONCURRENCY_MIN", 1);
    scene.world.send_all(crowd("some", 4_000));
    for _ in 0..PROCESSES {
        scene.start()?;
    }
    let measured = measured(&scene, warm_up, lasts, u64::MAX).await?;
    scene.world.api.set_capacity(None);
    settled(&scene, measured).await
}

async fn sick(mut scene: Scene, lasts: Duration) -> Result<Outcome, Failed> {
    scene.world.api.set_rules([Rule::share(SICK, Scripted::<Reply>::status(503))]);
    let event =
        |number: usize| Event::new(&format!("some_{number}"), Kind::ALL[number % Kind::ALL.len()]);
    // How long a program takes to start is a figure of its own.
    scene.world.send_all((0..).map(event).find(is_good));
    scene.start()?;
    first_effect_ms(&scene).await?;
    feed(&mut scene.world, PER_S, lasts, |world, number| world.send(event(FIRST + number))).await;
    // The last events get the same time as all others; there is no condition to wait for.
    sleep(LAST_WITHIN).await;
    scene.world.api.set_rules([]);
    let outcome = whole(&scene).await?;
    let fed = scene.world.sent.iter().skip(1);
    let good = fed.filter(|sent| sent.event.as_ref().is_some_and(is_good));
    let took = good.filter_map(|sent| {
        Some(done_at(&scene.world, sent)?.duration_since(sent.at).as_secs_f64())
    });
    Ok(Outcome { last_s: took.reduce(f64::max), ..outcome })
}

/// Returns whether an event's reservation is not one of those that fail.
fn is_good(event: &Event) -> bool {
    !is_in_share(&event.reservation, SICK)
}

async fn page(mut scene: Scene, lasts: Duration) -> Result<Outcome, Failed> {
    let page = Scripted::<Reply>::status(200).without_error_body();
    let page = page.header("Content-Type", "text/html");
    scene.world.api.set_faults(Faults::<Reply>::none().with(1.0, page));
    scene.world.send_all(crowd("some", DURING));
    scene.start()?;
    sleep(lasts).await;
    scene.world.api.set_faults(Faults::none());
    since_cure(&scene, Instant::now()).await
}

async fn away(mut scene: Scene, lasts: Duration) -> Result<Outcome, Failed> {
    for proxy in [&scene.world.to_api, &scene.world.to_inventory] {
        proxy.refuse().await?;
    }
    scene.world.send_all(crowd("some", DURING));
    scene.start()?;
    // What the killed process held is visible again before the services are back.
    let until_kill = lasts / 3;
    sleep(until_kill).await;
    scene.kill().await?;
    scene.start()?;
    sleep(lasts - until_kill).await;
    for proxy in [&scene.world.to_api, &scene.world.to_inventory] {
        proxy.accept().await?;
    }
    since_cure(&scene, Instant::now()).await
}

/// Measures from `warm_up` after the first effect until `lasts` is over or so many effects exist.
pub(crate) async fn measured(
    scene: &Scene,
    warm_up: Duration,
    lasts: Duration,
    effects_max: u64,
) -> Result<Outcome, Failed> {
    let first_effect_ms = first_effect_ms(scene).await?;
    sleep(warm_up).await;
    let before = scene.reading()?;
    let enough = |ledger: &Ledger| ledger.totals().effects >= effects_max;
    scene.world.ledger.wait_until(enough, lasts).await;
    let after = scene.reading()?;
    let events = number(after.effects - before.effects) / number(EFFECTS);
    ensure(events > 0.0, || {
        format!("nothing was done while it was measured:\n{}", scene.last_lines())
    })?;
    Ok(Outcome {
        events_per_s: Some(events / (after.at - before.at).as_secs_f64()),
        cpu_us: after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / events,
        first_effect_ms: Some(first_effect_ms),
        sqs_calls: number(after.sqs_calls - before.sqs_calls) / events,
        ..Outcome::default()
    })
}

/// Waits for the rest, and adds what became of all events.
pub(crate) async fn settled(scene: &Scene, measured: Outcome) -> Result<Outcome, Failed> {
    let world = &scene.world;
    // What is left after that counts as left.
    world.sqs.wait_until(&world.queue, |counts| counts.total() == 0, PATIENCE).await;
    Ok(Outcome { rss_peak_mb: scene.rss_peak_mb()?, fates: Fates::of(world), ..measured })
}

/// Waits until all is settled, and takes the figures of the whole run.
async fn whole(scene: &Scene) -> Result<Outcome, Failed> {
    let first_effect_ms = first_effect_ms(scene).await?;
    let outcome = settled(scene, Outcome::default()).await?;
    let all = scene.reading()?;
    let events = number(all.effects) / number(EFFECTS);
    Ok(Outcome {
        cpu_us: all.cpu.as_secs_f64() * 1e6 / events,
        first_effect_ms: Some(first_effect_ms),
        sqs_calls: number(all.sqs_calls) / events,
        ..outcome
    })
}

/// Takes the same figures, and the time from the end of the fault to the last effect.
async fn since_cure(scene: &Scene, cured_at: Instant) -> Result<Outcome, Failed> {
    let outcome = whole(scene).await?;
    let last = scene.world.sent.iter().filter_map(|sent| done_at(&scene.world, sent)).max();
    let last_s = last.map(|at| at.duration_since(cured_at).as_secs_f64());
    Ok(Outcome { last_s, first_effect_ms: None, ..outcome })
}

pub(crate) async fn first_effect_ms(scene: &Scene) -> Result<f64, Failed> {
    let has_begun = |ledger: &Ledger| ledger.totals().effects > 0;
    let begun = scene.world.ledger.wait_until(has_begun, PATIENCE).await;
    ensure(begun, || format!("no effect; its last lines:\n{}", scene.last_lines()))?;
    let calls = scene.world.ledger.calls();
    let first = calls.iter().filter_map(|call| call.effect.map(|(_, at)| at)).min();
    let first = first.expect("there is an effect");
    Ok((first - scene.started_at()).as_secs_f64() * 1e3)
}

/// Returns when an event had its last effect; none while it lacks one.
pub(crate) fn done_at(world: &World, sent: &Sent) -> Option<Instant> {
    let event = sent.event.as_ref()?;
    let calls = world.ledger.calls_for(&event.reservation);
    let effects: Vec<Instant> =
        calls.iter().filter_map(|call| call.effect.map(|(_, at)| at)).collect();
    if effects.len() < event.kind.effects().len() { None } else { effects.into_iter().max() }
}
