//! Services of a known capacity, with a latency target. The bounds are on throughput, latency and
//! fairness.
//!
//! The best fixed concurrency is one call per server: it uses the whole capacity, and no call
//! waits. A process does not know the number of other processes, so the bound on latency follows
//! from the target instead. 99 of 100 calls take at most 1.25 times the longest of: the target; the
//! duration of a call that does not wait; the latency that results, by Little's law, from the
//! minimum concurrency of each process plus the one additional call that it tries at times. One
//! service time is added, because latencies rise in steps of it.

use std::time::Duration;

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{Grade, Plan, Side, Stage, Times, millis, pick, secs};

const TARGET: Duration = millis(100);

/// The service of a run.
#[derive(Clone, Copy)]
struct Service {
    servers: usize,
    service_time: Duration,
}

impl Service {
    fn per_s(self) -> f64 {
        self.calls(self.servers) / self.service_time.as_secs_f64()
    }

    fn calls(self, count: usize) -> f64 {
        f64::from(u32::try_from(count).expect("the number is small"))
    }

    /// The bound on the latency of 99 of 100 calls.
    fn p99(self, plan: &Plan) -> Duration {
        let inevitable = self.calls(plan.starts.len() * (plan.calls_min + 1)) / self.per_s();
        let best = self.service_time + plan.services[0].latency.1;
        let target = plan.services[0].target.unwrap_or(best);
        let longest = target.max(best).max(Duration::from_secs_f64(inevitable));
        longest.mul_f64(1.25) + self.service_time
    }

    fn stage(self, from: Duration) -> Stage {
        Stage { from, servers: self.servers, service_time: self.service_time }
    }
}

const EIGHT: Service = Service { servers: 8, service_time: millis(20) };

/// A backlog that outlasts the run, and a service with a latency target.
fn plan(rng: &mut Rng, processes: usize, service: Service, lasts: Duration) -> Plan {
    let mut plan = Plan::new(rng);
    plan.processes(rng, processes);
    plan.settings.concurrency = pick(rng, &[20, 50]);
    let count = service.per_s() * lasts.as_secs_f64() * 1.1;
    for n in 0..20_000_000 {
        if f64::from(n) > count {
            break;
        }
        let event = plan.event(secs(0));
        (event.seats, event.grade) = (false, Grade::Bad);
    }
    plan.max_receives = 1_000;
    plan.services[0].target = Some(TARGET);
    plan.services[0].latency = (millis(1), millis(2));
    plan.services[0].stages = vec![service.stage(secs(0))];
    plan.choice = format!("{processes} processes of {}", plan.settings.concurrency);
    plan.lasts = (lasts, lasts);
    plan
}

fn bounds(plan: &Plan, service: Service, part: f64, times: Times) -> Vec<Bound> {
    vec![
        Bound::Served(Side::Api, service.per_s() * part, times),
        Bound::P99(Side::Api, service.p99(plan), times),
    ]
}

pub(super) fn adaptive(rng: &mut Rng, size: Size) -> Plan {
    let processes = pick(rng, &size.of([1, 1, 4, 4, 10], [1, 4, 10, 20, 50]));
    let lasts = size.of(secs(28), secs(80));
    let mut plan = plan(rng, processes, EIGHT, lasts);
    let times = (secs(20), lasts);
    plan.bounds = bounds(&plan, EIGHT, 0.97, times);
    plan.bounds.push(Bound::Fair(Side::Api, 0.95, times));
    plan
}

/// The same number of processes starts again after the others have found their limits.
pub(super) fn late_joiners(rng: &mut Rng, size: Size) -> Plan {
    let processes = pick(rng, &size.of([2, 2], [4, 10]));
    let (joins, from, lasts) =
        size.of((secs(7), secs(22), secs(37)), (secs(15), secs(35), secs(100)));
    let mut plan = plan(rng, 2 * processes, EIGHT, lasts);
    for start in &mut plan.starts[processes..] {
        *start += joins;
    }
    let times = (from, lasts);
    plan.bounds = bounds(&plan, EIGHT, 0.97, times);
    plan.bounds.push(Bound::Fair(Side::Api, 0.95, times));
    plan
}

/// Half of the servers disappear and return. The engine adapts to each change within two seconds.
pub(super) fn halved(rng: &mut Rng, size: Size) -> Plan {
    let processes = pick(rng, &size.of([1, 4], [4, 10]));
    let half = Service { servers: 4, ..EIGHT };
    let (gone, back) = size.of((secs(12), secs(20)), (secs(20), secs(50)));
    let lasts = back + size.of(secs(8), secs(30));
    let mut plan = plan(rng, processes, EIGHT, lasts);
    plan.services[0].stages.extend([half.stage(gone), EIGHT.stage(back)]);
    plan.bounds = bounds(&plan, half, 0.95, (gone + secs(2), back));
    plan.bounds.push(Bound::Served(Side::Api, 0.95 * EIGHT.per_s(), (back + secs(2), lasts)));
    plan
}

/// A capacity of twenty calls a second: two at once, 100 ms each.
pub(super) fn twenty(rng: &mut Rng, size: Size) -> Plan {
    let service = Service { servers: 2, service_time: millis(100) };
    let processes = pick(rng, &[1, 4, 10]);
    let lasts = size.of(secs(90), secs(300));
    let mut plan = plan(rng, processes, service, lasts);
    plan.calls_min = 1;
    // A target below the duration of a call that does not wait cannot be met.
    plan.services[0].target = Some(millis(300));
    plan.bounds = bounds(&plan, service, 0.95, (secs(30), lasts));
    // Each process holds up to four times its initial limit, and the limit itself, and is served at
    // two calls a second: a tenth of the capacity.
    plan.bounds.push(Bound::Idle(secs(10), (secs(0), lasts - secs(10))));
    plan
}

/// A backlog, then too few events to reach any limit, then a backlog again. The limit found in the
/// first backlog must still hold in the second.
pub(super) fn quiet_between(rng: &mut Rng, size: Size) -> Plan {
    let processes = pick(rng, &[2, 4]);
    let (quiet, busy) = size.of((secs(8), secs(30)), (secs(20), secs(120)));
    let mut plan = plan(rng, processes, EIGHT, quiet.mul_f64(0.8));
    plan.settings.concurrency = 50;
    plan.steady(rng, 100.0, (quiet, busy));
    let lasts = busy + secs(3);
    for _ in 0..1_300 {
        plan.event(busy);
    }
    for event in &mut plan.events {
        (event.seats, event.grade) = (false, Grade::Bad);
    }
    plan.choice = format!("{processes} processes of 50");
    plan.lasts = (lasts, lasts);
    plan.bounds = bounds(&plan, EIGHT, 0.97, (busy, lasts));
    plan
}
