//! Failures that are faster than successes: an open call has not failed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const FAST: Duration = Duration::from_millis(1);

/// Results of a run.
#[derive(Debug, Default)]
struct Seen {
    done: u32,
    changes: u32,
}

/// Makes calls for distinct subjects, `at_once` at a time. A share of `part` ends with `outcome`
/// after [`FAST`]; the others succeed after `took`.
fn run(at_once: usize, part: f64, outcome: CallOutcome, took: Duration, lasts: Duration) -> Seen {
    let mut world = World { breaker: Breaker::new(None), now: Instant::now() };
    let (mut random, mut seen) = (fastrand::Rng::with_seed(11), Seen::default());
    let (mut open, mut subject, end) = (BinaryHeap::new(), 0, world.now + lasts);
    let mut calls = Vec::new();
    while world.now < end {
        while open.len() < at_once {
            subject += 1;
            let waiting = Waiting { fresh: 1, tried: 0, suspects: 0 };
            world.breaker.due(waiting, world.now);
            let Entered::Go(call) = world.breaker.enter(subject, world.now) else { break };
            let fails = random.f64() < part;
            open.push(Reverse((world.now + if fails { FAST } else { took }, calls.len())));
            calls.push((call, if fails { outcome } else { CallOutcome::Done }));
        }
        // With no call open, the next probe is waited for.
        let Some(Reverse((at, n))) = open.pop() else {
            world.after(FAST);
            continue;
        };
        world.now = world.now.max(at);
        let (call, outcome) = calls[n];
        seen.done += u32::from(outcome == CallOutcome::Done);
        seen.changes += u32::from(world.end(call, outcome).is_some());
    }
    seen
}

#[test]
fn a_tenth_of_fast_failures_does_not_open_the_breaker() {
    for outcome in [CallOutcome::Outage, CallOutcome::Failing, CallOutcome::Refused] {
        for (at_once, took_ms) in [(4, 900), (20, 300), (20, 50), (100, 500)] {
            let took = Duration::from_millis(took_ms);
            let seen = run(at_once, 0.1, outcome, took, Duration::from_secs(600));
            let slots = f64::from(u32::try_from(at_once).expect("small"));
            let part = f64::from(seen.done) * took.as_secs_f64() / (600.0 * slots);
            assert!(part > 0.97, "{outcome:?} {at_once} of {took_ms} ms: {part:.3} {seen:?}");
            assert!(seen.changes <= 2, "{outcome:?} {at_once} of {took_ms} ms: {seen:?}");
        }
    }
}

#[test]
fn a_fifth_of_fast_paced_answers_does_not_pause_the_service() {
    let paced = CallOutcome::Paced(Some(Duration::from_secs(1)));
    let seen = run(20, 0.2, paced, Duration::from_millis(100), Duration::from_secs(600));
    assert!(seen.done > 110_000 && seen.changes <= 5, "{seen:?}");
}

#[test]
fn two_long_retry_times_among_successes_do_not_pause_the_service() {
    let mut world = World { breaker: Breaker::new(None), now: Instant::now() };
    world.calls(0..15, CallOutcome::Done);
    let calls: Vec<_> = (100..120).map(|subject| world.begin(subject)).collect();
    let long = CallOutcome::Paced(Some(Duration::from_secs(300)));
    for (n, call) in calls.into_iter().enumerate() {
        world.after(FAST).end(call, if n < 2 { long } else { CallOutcome::Done });
    }
    assert!(!world.is_away(200));
}

#[test]
fn a_success_of_a_later_call_ends_a_pause() {
    let mut world = World { breaker: Breaker::new(None), now: Instant::now() };
    world.calls(0..400, CallOutcome::Done);
    let calls: Vec<_> = (1_000..1_010).map(|subject| world.begin(subject)).collect();
    let mut change = None;
    for (n, call) in calls.into_iter().enumerate() {
        let paced = CallOutcome::Paced(Some(Duration::from_secs(if n == 0 { 300 } else { 7 })));
        match n {
            0 | 3..=5 => change = change.or(world.end(call, paced)),
            1 | 2 => assert_eq!(world.end(call, CallOutcome::Done), None),
            _ => {
                let wait = Duration::from_secs(7);
                assert_eq!(
                    change,
                    Some(Change::Paced { wait }),
                    "the retry time of a single event must not count"
                );
                assert_eq!(world.is_away(2_000), n == 6, "the pause must end with a success");
                assert_eq!(world.end(call, CallOutcome::Done), None);
            }
        }
    }
}

#[test]
fn a_service_that_starts_to_reject_all_calls_costs_five_events() {
    let mut world = World { breaker: Breaker::new(None), now: Instant::now() };
    world.calls(0..1_000, CallOutcome::Done);
    let slow: Vec<_> = (2_000..2_015).map(|subject| world.begin(subject)).collect();
    let down = world.calls(3_000..3_005, CallOutcome::Refused);
    assert!(matches!(down, Some(Change::Down { reservations: 5, .. })), "{down:?}");
    for call in slow {
        world.end(call, CallOutcome::Done);
    }
}

/// Models a service of which nearly all pods are gone, and then all.
#[test]
fn the_breaker_opens_when_a_nearly_complete_outage_becomes_complete() {
    let mut world = World { breaker: Breaker::new(None), now: Instant::now() };
    let mut random = fastrand::Rng::with_seed(5);
    for n in 0..12_000_u32 {
        let part = (f64::from(n) / 10_000.0).clamp(0.1, 0.95);
        let outcome = if random.f64() < part { CallOutcome::Failing } else { CallOutcome::Done };
        let call = world.after(Duration::from_millis(50)).begin(n.into());
        world.end(call, outcome);
    }
    assert_eq!(world.trouble(), None, "a twentieth of the calls succeeds");
    for n in 20_000..20_420 {
        if world.trouble().is_some() {
            return;
        }
        let call = world.after(Duration::from_millis(50)).begin(n);
        world.end(call, CallOutcome::Failing);
    }
    panic!("the breaker did not open within 21 s");
}

#[test]
fn a_single_waiting_event_is_probed_once_per_round() {
    let mut world = World::down(Trouble::Away);
    let waiting = Waiting { fresh: 0, tried: 1, suspects: 0 };
    let mut probes = 0;
    for _ in 0..600 {
        world.after(Duration::from_millis(100));
        if world.breaker.due(waiting, world.now).0 == Due::Probe {
            probes += 1;
            world.call(0, CallOutcome::Outage);
        }
    }
    assert!((6..=40).contains(&probes), "{probes} in a minute");
}
