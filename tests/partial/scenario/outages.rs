//! Outages of a service or of a shard of the store, and services that refuse all calls. All of them
//! recover.

use std::time::Duration;

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{Grade, NEVER, Plan, Side, StorePlan, Trouble, Who, millis, pick, secs};
use crate::store::shard_of;

/// An outage of three seconds, after which thirty events continue to fail alone.
pub(super) fn then_thirty(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let outage = (secs(10), secs(13));
    let lasts = size.of(secs(60), secs(600));
    plan.steady(rng, 20.0, (secs(0), lasts));
    for _ in 0..30 {
        let event = plan.event(millis(rng.u64(8_000..13_000)));
        (event.part, event.grade) = (1, Grade::Bad);
    }
    let side = pick(rng, &Side::BOTH);
    let class = pick(rng, &[Trouble::Away, Trouble::Silent]);
    plan.fault(side, Who::All, class, outage);
    let trouble = pick(rng, &[Trouble::Away, Trouble::Failing]);
    plan.fault(side, Who::Part(1), trouble, (secs(0), NEVER));
    plan.choice = format!("{side:?} {class:?}, then {trouble:?}");
    plan.lasts = (lasts, lasts + secs(30));
    // A call that is open when the outage ends waits for its timeout.
    let hung = if class == Trouble::Silent { plan.services[side.index()].timeout } else { secs(0) };
    let closed = (outage.0 - secs(1), outage.1 + hung);
    plan.bounds = vec![Bound::Within(secs(5), vec![closed])];
    plan
}

pub(super) fn after_a_minute(rng: &mut Rng, size: Size) -> Plan {
    back(rng, size, secs(60), secs(6))
}

pub(super) fn after_an_hour(rng: &mut Rng, size: Size) -> Plan {
    back(rng, size, size.of(secs(600), secs(3_600)), secs(12))
}

/// An outage of that length, in which events arrive and are held. They are done at most `limit`
/// later than the shortest possible time.
fn back(rng: &mut Rng, size: Size, outage: Duration, limit: Duration) -> Plan {
    let mut plan = Plan::new(rng);
    let processes = pick(rng, &size.of([1, 1, 10], [1, 10, 50]));
    plan.processes(rng, processes);
    let held: usize = size.of(600, 3_000);
    // The default in-flight limit is below three thousand events in one process.
    plan.settings.in_flight_max = if processes == 1 { 4_000 } else { 1_000 };
    let latency = pick(rng, &[millis(5), millis(50), millis(300)]);
    for service in &mut plan.services {
        service.latency = (latency, latency);
    }
    let (from, to) = (secs(5), secs(5) + outage);
    plan.steady(rng, 20.0, (secs(0), from));
    for _ in 0..held {
        plan.event(from + millis(rng.u64(0..20_000)));
    }
    let side = pick(rng, &Side::BOTH);
    let class = pick(rng, &[Trouble::Away, Trouble::Away, Trouble::Failing, Trouble::Silent]);
    plan.fault(side, Who::All, class, (from, to));
    let steps = if side == Side::Api { 2 } else { 1 };
    let rounds = held.div_ceil(processes * plan.settings.concurrency);
    // A call that is open when the outage ends waits for its timeout.
    let hung = if class == Trouble::Silent { plan.services[side.index()].timeout } else { secs(0) };
    let least = latency * steps * u32::try_from(rounds).expect("the number is small") + hung;
    plan.choice = format!(
        "{side:?} {class:?}, {held} held in {processes} processes, {latency:?} a call, least possible {least:?}"
    );
    plan.lasts = (to, to + least + secs(120));
    let asked = 3.0 * f64::from(u32::try_from(processes).expect("the number is small"));
    plan.bounds = vec![
        Bound::DoneBy(to + least + limit),
        Bound::Asked(side, asked, (from + secs(30), to)),
        Bound::Ramp(side, plan.settings.concurrency / 4, to),
    ];
    plan
}

/// Two hundred events get responses of another system.
pub(super) fn foreign(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    for _ in 0..200 {
        plan.event(millis(rng.u64(0..3_000)));
    }
    let trouble = pick(
        rng,
        &[Trouble::Foreign(400), Trouble::Foreign(404), Trouble::Foreign(421), Trouble::Html],
    );
    let side = if rng.u8(0..4) == 0 { Side::Inventory } else { Side::Api };
    let to = pick(rng, &size.of([secs(20), secs(60)], [secs(60), secs(3_600)]));
    plan.fault(side, Who::All, trouble, (secs(0), to));
    plan.choice = format!("{side:?} {trouble:?} until {to:?}");
    plan.lasts = (to, to + secs(120));
    plan.bounds = vec![Bound::DoneBy(to + if to > secs(60) { secs(12) } else { secs(6) })];
    plan
}

/// For a time, all calls are refused. Each process may dead-letter five good events before it
/// detects this.
pub(super) fn refusing_all(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let processes = pick(rng, &[1, 1, 4]);
    plan.processes(rng, processes);
    let per_s = pick(rng, &[2.0, 20.0, size.of(50.0, 100.0)]);
    let refuses = size.of(secs(40), if per_s > 50.0 { secs(60) } else { secs(600) });
    let (from, to) = (secs(10), secs(10) + refuses);
    plan.steady(rng, per_s, (secs(1), to + secs(20)));
    let side = pick(rng, &Side::BOTH);
    let class = pick(rng, &[Trouble::Refused, Trouble::Forbidden]);
    plan.fault(side, Who::All, class, (from, to));
    plan.choice = format!("{side:?} {class:?}, {per_s}/s, {processes} processes");
    // Large enough that receives never stop at the in-flight limit.
    plan.settings.in_flight_max = 20_000;
    plan.lasts = (to, to + secs(120));
    plan.dead_letters_max = 5 * processes;
    // Two calls per event, at most twenty events at once.
    let held = per_s * refuses.as_secs_f64()
        / f64::from(u32::try_from(processes).expect("the number is small"));
    let least = (plan.services[0].latency.1 * 2).mul_f64(held / 20.0);
    let limit = if refuses > secs(60) { secs(12) } else { secs(6) };
    plan.bounds = vec![Bound::Within(limit + least, vec![(from - secs(1), to)])];
    plan
}

/// One of three shards of the store is down. Its events must not delay the others, with a large
/// in-flight limit or a small one.
pub(super) fn shard_away(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let processes = pick(rng, &[1, 1, 4]);
    plan.processes(rng, processes);
    let to = size.of(secs(40), secs(600));
    let per_s = pick(rng, &[2.0, 20.0, 40.0]);
    plan.steady(rng, per_s, (secs(1), to));
    let away = rng.u16(0..3);
    let from = secs(rng.u64(0..5));
    plan.store = StorePlan::Shards { away, from, to };
    // With a small in-flight limit, some waiting events are handed back and come much later.
    let is_roomy = rng.bool();
    plan.settings.in_flight_max = if is_roomy { 20_000 } else { size.of(100, 1_000) };
    for (n, event) in plan.events.iter_mut().enumerate() {
        if shard_of(n) == away {
            event.grade = if is_roomy { Grade::Late } else { Grade::Bad };
        }
    }
    plan.choice =
        format!("shard {away} from {from:?}, {per_s}/s, {processes} processes, roomy {is_roomy}");
    plan.lasts = (to, to + secs(60));
    plan.bounds = vec![Bound::Within(secs(5), vec![]), Bound::DoneBy(to + secs(30))];
    plan
}

/// Half of all calls fail at random with the outage class. This may cost time, but no receives.
pub(super) fn half_away(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let lasts = size.of(secs(30), secs(300));
    plan.steady(rng, 20.0, (secs(0), lasts));
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::Random(50), Trouble::Away, (secs(0), lasts));
    plan.choice = format!("{side:?}");
    plan.max_receives = 1;
    plan.lasts = (lasts, lasts + secs(60));
    plan.bounds = vec![Bound::DoneBy(lasts + secs(35))];
    plan
}
