//! Overloaded services that say so: a share of the calls, or calls above a rate, are told to come
//! later.

use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::{Call, Ledger, Service, Tally};
use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, RateLimit, Scripted};
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::progress::per_second;
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(180);

/// Effects per event: status and seats.
const EFFECTS: u64 = 2;

/// Duration of the throughput measurement.
const WINDOW: Duration = Duration::from_secs(20);

/// Time before the measurement in which the worker finds the limit.
const WARM_UP: Duration = Duration::from_secs(5);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "throttled-fifth",
        injected: "a random fifth of the PATCHes is answered 429 with Retry-After: 1; 20 at once, 5 ms each",
        must_hold: "throughput is at least 60% of that without the 429s, measured just before; each event takes effect once",
        is_short: false,
        run: |setting| Box::pin(fifth(setting)),
    },
    Case {
        name: "rate-limit",
        injected: "a token bucket of 200 and of 1,000 PATCHes a second, of 200 calls a second of Inventory; calls beyond it are answered with a wait of 1 s",
        must_hold: "at least 95% of the rate is used, at most 5% of the calls are refused",
        is_short: false,
        run: |setting| Box::pin(limits(setting)),
    },
];

async fn fifth(setting: Setting) -> Result<Seen, Failed> {
    let later = || Scripted::<Reply>::status(429).header("Retry-After", "1");
    let latency = Faults::<Reply>::none().latency(Duration::from_millis(5), Duration::ZERO);
    let events = if setting.is_short { 2_000 } else { 20_000 };
    let without = throughput(&setting, latency.clone(), events).await?;
    let with = throughput(&setting, latency.seed(9).with(0.2, later()), events).await?;
    let percent = 100.0 * with.rate / without.rate;
    let figures = format!(
        "{:.0} events/s, {percent:.0}% of {:.0}/s without; {} of {} calls answered with a wait; {}",
        with.rate, without.rate, with.tally.refused, with.tally.calls, with.account
    );
    ensure(percent >= 60.0, || figures.clone())?;
    Ok(Seen::Held(figures))
}

struct Throughput {
    rate: f64,
    tally: Tally,
    account: String,
}

/// Measures a backlog until the window ends or 80% is done. The last part is left out, because it
/// is not at full rate.
async fn throughput(
    setting: &Setting,
    faults: Faults<Reply>,
    events: usize,
) -> Result<Throughput, Failed> {
    let mut world = World::start(setting).await?;
    world.use_defaults();
    world.use_no_proxies();
    world.api.set_faults(faults);
    world.send_all(crowd("some", events));
    let enough = u64::try_from(events).unwrap_or(u64::MAX) * EFFECTS * 8 / 10;
    let mut worker = world.started().await?;
    let effects = |ledger: &Ledger| ledger.totals().effects;
    let has_begun = world.ledger.wait_until(|it| effects(it) > 0, SETTLED_MAX).await;
    ensure(has_begun, || "nothing is done".to_owned())?;
    let began = Instant::now();
    // Whichever ends first, the events done so far are divided by the elapsed time.
    world.ledger.wait_until(|it| effects(it) >= enough, WINDOW).await;
    let rate = per_second(effects(&world.ledger) / EFFECTS, began.elapsed());
    let tally = Tally::of(&world.ledger.calls(), Service::ReservationApi);
    world.api.set_faults(Faults::none());
    // The rest of a backlog that was too long for its window proves nothing more.
    let account = match Account::settled(&world, SETTLED_MAX).await {
        Ok(account) => account.to_string(),
        Err(_) if rate < 50.0 => "not done in the end".to_owned(),
        Err(failed) => return Err(failed),
    };
    worker.leave(SETTLED_MAX).await?;
    Ok(Throughput { rate, tally, account })
}

async fn limits(setting: Setting) -> Result<Seen, Failed> {
    let (mut figures, mut holds) = (Vec::new(), true);
    for (service, limit) in [
        (Service::ReservationApi, 200),
        (Service::ReservationApi, 1_000),
        (Service::Inventory, 200),
    ] {
        // All rates run to their end, also if one fails.
        let (seen, does_hold) = match limited(&setting, service, limit).await {
            Ok(seen) => (seen, true),
            Err(failed) => (format!("NOT HELD: {failed}"), false),
        };
        holds &= does_hold;
        figures.push(seen);
    }
    let figures = figures.join("; ");
    ensure(holds, || figures.clone())?;
    Ok(Seen::Held(figures))
}

async fn limited(setting: &Setting, service: Service, limit: u32) -> Result<String, Failed> {
    let window = if setting.is_short { WARM_UP } else { WINDOW };
    let mut world = World::start(setting).await?;
    world.use_defaults();
    world.use_no_proxies();
    // Enough events that no process is idle before the window ends.
    let seconds = (WARM_UP + window).as_secs() + 5;
    let events = usize::try_from(u64::from(limit) * seconds).unwrap_or(usize::MAX);
    match service {
        Service::ReservationApi => world.api.set_rate_limit(Some(RateLimit::per_second(limit))),
        Service::Inventory => world.inventory.set_rate_limit(Some(RateLimit::per_second(limit))),
    }
    // Latency as of a service on another machine.
    let (near, none) = (Duration::from_millis(5), Duration::ZERO);
    world.api.set_faults(Faults::<Reply>::none().latency(near, none));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(near, none));
    world.send_all(crowd("some", events));
    let mut worker = world.started().await?;
    let of_it = |call: &&Call| call.service == service;
    let has_begun = |ledger: &Ledger| ledger.calls().iter().any(|call| of_it(&call));
    ensure(world.ledger.wait_until(has_begun, SETTLED_MAX).await, || "no call".to_owned())?;
    let began = Instant::now();
    // The duration is what is measured.
    sleep(WARM_UP + window).await;
    let calls = world.ledger.calls();
    let all = Tally::of(&calls, service);
    let is_measured =
        |call: &&Call| call.at >= began + WARM_UP && call.at < began + WARM_UP + window;
    let measured = Tally::of(calls.iter().filter(is_measured), service);
    let rate = per_second(measured.served + measured.pending, window);
    let share = |part: u64, whole: u64| 100.0 * per_second(part, Duration::from_secs(whole));
    let (used, refused) = (100.0 * rate / f64::from(limit), share(all.refused, all.calls));
    let figures = format!(
        "{service:?}: {rate:.0}/s of {limit}/s ({used:.0}%), {} of {} calls refused ({refused:.1}%)",
        all.refused, all.calls
    );
    ensure(used >= 95.0 && refused <= 5.0, || {
        let is_idle = all.refused == 0 && used < 95.0;
        format!("{figures}{}", if is_idle { "; the limit was never met" } else { "" })
    })?;
    world.api.set_rate_limit(None);
    world.inventory.set_rate_limit(None);
    Account::settled(&world, SETTLED_MAX).await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(figures)
}
