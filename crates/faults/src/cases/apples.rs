//! A few events that always fail among a few good events: only the failing events wait.

use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply;
use sandbox::script::{Rule, Scripted};
use tokio::time::sleep;
use tonic::Code;

use crate::account::{Account, Expected};
use crate::case::{Case, Seen};
use crate::events::{Event, Kind};
use crate::failed::{Failed, ensure};
use crate::progress::{Fates, Progress, feed};
use crate::world::{Setting, World};

/// Maximum duration of a good event beside ten bad ones. Beside a single bad event, it is not
/// longer than without.
const WITHIN: Duration = Duration::from_secs(2);

const SETTLED_MAX: Duration = Duration::from_secs(150);

/// The requested pause of the single bad event.
const RETRY_AFTER: &str = "300";
const RETRY_INFO: Duration = Duration::from_secs(5);

/// Interval between good events in the cases with ten bad reservations.
const GOOD_EVERY: Duration = Duration::from_secs(5);

/// Good events between two events of each bad reservation. Some of these are dead-lettered.
const BAD_EVERY: usize = 6;

const BAD: usize = 10;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "one-bad-apple",
        injected: "one event is always answered 503 with Retry-After: 300, or ABORTED with a RetryInfo of 5 s; ten good ones a second for a minute",
        must_hold: "every good event is done within 2 s; the bad one is not lost",
        is_short: true,
        run: |setting| Box::pin(one(setting, false)),
    },
    Case {
        name: "one-bad-apple-fifo",
        injected: "the same on a FIFO queue, with two good events behind the bad one in its group",
        must_hold: "the same; only these two wait",
        is_short: false,
        run: |setting| Box::pin(one(setting, true)),
    },
    Case {
        name: "ten-bad-apples",
        injected: "ten reservations are always answered 500, and an event about each comes every 30 s; one good event every 5 s for two minutes",
        must_hold: "every good event is done within 2 s; of the bad ones none is lost",
        is_short: false,
        run: |setting| Box::pin(ten(setting, false)),
    },
    Case {
        name: "ten-bad-apples-fifo",
        injected: "the same on a FIFO queue, each of the ten with a group of its own, and a good event behind it",
        must_hold: "the same; only their own groups wait, and each in its order",
        is_short: false,
        run: |setting| Box::pin(ten(setting, true)),
    },
];

fn is_bad(id: &str) -> bool {
    id.starts_with("rsv_bad")
}

async fn one(setting: Setting, is_fifo: bool) -> Result<Seen, Failed> {
    let rest = spoilt(&setting, is_fifo, |world| {
        let paced = Scripted::<Reply>::status(503).header("Retry-After", RETRY_AFTER);
        world.api.set_rules([Rule::of(is_bad, paced)]);
    });
    let rpc = spoilt(&setting, is_fifo, |world| {
        let paced = Scripted::<RpcReply>::code_with_retry_info(Code::Aborted, RETRY_INFO);
        world.inventory.set_rules([Rule::of(is_bad, paced)]);
    });
    let (rest, rpc) = tokio::join!(rest, rpc);
    let rest = rest.map_err(|failed| failed.at("503"));
    let rpc = rpc.map_err(|failed| failed.at("ABORTED"));
    match (rest, rpc) {
        (Ok(rest), Ok(rpc)) => Ok(Seen::Held(format!("503: {rest}; ABORTED: {rpc}"))),
        (Err(rest), Err(rpc)) => Err(Failed(format!("{rest}; {rpc}"))),
        (Err(failed), Ok(_)) | (Ok(_), Err(failed)) => Err(failed),
    }
}

/// Makes one event fail as `spoil` says, for the whole run: it may wait for minutes.
async fn spoilt(setting: &Setting, is_fifo: bool, spoil: fn(&World)) -> Result<String, Failed> {
    let lasts = Duration::from_secs(if setting.is_short { 3 } else { 60 });
    let mut world = world(setting, is_fifo).await?;
    let mut worker = world.started().await?;
    spoil(&world);
    if is_fifo {
        world.send_in("bad", Event::new("bad", Kind::Expired), Expected::Judged);
        for name in ["behind_1", "behind_2"] {
            world.send_in("bad", Event::new(name, Kind::Approved), Expected::Judged);
        }
    } else {
        world.send_judged(Event::new("bad", Kind::Expired));
    }
    feed(&mut world, 10, lasts, |world, number| {
        send_good(world, is_fifo, number);
    })
    .await;
    // The last events get the same time as all others; there is no condition to wait for.
    sleep(WITHIN).await;
    let progress = Progress::good(&world);
    progress.all_within(WITHIN)?;
    worker.leave(SETTLED_MAX).await?;
    let (fates, account) = (Fates::of(&world)?, Account::judge(&world)?);
    ensure(fates.done == 0, || format!("an event overtook the bad one: {fates}"))?;
    Ok(format!("{progress}; bad: {fates}; {} calls", account.calls))
}

async fn ten(setting: Setting, is_fifo: bool) -> Result<Seen, Failed> {
    let turns = if setting.is_short { 3 } else { 24 };
    let mut world = world(&setting, is_fifo).await?;
    let mut worker = world.started().await?;
    world.api.set_rules([Rule::of(is_bad, Scripted::<Reply>::status(500))]);
    for turn in 0..turns {
        if turn % BAD_EVERY == 0 {
            send_bad(&mut world, is_fifo, turn);
        }
        // The next event must come after the bad ones, not together with them.
        sleep(GOOD_EVERY / 2).await;
        send_good(&mut world, is_fifo, turn);
        sleep(GOOD_EVERY / 2).await;
    }
    let progress = Progress::good(&world);
    progress.all_within(WITHIN)?;
    world.api.set_rules([]);
    let account = Account::settled(&world, SETTLED_MAX).await?;
    if is_fifo {
        in_order(&world)?;
    }
    let fates = Fates::of(&world)?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{progress}; bad: {fates}; {} calls", account.calls)))
}

async fn world(setting: &Setting, is_fifo: bool) -> Result<World, Failed> {
    let mut world =
        if is_fifo { World::fifo(setting).await? } else { World::start(setting).await? };
    world.use_defaults();
    Ok(world)
}

fn send_good(world: &mut World, is_fifo: bool, number: usize) {
    let event = Event::new(&format!("good_{number}"), Kind::ALL[number % Kind::ALL.len()]);
    if is_fifo {
        world.send_in(&format!("good_{}", number % 10), event, Expected::Applied);
    } else {
        world.send(event);
    }
}

fn send_bad(world: &mut World, is_fifo: bool, turn: usize) {
    for number in 0..BAD {
        let event = Event::new(&format!("bad_{number}_{turn}"), Kind::Expired);
        let event = event.about(&format!("rsv_bad_{number}"));
        if is_fifo {
            let group = format!("bad_{number}");
            world.send_in(&group, event, Expected::Judged);
            let behind = Event::new(&format!("behind_{number}_{turn}"), Kind::Expired);
            world.send_in(&group, behind, Expected::Judged);
        } else {
            world.send_judged(event);
        }
    }
}

/// Checks that each of the ten groups was handled in sending order. Dead-lettered events are left
/// out.
fn in_order(world: &World) -> Result<(), Failed> {
    for number in 0..BAD {
        let of_group = |event: &&Event| {
            event.id.starts_with(&format!("evt_bad_{number}_"))
                || event.id.starts_with(&format!("evt_behind_{number}_"))
        };
        let events = world.sent.iter().filter_map(|sent| sent.event.as_ref()).filter(of_group);
        let calls = world.ledger.calls();
        let done = events.filter_map(|event| {
            let key = &event.keys()[0];
            let call = calls.iter().find(|call| call.applied() && call.key.as_ref() == Some(key));
            call.map(|call| call.sequence)
        });
        let done: Vec<u64> = done.collect();
        ensure(done.is_sorted(), || format!("group bad_{number} was not done in its order"))?;
    }
    Ok(())
}
