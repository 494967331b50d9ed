//! Failures of a part of the reservations. The other reservations must not be affected.

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{Grade, NEVER, Plan, Side, Trouble, Who, millis, pick, secs};

/// Failures that look like the fault of a single event.
const CLASSES: [Trouble; 4] =
    [Trouble::Away, Trouble::Failing, Trouble::Refused, Trouble::Forbidden];

/// No faults: shows the bounds without them.
pub(super) fn all_well(rng: &mut Rng, _size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    plan.steady(rng, 20.0, (secs(0), secs(20)));
    plan.bounds = vec![Bound::Within(millis(500), vec![])];
    plan
}

/// A tenth of the reservations always fails, with one error class, or each with its own.
pub(super) fn sick_tenth(rng: &mut Rng, size: Size) -> Plan {
    let lasts = size.of(secs(180), secs(3_600));
    let mut plan = Plan::new(rng);
    plan.slow_where_well(rng, millis(300));
    plan.steady(rng, 20.0, (secs(0), lasts));
    let mixed = rng.u8(0..4) == 0;
    let side = pick(rng, &Side::BOTH);
    let class = pick(rng, &CLASSES);
    // For half of the seeds, the failures end before the run does.
    let to = if rng.bool() { NEVER } else { lasts.mul_f64(0.7) };
    for (part, trouble) in (1..).zip(CLASSES) {
        let trouble = if mixed { trouble } else { class };
        plan.fault(side, Who::Part(part), trouble, (secs(0), to));
    }
    sicken(rng, &mut plan, 10);
    plan.choice = format!("{side:?} {} until {to:?}", name(mixed, class));
    plan.lasts = (lasts, lasts + secs(60));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}

fn name(mixed: bool, class: Trouble) -> String {
    if mixed { "all classes".to_owned() } else { format!("{class:?}") }
}

/// Marks that percentage of the events as bad.
fn sicken(rng: &mut Rng, plan: &mut Plan, percent: u8) {
    for event in &mut plan.events {
        if rng.u8(0..100) < percent {
            (event.part, event.grade) = (rng.u8(1..=4), Grade::Bad);
        }
    }
}

pub(super) fn six_percent(rng: &mut Rng, size: Size) -> Plan {
    let lasts = size.of(secs(60), secs(600));
    let mut plan = Plan::new(rng);
    plan.slow_where_well(rng, millis(100));
    plan.steady(rng, 50.0, (secs(0), lasts));
    let (side, class) = (pick(rng, &Side::BOTH), pick(rng, &CLASSES));
    for part in 1..=4 {
        plan.fault(side, Who::Part(part), class, (secs(0), NEVER));
    }
    sicken(rng, &mut plan, 6);
    plan.choice = format!("{side:?} {class:?}");
    plan.lasts = (lasts, lasts + secs(60));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}

/// Fifty bad events first. Good events that arrive with them wait at most for the end of the burst.
pub(super) fn burst(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let (side, class) = (pick(rng, &Side::BOTH), pick(rng, &CLASSES));
    for _ in 0..50 {
        let event = plan.event(millis(rng.u64(0..200)));
        (event.part, event.grade) = (1, Grade::Bad);
    }
    plan.fault(side, Who::Part(1), class, (secs(0), NEVER));
    let per_s = pick(rng, &[1.0, 10.0, 50.0]);
    let lasts = size.of(secs(30), secs(600));
    plan.steady(rng, per_s, (millis(200), lasts));
    plan.choice = format!("{side:?} {class:?}, {per_s}/s after it");
    plan.lasts = (lasts, lasts + secs(30));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}

/// Up to ten reservations always fail, and good events are rare.
pub(super) fn few_bad(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let bad = pick(rng, &[2, 5, 10]);
    let again = rng.bool();
    let lasts = size.of(secs(200), secs(3_600));
    for reservation in 0..bad {
        let mut at = millis(rng.u64(0..5_000));
        while at < lasts {
            let event = plan.event(at);
            event.reservation = 1_000_000 + reservation;
            (event.part, event.grade) = (1, Grade::Bad);
            at += if again { secs(rng.u64(20..90)) } else { NEVER };
        }
    }
    rare(&mut plan, lasts);
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::Part(1), Trouble::Failing, (secs(0), NEVER));
    plan.choice = format!("{side:?}, {bad} bad, again {again}");
    plan.lasts = (lasts, lasts + secs(30));
    // Before the first good event, nothing shows whether the service or the events are at fault.
    // After it, their failures are no evidence about the service.
    plan.bounds = vec![Bound::Within(secs(2), vec![]), Bound::Away(secs(3))];
    plan
}

/// Adds a good event every five seconds.
fn rare(plan: &mut Plan, lasts: std::time::Duration) {
    let mut at = millis(2_500);
    while at < lasts {
        plan.event(at);
        at += secs(5);
    }
}

/// The same on a FIFO queue. Only the events behind a bad one in its group wait for it.
pub(super) fn few_bad_fifo(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    // The first message of a group goes to the dead-letter queue with its last receive.
    plan.max_receives = 3;
    let bad = pick(rng, &[2, 10]);
    let lasts = size.of(secs(340), secs(3_600));
    for group in 0..bad {
        let event = plan.event(millis(rng.u64(0..1_000)));
        (event.part, event.grade, event.group) = (1, Grade::Bad, Some(group));
        for n in 0..4 {
            let event = plan.event(millis(1_000 + 1_000 * n));
            (event.grade, event.group) = (Grade::Late, Some(group));
        }
    }
    let first = plan.events.len();
    rare(&mut plan, lasts);
    for (n, event) in (1_000..).zip(&mut plan.events[first..]) {
        event.group = Some(if rng.bool() { n } else { 1_000 });
    }
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::Part(1), Trouble::Failing, (secs(0), NEVER));
    plan.choice = format!("{side:?}, {bad} groups");
    plan.lasts = (lasts, lasts + secs(30));
    // The retries of each receive take 31 s at most. After them the message is hidden for 30, 60
    // and 120 s.
    plan.bounds = vec![Bound::Within(secs(2), vec![]), Bound::DoneBy(secs(330))];
    plan
}

/// One event is always told to retry later, among ten good events a second.
pub(super) fn one_bad(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let lasts = size.of(secs(30), secs(600));
    let first = plan.steady(rng, 10.0, (secs(0), lasts));
    let apple = &mut plan.events[first + 3];
    (apple.part, apple.grade) = (1, Grade::Bad);
    let side = pick(rng, &Side::BOTH);
    let trouble = pick(
        rng,
        &[
            Trouble::AwayUntil(secs(300)),
            Trouble::FailingUntil(secs(5)),
            Trouble::Paced(Some(secs(300))),
            Trouble::Paced(None),
        ],
    );
    plan.fault(side, Who::Part(1), trouble, (secs(0), NEVER));
    plan.choice = format!("{side:?} {trouble:?}");
    plan.lasts = (lasts, lasts + secs(30));
    plan.bounds = vec![Bound::Within(millis(500), vec![])];
    plan
}

/// Calls are so slow that half of the workers are busy, and a fifth of the reservations always
/// fails.
pub(super) fn slow_and_sick(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let lasts = size.of(secs(180), secs(1_200));
    plan.steady(rng, 10.0, (secs(0), lasts));
    sicken(rng, &mut plan, 20);
    let class = pick(rng, &[Trouble::Away, Trouble::Failing]);
    for part in 1..=4 {
        plan.fault(Side::Api, Who::Part(part), class, (secs(0), NEVER));
    }
    for event in &mut plan.events {
        event.seats = false;
    }
    plan.services[0].latency = (millis(900), millis(1_100));
    plan.choice = format!("{class:?}");
    plan.lasts = (lasts, lasts + secs(30));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}

/// A twentieth of the reservations gets no response. Each such call occupies a worker until its
/// timeout.
pub(super) fn silent(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let lasts = size.of(secs(180), secs(1_800));
    plan.steady(rng, 10.0, (secs(0), lasts));
    sicken(rng, &mut plan, 5);
    for part in 1..=4 {
        plan.fault(Side::Api, Who::Part(part), Trouble::Silent, (secs(0), NEVER));
    }
    plan.lasts = (lasts, lasts + secs(30));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}
