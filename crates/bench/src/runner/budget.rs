//! The budgets for the figures.

use std::fmt;

use super::plan::{FLOOR, PLAIN, WITH_REDIS, WITH_STATUS_POLL, WORKER};
use super::results::Results;
use super::round::Round;
use crate::services::count;
use crate::trials::{Trial, Tried};

/// A figure and its limit.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What the figure measures.
    pub what: String,
    /// The measured value; none if it was not measured.
    pub value: Option<f64>,
    /// The limit.
    pub limit: Limit,
}

/// A limit for a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// This value or more.
    AtLeast(f64),
    /// This value or less.
    AtMost(f64),
    /// Less than this value.
    Below(f64),
}

impl Budget {
    /// Returns whether the limit is kept; false if nothing was measured.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.value.is_some_and(|value| match self.limit {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
            Limit::Below(limit) => value < limit,
        })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, limit) = match self.limit {
            Limit::AtLeast(limit) => ("at least", limit),
            Limit::AtMost(limit) => ("at most", limit),
            Limit::Below(limit) => ("below", limit),
        };
        let verdict = if self.holds() { "holds" } else { "MISSED" };
        match self.value {
            Some(value) => {
                write!(f, "| {} | {words} {limit} | {value:.3} | {verdict} |", self.what)
            }
            None => write!(f, "| {} | {words} {limit} | not measured | {verdict} |", self.what),
        }
    }
}

/// Returns all budgets with their measured values. A build that is laid out by a profile has less
/// CPU time.
#[must_use]
pub fn budgets(results: &Results, tried: &[(Trial, Tried)], is_profiled: bool) -> Vec<Budget> {
    let mut all = yardstick(results).to_vec();
    for (load, cpu_max, cpu_max_profiled) in
        [("saturated-20", 0.6, 0.5), ("saturated-100", 0.7, 0.6)]
    {
        let cpu_max = if is_profiled { cpu_max_profiled } else { cpu_max };
        all.extend(saturated(results, load, cpu_max));
    }
    all.extend(latency_and_memory(results));
    all.extend(redis(results));
    all.push(status_page(results));
    all.push(burst(results));
    all.extend(trials(tried));
    all
}

fn burst(results: &Results) -> Budget {
    let (worker, floor) = ((WORKER, "burst-10000"), (FLOOR, "burst-10000"));
    Budget {
        what: "a burst of 10,000 from cold: throughput beside the floor's".to_owned(),
        value: results.ratio(worker, floor, |round| round.of_limit).map(|ratio| ratio.median),
        limit: Limit::AtLeast(0.95),
    }
}

fn trials(tried: &[(Trial, Tried)]) -> Vec<Budget> {
    let of = |trial: Trial, what: &str, figure: fn(&Tried) -> f64, limit| Budget {
        what: format!("{}: {what}", trial.name()),
        value: tried.iter().find(|(other, _)| *other == trial).map(|(_, tried)| figure(tried)),
        limit,
    };
    let part = |tried: &Tried| tried.measured / tried.possible;
    let mut all: Vec<Budget> = Trial::ALL
        .into_iter()
        .filter(|trial| *trial != Trial::Recovery)
        .map(|trial| of(trial, "events, of what is possible", part, Limit::AtLeast(0.95)))
        .collect();
    all.push(of(Trial::RateLimit, "calls refused", |it| it.refused, Limit::AtMost(0.05)));
    let late_s = |tried: &Tried| tried.measured - tried.possible;
    all.push(of(Trial::Recovery, "beyond the least possible, s", late_s, Limit::AtMost(6.0)));
    all
}

/// Checks the floor itself: beside a slow floor, every result would look good.
fn yardstick(results: &Results) -> [Budget; 2] {
    let floor = |figure: fn(&Round) -> f64| median(results, FLOOR, "saturated-20", figure);
    [
        Budget {
            what: "the floor's own CPU an event, µs".to_owned(),
            value: floor(|round| round.cpu_us),
            limit: Limit::AtMost(90.0),
        },
        Budget {
            what: "the floor's own throughput, of the limit, at 20".to_owned(),
            value: floor(|round| round.of_limit),
            limit: Limit::AtLeast(0.85),
        },
    ]
}

fn saturated(results: &Results, load: &str, cpu_max: f64) -> Vec<Budget> {
    let beside = |other: &str, figure: fn(&Round) -> f64| {
        results.ratio((WORKER, load), (other, load), figure).map(|ratio| ratio.median)
    };
    let budget =
        |what: &str, value, limit| Budget { what: format!("{load}: {what}"), value, limit };
    // The share of the limit that the services' measured times allow in the same round. Service
    // times differ between rounds if other programs use the machine.
    let rate = |round: &Round| round.of_limit;
    let cpu = |round: &Round| round.cpu_us;
    vec![
        budget("throughput beside the floor's", beside(FLOOR, rate), Limit::AtLeast(0.97)),
        budget("throughput beside the plain loop's", beside(PLAIN, rate), Limit::AtLeast(1.0)),
        budget("CPU an event beside the plain loop's", beside(PLAIN, cpu), Limit::AtMost(cpu_max)),
        budget(
            "calls to SQS an event",
            median(results, WORKER, load, sqs_calls),
            Limit::AtMost(0.21),
        ),
    ]
}

fn latency_and_memory(results: &Results) -> Vec<Budget> {
    let ms = |us: u32| f64::from(us) / 1e3;
    let of = |what: &str, load, figure: &dyn Fn(&Round) -> f64, limit| Budget {
        what: what.to_owned(),
        value: median(results, WORKER, load, figure),
        limit,
    };
    let per_minute = |round: &Round| count(round.figures.receives) / round.figures.elapsed_s * 60.0;
    let cpu = |round: &Round| round.cpu_us;
    let growth = results.ratio((WORKER, "backlog-100000"), (WORKER, "backlog-1000"), cpu);
    vec![
        of("idle: receives a minute", "idle", &per_minute, Limit::AtMost(3.5)),
        of("idle: CPU, % of a core", "idle", &|round| round.cores * 100.0, Limit::Below(0.1)),
        of(
            "rate-50: added latency p50, ms",
            "rate-50",
            &|r| ms(r.figures.since_visible.p50_us),
            Limit::Below(1.0),
        ),
        of(
            "rate-50: added latency p99, ms",
            "rate-50",
            &|r| ms(r.figures.since_visible.p99_us),
            Limit::Below(3.0),
        ),
        of(
            "start to first effect, ms",
            "saturated-20",
            &|round| round.first_effect_ms,
            Limit::Below(45.0),
        ),
        of("idle: RSS, MB", "idle", &|round| round.rss_mb, Limit::Below(14.0)),
        of(
            "saturated-100: RSS at most, MB",
            "saturated-100",
            &|round| round.rss_peak_mb,
            Limit::Below(28.0),
        ),
        Budget {
            what: "CPU an event at a backlog of 100,000 beside 1,000".to_owned(),
            value: growth.map(|growth| growth.median),
            limit: Limit::AtMost(1.05),
        },
    ]
}

fn redis(results: &Results) -> [Budget; 2] {
    let beside = |load, figure: fn(&Round) -> f64| {
        results.ratio((WITH_REDIS, load), (WORKER, load), figure).map(|ratio| ratio.median)
    };
    let p50 =
        |who| median(results, who, "rate-500", |r| f64::from(r.figures.since_visible.p50_us) / 1e3);
    [
        Budget {
            what: "Redis: CPU an event beside memory".to_owned(),
            value: beside("saturated-20", |round| round.cpu_us),
            limit: Limit::Below(1.25),
        },
        Budget {
            what: "Redis: added to the median latency at 500 a second, ms".to_owned(),
            value: p50(WITH_REDIS).zip(p50(WORKER)).map(|(with, without)| with - without),
            limit: Limit::Below(1.0),
        },
    ]
}

fn status_page(results: &Results) -> Budget {
    let (open, closed) = ((WITH_STATUS_POLL, "saturated-20"), (WORKER, "saturated-20"));
    Budget {
        what: "status page open: throughput beside closed, at 20".to_owned(),
        value: results.ratio(open, closed, |round| round.of_limit).map(|ratio| ratio.median),
        limit: Limit::AtLeast(0.995),
    }
}

fn median(
    results: &Results,
    contender: &str,
    load: &str,
    figure: impl Fn(&Round) -> f64,
) -> Option<f64> {
    results.summary(contender, load, figure).map(|summary| summary.median)
}

/// Calls to SQS of any kind per event.
pub(crate) fn sqs_calls(round: &Round) -> f64 {
    let f = &round.figures;
    count(f.receives + f.delete_calls + f.change_calls + f.other_calls) / count(f.effects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_holds_up_to_its_limit_and_fails_without_a_measurement() {
        let budget = |value, limit| Budget { what: String::new(), value, limit };
        for (value, limit, holds) in [
            (Some(1.6), Limit::AtMost(1.6), true),
            (Some(1.61), Limit::AtMost(1.6), false),
            (Some(0.97), Limit::AtLeast(0.97), true),
            (Some(0.96), Limit::AtLeast(0.97), false),
            (Some(1.0), Limit::Below(1.0), false),
            (Some(f64::NAN), Limit::Below(1.0), false),
            (None, Limit::AtMost(1.0), false),
        ] {
            assert_eq!(budget(value, limit).holds(), holds, "{value:?} {limit:?}");
        }
        let nothing = budgets(&Results(Vec::new()), &[], false);
        assert!(nothing.iter().all(|budget| !budget.holds()) && nothing.len() > 20);
    }
}
