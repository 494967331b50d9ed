//! What is released to a service that is called, paused or down, and when that is asked again.

use super::*;
use crate::outage::attribution::{FailureAttribution, attribute};

const FRESH: Waiting = Waiting { fresh: 9, tried: 0, suspects: 0 };
const SLOW: Duration = Duration::from_secs(1);

fn paced(seconds: u64) -> CallOutcome {
    CallOutcome::Paced(Some(Duration::from_secs(seconds)))
}

fn unlimited() -> World {
    World { breaker: Breaker::new(None), now: Instant::now() }
}

/// Reports a failure that took so long that its round does not go on.
fn fail_slowly(world: &mut World, call: BegunCall) {
    world.breaker.report(call, CallOutcome::Outage, Load::Unknown, SLOW, world.now);
}

#[test]
fn a_released_event_that_calls_makes_room_for_the_next() {
    let mut world = World::new();
    let lost_at = Some(world.now + LOST_AFTER);
    assert_eq!(world.breaker.due(FRESH, world.now), (Due::Calls(CALLS_MAX), lost_at));
    assert_eq!(world.call(1, CallOutcome::Done), None);
    assert_eq!(world.breaker.due(FRESH, world.now).0, Due::Calls(1));
}

#[test]
fn suspects_are_released_up_to_their_share_if_no_others_wait() {
    let mut world = World::new();
    let suspects = Waiting { fresh: 0, tried: 0, suspects: 4 };
    assert_eq!(world.breaker.due(suspects, world.now).0, Due::Calls(CALLS_MAX / 4));
}

#[test]
fn nobody_overtakes_an_event_that_waits_for_a_probe() {
    let mut world = World::down(Trouble::Away);
    assert!(world.is_away(50));
    world.after(Duration::from_secs(1));
    assert!(world.is_away(51), "the next probe is due, but 50 waits for it");
    assert_eq!(world.breaker.due(FRESH, world.now).0, Due::Probe);
}

#[test]
fn no_more_probes_are_open_than_may_be_if_no_event_waits() {
    let mut world = World::down(Trouble::Away);
    for n in 0..PROBES_OPEN_MAX as u64 {
        world.after(Duration::from_secs(20)).begin(100 + n);
    }
    assert!(world.after(Duration::from_secs(20)).is_away(200));
}

/// Events that have failed before prove little. The first fresh one is not kept waiting.
#[test]
fn a_fresh_event_is_probed_soon_if_none_waited_at_the_last_probe() {
    for (fresh, is_hastened) in [(1, true), (2, false)] {
        let mut world = World::down(Trouble::Away);
        world.after(Duration::from_secs(120));
        let waiting = Waiting { fresh, tried: 3, suspects: 0 };
        assert_eq!(world.breaker.due(waiting, world.now).0, Due::Probe);
        let probe = world.begin(50);
        fail_slowly(&mut world, probe);
        let tried = Waiting { fresh: 0, tried: 3, suspects: 0 };
        let (due, again) = world.breaker.due(tried, world.now);
        assert_eq!(due, Due::Calls(0));
        assert!(again > Some(world.now + Duration::from_secs(4)), "a round is far");
        let (due, soon) = world.breaker.due(waiting, world.now);
        let expected = if is_hastened { Some(world.now + Duration::from_secs(1)) } else { again };
        assert_eq!((due, soon), (Due::Calls(0), expected));
        world.after(Duration::from_secs(1));
        assert_eq!(world.breaker.due(waiting, world.now).0 == Due::Probe, is_hastened);
    }
}

#[test]
fn a_call_from_before_an_outage_neither_hastens_nor_ends_a_probe() {
    let mut world = unlimited();
    assert!(world.calls(0..9, CallOutcome::Outage).is_some());
    let [first, second] = [100, 101].map(|n| world.after(Duration::from_secs(20)).begin(n));
    assert!(matches!(world.end(first, CallOutcome::Done), Some(Change::Back { .. })));
    let [given_up, failed, refused] = [102, 103, 104].map(|subject| world.begin(subject));
    assert!(matches!(world.calls(200..300, CallOutcome::Outage), Some(Change::Down { .. })));

    world.breaker.cancel(given_up, world.now);
    assert_eq!(world.breaker.due(FRESH, world.now).0, Due::Calls(0), "given up");
    assert_eq!(world.breaker.shown(world.now), BreakerState::Open);
    world.after(Duration::from_secs(1));
    assert_eq!(world.breaker.due(FRESH, world.now).0, Due::Probe);
    let probe = world.begin(400);
    for late in [second, failed] {
        assert_eq!(world.end(late, CallOutcome::Outage), None);
        assert_eq!(world.breaker.shown(world.now), BreakerState::HalfOpen, "its probe is open");
        assert_eq!(world.breaker.due(FRESH, world.now).0, Due::Calls(0), "a late failure");
    }
    assert_eq!(world.end(refused, CallOutcome::Refused), None);
    fail_slowly(&mut world, probe);
    assert_eq!(world.breaker.shown(world.now), BreakerState::Open);
}

#[test]
fn late_permanent_errors_do_not_begin_an_outage_during_another() {
    let mut world = unlimited();
    let late: Vec<_> = (100..106).map(|subject| world.begin(subject)).collect();
    assert!(matches!(world.calls(0..50, CallOutcome::Outage), Some(Change::Down { .. })));
    for call in late {
        assert_eq!(world.end(call, CallOutcome::Refused), None);
    }
    assert_eq!(world.trouble(), Some(Trouble::Away));
}

#[test]
fn a_pause_is_shown_until_it_ends_and_then_calls_go_on() {
    for (seconds, is_away) in [(3, false), (300, true)] {
        let mut world = World::new();
        world.calls(0..9, paced(seconds)).expect("several");
        let state = |world: &World| {
            let (breaker, now) = (&world.breaker, world.now);
            (breaker.shown(now), breaker.is_paused(now), breaker.is_away(now))
        };
        assert_eq!(state(&world), (BreakerState::Open, !is_away, is_away), "{seconds} s");
        world.after(Duration::from_secs(seconds));
        assert_eq!(state(&world), (BreakerState::Closed, false, false), "{seconds} s");
        assert_eq!(world.call(100, CallOutcome::Done), None, "{seconds} s");
    }
}

#[test]
fn one_paced_answer_after_a_pause_does_not_begin_another() {
    let mut world = unlimited();
    world.calls(0..9, paced(3)).expect("several");
    world.after(Duration::from_secs(3));
    assert_eq!(world.call(100, paced(3)), None);
}

#[test]
fn after_a_pause_calls_begin_at_the_rate_that_was_accepted_before_it() {
    let mut world = World::new();
    world.call(1, paced(3));
    for n in 100..130 {
        world.after(Duration::from_millis(100)).call(n, CallOutcome::Done);
    }
    world.calls(200..300, paced(3)).expect("several");
    let rate = |world: &World| world.breaker.limit().and_then(Limit::rate);
    assert!(rate(&world).is_some_and(|rate| (9.0..=11.0).contains(&rate)), "{:?}", rate(&world));
    world.after(Duration::from_secs(3)).begin(400);
    assert!(matches!(world.breaker.enter(401, world.now), Entered::Full { .. }));
    let (due, again) = world.breaker.due(FRESH, world.now);
    let soon = world.now + Duration::from_millis(200);
    assert!(due == Due::Calls(0) && again.is_some_and(|at| at < soon), "{due:?} {again:?}");
    world.after(Duration::from_secs(600));
    world.breaker.forget(world.now);
    assert_eq!(rate(&world), None, "it has restricted no call for long");
}

#[test]
fn a_success_that_began_before_a_pause_does_not_end_it() {
    let mut world = World::new();
    let early = world.begin(100);
    world.calls(0..9, paced(3)).expect("several");
    assert_eq!(world.end(early, CallOutcome::Done), None);
    assert!(world.breaker.is_paused(world.now));
    assert!(matches!(world.breaker.enter(101, world.now), Entered::Full { .. }));
}

/// Its retries end at some time only if they are charged.
#[test]
fn a_paced_suspect_is_charged_unless_others_are_paced_too() {
    let mut world = unlimited();
    world.call(7, paced(1));
    for n in 100..200 {
        world.after(Duration::from_millis(300)).call(n, CallOutcome::Done);
    }
    for (others, is_alone) in [(0, true), (2, false)] {
        for other in 0..others {
            world.call(other, paced(1));
            world.call(300 + other, CallOutcome::Done);
        }
        let call = world.begin(7);
        world.end(call, paced(1));
        let snapshot = world.breaker.snapshot(call, world.now);
        let event = FailureAttribution::Event { is_charged: is_alone, is_suspect: is_alone };
        assert_eq!(attribute(paced(1), snapshot), event, "beside {others} others");
    }
    let call = world.begin(8);
    world.end(call, CallOutcome::Failing);
    assert!(!world.breaker.snapshot(call, world.now).are_others_paced, "8 is no suspect");
}
