//! When a breaker opens, when it closes, and who may call meanwhile.

use super::*;

const CALLS_MAX: usize = 4;

struct World {
    breaker: Breaker,
    now: Instant,
    last: Option<Begun>,
}

impl World {
    fn new() -> Self {
        Self { breaker: Breaker::new(CALLS_MAX), now: Instant::now(), last: None }
    }

    fn after(&mut self, s: u64) -> &mut Self {
        self.now += Duration::from_secs(s);
        self
    }

    /// One call of that reservation, if it may be made.
    fn call(&mut self, reservation: u64, sign: Sign) -> Option<Option<Change>> {
        let call = self.breaker.enter(self.now)?;
        self.last = Some(call);
        Some(self.breaker.report(call, sign, reservation, self.now))
    }

    /// What is known after the last call.
    fn answer(&self) -> Answer {
        self.breaker.answer(self.last.expect("a call was made"))
    }

    fn opened(&mut self, reservations: &[u64], sign: Sign) -> bool {
        reservations
            .iter()
            .any(|r| matches!(self.call(*r, sign), Some(Some(Change::Opened { .. }))))
    }
}

#[test]
fn failures_in_a_row_of_several_reservations_open_it() {
    for sign in [Sign::Outage, Sign::Failure] {
        let mut world = World::new();
        assert!(!world.opened(&[1, 2, 1, 2], sign));
        assert!(world.opened(&[1], sign), "the fifth");
        assert!(world.call(3, sign).is_none(), "nobody calls");
    }
}

#[test]
fn one_event_that_always_fails_does_not() {
    let mut world = World::new();
    assert!(!world.opened(&[1; 100], Sign::Outage));
    // Nor when others fare well between.
    for _ in 0..100 {
        assert!(!world.opened(&[1], Sign::Outage));
        world.call(2, Sign::Well).expect("closed");
    }
}

#[test]
fn a_success_between_starts_the_count_anew() {
    let mut world = World::new();
    for _ in 0..4 {
        assert!(!world.opened(&[1, 2, 3, 4], Sign::Failure));
        world.call(5, Sign::Well).expect("closed");
    }
}

#[test]
fn a_large_part_of_the_outage_class_opens_it_too() {
    let mut world = World::new();
    let mut opened_at = None;
    for n in 0..40 {
        let sign = if n % 2 == 0 { Sign::Outage } else { Sign::Well };
        if world.opened(&[n], sign) {
            opened_at.get_or_insert(n);
        }
    }
    assert_eq!(opened_at, Some(20), "half of twenty calls");
    // What may be the events' own fault is no ratio to go by.
    let mut world = World::new();
    for n in 0..100 {
        let sign = if n % 2 == 0 { Sign::Failure } else { Sign::Well };
        assert!(!world.opened(&[n], sign));
    }
}

#[test]
fn refusals_of_three_reservations_in_a_row_open_it() {
    let mut world = World::new();
    assert!(!world.opened(&[1, 1, 1, 2], Sign::Refusal));
    assert!(world.opened(&[3], Sign::Refusal));
}

#[test]
fn it_is_probed_one_call_at_a_time_ever_more_rarely() {
    let mut world = World::new();
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(world.breaker.due(world.now).0, 0);
        assert!(world.call(6, Sign::Outage).is_none(), "before its time");
        world.after(wait);
        assert_eq!(world.breaker.due(world.now).0, 1, "{wait}");
        let probe = world.breaker.enter(world.now).expect("its time");
        assert!(probe.is_probe && world.breaker.enter(world.now).is_none(), "one at a time");
        assert_eq!(world.breaker.shown(world.now), BreakerState::HalfOpen);
        assert_eq!(world.breaker.report(probe, Sign::Failure, 7, world.now), None);
    }
    world.after(30);
    let back = world.call(8, Sign::Well).expect("its time");
    assert_eq!(back, Some(Change::Back { away: Duration::from_secs(121) }));
}

#[test]
fn a_service_that_is_back_is_called_by_more_and_more() {
    let mut world = World::new();
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    world.after(1).call(6, Sign::Well).expect("a probe");
    assert_eq!(world.breaker.due(world.now).0, 2);
    let first = world.breaker.enter(world.now).expect("one");
    let second = world.breaker.enter(world.now).expect("two");
    assert!(world.breaker.enter(world.now).is_none(), "not three");
    assert_eq!(world.breaker.report(first, Sign::Well, 7, world.now), None);
    assert_eq!(world.breaker.due(world.now).0, 2, "three, less the one that is open");
    assert_eq!(world.breaker.report(second, Sign::Well, 8, world.now), None);
    assert_eq!(world.breaker.due(world.now), (usize::MAX, None), "all that there are workers");
    assert_eq!(world.breaker.shown(world.now), BreakerState::Closed);
}

#[test]
fn a_failure_on_the_ramp_halves_it_and_several_open_it_again() {
    let mut world = World::new();
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    world.after(1).call(6, Sign::Well).expect("a probe");
    assert!(!world.opened(&[1, 2, 3, 4], Sign::Outage));
    assert_eq!(world.breaker.due(world.now).0, 1);
    assert!(world.opened(&[5], Sign::Outage));
}

#[test]
fn a_probe_that_never_called_is_let_go_again() {
    let mut world = World::new();
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    world.after(1);
    assert_eq!(world.breaker.due(world.now), (1, Some(world.now + PROBE_LOST_AFTER)));
    let probe = world.breaker.enter(world.now).expect("its time");
    world.breaker.cancel(probe, world.now);
    assert!(world.breaker.enter(world.now).is_some(), "another one");
}

#[test]
fn pacing_keeps_everybody_away_until_the_named_time() {
    let mut world = World::new();
    let wait = Duration::from_secs(20);
    let paced = world.call(1, Sign::Paced(wait)).expect("closed");
    assert_eq!(paced, Some(Change::Paced { wait }));
    assert!(world.call(2, Sign::Well).is_none());
    assert_eq!(world.breaker.due(world.now), (0, Some(world.now + wait)));
    world.after(19);
    assert!(world.call(2, Sign::Well).is_none());
    world.after(1);
    assert_eq!(world.breaker.due(world.now).0, 1, "slowly");
    world.call(2, Sign::Well).expect("after it");
}

#[test]
fn an_event_is_blamed_only_where_another_fared_better() {
    let mut world = World::new();
    let fail = |world: &mut World, reservation| {
        world.call(reservation, Sign::Outage).expect("closed");
        world.answer()
    };
    let mark = fail(&mut world, 1).mark();
    assert!(mark.is_some());
    assert!(!fail(&mut world, 1).blames(None), "the first time");
    assert!(!fail(&mut world, 1).blames(mark), "nobody to compare with");
    world.call(2, Sign::Well).expect("closed");
    assert!(fail(&mut world, 1).blames(mark), "another one fared better");
}

#[test]
fn a_call_that_was_under_way_when_an_event_failed_says_nothing_of_it() {
    let mut world = World::new();
    let under_way = world.breaker.enter(world.now).expect("closed");
    world.call(1, Sign::Outage).expect("closed");
    let mark = world.answer().mark();
    world.breaker.report(under_way, Sign::Well, 2, world.now);
    world.call(1, Sign::Outage).expect("closed");
    assert!(!world.answer().blames(mark), "served before the service went away");

    let under_way = world.breaker.enter(world.now).expect("closed");
    world.call(2, Sign::Well).expect("closed");
    world.breaker.report(under_way, Sign::Outage, 1, world.now);
    assert!(!world.breaker.answer(under_way).blames(mark), "sent before it came back");
}

#[test]
fn an_event_that_failed_among_several_is_not_blamed() {
    let mut world = World::new();
    let fail = |world: &mut World, reservation| {
        world.call(reservation, Sign::Outage).expect("closed");
        world.answer()
    };
    let first_of_them = fail(&mut world, 1).mark();
    let last_of_them = fail(&mut world, 2).mark();
    assert_eq!(last_of_them, None);
    world.call(3, Sign::Well).expect("closed");
    assert!(!fail(&mut world, 1).blames(first_of_them), "one short outage");
    world.call(3, Sign::Well).expect("closed");
    let mark = fail(&mut world, 1).mark();
    world.call(3, Sign::Well).expect("closed");
    fail(&mut world, 2);
    assert!(!fail(&mut world, 1).blames(mark), "and another one now");
}

#[test]
fn a_ramp_asks_again_for_those_who_were_let_go_and_never_came() {
    let mut world = World::new();
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    world.after(1).call(6, Sign::Well).expect("a probe");
    assert_eq!(world.breaker.due(world.now), (2, Some(world.now + PROBE_LOST_AFTER)));
}

#[test]
fn a_ramping_service_is_called_and_so_its_failures_are_the_events_own() {
    let mut world = World::new();
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    assert!(!world.answer().called);
    world.after(1).call(6, Sign::Well).expect("a probe");
    world.call(7, Sign::Failure).expect("ramping");
    assert!(world.answer().called && !world.breaker.is_closed());
}

#[test]
fn a_late_answer_that_names_a_time_does_not_close_it() {
    let mut world = World::new();
    let late = world.breaker.enter(world.now).expect("closed");
    assert!(world.opened(&[1, 2, 3, 4, 5], Sign::Outage));
    let wait = Duration::from_secs(3);
    assert_eq!(world.breaker.report(late, Sign::Paced(wait), 6, world.now), None);
    assert!(!world.answer().called);
    assert_eq!(world.breaker.due(world.now).0, 0);
    world.after(3);
    assert!(world.breaker.enter(world.now).expect("its time").is_probe);
}
