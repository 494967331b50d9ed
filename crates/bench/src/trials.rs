//! Services with a limit, or back after an outage: how near a program comes to what is possible.
//!
//! They use the sandbox's queue and services, as the faults of [`crate::peers`] do.

use std::path::Path;
use std::time::Duration;

use faults::events::{Event, Kind, crowd};
use faults::failed::{Failed, ensure};
use faults::progress::feed;
use sandbox::ledger::{Answer, Call, Ledger, Service};
use sandbox::reservation_api::Reply;
use sandbox::script::{Capacity, Faults, RateLimit};
use tokio::time::Instant;

use crate::peers::bad::{done_at, first_effect_ms, measured, settled};
use crate::peers::fate::Fates;
use crate::peers::peer::{Outcome, Peer, Setting};
use crate::peers::scene::Scene;
use crate::services::count as number;

/// The service with a capacity: calls at once, and the time of each.
const SERVERS: usize = 8;
const SERVICE_TIME: Duration = Duration::from_millis(20);
const TARGET_MS: u64 = 100;
const AT_ONCE: usize = 50;
/// The rate limit, in calls a second.
const RATE: u32 = 200;
/// The outage: its length, the events a second meanwhile, and the time that a call takes after it.
const AWAY: Duration = Duration::from_secs(60);
const PER_S: u32 = 50;
const CALL: Duration = Duration::from_millis(20);
/// The calls of an event, and the events that are handled at once by default.
const CALLS: f64 = 2.0;
const CONCURRENCY: f64 = 20.0;
/// From the first effect to the measurement, and its length.
const WARM_UP: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(20);
/// Backlogs last for half a minute longer than a measurement.
const BACKLOG_S: usize = 70;

/// What the services do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// So many processes share a service that does 400 calls a second.
    Capacity(usize),
    /// The service takes 200 calls a second.
    RateLimit,
    /// Both services are away for a minute.
    Recovery,
}

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tried {
    /// Events per second, or seconds from the services' return to the last effect.
    pub measured: f64,
    /// The same, at best.
    pub possible: f64,
    /// The part of calls to the Reservation API that it refused.
    pub refused: f64,
}

impl Trial {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 5] =
        [Self::Capacity(1), Self::Capacity(4), Self::Capacity(10), Self::RateLimit, Self::Recovery];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Capacity(processes) => format!("capacity-{processes}"),
            Self::RateLimit => "rate-limit".to_owned(),
            Self::Recovery => "recovery".to_owned(),
        }
    }

    /// Returns what is done in it.
    #[must_use]
    pub fn about(self) -> String {
        let (warm_up, measured) = (WARM_UP.as_secs(), MEASURED.as_secs());
        match self {
            Self::Capacity(processes) => format!(
                "a backlog, {processes} processes of {AT_ONCE} at once; the Reservation API serves {SERVERS} calls at once, each in {} ms; `RESERVATION_LATENCY_TARGET_MS={TARGET_MS}`; {measured} s, after {warm_up} s to adapt. Events a second",
                SERVICE_TIME.as_millis()
            ),
            Self::RateLimit => format!(
                "a backlog, 20 at once; the Reservation API refuses what is beyond {RATE} calls a second (token bucket, 429 with `Retry-After: 1`); {measured} s, after {warm_up} s. Events a second"
            ),
            Self::Recovery => format!(
                "{PER_S} events a second for {} s, in which both services refuse connections; then a call takes {} ms. Seconds from the return to the last effect; possible with 20 at once all the time",
                AWAY.as_secs(),
                CALL.as_millis()
            ),
        }
    }

    /// Runs a program; its logs are in `folder`.
    ///
    /// # Errors
    /// If it cannot be started, or handles nothing.
    pub fn run(self, program: &Path, folder: &Path) -> Result<Tried, Failed> {
        let (name, version) = (self.name(), String::new());
        let peer = Peer { name, program: program.to_owned(), version };
        let setting = Setting { own: program, folder, seconds: MEASURED.as_secs() };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let scene = Scene::new(&peer, &setting).await?;
            match self {
                Self::Capacity(processes) => capacity(scene, processes).await,
                Self::RateLimit => rate_limit(scene).await,
                Self::Recovery => recovery(scene).await,
            }
        })
    }
}

async fn capacity(mut scene: Scene, processes: usize) -> Result<Tried, Failed> {
    let possible =
        number(u64::try_from(SERVERS).expect("it is small")) / SERVICE_TIME.as_secs_f64();
    scene.world.api.set_capacity(Some(Capacity::new(SERVERS, SERVICE_TIME)));
    scene.world.set("WORKER_CONCURRENCY", AT_ONCE);
    scene.world.set("RESERVATION_LATENCY_TARGET_MS", TARGET_MS);
    scene.world.send_all(crowd("some", 400 * BACKLOG_S));
    for _ in 0..processes {
        scene.start()?;
    }
    let outcome = measured(&scene, WARM_UP, MEASURED, u64::MAX).await?;
    scene.world.api.set_capacity(None);
    tried(&scene, outcome.events_per_s, possible).await
}

async fn rate_limit(mut scene: Scene) -> Result<Tried, Failed> {
    scene.world.api.set_rate_limit(Some(RateLimit::per_second(RATE)));
    scene.world.send_all(crowd("some", usize::try_from(RATE).expect("it is small") * BACKLOG_S));
    scene.start()?;
    let outcome = measured(&scene, WARM_UP, MEASURED, u64::MAX).await?;
    let refused = refused(&scene.world.ledger, Instant::now() - MEASURED);
    scene.world.api.set_rate_limit(None);
    let tried = tried(&scene, outcome.events_per_s, f64::from(RATE)).await?;
    Ok(Tried { refused, ..tried })
}

async fn recovery(mut scene: Scene) -> Result<Tried, Failed> {
    scene.use_proxies();
    for proxy in [&scene.world.to_api, &scene.world.to_inventory] {
        proxy.refuse().await?;
    }
    scene.world.api.set_faults(Faults::<Reply>::none().latency(CALL, Duration::ZERO));
    scene.world.inventory.set_faults(Faults::none().latency(CALL, Duration::ZERO));
    scene.start()?;
    let event =
        |number: usize| Event::new(&format!("some_{number}"), Kind::ALL[number % Kind::ALL.len()]);
    feed(&mut scene.world, PER_S, AWAY, |world, number| world.send(event(number))).await;
    for proxy in [&scene.world.to_api, &scene.world.to_inventory] {
        proxy.accept().await?;
    }
    let back_at = Instant::now();
    first_effect_ms(&scene).await?;
    let events = number(u64::try_from(scene.world.sent.len()).expect("usize fits into u64"));
    let possible = events * CALLS * CALL.as_secs_f64() / CONCURRENCY;
    let tried = tried(&scene, None, possible).await?;
    let last = scene.world.sent.iter().filter_map(|sent| done_at(&scene.world, sent)).max();
    let last = last.ok_or_else(|| Failed("no event is done".to_owned()))?;
    Ok(Tried { measured: last.duration_since(back_at).as_secs_f64(), ..tried })
}

/// Waits for the rest, and judges what became of all events.
async fn tried(scene: &Scene, measured: Option<f64>, possible: f64) -> Result<Tried, Failed> {
    let fates = settled(scene, Outcome::default()).await?.fates;
    let Fates { lost, done_twice, dead_lettered, left, .. } = fates;
    ensure(lost + done_twice + dead_lettered + left == 0, || format!("{fates:?}"))?;
    Ok(Tried { measured: measured.unwrap_or_default(), possible, refused: 0.0 })
}

/// Returns the part of calls to the Reservation API since then that were answered 429.
fn refused(ledger: &Ledger, since: Instant) -> f64 {
    let calls = ledger.calls();
    let mut all = 0;
    let mut refused = 0;
    let is_counted = |call: &&Call| call.service == Service::ReservationApi && call.at >= since;
    for call in calls.iter().filter(is_counted) {
        all += 1;
        refused += u64::from(call.answer == Answer::Http(429));
    }
    number(refused) / number(all)
}
