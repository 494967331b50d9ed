//! Tests of how pauses affect the rate.

use super::*;

#[test]
fn few_calls_between_two_pauses_do_not_set_a_rate() {
    let mut limit = without_target();
    let mut at = Instant::now();
    let mut number = 0;
    for pause in 0..15 {
        for load in [Load::Answered, Load::Answered, Load::Refused, Load::Refused] {
            if limit.free(0, at) == 0 {
                continue;
            }
            number += 1;
            limit.begin(at);
            let took = Duration::from_millis(5);
            limit.add(Sample { number, begun: number, took, load, in_flight: 4, at });
        }
        limit.pause(at);
        if pause < 5 {
            assert_eq!(limit.rate(), None);
        }
        at += Duration::from_secs(1);
        limit.after_outage(number);
    }
    // After that, random refusals leave no low rate. A low rate shows little within a minute.
    let mut dice = fastrand::Rng::with_seed(1);
    let began = at;
    while at - began < Duration::from_secs(600) {
        at += Duration::from_millis(20);
        if limit.free(0, at) > 0 {
            number += 1;
            limit.begin(at);
            let load = if dice.u8(0..5) == 0 { Load::Refused } else { Load::Answered };
            let took = Duration::from_millis(5);
            limit.add(Sample { number, begun: number, took, load, in_flight: 5, at });
        }
    }
    assert_eq!(limit.rate().filter(|rate| *rate < 40.0), None);
}
