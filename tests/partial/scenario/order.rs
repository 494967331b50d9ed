//! Events of one reservation, sent close together, in several processes that share the order.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{
    Action, EventSpec, Fate, Grade, NEVER, Plan, ProcessFault, Side, SqsFault, SqsTrouble,
    StorePlan, Trouble, Who, millis, pick, secs,
};
use crate::store::{lane_shard_of, shard_of};

/// What else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Else {
    Nothing,
    /// The service asks the first events of some reservations to come later, for a while.
    Paced,
    /// A process is killed, told to stop, or frozen.
    Process(Fate),
    /// Leases cannot be extended for a while, and calls are paced meanwhile.
    NoExtend,
    /// A shard of the store is away for a while. Reservations that do not need it go on.
    Shard,
}

const ALL: [Else; 8] = [
    Else::Nothing,
    Else::Nothing,
    Else::Paced,
    Else::Process(Fate::Killed),
    Else::Process(Fate::Stopped),
    Else::Process(Fate::Frozen),
    Else::NoExtend,
    Else::Shard,
];

/// The longest time from one question of a waiting event to the next, with what it takes to ask and
/// to begin.
const ASKS_WITHIN: Duration = millis(1_100);

/// How much later than others an event may come.
const LATE: Duration = millis(300);

/// Two or three processes, one store, and reservations of two to three events.
pub(super) fn order(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let processes = rng.usize(2..=3);
    plan.processes(rng, processes);
    plan.settings.concurrency = pick(rng, &[3, 20]);
    plan.store = StorePlan::Shards { away: 0, from: secs(0), to: secs(0) };
    plan.is_ordered = true;
    for service in &mut plan.services {
        service.latency = (millis(5), millis(pick(rng, &[20, 100, 300])));
    }
    let lasts = secs(20);
    let per_s = if plan.settings.concurrency < 20 { 2 } else { size.of(4, 10) };
    for reservation in 0..per_s * 20 {
        events(rng, &mut plan, reservation, lasts);
    }
    // A wait that cost a retry or a receive would cost the event.
    plan.settings.policy.retries_max = 0;
    plan.lasts = (secs(25), secs(300));
    let what = pick(rng, &ALL);
    trouble(rng, &mut plan, what);
    plan.choice = format!(
        "{processes} processes of {}, {:?} and {:?}, {what:?} {:?}",
        plan.settings.concurrency,
        plan.services[0].latency.1,
        plan.services[1].latency.1,
        plan.fates
    );
    plan
}

/// Two or three events of a reservation: it expires, a payment is approved, a payment fails.
fn events(rng: &mut Rng, plan: &mut Plan, reservation: u32, lasts: Duration) {
    let begins = secs(1) + lasts.mul_f64(rng.f64());
    let apart = pick(rng, &[5, 50, 400]);
    for n in 0..rng.usize(2..=3) {
        let at = begins + millis(rng.u64(0..apart));
        let event = plan.event(at);
        event.reservation = reservation;
        event.is_payment = n == 2;
        event.seats = n != 1;
        // The first event of some reservations comes after later ones. A queue keeps no order.
        if n == 0 && reservation.is_multiple_of(4) {
            event.late = LATE;
        }
    }
}

fn trouble(rng: &mut Rng, plan: &mut Plan, what: Else) {
    let from = millis(rng.u64(3_000..15_000));
    let calm = |within| {
        vec![
            Bound::Order { receives_again: false, idle: Some(ASKS_WITHIN) },
            Bound::Within(within, vec![]),
        ]
    };
    let strict = |by| vec![Bound::Order { receives_again: true, idle: None }, Bound::DoneBy(by)];
    match what {
        Else::Nothing => {
            // Three events of two calls each, and the pauses between.
            plan.bounds = calm(secs(5));
            plan.max_receives = 1;
        }
        Else::Paced => {
            paced(rng, plan, (from, from + secs(5)));
            plan.bounds = vec![
                Bound::Order { receives_again: false, idle: None },
                Bound::Within(secs(20), vec![]),
                Bound::DoneBy(secs(60)),
            ];
            plan.max_receives = 1;
        }
        Else::Process(fate) => {
            let process = rng.usize(0..plan.starts.len());
            let to = from + millis(pick(rng, &[300, 6_000, 8_000, 40_000]));
            // One that stops is given its time before another starts in its place.
            let to = if fate == Fate::Stopped { to.max(from + secs(21)) } else { to };
            plan.fates.push(ProcessFault { process, from, to, fate });
            if rng.u8(0..4) > 0 {
                paced(rng, plan, (from - secs(2), from + secs(12)));
            }
            plan.settings.visibility = secs(pick(rng, &[5, 10]));
            plan.bounds = strict(secs(120));
        }
        Else::NoExtend => {
            let to = from + secs(12);
            let trouble = pick(rng, &[SqsTrouble::Denied, SqsTrouble::Partly(70)]);
            plan.sqs.push(SqsFault { action: Action::Extend, from, to, trouble });
            paced(rng, plan, (from - secs(2), to));
            plan.settings.visibility = secs(5);
            plan.bounds = strict(secs(120));
        }
        Else::Shard => {
            let away = rng.u16(0..3);
            plan.store = StorePlan::Shards { away, from, to: from + secs(rng.u64(1..20)) };
            plan.settings.visibility = secs(5);
            plan.settings.policy.retries_max = 5;
            // The number of an event, and so its shard, is its place in order of sending.
            plan.events.sort_by_key(|event| event.at);
            let needs_it = |(n, event): (usize, &EventSpec)| {
                let needs = [shard_of(n), lane_shard_of(event.reservation)].contains(&away);
                needs.then_some(event.reservation)
            };
            let late: BTreeSet<_> = plan.events.iter().enumerate().filter_map(needs_it).collect();
            for event in &mut plan.events {
                if late.contains(&event.reservation) {
                    event.grade = Grade::Late;
                }
            }
            plan.bounds = strict(secs(120));
            plan.bounds.push(Bound::Within(secs(5), vec![]));
        }
    }
}

/// A third of the reservations is asked to come again a moment later.
fn paced(rng: &mut Rng, plan: &mut Plan, times: (Duration, Duration)) {
    // Those that are told often enough are charged for it.
    plan.settings.policy.retries_max = 20;
    for event in &mut plan.events {
        if event.reservation % 3 == 0 {
            (event.part, event.grade) = (1, Grade::Late);
        }
    }
    let after = millis(pick(rng, &[300, 2_000]));
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::Part(1), Trouble::Paced(Some(after)), (times.0, times.1.min(NEVER)));
}
