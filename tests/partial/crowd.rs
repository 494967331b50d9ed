//! Runs many seeds of many scenarios on all cores, and keeps the worst value of each bound.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use reservation_worker::metrics::Metrics;
use reservation_worker::settle::DeadLetterReason;

use super::judge::{Measured, judge};
use super::run::run;
use super::sabotage::Sabotage;
use super::scenario::{Scenario, Size};

/// The worst value of one bound of a scenario over all seeds.
struct Worst {
    measured: Measured,
    seed: u64,
    choice: String,
    failures: usize,
    runs: usize,
}

/// The results of many seeds, by scenario and bound.
#[derive(Default)]
pub(crate) struct Crowd {
    bounds: BTreeMap<(&'static str, String), Worst>,
}

/// The metrics of one thread's runs. A registry per process would be too expensive.
pub(crate) fn metrics() -> Arc<Metrics> {
    let reasons: Vec<_> = DeadLetterReason::all().map(DeadLetterReason::as_str).collect();
    Arc::new(Metrics::new(&reasons))
}

/// Runs each scenario with each of its seeds.
pub(crate) fn run_all(jobs: &[(Scenario, u64)], size: Size) -> Crowd {
    let (next, crowd) = (AtomicUsize::new(0), Mutex::new(Crowd::default()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let metrics = metrics();
                while let Some((scenario, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(scenario.plan(*seed, size), None, false, &metrics);
                    let mut crowd = crowd.lock().expect("the lock is not poisoned");
                    for measured in judge(&outcome) {
                        crowd.add(measured, &outcome.world.plan);
                    }
                }
            });
        }
    });
    crowd.into_inner().expect("the lock is not poisoned")
}

/// Runs each sabotage's scenario until a seed breaks a bound, for at most `seeds` seeds. Returns
/// the broken bounds, with and without the sabotage.
pub(crate) fn catch_all(traps: &[(Sabotage, Scenario)], seeds: u64) -> Vec<(Sabotage, Caught)> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let metrics = metrics();
                while let Some((sabotage, trap)) = traps.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failures = |seed, broken| failures(trap, seed, broken, &metrics);
                    let caught = (0..seeds).find_map(|seed| {
                        let broken = failures(seed, Some(*sabotage));
                        (!broken.is_empty()).then(|| Caught { broken, sound: failures(seed, None) })
                    });
                    let caught = caught.unwrap_or_default();
                    all.lock().expect("the lock is not poisoned").push((*sabotage, caught));
                }
            });
        }
    });
    all.into_inner().expect("the lock is not poisoned")
}

/// The bounds broken with the sabotage, and without it, by the same seed.
#[derive(Default)]
pub(crate) struct Caught {
    pub(crate) broken: Vec<String>,
    pub(crate) sound: Vec<String>,
}

fn failures(
    scenario: &Scenario,
    seed: u64,
    sabotage: Option<Sabotage>,
    metrics: &Arc<Metrics>,
) -> Vec<String> {
    let outcome = run(scenario.plan(seed, Size::Small), sabotage, false, metrics);
    let mut crowd = Crowd::default();
    for measured in judge(&outcome) {
        crowd.add(measured, &outcome.world.plan);
    }
    crowd.failures()
}

impl Crowd {
    fn add(&mut self, measured: Measured, plan: &super::plan::Plan) {
        let failed = usize::from(!measured.holds());
        let key = (plan.scenario, measured.name.clone());
        let choice = plan.choice.clone();
        match self.bounds.get_mut(&key) {
            None => {
                let worst = Worst { measured, seed: plan.seed, choice, failures: failed, runs: 1 };
                self.bounds.insert(key, worst);
            }
            Some(worst) => {
                worst.failures += failed;
                worst.runs += 1;
                let (old, new) = (worst.measured.strain(), measured.strain());
                if new > old || (new.total_cmp(&old).is_eq() && plan.seed < worst.seed) {
                    (worst.measured, worst.seed, worst.choice) = (measured, plan.seed, choice);
                }
            }
        }
    }

    /// One line per bound.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.bounds.iter().map(|(key, worst)| worst.line(key.0)).collect()
    }

    /// One line per bound that does not hold.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failed = self.bounds.iter().filter(|(_, worst)| worst.failures > 0);
        failed.map(|(key, worst)| worst.line(key.0)).collect()
    }
}

impl Worst {
    fn line(&self, scenario: &str) -> String {
        let Self { measured, seed, choice, failures, runs } = self;
        let sign = if measured.at_least { ">=" } else { "<=" };
        let mark = if *failures > 0 { "FAILS" } else { "holds" };
        let Measured { name, value, limit, detail, .. } = measured;
        format!(
            "{mark} {scenario}: {name}: {value:.3} {sign} {limit:.3}, {failures} of {runs} seeds fail, the worst {seed} ({choice}): {detail}"
        )
    }
}

/// The log and the bounds of one seed of a scenario, and whether all bounds hold.
pub(crate) fn explain(
    scenario: &Scenario,
    seed: u64,
    sabotage: Option<Sabotage>,
    size: Size,
) -> (String, bool) {
    let outcome = run(scenario.plan(seed, size), sabotage, true, &metrics());
    let mut crowd = Crowd::default();
    for measured in judge(&outcome) {
        crowd.add(measured, &outcome.world.plan);
    }
    let holds = crowd.failures().is_empty();
    (format!("{}\n\n{}", outcome.log.join("\n"), crowd.lines().join("\n")), holds)
}
