//! A partly failing service: the same reservations always fail, and the others must not be delayed.

use std::time::Duration;

use sandbox::reservation_api::Reply;
use sandbox::script::{Rule, Scripted, is_in_share};
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::{Event, Kind, crowd};
use crate::failed::Failed;
use crate::progress::{Fates, Progress, feed};
use crate::world::{Setting, World};

/// Maximum duration of a good event from sending to its last effect.
const WITHIN: Duration = Duration::from_secs(5);

/// Failed events wait at most 30 s, handed-back events longer.
const SETTLED_MAX: Duration = Duration::from_secs(150);

const SICK: f64 = 0.1;
const PER_SECOND: u32 = 20;
const TEN_MINUTES: Duration = Duration::from_secs(600);
const TWO_MINUTES: Duration = Duration::from_secs(120);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "sick-tenth",
        injected: "10% of the reservations are always answered 503; 20 events/s for ten minutes",
        must_hold: "every good event is done within 5 s; of the bad ones none is lost",
        is_short: false,
        run: |setting| Box::pin(tenth(setting, 503, TEN_MINUTES)),
    },
    Case {
        name: "sick-tenth-500",
        injected: "the same with 500, for two minutes",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(tenth(setting, 500, TWO_MINUTES)),
    },
    Case {
        name: "sick-tenth-refused",
        injected: "the same with 422 and the API's error body, for two minutes",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(tenth(setting, 422, TWO_MINUTES)),
    },
    Case {
        name: "sick-burst",
        injected: "50 events whose reservations are always answered 503, and after them good ones, 50/s for a minute",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(burst(setting)),
    },
];

async fn tenth(setting: Setting, status: u16, lasts: Duration) -> Result<Seen, Failed> {
    let lasts = if setting.is_short { Duration::from_secs(30) } else { lasts };
    let mut world = World::start(&setting).await?;
    world.use_defaults();
    let mut worker = world.started().await?;
    world.api.set_rules([Rule::share(SICK, Scripted::<Reply>::status(status))]);
    feed(&mut world, PER_SECOND, lasts, |world, number| {
        let event = Event::new(&format!("some_{number}"), Kind::ALL[number % Kind::ALL.len()]);
        if is_in_share(&event.reservation, SICK) {
            world.send_judged(event);
        } else {
            world.send(event);
        }
    })
    .await;
    let figures = judged(&world).await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(figures)
}

async fn burst(setting: Setting) -> Result<Seen, Failed> {
    let lasts = Duration::from_secs(if setting.is_short { 5 } else { 60 });
    let mut world = World::start(&setting).await?;
    world.use_defaults();
    let mut worker = world.started().await?;
    let is_bad = |id: &str| id.starts_with("rsv_bad");
    world.api.set_rules([Rule::of(is_bad, Scripted::<Reply>::status(503))]);
    crowd("bad", 50).into_iter().for_each(|event| world.send_judged(event));
    feed(&mut world, 50, lasts, |world, number| {
        world.send(Event::new(&format!("good_{number}"), Kind::ALL[number % Kind::ALL.len()]));
    })
    .await;
    let figures = judged(&world).await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(figures)
}

/// Checks the good events while the others still fail, then the others after the cure.
async fn judged(world: &World) -> Result<Seen, Failed> {
    // The last events get the same time as all others; there is no condition to wait for.
    sleep(WITHIN).await;
    let progress = Progress::good(world);
    progress.all_within(WITHIN)?;
    world.api.set_rules([]);
    let cured_at = Instant::now();
    // Failing events beyond half of the in-flight limit were handed back and are hidden for 15
    // minutes: they are still queued.
    let account = match Account::settled(world, SETTLED_MAX).await {
        Ok(account) => account,
        Err(_) => Account::judge(world)?,
    };
    let (fates, took) = (Fates::of(world)?, cured_at.elapsed().as_secs_f64());
    Ok(Seen::Held(format!(
        "{progress}; bad: {fates}, {took:.0} s after the cure; {} calls",
        account.calls
    )))
}
