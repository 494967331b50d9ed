//! SQS with partial failures: one action is denied or fails while the others work.

use std::time::Duration;

use sandbox::sqs::{Ailment, Right};
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::{Event, Kind, crowd};
use crate::failed::{Failed, ensure, eventually};
use crate::progress::{Progress, feed};
use crate::world::{Setting, Started, World};

/// `maxReceiveCount`.
const RECEIVES_MAX: u32 = 3;

/// Maximum recovery time from the end of the fault.
const RECOVERS: Duration = Duration::from_secs(10);

const SETTLED_MAX: Duration = Duration::from_secs(90);

/// Interval between requests to `/readyz`.
const LOOK_EVERY: Duration = Duration::from_millis(250);

macro_rules! half_well {
    ($name:literal, $ailment:expr, $how:literal, $run:ident, $injected:literal, $must_hold:literal) => {
        Case {
            name: $name,
            injected: concat!($injected, $how),
            must_hold: $must_hold,
            is_short: false,
            run: |setting| Box::pin($run(setting, $ailment)),
        }
    };
    (extend $name:literal, $ailment:expr, $how:literal) => {
        half_well!($name, $ailment, $how, no_extend, "for a minute ChangeMessageVisibility ", "60 events that come while the services are away for 15 s, leases of 5 s, maxReceiveCount 3: none in the DLQ, each done once; /readyz is 503 meanwhile and names the action")
    };
    (delete $name:literal, $ailment:expr, $how:literal) => {
        half_well!($name, $ailment, $how, no_delete, "for 25 s DeleteMessage ", "100 events, leases of 5 s, maxReceiveCount 3: each done once, none in the DLQ, all deleted within 10 s of the end; /readyz is 503 meanwhile and names the action")
    };
    (dlq $name:literal, $ailment:expr, $how:literal) => {
        half_well!($name, $ailment, $how, no_dlq, "for a minute SendMessage to the DLQ ", "20 messages of poison wait or are moved by SQS, good events, 5/s, are done within 2 s; /readyz names the action; all poison is set aside in the end")
    };
}

pub(super) const CASES: &[Case] = &[
    half_well!(extend "sqs-no-extend", Ailment::Denied, "is denied"),
    half_well!(extend "sqs-no-extend-500", Ailment::Failing, "fails with 500"),
    half_well!(delete "sqs-no-delete", Ailment::Denied, "is denied"),
    half_well!(delete "sqs-no-delete-500", Ailment::Failing, "fails with 500"),
    half_well!(dlq "sqs-no-dlq", Ailment::Denied, "is denied"),
    half_well!(dlq "sqs-no-dlq-500", Ailment::Failing, "fails with 500"),
];

/// The responses of `/readyz` during a fault.
#[derive(Debug, Default)]
struct Readiness {
    looks: usize,
    not_ready: usize,
    /// The last response that named the action.
    named: Option<(u16, String)>,
    last: String,
}

impl Readiness {
    /// Reads `/readyz` for the given duration.
    async fn during(worker: &Started, right: Right, lasts: Duration) -> Self {
        let until = Instant::now() + lasts;
        let mut seen = Self::default();
        while Instant::now() < until {
            sleep(LOOK_EVERY).await;
            let Some((status, body)) = worker.get("/readyz").await else { continue };
            seen.looks += 1;
            seen.not_ready += usize::from(status == 503);
            if body.contains(right.name()) && (seen.named.is_none() || status == 503) {
                seen.named = Some((status, body.clone()));
            }
            seen.last = body;
        }
        seen
    }

    /// Checks that the worker was not ready and named the action.
    fn told(&self, right: Right) -> Result<(), Failed> {
        let is_told = self.named.as_ref().is_some_and(|(status, _)| *status == 503);
        ensure(is_told, || format!("/readyz never was 503 and named {}: {self}", right.name()))
    }
}

impl std::fmt::Display for Readiness {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "/readyz 503 in {} of {} requests", self.not_ready, self.looks)?;
        match &self.named {
            Some((status, body)) => write!(out, ", answered {status} {}", body.trim()),
            None => write!(out, ", last answered {}", self.last.trim()),
        }
    }
}

/// Checks that the worker is ready again within [`RECOVERS`] of `healed_at`.
async fn ready_again(worker: &Started, healed_at: Instant) -> Result<f64, Failed> {
    let left = RECOVERS.saturating_sub(healed_at.elapsed());
    eventually("/readyz is 200 again", left, async || {
        worker.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await?;
    Ok(healed_at.elapsed().as_secs_f64())
}

/// Checks that no good event is in the dead-letter queue.
fn no_letters(world: &World) -> Result<(), Failed> {
    let letters = world.sqs.counts(&world.dlq).total();
    let moved = world.sqs.ledger(&world.queue).moved_to_dlq;
    ensure(letters == 0, || {
        let progress = Progress::good(world);
        format!("{letters} good events in the DLQ, {moved} moved there by SQS; {progress}")
    })
}

async fn no_extend(setting: Setting, ailment: Ailment) -> Result<Seen, Failed> {
    let right = Right::ChangeVisibility;
    let mut world = World::redriving(&setting, RECEIVES_MAX).await?;
    world.sqs.faults(&world.queue).ail(right, ailment);
    let mut worker = world.started().await?;
    let good = |name: &'static str| {
        move |world: &mut World, number: usize| {
            world
                .send(Event::new(&format!("{name}_{number}"), Kind::ALL[number % Kind::ALL.len()]));
        }
    };
    let (before, away, after) = (5, 15, if setting.is_short { 10 } else { 40 });
    let lasts = Duration::from_secs(before + away + after);
    let looks = Readiness::during(&worker, right, lasts);
    let course = async {
        feed(&mut world, 2, Duration::from_secs(before), good("before")).await;
        world.harm.begin();
        for proxy in [&world.to_api, &world.to_inventory] {
            proxy.refuse().await?;
        }
        world.send_all(crowd("during", 60));
        sleep(Duration::from_secs(away)).await;
        for proxy in [&world.to_api, &world.to_inventory] {
            proxy.accept().await?;
        }
        world.harm.end();
        feed(&mut world, 2, Duration::from_secs(after), good("after")).await;
        Ok::<_, Failed>(())
    };
    let (readiness, ran) = tokio::join!(looks, course);
    ran?;
    no_letters(&world).map_err(|failed| Failed(format!("{failed}; {readiness}")))?;
    world.sqs.faults(&world.queue).heal(right);
    let healed_at = Instant::now();
    let left = world.sqs.counts(&world.queue).total();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    no_letters(&world)?;
    readiness.told(right)?;
    let ready = ready_again(&worker, healed_at).await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!(
        "{account}; {left} left at the end of it; {readiness}; 200 after {ready:.1} s"
    )))
}

async fn no_delete(setting: Setting, ailment: Ailment) -> Result<Seen, Failed> {
    let right = Right::Delete;
    // Longer than three leases, so that a message could exceed `maxReceiveCount`.
    let lasts = Duration::from_secs(if setting.is_short { 17 } else { 25 });
    let mut world = World::redriving(&setting, RECEIVES_MAX).await?;
    let mut worker = world.started().await?;
    world.send_all(crowd("before", 50));
    Account::settled(&world, SETTLED_MAX).await?;
    world.sqs.faults(&world.queue).ail(right, ailment);
    world.send_all(crowd("good", 100));
    let readiness = Readiness::during(&worker, right, lasts).await;
    no_letters(&world).map_err(|failed| Failed(format!("{failed}; {readiness}")))?;
    world.sqs.faults(&world.queue).heal(right);
    let healed_at = Instant::now();
    let account = Account::settled(&world, RECOVERS).await?;
    let deleted = healed_at.elapsed().as_secs_f64();
    no_letters(&world)?;
    readiness.told(right)?;
    let ready = ready_again(&worker, healed_at).await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!(
        "{account}; all deleted {deleted:.1} s after the end; {readiness}; 200 after {ready:.1} s"
    )))
}

async fn no_dlq(setting: Setting, ailment: Ailment) -> Result<Seen, Failed> {
    let right = Right::Send;
    let lasts = Duration::from_secs(if setting.is_short { 15 } else { 60 });
    let within = Duration::from_secs(2);
    let mut world = World::redriving(&setting, RECEIVES_MAX).await?;
    let mut worker = world.started().await?;
    let faults = world.sqs.faults(&world.dlq);
    faults.ail(right, ailment);
    for number in 0..20 {
        world.send_poison(&format!("no event, {number}"));
    }
    let course = feed(&mut world, 5, lasts, |world, number| {
        world.send(Event::new(&format!("good_{number}"), Kind::ALL[number % Kind::ALL.len()]));
    });
    let (readiness, ()) = tokio::join!(Readiness::during(&worker, right, lasts), course);
    // The last events get the same time as all others; there is no condition to wait for.
    sleep(within).await;
    let progress = Progress::good(&world);
    progress.all_within(within)?;
    let moved = world.sqs.ledger(&world.queue).moved_to_dlq;
    faults.heal(right);
    let healed_at = Instant::now();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let emptied = healed_at.elapsed().as_secs_f64();
    let is_named = readiness.named.is_some();
    ensure(is_named, || format!("/readyz never named {}: {readiness}", right.name()))?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!(
        "{progress}; {account}; {moved} of 20 moved by SQS, the rest set aside {emptied:.0} s after the end; {readiness}"
    )))
}
