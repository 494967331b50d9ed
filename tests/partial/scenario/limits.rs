//! Overloaded services: some tell calls to retry later, others give no such answer.

use std::time::Duration;

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{Bucket, NEVER, Plan, Side, Stage, Trouble, Who, millis, pick, secs};

/// A random fifth of the calls is told to retry in one second. At least three fifths of the
/// throughput without these answers must remain.
pub(super) fn throttled_fifth(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let latency = millis(pick(rng, &[5, 100]));
    for service in &mut plan.services {
        service.latency = (latency, latency);
        service.fails_in = Some(millis(1));
    }
    // The engine needs some seconds to detect that fewer calls do not help.
    let lasts = size.of(secs(15), secs(30));
    // Twenty workers, two calls per event.
    let without = 20.0 / (2.0 * latency.as_secs_f64());
    backlog(&mut plan, without * 0.9, lasts, true);
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::Random(20), Trouble::Paced(Some(secs(1))), (secs(0), NEVER));
    plan.choice = format!("{side:?}, {without}/s without");
    plan.bounds = vec![Bound::Done(without * 0.6, (secs(3), lasts))];
    plan
}

/// Adds the events that are done at that rate in that time, all sent at the start.
fn backlog(plan: &mut Plan, per_s: f64, lasts: Duration, seats: bool) {
    for n in 0..20_000_000 {
        if f64::from(n) > per_s * lasts.as_secs_f64() {
            break;
        }
        plan.event(secs(0)).seats = seats;
    }
    plan.lasts = (lasts, lasts);
    // Events that remain at the end are not expected to be done.
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
    // A call that is refused waits for a second, and then for its turn among new calls.
    let late = secs(12);
    plan.bounds = vec![
        Bound::Served(side, per_s * 0.95, times),
        Bound::Paced(side, 0.05, times),
        Bound::InTurn(per_s * 0.95, late),
        Bound::DoneBy(lasts.mul_f64(1.3 / 0.95) + late),
    ];
    // Here, all events must be done in the end.
    for event in &mut plan.events {
        event.grade = crate::plan::Grade::Good;
    }
    plan.max_receives = 1;
    plan.lasts = (lasts, lasts * 2);
    plan
}

/// A rate limit shared by many processes: less than one call a second for each, or a few.
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
    // A process cannot tell the other processes' calls from chance. The share is therefore higher
    // than the 5% of a single process.
    plan.bounds =
        vec![Bound::Served(Side::Api, per_s * 0.95, times), Bound::Paced(Side::Api, 0.08, times)];
    plan.max_receives = 1_000;
    plan
}

/// For a time, all calls are told to retry later. The engine must pause its calls to the service
/// and resume them afterwards.
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
    // The last event to be refused waits for the retry time, or for the longest backoff.
    let told = after.unwrap_or(plan.settings.policy.backoff.cap);
    plan.bounds = vec![Bound::Within(secs(6) + told, vec![(from - secs(1), to)])];
    // Without a retry time, only the backoff of each event limits the calls.
    if after.is_some() {
        let asked = 20.0 * f64::from(u32::try_from(processes).expect("the number is small"));
        plan.bounds.push(Bound::Asked(side, asked, (from + secs(5), to)));
    }
    plan
}

/// Two calls at once, 100 ms each, for ten processes of twenty workers without a latency target.
pub(super) fn small_service(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    plan.processes(rng, 10);
    let lasts = size.of(secs(90), secs(330));
    backlog(&mut plan, 21.0, lasts, false);
    plan.services[0].stages = vec![Stage { from: secs(0), servers: 2, service_time: millis(100) }];
    plan.choice = "20/s, ten processes, no target".to_owned();
    plan.max_receives = 1_000;
    // The bound holds in each minute, not only in total.
    let minutes = (lasts - secs(30)).as_secs() / 60;
    let minute = |n| (secs(30 + 60 * n), secs(90 + 60 * n));
    plan.bounds = (0..minutes).map(|n| Bound::Served(Side::Api, 17.0, minute(n))).collect();
    plan
}

/// For a few seconds, most calls to a slow service get no response. The timeouts arrive late and
/// one by one. They must lower the limit once, not once a second.
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
