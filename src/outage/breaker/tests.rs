//! Tests of the breaker: when a service is called, and which calls probe it.

mod fast;
mod half_down;
mod late;
mod released;

use super::super::evidence::BegunCall;
use super::super::limit::{Bounds, Limit};
use super::probing::{PROBES_A_ROUND, PROBES_OPEN_MAX};
use super::*;
use crate::metrics::BreakerState;

const CALLS_MAX: usize = 8;
const TOOK: Duration = Duration::from_millis(5);

struct World {
    breaker: Breaker,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let limit = Limit::new(Bounds::new(2, CALLS_MAX), None);
        fastrand::seed(7);
        Self { breaker: Breaker::new(Some(limit)), now: Instant::now() }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn begin(&mut self, subject: u64) -> BegunCall {
        match self.breaker.enter(subject, self.now) {
            Entered::Go(call) => call,
            other @ (Entered::Away { .. } | Entered::Full { .. }) => panic!("{subject}: {other:?}"),
        }
    }

    fn is_away(&mut self, subject: u64) -> bool {
        matches!(self.breaker.enter(subject, self.now), Entered::Away { .. })
    }

    fn end(&mut self, call: BegunCall, outcome: CallOutcome) -> Option<Change> {
        let load = match outcome {
            CallOutcome::Done | CallOutcome::Conflict | CallOutcome::Refused => Load::Answered,
            CallOutcome::Paced(_) => Load::Refused,
            CallOutcome::Outage | CallOutcome::Failing => Load::Unknown,
        };
        self.breaker.report(call, outcome, load, TOOK, self.now).0
    }

    /// Makes one call and reports its answer.
    fn call(&mut self, subject: u64, outcome: CallOutcome) -> Option<Change> {
        let call = self.begin(subject);
        self.end(call, outcome)
    }

    /// Makes calls for distinct subjects, one after the other, until the state changes.
    fn calls(&mut self, subjects: std::ops::Range<u64>, outcome: CallOutcome) -> Option<Change> {
        subjects.into_iter().find_map(|subject| self.call(subject, outcome))
    }

    fn trouble(&self) -> Option<Trouble> {
        self.breaker.trouble()
    }

    /// Releases a due probe and makes its call.
    fn probe(&mut self, subject: u64, fresh: usize, outcome: CallOutcome) -> Option<Change> {
        let waiting = Waiting { fresh, tried: 1, suspects: 0 };
        assert_eq!(self.breaker.due(waiting, self.now).0, Due::Probe);
        self.call(subject, outcome)
    }

    fn down(trouble: Trouble) -> Self {
        let mut world = Self::new();
        let outcome = match trouble {
            Trouble::Away => CallOutcome::Outage,
            Trouble::Failing => CallOutcome::Failing,
            Trouble::Refusing => CallOutcome::Refused,
        };
        assert!(matches!(world.calls(0..5, outcome), Some(Change::Down { .. })));
        world
    }
}

#[test]
fn five_failed_reservations_without_a_success_open_the_breaker() {
    for (outcome, trouble) in [
        (CallOutcome::Outage, Trouble::Away),
        (CallOutcome::Failing, Trouble::Failing),
        (CallOutcome::Refused, Trouble::Refusing),
    ] {
        let mut world = World::new();
        assert_eq!(world.calls(0..4, outcome), None);
        let within = Duration::ZERO;
        let down = Change::Down { trouble, reservations: 5, within };
        assert_eq!(world.call(4, outcome), Some(down), "at the fifth failure");
        assert_eq!(world.trouble(), Some(trouble));
        assert!(world.is_away(9));
    }
}

#[test]
fn repeated_failures_of_few_reservations_do_not_open_the_breaker() {
    for outcome in [CallOutcome::Outage, CallOutcome::Failing, CallOutcome::Refused] {
        let mut world = World::new();
        for n in 0..10_000 {
            assert_eq!(world.call(n % 4, outcome), None, "{n}");
        }
    }
}

#[test]
fn only_a_success_that_began_after_the_failures_resets_the_count() {
    let mut world = World::new();
    let early = world.begin(100);
    assert_eq!(world.calls(0..4, CallOutcome::Outage), None);
    assert_eq!(world.end(early, CallOutcome::Done), None);
    let down = world.call(4, CallOutcome::Outage);
    assert!(matches!(down, Some(Change::Down { .. })), "after an earlier success");

    let mut world = World::new();
    for round in 0..100 {
        let from = round * 10;
        assert_eq!(world.calls(from..from + 4, CallOutcome::Failing), None);
        assert_eq!(world.call(from + 4, CallOutcome::Done), None);
    }
}

#[test]
fn failures_spread_over_more_than_twenty_seconds_do_not_open_the_breaker() {
    let mut world = World::new();
    for n in 0..100 {
        assert_eq!(world.after(Duration::from_secs(6)).call(n, CallOutcome::Failing), None);
    }
}

#[test]
fn a_higher_failure_rate_needs_a_longer_run_to_open_the_breaker() {
    let mut world = World::new();
    for n in 0..200 {
        let outcome = if n % 2 == 0 { CallOutcome::Outage } else { CallOutcome::Done };
        assert_eq!(world.after(Duration::from_millis(20)).call(n, outcome), None);
    }
    // Half of all calls fail: ten in a row occur by chance once in a thousand calls.
    assert_eq!(world.calls(1_000..1_010, CallOutcome::Outage), None);
    assert!(world.calls(1_010..1_030, CallOutcome::Outage).is_some());
}

#[test]
fn probe_rounds_have_several_probes_and_growing_intervals() {
    let mut world = World::down(Trouble::Away);
    let mut waits = Vec::new();
    for round in 0..150 {
        let began = world.now;
        loop {
            let (due, again) =
                world.breaker.due(Waiting { fresh: 9, tried: 9, suspects: 0 }, world.now);
            if due == Due::Probe {
                break;
            }
            world.now = again.expect("a further probe");
        }
        waits.push((world.now - began).as_secs_f64());
        for probe in 0..PROBES_A_ROUND {
            let subject = 1_000 + round * 10 + u64::from(probe);
            assert_eq!(world.call(subject, CallOutcome::Outage), None);
            let (due, _) =
                world.breaker.due(Waiting { fresh: 9, tried: 9, suspects: 0 }, world.now);
            let goes_on = probe + 1 < PROBES_A_ROUND;
            assert_eq!(due == Due::Probe, goes_on, "probe {probe} of round {round}");
        }
        assert!(world.is_away(1));
    }
    assert!(waits.iter().all(|wait| (0.5..=10.0).contains(wait)), "{waits:?}");
    assert!(waits[..3].iter().all(|wait| *wait <= 1.0), "{waits:?}");
    assert!(waits[130..].iter().any(|wait| *wait > 5.0), "{waits:?}");
}

#[test]
fn an_unanswered_probe_does_not_delay_the_next_round() {
    let mut world = World::down(Trouble::Away);
    let waiting = Waiting { fresh: 9, tried: 0, suspects: 0 };
    let mut silent = Vec::new();
    for n in 0..PROBES_OPEN_MAX as u64 {
        world.after(Duration::from_secs(2));
        assert_eq!(world.breaker.due(waiting, world.now).0, Due::Probe, "{n}");
        silent.push(world.begin(100 + n));
    }
    world.after(Duration::from_secs(20));
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(0), "the round is complete");
    let (last, _) = (silent.pop().expect("some"), silent);
    assert!(matches!(world.end(last, CallOutcome::Done), Some(Change::Back { .. })));
}

#[test]
fn fresh_events_are_probed_first_and_the_first_at_once() {
    let mut world = World::down(Trouble::Failing);
    world.after(Duration::from_secs(1));
    let waiting = Waiting { fresh: 2, tried: 5, suspects: 0 };
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Probe);
    assert!(world.is_away(3), "reservation 3 has failed before");
    assert_eq!(world.call(50, CallOutcome::Failing), None);
    // A long outage with only tried events: probes are rare.
    for n in 0..300 {
        world.after(Duration::from_secs(1));
        if world.breaker.due(Waiting { fresh: 0, tried: 5, suspects: 0 }, world.now).0 == Due::Probe
        {
            assert_eq!(world.call(n % 5, CallOutcome::Failing), None);
        }
    }
    world.after(Duration::from_secs(1));
    let back = world.probe(60, 1, CallOutcome::Done);
    assert!(matches!(back, Some(Change::Back { trouble: Trouble::Failing, .. })), "{back:?}");
}

#[test]
fn the_slow_start_doubles_the_calls_with_each_round() {
    let mut world = World::down(Trouble::Away);
    world.after(Duration::from_secs(1));
    assert!(world.probe(50, 9, CallOutcome::Done).is_some());
    let mut rounds = Vec::new();
    for round in 0..3 {
        let from = 100 + round * 10;
        let mut open = Vec::new();
        while let Entered::Go(call) = world.breaker.enter(from + open.len() as u64, world.now) {
            open.push(call);
        }
        rounds.push(open.len());
        for call in open {
            assert_eq!(world.end(call, CallOutcome::Done), None);
        }
    }
    assert_eq!(rounds, [4, 7, 8], "up to the limit before the outage");
    assert_eq!(world.breaker.shown(world.now), BreakerState::Closed);
}

#[test]
fn the_breaker_closes_when_no_event_waits_for_the_service() {
    let mut world = World::down(Trouble::Away);
    world.after(Duration::from_secs(1));
    assert!(world.probe(50, 9, CallOutcome::Done).is_some());
    assert_eq!(world.breaker.shown(world.now), BreakerState::HalfOpen);
    // Calls one at a time do not end the slow start.
    assert_eq!(world.calls(100..120, CallOutcome::Done), None);
    assert_eq!(world.breaker.due(Waiting::default(), world.now).0, Due::Calls(0));
    assert_eq!(world.breaker.shown(world.now), BreakerState::Closed);
}

#[test]
fn events_that_fail_alone_do_not_open_the_breaker_again() {
    let mut world = World::new();
    assert!(world.calls(0..5, CallOutcome::Outage).is_some());
    world.after(Duration::from_secs(1));
    for n in 5..10 {
        assert_eq!(world.probe(n, 3, CallOutcome::Outage), None);
    }
    world.after(Duration::from_secs(1));
    assert!(world.probe(50, 3, CallOutcome::Done).is_some());
    // Their first failures came while no call succeeded. Only later failures are their own.
    for n in 0..1_000 {
        let subject = n % 10;
        let call = world.begin(subject);
        assert_eq!(world.end(call, CallOutcome::Outage), None);
        assert_eq!(world.call(50, CallOutcome::Done), None);
        let is_suspect = world.breaker.snapshot(call, world.now).is_suspect;
        assert!(is_suspect, "others succeeded since");
    }
}

#[test]
fn a_success_that_began_before_the_outage_does_not_end_it() {
    let mut world = World::new();
    let late = world.begin(100);
    assert!(world.calls(0..5, CallOutcome::Outage).is_some());
    assert_eq!(world.end(late, CallOutcome::Done), None);
    assert!(world.is_away(101));
}

#[test]
fn a_rejection_ends_an_outage_and_starts_the_count_of_rejections() {
    let mut world = World::down(Trouble::Away);
    world.after(Duration::from_secs(1));
    let back = world.probe(50, 9, CallOutcome::Refused);
    assert!(matches!(back, Some(Change::Back { .. })));
    assert_eq!(world.calls(60..63, CallOutcome::Refused), None);
    let down = world.call(63, CallOutcome::Refused);
    assert!(matches!(down, Some(Change::Down { trouble: Trouble::Refusing, .. })), "{down:?}");
    // From then on a permanent error does not show that the service is up.
    world.after(Duration::from_secs(1));
    assert_eq!(world.probe(70, 9, CallOutcome::Refused), None);
    assert_eq!(world.trouble(), Some(Trouble::Refusing));
}

#[test]
fn a_retry_time_for_one_event_does_not_pause_the_service() {
    let mut world = World::new();
    let wait = Some(Duration::from_secs(300));
    for n in 0..1_000 {
        assert_eq!(world.call(7, CallOutcome::Paced(wait)), None);
        assert_eq!(world.call(100 + n, CallOutcome::Done), None);
    }
}

#[test]
fn retry_times_for_several_events_pause_the_service() {
    let mut world = World::new();
    let paced = CallOutcome::Paced(Some(Duration::from_secs(3)));
    let change = world.calls(0..9, paced).expect("several");
    assert_eq!(change, Change::Paced { wait: Duration::from_secs(3) });
    assert!(!world.is_away(100), "a short pause must not count as an outage");
    assert!(matches!(world.breaker.enter(100, world.now), Entered::Full { .. }));
    let waiting = Waiting { fresh: 9, tried: 0, suspects: 0 };
    let until = world.now + Duration::from_secs(3);
    assert_eq!(world.breaker.due(waiting, world.now), (Due::Calls(0), Some(until)));
    world.after(Duration::from_secs(3));
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(4), "the slow start");
}

#[test]
fn a_long_pause_counts_as_an_outage() {
    let mut world = World::new();
    let paced = CallOutcome::Paced(Some(Duration::from_secs(300)));
    world.calls(0..9, paced).expect("several");
    assert!(world.is_away(100));
    world.after(Duration::from_secs(296));
    assert!(!world.is_away(101));
}

#[test]
fn retry_times_for_a_random_fifth_do_not_pause_the_service() {
    let mut world = World::new();
    let mut random = fastrand::Rng::with_seed(3);
    let paced = CallOutcome::Paced(Some(Duration::from_secs(1)));
    let mut pauses = 0;
    for n in 0..100_000 {
        world.after(Duration::from_micros(500));
        let outcome = if random.u8(0..5) == 0 { paced } else { CallOutcome::Done };
        let Entered::Go(call) = world.breaker.enter(n, world.now) else { continue };
        pauses += u32::from(world.end(call, outcome).is_some());
    }
    assert!(pauses <= 5, "{pauses} in fifty seconds");
}

#[test]
fn calls_beyond_the_limit_wait() {
    let mut world = World::new();
    let open: Vec<_> = (0..CALLS_MAX as u64).map(|n| world.begin(n)).collect();
    assert_eq!(
        world.breaker.enter(90, world.now),
        Entered::Full { is_fresh: true, is_suspect: false }
    );
    let waiting = Waiting { fresh: 3, tried: 0, suspects: 0 };
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(0));
    for call in open.into_iter().take(2) {
        world.end(call, CallOutcome::Done);
    }
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(2));
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(0), "the calls are resumed");
    world.after(LOST_AFTER);
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(2), "after a loss");
}

#[test]
fn suspects_are_resumed_last_and_up_to_their_share() {
    let mut world = World::new();
    for suspect in 0..9 {
        world.call(suspect, CallOutcome::Failing);
        world.call(100 + suspect, CallOutcome::Done);
    }
    let open: Vec<_> = (0..CALLS_MAX as u64 / 4).map(|n| world.begin(n)).collect();
    assert!(open.iter().all(|call| call.is_suspect));
    let suspects = Waiting { fresh: 0, tried: 0, suspects: 4 };
    assert_eq!(world.breaker.due(suspects, world.now).0, Due::Calls(0), "their share is used up");
    let full = Entered::Full { is_fresh: false, is_suspect: true };
    assert_eq!(world.breaker.enter(8, world.now), full);
    let waiting = Waiting { fresh: 1, tried: 9, suspects: 4 };
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(CALLS_MAX - 2));
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(0));
    // A released event turns out to be a suspect: its place is free for another.
    assert_eq!(world.breaker.enter(8, world.now), full);
    assert_eq!(world.breaker.due(waiting, world.now).0, Due::Calls(1));
}

#[test]
fn paced_answers_to_suspects_do_not_set_a_rate() {
    let mut world = World::new();
    let paced = CallOutcome::Paced(None);
    world.call(0, paced);
    for n in 1..400 {
        world.after(Duration::from_millis(100));
        world.call(n, CallOutcome::Done);
        if n % 5 == 0 {
            world.call(0, paced);
        }
    }
    assert_eq!(world.breaker.limit().and_then(Limit::rate), None);
}
