//! A partly failing service: after an outage, subjects that failed in it are evidence again.
//! Subjects that fail alone are not.

use super::*;
use crate::outage::attribution::{FailureAttribution, attribute};

/// Makes one call if permitted, and returns the attribution of the answer.
fn attribution(
    world: &mut World,
    subject: u64,
    outcome: CallOutcome,
) -> Option<FailureAttribution> {
    let Entered::Go(call) = world.breaker.enter(subject, world.now) else { return None };
    world.end(call, outcome);
    let snapshot = world.breaker.snapshot(call, world.now);
    Some(attribute(outcome, snapshot))
}

/// Returns a service that is down and has failed for each subject once. Five calls took it down,
/// the others were probes.
fn down_for_all(trouble: Trouble, subjects: u64, outcome: CallOutcome) -> World {
    let mut world = World::down(trouble);
    let mut subject = 5;
    while subject < subjects {
        let fresh = usize::try_from(subjects - subject).expect("a few hundred");
        let waiting =
            Waiting { fresh, tried: usize::try_from(subject).expect("a few hundred"), suspects: 0 };
        let (due, again) = world.breaker.due(waiting, world.now);
        if due == Due::Probe {
            world.call(subject, outcome);
            subject += 1;
        } else {
            world.now = again.expect("an event waits");
        }
    }
    world
}

#[test]
fn a_service_that_rejects_all_calls_after_an_outage_costs_few_events() {
    let mut world = down_for_all(Trouble::Away, 300, CallOutcome::Outage);
    let mut given_up = 0;
    for subject in 0..300 {
        let attribution = loop {
            let tried = usize::try_from(300 - subject).expect("a few hundred");
            let (_, again) = world.breaker.due(Waiting { fresh: 0, tried, suspects: 0 }, world.now);
            match attribution(&mut world, subject, CallOutcome::Refused) {
                Some(attribution) => break attribution,
                None => world.now = again.unwrap_or(world.now + TOOK),
            }
        };
        given_up += u32::from(attribution == FailureAttribution::Final);
        world.after(TOOK);
    }
    assert!(given_up <= 5, "{given_up} of 300");
    assert_eq!(world.trouble(), Some(Trouble::Refusing));
}

#[test]
fn one_success_during_an_outage_ends_it_only_briefly() {
    for (trouble, outcome) in
        [(Trouble::Failing, CallOutcome::Failing), (Trouble::Away, CallOutcome::Outage)]
    {
        let mut world = down_for_all(trouble, 300, outcome);
        world.after(Duration::from_secs(20));
        let back = world.probe(299, 0, CallOutcome::Done);
        assert!(matches!(back, Some(Change::Back { .. })), "{outcome:?}");
        let mut calls = 0;
        for subject in 0..299 {
            world.after(Duration::from_millis(3));
            calls += u32::from(attribution(&mut world, subject, outcome).is_some());
        }
        assert_eq!(world.trouble(), Some(trouble), "after {calls} calls");
        assert!(calls <= 20, "{outcome:?}: {calls} calls");
    }
}

#[test]
fn only_timeouts_of_non_suspects_lower_the_limit() {
    const HANG: Duration = Duration::from_secs(5);
    let time_out = |world: &mut World, call| {
        world.breaker.report(call, CallOutcome::Outage, Load::TimedOut, HANG, world.now);
    };
    let mut world = World::new();
    let mut others = 100..;
    let mut other = move || others.next().expect("there is no end");
    for suspect in 0..2 {
        let call = world.begin(suspect);
        time_out(&mut world, call);
    }
    // These two were no suspects when they timed out.
    for _ in 0..20 {
        world.call(other(), CallOutcome::Done);
    }
    for _ in 0..200 {
        world.call(other(), CallOutcome::Done);
        let calls = [0, 1].map(|suspect| world.begin(suspect));
        assert!(calls.iter().all(|call| call.is_suspect));
        world.after(HANG);
        calls.into_iter().for_each(|call| time_out(&mut world, call));
    }
    assert_eq!(
        world.breaker.limit().map(Limit::calls),
        Some(CALLS_MAX),
        "two of three calls timed out"
    );

    for _ in 0..200 {
        let calls = [0, 1].map(|_| world.begin(other()));
        world.after(HANG);
        world.breaker.report(calls[0], CallOutcome::Done, Load::Answered, HANG * 4 / 5, world.now);
        time_out(&mut world, calls[1]);
    }
    assert!(
        world.breaker.limit().map(Limit::calls) < Some(CALLS_MAX),
        "half of the other calls timed out"
    );
}

#[test]
fn without_waiting_events_new_ones_probe_the_service() {
    let mut world = World::down(Trouble::Away);
    let mut seconds = 0;
    while world.breaker.is_away(world.now) {
        seconds += 1;
        assert!(seconds <= 5, "away for {seconds} s");
        world.after(Duration::from_secs(1));
        assert_eq!(world.breaker.due(Waiting::default(), world.now).0, Due::Calls(0));
        attribution(&mut world, seconds % 5, CallOutcome::Done);
    }
}

#[test]
fn the_reported_duration_ignores_old_failures() {
    let mut world = World::new();
    world.call(100, CallOutcome::Done);
    world.call(101, CallOutcome::Outage);
    world.after(Duration::from_secs(3 * 3600));
    let within = Duration::ZERO;
    let down = Change::Down { trouble: Trouble::Away, reservations: 5, within };
    assert_eq!(world.calls(0..6, CallOutcome::Outage), Some(down));
}
