//! Services that say *not so fast*, and one that does not say so.

use std::time::Duration;

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{Bucket, NEVER, Plan, Side, Stage, Trouble, Who, millis, pick, secs};

/// A random fifth of the calls is told to come back in a second; three fifths of the throughput without that is the least.
pub(super) fn throttled_fifth(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let latency = millis(pick(rng, &[5, 100]));
    for service in &mut plan.services {
        service.latency = (latency, latency);
        service.fails_in = Some(millis(1));
    }
    // It takes some seconds to find out that fewer calls do not help.
    let lasts = size.of(secs(15), secs(30));
    // Twenty workers, two calls an event.
    let without = 20.0 / (2.0 * latency.as_secs_f64());
    backlog(&mut plan, without * 0.9, lasts, true);
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::Random(20), Trouble::Paced(Some(secs(1))), (secs(0), NEVER));
    plan.choice = format!("{side:?}, {without}/s without");
    plan.bounds = vec![Bound::Done(without * 0.6, (secs(3), lasts))];
    plan
}

/// As many events as are done at that rate, there from the start.
fn backlog(plan: &mut Plan, per_s: f64, lasts: Duration, seats: bool) {
    for n in 0..20_000_000 {
        if f64::from(n) > per_s * lasts.as_secs_f64() {
            break;
        }
        plan.event(secs(0)).seats = seats;
    }
    plan.lasts = (lasts, lasts);
    // What is left over when time is up was never to be done.
    for event in &mut plan.events {
        event.grade = crate::plan::Grade::Bad;
    }
}

pub(super) fn token_bucket(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    for service in &mut plan.services {
        service.latency = (millis(4), millis(6));
    }
    let per_s = pick(rng, &size.of([20.0, 200.0, 600.0], [20.0, 200.0, 1_000.0]));
    let (from, lasts) = (secs(4), size.of(secs(12), secs(60)));
    backlog(&mut plan, per_s * 1.3, lasts, true);
    let side = pick(rng, &Side::BOTH);
    let bucket = Bucket { per_s, capacity: per_s, retry_after: secs(1) };
    plan.services[side.index()].bucket = Some(bucket);
    plan.choice = format!("{side:?}, {per_s}/s");
    let times = (from, lasts);
    // One that is refused waits a second, and then for its turn among fresh ones, of which there are always some.
    let late = secs(12);
    plan.bounds = vec![
        Bound::Served(side, per_s * 0.95, times),
        Bound::Paced(side, 0.05, times),
        Bound::InTurn(per_s * 0.95, late),
        Bound::DoneBy(lasts.mul_f64(1.3 / 0.95) + late),
    ];
    // All are done in the end.
    for event in &mut plan.events {
        event.grade = crate::plan::Grade::Good;
    }
    plan.max_receives = 1;
    plan.lasts = (lasts, lasts * 2);
    plan
}

/// A limit that many processes share: of each, less than a call a second, or a few.
pub(super) fn shared_bucket(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let processes = pick(rng, &size.of([10, 10], [10, 50]));
    plan.processes(rng, processes);
    for service in &mut plan.services {
        service.latency = (millis(4), millis(6));
    }
    let per_s = pick(rng, &[20.0, 100.0]);
    let (from, lasts) = size.of((secs(60), secs(120)), (secs(120), secs(480)));
    backlog(&mut plan, per_s * 1.3, lasts, false);
    let bucket = Bucket { per_s, capacity: per_s, retry_after: secs(1) };
    plan.services[0].bucket = Some(bucket);
    plan.choice = format!("{per_s}/s, {processes} processes");
    let times = (from, lasts);
    // One process cannot tell what the others do from chance, which makes it somewhat more than the 5% of one process that is alone.
    plan.bounds =
        vec![Bound::Served(Side::Api, per_s * 0.95, times), Bound::Paced(Side::Api, 0.08, times)];
    plan.max_receives = 1_000;
    plan
}

/// Everybody is told to come back later, for a while: the service is left alone, and then used again.
pub(super) fn paced_all(rng: &mut Rng, _size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let processes = pick(rng, &[1, 4]);
    plan.processes(rng, processes);
    let after = pick(rng, &[Some(secs(1)), Some(secs(5)), None]);
    let (from, to) = (secs(10), secs(40));
    plan.steady(rng, 20.0, (secs(1), secs(60)));
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::All, Trouble::Paced(after), (from, to));
    plan.choice = format!("{side:?} {after:?}, {processes} processes");
    plan.lasts = (to, to + secs(120));
    // The last to be told waits that long, or for the longest backoff.
    let told = after.unwrap_or(plan.settings.policy.backoff.cap);
    plan.bounds = vec![Bound::Within(secs(6) + told, vec![(from - secs(1), to)])];
    // Where no time is named, each event's own backoff is all that spares the service.
    if after.is_some() {
        let asked = 20.0 * f64::from(u32::try_from(processes).expect("few"));
        plan.bounds.push(Bound::Asked(side, asked, (from + secs(5), to)));
    }
    plan
}

/// Two calls at once, 100 ms each, for ten processes of twenty workers that were told no target.
pub(super) fn small_service(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    plan.processes(rng, 10);
    let lasts = size.of(secs(90), secs(330));
    backlog(&mut plan, 21.0, lasts, false);
    plan.services[0].stages = vec![Stage { from: secs(0), servers: 2, service_time: millis(100) }];
    plan.choice = "20/s, ten processes, no target".to_owned();
    plan.max_receives = 1_000;
    // In each minute, and not only on the whole.
    let minutes = (lasts - secs(30)).as_secs() / 60;
    let minute = |n| (secs(30 + 60 * n), secs(90 + 60 * n));
    plan.bounds = (0..minutes).map(|n| Bound::Served(Side::Api, 17.0, minute(n))).collect();
    plan
}

/// For a few seconds most calls of a slow service get no answer. That is known late and piece by piece, and is one reason to make
/// fewer calls, not one a second.
pub(super) fn silent_moment(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    plan.settings.concurrency = 100;
    let lasts = size.of(secs(40), secs(300));
    plan.steady(rng, 15.0, (secs(0), lasts));
    for event in &mut plan.events {
        event.seats = false;
    }
    plan.services[0].latency = (millis(2_600), millis(2_900));
    let (from, to) = (secs(10), secs(14));
    plan.fault(Side::Api, Who::Random(80), Trouble::Silent, (from, to));
    plan.lasts = (lasts, lasts + secs(60));
    let told = to + plan.services[0].timeout;
    plan.bounds = vec![Bound::Done(13.5, (told, told + secs(10))), Bound::DoneBy(lasts + secs(10))];
    plan
}
