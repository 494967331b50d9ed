//! Both services return after a minute with thousands of events held: measures how long the last
//! one takes beyond the minimum.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sandbox::ledger::Ledger;
use sandbox::reservation_api::Reply;
use sandbox::script::Faults;
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::progress::Progress;
use crate::proxy::Proxy;
use crate::world::{ReservedPort, Setting, World, address};

const EVENTS: usize = 3_000;

/// Latency of the Reservation API. If calls resumed one by one, they would take many times as long.
const LATENCY: Duration = Duration::from_millis(100);

/// Maximum time of the last event beyond the minimum.
const BEYOND: Duration = Duration::from_secs(6);

/// Maximum time between two attempts to connect.
const ASKED_MAX: Duration = Duration::from_secs(45);

const SETTLED_MAX: Duration = Duration::from_secs(180);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "back-after-a-minute",
        injected: "both services are away for 60 s, and back just after a probe failed; 3,000 events are held by one process",
        must_hold: "the last one is done at most 6 s later than 3,000 take where nothing is held, measured before and after; each takes effect once",
        is_short: false,
        run: |setting| Box::pin(run(setting, 1)),
    },
    Case {
        name: "back-after-10",
        injected: "the same, held by 10 processes",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(run(setting, 10)),
    },
];

async fn run(setting: Setting, processes: usize) -> Result<Seen, Failed> {
    let (lasts, count) = if setting.is_short { (10, EVENTS / 5) } else { (60, EVENTS) };
    let mut world = World::start(&setting).await?;
    world.use_defaults();
    // One process can hold all events.
    world.set("MAX_IN_FLIGHT", EVENTS);
    let latency = Faults::<Reply>::none().latency(LATENCY, Duration::ZERO);
    world.api.set_faults(latency);
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(world.started().await?);
    }
    let before = undisturbed(&mut world, "before", count).await?;

    world.harm.begin();
    let unused = ReservedPort::reserve()?;
    let away = SocketAddr::from((Ipv4Addr::LOCALHOST, unused.number));
    for proxy in [&world.to_api, &world.to_inventory] {
        proxy.lead_to(away);
        proxy.reset();
    }
    world.send_all(crowd("held", count));
    // The duration is part of the fault.
    sleep(Duration::from_secs(lasts)).await;
    asked_in_vain(&world).await?;
    let held = world.sqs.counts(&world.queue).in_flight;
    let calls = world.ledger.totals().calls;
    world.to_api.lead_to(address(&world.api.base_url())?);
    world.to_inventory.lead_to(address(&world.inventory.addr())?);
    world.harm.end();
    let back_at = Instant::now();
    let has_come = |ledger: &Ledger| ledger.totals().calls > calls;
    ensure(world.ledger.wait_until(has_come, SETTLED_MAX).await, || "no call".to_owned())?;
    let first = back_at.elapsed().as_secs_f64();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let last = Progress::good(&world).last_at().unwrap_or(back_at);
    let took = last.saturating_duration_since(back_at);
    // The smaller of two measurements, so that a busy machine does not hide a delay.
    let least = before.min(undisturbed(&mut world, "after", count).await?);
    let figures = format!(
        "{held} held; the first call {first:.1} s after the return, the last event done after {:.1} s, of which {:.1} s are the least possible; {account}",
        took.as_secs_f64(),
        least.as_secs_f64()
    );
    ensure(took <= least + BEYOND, || figures.clone())?;
    for mut worker in workers {
        worker.leave(SETTLED_MAX).await?;
    }
    Ok(Seen::Held(figures))
}

/// Waits for a failed connection attempt. The next attempt is then as far away as possible.
async fn asked_in_vain(world: &World) -> Result<(), Failed> {
    let asked = world.to_api.traffic().opened;
    let in_vain = |proxy: &Proxy| proxy.traffic().opened > asked && proxy.traffic().open == 0;
    let was_asked = world.to_api.wait_until(in_vain, ASKED_MAX).await;
    ensure(was_asked, || format!("no probe for {} s", ASKED_MAX.as_secs()))
}

/// Measures how long the same processes take for the same number of events without an outage.
async fn undisturbed(world: &mut World, name: &str, count: usize) -> Result<Duration, Failed> {
    let began = Instant::now();
    world.send_all(crowd(name, count));
    Account::settled(world, SETTLED_MAX).await?;
    let last = Progress::good(world).last_at().unwrap_or(began);
    Ok(last.saturating_duration_since(began))
}
