//! Tests of refusals: a real limit of calls/s is found, and random refusals set no rate.

use super::*;
use crate::outage::CallOutcome;
use crate::outage::breaker::{Breaker, Entered};

/// Token bucket that stands for a service with a rate limit.
struct TokenBucket {
    rate: f64,
    tokens: f64,
    filled: Duration,
}

impl TokenBucket {
    fn new(rate: f64) -> Self {
        Self { rate, tokens: rate, filled: Duration::ZERO }
    }

    fn refuses(&mut self, now: Duration) -> bool {
        self.tokens += self.rate * now.saturating_sub(self.filled).as_secs_f64();
        (self.tokens, self.filled) = (self.tokens.min(self.rate), now.max(self.filled));
        let is_refused = self.tokens < 1.0;
        self.tokens -= if is_refused { 0.0 } else { 1.0 };
        is_refused
    }
}

/// Runs one limit per process under constant demand, with calls of 5 ms. Returns accepted and
/// refused calls/s from `from_s` on.
fn run_refusing(
    limits: &mut [Limit],
    mut refuses: impl FnMut(Duration) -> bool,
    from_s: u64,
    to_s: u64,
) -> (f64, f64) {
    let (origin, takes, tick) =
        (Instant::now(), Duration::from_millis(5), Duration::from_micros(250));
    let mut open = vec![std::collections::VecDeque::new(); limits.len()];
    let mut begun = vec![0; limits.len()];
    let (mut now, mut let_in, mut refused) = (Duration::ZERO, 0_u32, 0_u32);
    while now < Duration::from_secs(to_s) {
        now += tick;
        let at = origin + now;
        for ((limit, open), begun) in limits.iter_mut().zip(&mut open).zip(&mut begun) {
            // A process makes at most 4,000 calls/s.
            if limit.free(open.len(), at) > 0 {
                *begun += 1;
                limit.begin(at);
                open.push_back((now + takes, *begun, refuses(now)));
            }
            let in_flight = open.len();
            let Some(&(_, number, is_refused)) = open.front().filter(|(until, ..)| *until <= now)
            else {
                continue;
            };
            open.pop_front();
            let load = if is_refused { Load::Refused } else { Load::Answered };
            limit.add(Sample { number, begun: *begun, took: takes, load, in_flight, at });
            if now >= Duration::from_secs(from_s) {
                let_in += u32::from(!is_refused);
                refused += u32::from(is_refused);
            }
        }
    }
    let seconds = Duration::from_secs(to_s - from_s).as_secs_f64();
    (f64::from(let_in) / seconds, f64::from(refused) / seconds)
}

/// Runs fifty limits, each with a demand of at most 20 calls/s. Returns accepted and refused
/// calls/s from `from_s` on.
fn run_now_and_then(
    limits: &mut [Limit],
    mut refuses: impl FnMut(Duration) -> bool,
    dice: &mut fastrand::Rng,
    from_s: u64,
    to_s: u64,
) -> (f64, f64) {
    let (origin, took) = (Instant::now(), Duration::from_millis(5));
    let (mut number, mut let_in, mut refused) = (0, 0_u32, 0_u32);
    let (from, to) = (Duration::from_secs(from_s), Duration::from_secs(to_s));
    let mut now = Duration::ZERO;
    while now < to {
        now += Duration::from_micros(1_000);
        let limit = &mut limits[dice.usize(0..50)];
        let at = origin + now;
        if limit.free(0, at) == 0 {
            continue;
        }
        number += 1;
        limit.begin(at);
        let is_refused = refuses(now);
        let load = if is_refused { Load::Refused } else { Load::Answered };
        limit.add(Sample { number, begun: number, took, load, in_flight: 1, at });
        let_in += u32::from(!is_refused && now >= from);
        refused += u32::from(is_refused && now >= from);
    }
    let seconds = (to - from).as_secs_f64();
    (f64::from(let_in) / seconds, f64::from(refused) / seconds)
}

#[test]
fn a_real_rate_limit_is_found() {
    for (rate, processes) in [(200.0, 1), (1_000.0, 1), (3_000.0, 1), (1_000.0, 10)] {
        let mut limits: Vec<Limit> = (0..processes).map(|_| without_target()).collect();
        let mut bucket = TokenBucket::new(rate);
        // Pauses handle the demand of many processes. One process has 1 s to find its rate, many
        // have 60 s.
        let from_s = if processes == 1 { 1 } else { 60 };
        let refuses = |now| bucket.refuses(now);
        let (let_in, refused) = run_refusing(&mut limits, refuses, from_s, from_s + 60);
        let seen = format!("{processes} at {rate}: {let_in} a second, {refused} refused");
        assert!(let_in >= 0.95 * rate, "{seen}");
        assert!(refused <= 0.05 * (let_in + refused), "{seen}");
    }
}

#[test]
fn calls_are_rationed_at_a_true_limit_and_not_where_refusals_are_random() {
    let mut limits = [without_target()];
    let mut bucket = TokenBucket::new(200.0);
    run_refusing(&mut limits, |now| bucket.refuses(now), 0, 10);
    assert!(limits[0].is_rationed() && limits[0].rate_found().is_some());
    let mut dice = fastrand::Rng::with_seed(5);
    let mut limits = [without_target()];
    run_refusing(&mut limits, |_| dice.u8(0..100) < 20, 0, 60);
    assert!(!limits[0].is_rationed() && limits[0].rate_found().is_none());
}

#[test]
fn calls_are_rationed_while_most_are_refused() {
    let mut dice = fastrand::Rng::with_seed(5);
    for (seconds, is_rationed) in [(5, false), (10, true), (15, false)] {
        let mut limits = [without_target()];
        let percent = |now: Duration| if (5..10).contains(&now.as_secs()) { 90 } else { 40 };
        let refuses = |now| dice.u8(0..100) < percent(now);
        run_refusing(&mut limits, refuses, 0, seconds);
        assert_eq!(limits[0].is_rationed(), is_rationed, "after {seconds} s");
        assert_eq!(limits[0].rate_found(), None, "no lower rate has helped");
    }
}

#[test]
fn a_changed_rate_limit_is_found_again() {
    let mut limits = [without_target()];
    let mut bucket = TokenBucket::new(1_000.0);
    let (let_in, refused) = run_refusing(
        &mut limits,
        |now| {
            bucket.rate = match now.as_secs() {
                0..30 => 1_000.0,
                30..60 => 200.0,
                _ => 1e9,
            };
            bucket.refuses(now)
        },
        60,
        120,
    );
    // The limit ends at 60 s. The rate must restrict no call within 30 s after that.
    assert!(let_in >= 0.4 * 4_000.0 && refused < 1.0, "{let_in} a second, {refused} refused");
}

#[test]
fn a_low_rate_rises_within_minutes_after_the_limit_is_removed() {
    let mut limits: Vec<Limit> = (0..50).map(|_| without_target()).collect();
    let mut bucket = TokenBucket::new(20.0);
    let mut dice = fastrand::Rng::with_seed(6);
    let refuses = |now| now < Duration::from_secs(200) && bucket.refuses(now);
    let (let_in, refused) = run_now_and_then(&mut limits, refuses, &mut dice, 600, 660);
    assert!(let_in >= 0.9 * 1_000.0 && refused == 0.0, "{let_in} a second, {refused} refused");
}

/// Applies to any share of random refusals: unlike at a limit, a lower rate does not help.
#[test]
fn random_refusals_do_not_set_a_rate() {
    let (without, _) = run_refusing(&mut [without_target()], |_| false, 0, 60);
    // With most calls refused, an experiment waits until other processes have found their rates.
    for (percent, from_s) in [(2, 0), (5, 0), (10, 0), (20, 0), (35, 0), (50, 60), (70, 60)] {
        let mut dice = fastrand::Rng::with_seed(5);
        let refuses = |_| dice.u8(0..100) < percent;
        let (let_in, _) = run_refusing(&mut [without_target()], refuses, from_s, from_s + 60);
        let best = without * f64::from(100 - percent) / 100.0;
        let least = if percent < 50 { 0.85 } else { 0.6 };
        assert!(let_in >= least * best, "{percent}%: {let_in} of {best} a second");
    }
}

/// The limit is 20 calls/s for 50 processes: less than one call/s each.
#[test]
fn a_rate_limit_shared_by_many_processes_is_found() {
    let mut limits: Vec<Limit> = (0..50).map(|_| without_target()).collect();
    let mut bucket = TokenBucket::new(20.0);
    let mut dice = fastrand::Rng::with_seed(5);
    // Processes call in random order, not in turn.
    let (let_in, refused) =
        run_now_and_then(&mut limits, |now| bucket.refuses(now), &mut dice, 60, 300);
    let seen = format!("{let_in} a second, {refused} refused");
    assert!(let_in >= 0.9 * 20.0, "{seen}");
    assert!(refused <= 0.05 * (let_in + refused), "{seen}");
}

/// Runs a limit for ten minutes with random refusals, each retried after a second. `refused` gives
/// their share by time in seconds. Returns how many seconds the queue is behind.
fn behind_s(calls_a_second: u32, refused: impl Fn(u64) -> f64, seed: u64) -> f64 {
    let mut limit = without_target();
    let origin = Instant::now();
    let mut dice = fastrand::Rng::with_seed(seed);
    // Waiting calls are tried 1,000 times per second.
    let (mut waiting, mut number) = (0.0, 0);
    let mut told_later = std::collections::VecDeque::new();
    for ms in 0..600_000 {
        let at = origin + Duration::from_millis(ms);
        waiting += f64::from(calls_a_second) / 1_000.0;
        while told_later.front().is_some_and(|until| *until <= ms) {
            told_later.pop_front();
            waiting += 1.0;
        }
        for _ in 0..4 {
            if waiting < 1.0 || limit.free(5, at) == 0 {
                break;
            }
            waiting -= 1.0;
            number += 1;
            limit.begin(at);
            let is_refused = dice.f64() < refused(ms / 1_000);
            if is_refused {
                told_later.push_back(ms + 1_000);
            }
            let load = if is_refused { Load::Refused } else { Load::Answered };
            let took = Duration::from_millis(5);
            limit.add(Sample { number, begun: number, took, load, in_flight: 6, at });
        }
    }
    waiting / f64::from(calls_a_second)
}

#[test]
fn random_refusals_do_not_set_a_rate_at_any_call_rate() {
    // The fewer calls there are, the longer an experiment takes, and the more chance decides.
    for (calls_a_second, seeds, behind_max_s) in
        [(5, 4_u32, 60.0), (50, 4, 30.0), (330, 2, 1.0), (2_000, 1, 1.0)]
    {
        for refused in [0.02, 0.05, 0.1, 0.2] {
            let behind_s = |seed| behind_s(calls_a_second, |_| refused, seed);
            let mean_s =
                (0..seeds).map(|seed| behind_s(u64::from(seed))).sum::<f64>() / f64::from(seeds);
            let seen = format!("{calls_a_second} a second, {refused} refused");
            assert!(mean_s < behind_max_s, "{seen}: {mean_s} s behind after ten minutes");
        }
    }
}

#[test]
fn after_the_last_refusal_calls_are_soon_not_held_back() {
    for (calls_a_second, seeds) in [(1, 4), (5, 4), (50, 4), (330, 1)] {
        for refused in [0.1, 0.3, 0.6] {
            for seed in 0..seeds {
                let ends = |second| if second < 200 { refused } else { 0.0 };
                let behind_s = behind_s(calls_a_second, ends, seed);
                let seen = format!("{calls_a_second} a second, {refused} refused until then");
                assert!(behind_s < 2.0, "{seen}: {behind_s} s behind after another 400 s");
            }
        }
    }
}

/// Other calls succeed in between, as a limit accepts some calls all the time.
#[test]
fn an_event_refused_together_with_others_is_no_suspect() {
    for (refused, is_suspect) in [(1, true), (2, false)] {
        let mut breaker = Breaker::new(Some(without_target()));
        let (now, took) = (Instant::now(), Duration::from_millis(5));
        let enter = |breaker: &mut Breaker, subject| match breaker.enter(subject, now) {
            Entered::Go(call) => call,
            other @ (Entered::Away { .. } | Entered::Full { .. }) => panic!("{other:?}"),
        };
        let calls: Vec<_> = (0..refused).map(|subject| enter(&mut breaker, subject)).collect();
        let later = enter(&mut breaker, 9);
        breaker.report(later, CallOutcome::Done, Load::Answered, took, now);
        let told = CallOutcome::Paced(Some(Duration::from_secs(1)));
        for call in calls {
            breaker.report(call, told, Load::Refused, took, now);
        }
        // Another call succeeds after that, and then the limit is reached.
        let later = enter(&mut breaker, 10);
        breaker.report(later, CallOutcome::Done, Load::Answered, took, now);
        for subject in 20..40 {
            enter(&mut breaker, subject);
        }
        let full = Entered::Full { is_fresh: false, is_suspect };
        assert_eq!(breaker.enter(0, now), full, "{refused} refused");
    }
}
