//! Two contradicting events about one reservation, in either order and at the same time.

use std::collections::HashSet;
use std::time::Duration;

use sandbox::inventory::HoldState;
use sandbox::ledger::Effect;
use sandbox::redis::RedisOptions;
use sandbox::reservation_api::ReservationStatus;

use crate::account::{Account, Expected, original_id};
use crate::case::{Case, Seen};
use crate::events::{Event, Kind};
use crate::failed::{Failed, ensure};
use crate::world::{Setting, World};

const LIMIT: Duration = Duration::from_secs(60);

pub(super) const CASES: &[Case] = &[Case {
    name: "contradictions",
    injected: "expired or failed after approved; approved after expired or failed; and both at once, to two processes",
    must_hold: "the first event counts: a late expiry is dropped and sold seats stay sold; a late payment is set aside as money without a seat; never both sold and given back",
    is_short: true,
    run: |setting| Box::pin(run(setting)),
}];

/// Which event comes first; with `None` both are sent together.
const ORDERS: [(Option<Kind>, Kind); 5] = [
    (Some(Kind::Approved), Kind::Expired),
    (Some(Kind::Approved), Kind::Refused),
    (Some(Kind::Expired), Kind::Approved),
    (Some(Kind::Refused), Kind::Approved),
    (None, Kind::Expired),
];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    let count = if setting.is_short { 10 } else { 100 };
    let mut world = World::start(&setting).await?;
    let mut workers = 1;
    if sandbox::redis::is_installed("two processes with contradicting events") {
        world = world.with_redis(RedisOptions::default()).await?;
        workers = 2;
    }
    let mut running = Vec::new();
    for _ in 0..workers {
        running.push(world.started().await?);
    }
    let mut pairs = Vec::new();
    for (number, (first, second)) in (0..count).flat_map(|n| ORDERS.map(|order| (n, order))) {
        let name = format!("{}_{number}_{}", pairs.len(), second.as_str().replace('.', "-"));
        let reservation = format!("rsv_{name}");
        let opening = first.unwrap_or(Kind::Approved);
        let early = Event::new(&format!("{name}_1"), opening).about(&reservation);
        let late = Event::new(&format!("{name}_2"), second).about(&reservation);
        pairs.push((first, reservation, early, late));
    }
    // First the first event of each ordered pair, and the rest after these have taken effect.
    send(&mut world, pairs.iter().filter(|it| it.0.is_some()).map(|it| &it.2));
    Account::settled(&world, LIMIT).await?;
    send(&mut world, pairs.iter().filter(|it| it.0.is_none()).map(|it| &it.2));
    send(&mut world, pairs.iter().map(|it| &it.3));
    let account = Account::settled(&world, LIMIT).await?;
    let mut sold = 0;
    for (first, reservation, ..) in &pairs {
        sold += usize::from(judge(&world, *first, reservation)?);
    }
    for mut worker in running {
        worker.leave(LIMIT).await?;
    }
    let letters = world.sqs.peek_all(&world.dlq);
    // The short form runs beside other tests: a copy whose answer comes too late is sent again.
    let set_aside = if setting.is_short {
        letters.iter().map(original_id).collect::<HashSet<_>>().len()
    } else {
        letters.len()
    };
    let given_back = pairs.len() - sold;
    ensure(set_aside == given_back, || {
        format!("{set_aside} payments set aside, {given_back} without a seat")
    })?;
    Ok(Seen::Held(format!(
        "{} pairs: {sold} sold and kept, {given_back} payments set aside as money_without_seat; {} deliveries, {} calls",
        pairs.len(),
        account.deliveries,
        account.calls
    )))
}

fn send<'a>(world: &mut World, events: impl Iterator<Item = &'a Event>) {
    for event in events {
        world.send(event.clone());
        if let Some(sent) = world.sent.last_mut() {
            sent.expected = Expected::Judged;
        }
    }
}

/// Returns whether the seats were sold in the end.
pub(super) fn judge(world: &World, first: Option<Kind>, reservation: &str) -> Result<bool, Failed> {
    let effects = world.ledger.effects_for(reservation);
    let hold = world.inventory.hold(reservation);
    let is_sold = effects.first() == Some(&Effect::Status(ReservationStatus::Confirmed));
    let is_whole = match hold {
        Some(HoldState::Committed) => is_sold && effects.len() == 2,
        Some(HoldState::Released) => !is_sold && effects.len() == 2,
        Some(HoldState::Held) | None => false,
    };
    let stands = first.is_none_or(|kind| is_sold == (kind == Kind::Approved));
    let was_told = is_sold || told(world, reservation);
    ensure(is_whole && stands && was_told, || {
        format!(
            "{reservation}, {first:?} first: effects {effects:?}, seats {hold:?}, set aside: {was_told}"
        )
    })?;
    Ok(is_sold)
}

/// Returns whether a payment for this reservation was dead-lettered with its reason.
fn told(world: &World, reservation: &str) -> bool {
    world.sqs.peek_all(&world.dlq).iter().any(|letter| {
        let reason = letter.attributes.get("dlq_reason").and_then(|it| it.string_value.as_deref());
        reason == Some("money_without_seat") && letter.body.contains(&format!("\"{reservation}\""))
    })
}
