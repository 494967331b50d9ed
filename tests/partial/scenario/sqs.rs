//! Partial failures of SQS: one action is denied, fails, is slow, or fails for some entries, while
//! the others work.

use std::time::Duration;

use fastrand::Rng;

use super::Size;
use crate::judge::Bound;
use crate::plan::{
    Action, NEVER, Plan, Side, SqsFault, SqsTrouble, Trouble, Who, millis, pick, secs,
};

const WHOLE: [SqsTrouble; 3] = [SqsTrouble::Denied, SqsTrouble::Throttled, SqsTrouble::Failing];

/// A plan with a short visibility timeout and few receives.
fn strict(rng: &mut Rng) -> Plan {
    let mut plan = Plan::new(rng);
    plan.settings.visibility = secs(5);
    plan.max_receives = 3;
    plan
}

fn sqs(plan: &mut Plan, action: Action, trouble: SqsTrouble, times: (Duration, Duration)) {
    plan.sqs.push(SqsFault { action, from: times.0, to: times.1, trouble });
    plan.choice = format!("{action:?} {trouble:?} from {:?} to {:?}", times.0, times.1);
}

/// Extensions fail while a service is down.
pub(super) fn no_extend(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = strict(rng);
    let long = size.of(false, rng.bool());
    let to = if rng.bool() { NEVER } else { secs(if long { 600 } else { 40 }) };
    sqs(&mut plan, Action::Extend, pick(rng, &WHOLE), (secs(0), to));
    let count = pick(rng, &[60, 200]);
    for _ in 0..count {
        plan.event(millis(rng.u64(0..8_000)));
    }
    let away = secs(if long { 300 } else { 15 });
    let side = pick(rng, &Side::BOTH);
    plan.fault(side, Who::All, Trouble::Away, (secs(2), secs(2) + away));
    plan.choice += &format!(", {side:?} away for {away:?}, {count} events");
    plan.lasts = (secs(2) + away, secs(2) + away + secs(300));
    plan.bounds = vec![Bound::DoneBy(secs(2) + away + secs(60))];
    plan
}

/// Deletes fail. Messages of finished events stay held.
pub(super) fn no_delete(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = strict(rng);
    let to = secs(pick(rng, &size.of([25, 25], [25, 3_600])));
    sqs(&mut plan, Action::Delete, pick(rng, &WHOLE), (secs(0), to));
    for _ in 0..100 {
        plan.event(millis(rng.u64(0..5_000)));
    }
    plan.lasts = (to + secs(30), to + secs(120));
    plan.bounds = vec![Bound::DoneBy(to + secs(10))];
    plan
}

/// Copies to the dead-letter queue fail. Poison messages wait, and good events do not.
pub(super) fn no_dead_letter(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = Plan::new(rng);
    let to = size.of(secs(40), secs(600));
    plan.steady(rng, 20.0, (secs(0), to));
    for event in &mut plan.events {
        event.poison = rng.u8(0..10) == 0;
        if event.poison {
            event.grade = crate::plan::Grade::Bad;
        }
    }
    plan.max_receives = 100;
    let trouble = pick(rng, &WHOLE);
    sqs(&mut plan, Action::DeadLetter, trouble, (secs(0), to));
    plan.lasts = (to, to + secs(60));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}

/// Receives fail for a time. The engine recovers within ten seconds.
pub(super) fn no_receive(rng: &mut Rng, size: Size) -> Plan {
    let mut plan = strict(rng);
    let (from, to) = (secs(5), secs(5) + size.of(secs(30), secs(600)));
    plan.steady(rng, 10.0, (secs(0), to + secs(15)));
    sqs(&mut plan, Action::Receive, pick(rng, &WHOLE), (from, to));
    plan.lasts = (to, to + secs(60));
    // The time to process the backlog of that period.
    let come = u32::try_from(plan.events.len()).expect("the number is small");
    let least = plan.services[0].latency.1 * 2 * come / 20;
    plan.bounds = vec![Bound::Within(secs(11) + least, vec![(from, to)])];
    plan
}

/// Some entries of each batch of extensions fail while a service is down.
pub(super) fn half_extend(rng: &mut Rng, _size: Size) -> Plan {
    let mut plan = strict(rng);
    sqs(&mut plan, Action::Extend, SqsTrouble::Partly(pick(rng, &[20, 50])), (secs(0), NEVER));
    for _ in 0..100 {
        plan.event(millis(rng.u64(0..8_000)));
    }
    plan.fault(Side::Api, Who::All, Trouble::Away, (secs(2), secs(17)));
    plan.lasts = (secs(17), secs(200));
    plan.bounds = vec![Bound::DoneBy(secs(17 + 30))];
    plan
}

/// Some entries of each batch of deletes fail.
pub(super) fn half_delete(rng: &mut Rng, _size: Size) -> Plan {
    let mut plan = strict(rng);
    sqs(&mut plan, Action::Delete, SqsTrouble::Partly(pick(rng, &[20, 50])), (secs(0), secs(60)));
    plan.steady(rng, 20.0, (secs(0), secs(60)));
    plan.lasts = (secs(80), secs(120));
    plan.bounds = vec![Bound::Within(secs(5), vec![])];
    plan
}

/// One action takes up to 1.5 s longer.
pub(super) fn slow(rng: &mut Rng, _size: Size) -> Plan {
    let mut plan = strict(rng);
    let action = pick(rng, &[Action::Receive, Action::Extend, Action::Delete]);
    let time = millis(rng.u64(500..1_500));
    sqs(&mut plan, action, SqsTrouble::Slow(time), (secs(0), secs(40)));
    plan.steady(rng, 10.0, (secs(0), secs(40)));
    plan.fault(Side::Api, Who::All, Trouble::Away, (secs(5), secs(15)));
    plan.lasts = (secs(40), secs(100));
    plan.bounds = vec![Bound::Within(secs(8), vec![(secs(2), secs(15))])];
    plan
}
