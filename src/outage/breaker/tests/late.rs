//! Late answers are evidence about the time at which their calls began.

use super::*;

#[test]
fn a_late_success_from_before_the_outage_does_not_end_it() {
    for (outcome, trouble) in [
        (CallOutcome::Outage, Trouble::Away),
        (CallOutcome::Failing, Trouble::Failing),
        (CallOutcome::Refused, Trouble::Refusing),
    ] {
        for late in [CallOutcome::Done, CallOutcome::Conflict] {
            let mut world = World::new();
            // `first` begins before the calls that take the service down, `early` after them. Both
            // are answered after that.
            let first = world.begin(100);
            let failing: Vec<_> = (0..5).map(|subject| world.begin(subject)).collect();
            let early = world.begin(101);
            let changes: Vec<_> =
                failing.into_iter().filter_map(|call| world.end(call, outcome)).collect();
            assert!(matches!(changes[..], [Change::Down { .. }]), "{changes:?}");
            assert_eq!(world.end(first, late), None);
            assert_eq!(world.after(TOOK).end(early, late), None);
            assert_eq!(world.trouble(), Some(trouble));
            assert!(world.is_away(9));
        }
    }
}

#[test]
fn a_lost_probe_is_replaced_by_another() {
    let mut world = World::down(Trouble::Away);
    world.after(Duration::from_secs(1));
    let waiting = Waiting { fresh: 3, tried: 0, suspects: 0 };
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Probe);
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(0));
    world.after(LOST_AFTER);
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Probe, "after a lost probe");
    let probe = world.begin(50);
    world.breaker.cancel(probe, world.now);
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Probe, "after an abandoned probe");
}

#[test]
fn a_service_that_times_out_is_given_half_of_its_calls_once_it_is_back() {
    let mut world = World::new();
    let (load, took) = (Load::TimedOut, Duration::from_secs(5));
    for subject in 0..5 {
        let call = world.begin(subject);
        world.breaker.report(call, CallOutcome::Outage, load, took, world.now);
    }
    assert_eq!(world.trouble(), Some(Trouble::Away));
    assert_eq!(world.breaker.limit().map(Limit::calls), Some(CALLS_MAX / 2));
}

#[test]
fn a_conflict_shows_that_the_service_works() {
    let mut world = World::new();
    assert_eq!(world.calls(0..4, CallOutcome::Outage), None);
    assert_eq!(world.call(50, CallOutcome::Conflict), None);
    assert_eq!(world.calls(4..8, CallOutcome::Outage), None, "four since");
}

#[test]
fn who_succeeds_is_fresh_again() {
    let mut world = World::new();
    world.call(7, CallOutcome::Failing);
    world.call(50, CallOutcome::Done);
    let call = world.begin(7);
    assert!(call.is_suspect && !call.is_fresh);
    world.end(call, CallOutcome::Done);
    let call = world.begin(7);
    assert!(call.is_fresh && !call.is_suspect);
}

#[test]
fn a_service_that_was_down_is_called_since_it_is_back() {
    let mut world = World::down(Trouble::Away);
    world.after(Duration::from_secs(1));
    let lasts = |world: &World, is_down| world.breaker.lasts(is_down, world.now);
    assert_eq!(lasts(&world, true), Some(Duration::from_secs(1)));
    assert!(world.probe(50, 9, CallOutcome::Done).is_some());
    world.after(Duration::from_secs(2));
    assert_eq!((lasts(&world, true), lasts(&world, false)), (None, Some(Duration::from_secs(2))));
}

/// The longest time may apply to one reservation alone.
#[test]
fn a_pause_lasts_as_long_as_two_reservations_were_told_to_wait() {
    let mut world = World::new();
    let told_s = [300, 3, 1, 1, 1, 1, 1, 1, 1];
    let changes = (0..).zip(told_s).find_map(|(subject, wait_s)| {
        world.call(subject, CallOutcome::Paced(Some(Duration::from_secs(wait_s))))
    });
    assert_eq!(changes, Some(Change::Paced { wait: Duration::from_secs(3) }));
}
