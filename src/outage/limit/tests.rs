//! Tests of the limit with simulated servers and a queue. The simulation covers many processes at
//! one service.

mod pauses;
mod refusals;

use super::*;

/// Simulated service with a FIFO queue and servers of a fixed service time.
struct Server {
    servers: usize,
    takes: Duration,
    timeout: Duration,
    /// Time from which each server is free.
    free_at: Vec<Duration>,
}

impl Server {
    fn new(servers: usize, takes_ms: u64) -> Self {
        let takes = Duration::from_millis(takes_ms);
        let timeout = Duration::from_secs(5);
        Self { servers, takes, timeout, free_at: vec![Duration::ZERO; servers] }
    }

    /// Returns the time at which a call that arrives now is answered.
    fn call(&mut self, now: Duration) -> Duration {
        let first = (0..self.servers).min_by_key(|n| self.free_at[*n]).expect("a server");
        self.free_at[first] = self.free_at[first].max(now) + self.takes;
        self.free_at[first]
    }
}

struct Seen {
    done_a_second: f64,
    mean_ms: f64,
    timed_out: u32,
    limit: usize,
}

/// Runs a limit under constant demand for this many seconds. Returns statistics of the second half.
fn run(limit: &mut Limit, server: &mut Server, seconds: u64) -> Seen {
    let origin = Instant::now();
    let (mut now, end) = (Duration::ZERO, Duration::from_secs(seconds));
    let (mut begun, mut open) = (0, Vec::<(Duration, Duration, u64)>::new());
    let (mut done, mut took_ms, mut timed_out) = (0_u32, 0.0, 0);
    while now < end {
        while open.len() < limit.calls() {
            begun += 1;
            limit.begin(origin + now);
            let answered = server.call(now).min(now + server.timeout);
            open.push((answered, now, begun));
        }
        let next = (0..open.len()).min_by_key(|n| open[*n].0).expect("calls are open");
        let in_flight = open.len();
        let (answered, began, number) = open.swap_remove(next);
        now = answered;
        let took = answered - began;
        let is_late = took >= server.timeout;
        let load = if is_late { Load::TimedOut } else { Load::Answered };
        limit.add(Sample { number, begun, took, load, in_flight, at: origin + now });
        if now >= end / 2 {
            done += u32::from(!is_late);
            timed_out += u32::from(is_late);
            took_ms += took.as_secs_f64() * 1_000.0;
        }
    }
    let half = end.as_secs_f64() / 2.0;
    let mean_ms = took_ms / f64::from(done + timed_out);
    Seen { done_a_second: f64::from(done) / half, mean_ms, timed_out, limit: limit.calls() }
}

fn with_target(min: usize, max: usize, target_ms: u64) -> Limit {
    Limit::new(Bounds::new(min, max), Some(Duration::from_millis(target_ms)))
}

#[test]
fn with_a_target_the_capacity_is_used_and_the_latency_stays_near_the_target() {
    // Capacity 400 calls/s: 8 servers, 20 ms each.
    let seen = run(&mut with_target(2, 200, 100), &mut Server::new(8, 20), 60);
    assert!(seen.done_a_second >= 0.97 * 400.0, "{} a second", seen.done_a_second);
    assert!(seen.mean_ms <= 125.0, "{} ms", seen.mean_ms);
}

#[test]
fn a_service_that_is_always_slow_gets_the_minimum() {
    let seen = run(&mut with_target(3, 100, 100), &mut Server::new(100, 400), 60);
    assert_eq!(seen.limit, 3);
}

#[test]
fn an_unreached_limit_does_not_rise() {
    let mut limit = with_target(2, 100, 100);
    let origin = Instant::now();
    for n in 0..10_000 {
        let at = origin + Duration::from_millis(n);
        limit.begin(at);
        let took = Duration::from_millis(5);
        limit.add(Sample { number: n, begun: n, took, load: Load::Answered, in_flight: 1, at });
    }
    assert!(limit.calls() <= 5, "{}", limit.calls());
}

#[test]
fn fast_failures_do_not_raise_the_limit() {
    let mut limit = with_target(2, 100, 100);
    let at = Instant::now();
    for number in 1..1_000 {
        let took = Duration::from_millis(1);
        let load = Load::Unknown;
        assert_eq!(
            limit.add(Sample { number, begun: number, took, load, in_flight: 50, at }),
            None
        );
    }
}

#[test]
fn without_a_target_a_slow_service_keeps_the_maximum() {
    let mut limit = Limit::new(Bounds::new(2, 20), None);
    let seen = run(&mut limit, &mut Server::new(1_000, 2_000), 60);
    assert_eq!((seen.limit, seen.timed_out), (20, 0));
}

#[test]
fn without_a_target_timeouts_lower_the_limit_to_the_capacity() {
    // Capacity 20 calls/s: with 200 in flight, half of the calls time out.
    let mut limit = Limit::new(Bounds::new(2, 200), None);
    let seen = run(&mut limit, &mut Server::new(2, 100), 300);
    assert!(seen.done_a_second >= 0.9 * 20.0, "{} a second", seen.done_a_second);
    assert!(f64::from(seen.timed_out) <= 0.05 * 20.0 * 150.0, "{} timed out", seen.timed_out);
}

#[test]
fn timeouts_among_quick_answers_do_not_lower_the_limit() {
    let mut limit = without_target();
    let (mut at, mut number) = (Instant::now(), 0);
    for round in 0..1_000 {
        at += Duration::from_millis(200);
        for (took_ms, load) in [(5_000, Load::TimedOut), (5, Load::Answered), (6, Load::Answered)] {
            number += 1;
            limit.begin(at);
            let took = Duration::from_millis(took_ms);
            limit.add(Sample { number, begun: number, took, load, in_flight: 20, at });
        }
        assert_eq!(limit.calls(), 20, "round {round}");
    }
}

fn without_target() -> Limit {
    Limit::new(Bounds::new(2, 20), None)
}

#[test]
fn after_an_outage_the_limit_doubles_from_the_minimum_to_its_old_value() {
    let mut limit = Limit::new(Bounds::new(2, 20), None);
    limit.after_outage(100);
    let (mut rounds, mut number) = (Vec::new(), 100);
    for _ in 0..4 {
        let calls = limit.calls();
        rounds.push(calls);
        for _ in 0..calls {
            number += 1;
            let (took, at) = (Duration::from_millis(5), Instant::now());
            let load = Load::Answered;
            limit.add(Sample {
                number,
                begun: number,
                took,
                load,
                in_flight: calls.max(limit.calls()),
                at,
            });
        }
    }
    assert_eq!(rounds, [4, 8, 16, 20]);
    assert!(!limit.is_starting());
}

#[test]
fn invalid_bounds_are_corrected() {
    assert_eq!(Limit::new(Bounds::new(9, 3), None).calls(), 3);
    assert_eq!(Limit::new(Bounds::new(0, 0), None).calls(), 1);
    assert_eq!(with_target(2, 1, 5).calls(), 1);
}

/// Returns the time until a limit that is always reached, by calls of 50 ms, is 20.
fn rises_within(limit: &mut Limit, from: Instant, mut number: u64) -> Duration {
    let took = Duration::from_millis(50);
    let mut at = from;
    while limit.calls() < 20 && at - from < Duration::from_secs(1_000) {
        let calls = limit.calls();
        for _ in 0..calls {
            limit.begin(at);
        }
        at += took;
        for _ in 0..calls {
            number += 1;
            let load = Load::Answered;
            limit.add(Sample { number, begun: number, took, load, in_flight: calls, at });
        }
    }
    at - from
}

/// A conflict or a missing reservation may be answered much faster than all other calls.
#[test]
fn a_few_quick_answers_after_an_outage_do_not_hold_back_the_limit() {
    for quick in [1, 3] {
        let mut limit = without_target();
        limit.go_down(Instant::now());
        limit.after_outage(0);
        let (mut at, mut number) = (Instant::now(), 0);
        let began = at;
        while limit.calls() < 20 && at - began < Duration::from_secs(100) {
            let calls = limit.calls();
            at += Duration::from_millis(300);
            for _ in 0..calls {
                number += 1;
                limit.begin(at);
                let took = Duration::from_millis(if number <= quick { 5 } else { 300 });
                let load = Load::Answered;
                limit.add(Sample { number, begun: number, took, load, in_flight: calls, at });
            }
        }
        assert!(at - began < Duration::from_secs(3), "{quick}: {:?}", at - began);
        assert!(!limit.is_starting());
    }
}

#[test]
fn a_few_quick_answers_do_not_set_the_base_latency() {
    let ms = Duration::from_millis;
    let mut fastest = Fastest::default();
    for (took, answers) in [(ms(300), 95), (ms(5), 5)] {
        for _ in 0..answers {
            fastest.add(took);
        }
    }
    let of_most = fastest.add(ms(300));
    assert!(ms(190) < of_most && of_most <= ms(300), "{of_most:?}");
    for took in [Duration::ZERO, ms(1), Duration::from_secs(60), Duration::MAX] {
        let alone = Fastest::default().add(took);
        assert!(alone <= took.max(ms(1)), "{took:?}: {alone:?}");
    }
}

#[test]
fn a_single_paced_answer_at_low_load_is_forgotten() {
    let mut limit = Limit::new(Bounds::new(2, 20), None);
    let mut at = Instant::now();
    for number in 1..=600 {
        at += Duration::from_secs(1);
        limit.begin(at);
        let load = if number == 10 { Load::Refused } else { Load::Answered };
        let took = Duration::from_millis(50);
        limit.add(Sample { number, begun: number, took, load, in_flight: 1, at });
    }
    let within = rises_within(&mut limit, at, 600);
    assert!(within < Duration::from_secs(30), "{within:?}");
}

#[test]
fn after_outages_with_timeouts_the_limit_is_restored_before_the_ceiling_expires() {
    for outages in 1..=3 {
        let mut limit = Limit::new(Bounds::new(2, 20), None);
        let (mut at, mut number) = (Instant::now(), 0);
        for _ in 0..outages {
            let took = Duration::from_secs(5);
            for _ in 0..4 {
                number += 1;
                limit.begin(at);
                at += took;
                let load = Load::TimedOut;
                limit.add(Sample { number, begun: number, took, load, in_flight: 4, at });
            }
            limit.go_down(at);
            at += Duration::from_secs(20);
            limit.after_outage(number);
        }
        let within = rises_within(&mut limit, at, number);
        assert!(within < CEILING_LASTS, "after {outages}: {within:?}");
    }
}

#[test]
fn near_the_limit_at_which_calls_timed_out_it_rises_once_in_ten_seconds() {
    let from = Instant::now();
    let mut ceiling = Ceiling::new(20.0, from);
    let rises = |second: u64| {
        ceiling.allows(18.0, Speed::Fast, from + Duration::from_secs(second)).then_some(second)
    };
    assert_eq!((0..45).filter_map(rises).collect::<Vec<_>>(), [10, 20, 30, 40]);
}

mod bounds {
    use super::*;

    fn limit_of(max: usize) -> Limit {
        Limit::new(Bounds::new(2, max), None)
    }

    fn goal(limit: &Limit) -> (usize, Option<f64>) {
        (limit.calls(), limit.slow_start)
    }

    #[test]
    fn a_limit_at_its_maximum_follows_the_maximum_by_a_slow_start() {
        let mut limit = limit_of(20);
        limit.set_bounds(Bounds::new(2, 4));
        assert_eq!(goal(&limit), (4, None));
        limit.set_bounds(Bounds::new(2, 20));
        assert_eq!(goal(&limit), (4, Some(20.0)));
        limit.set_bounds(Bounds::new(2, 50));
        assert_eq!(goal(&limit), (4, Some(50.0)));
    }

    #[test]
    fn what_a_service_was_found_to_bear_outlives_narrower_bounds() {
        let mut limit = limit_of(20);
        limit.value = 6.0;
        limit.set_bounds(Bounds::new(2, 4));
        assert_eq!(goal(&limit), (4, None));
        limit.set_bounds(Bounds::new(2, 20));
        assert_eq!(goal(&limit), (4, Some(6.0)));
        let mut limit = limit_of(20);
        (limit.value, limit.slow_start) = (3.0, Some(6.0));
        limit.set_bounds(Bounds::new(2, 20));
        assert_eq!(goal(&limit), (3, Some(6.0)), "the same bounds change nothing");
        limit.set_bounds(Bounds::new(2, 50));
        assert_eq!(goal(&limit), (3, Some(6.0)));
    }
}
