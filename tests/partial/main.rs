//! Simulation of the engine with partial failures: services that fail for some reservations, have
//! little capacity or refuse all calls; a store with a shard down; an action of SQS that is denied.
//! 1 to 50 processes share one simulated queue. Each scenario states the bounds that must hold.
//! Every choice comes from the scenario and one seed, so a run can be replayed:
//!
//! ```sh
//! PARTIAL_SCENARIO=name PARTIAL_SEED=n \
//!   cargo test --features simulation --test partial replay -- --exact --nocapture
//! ```
//!
//! `PARTIAL_SIZE=full` makes the replay as long as a run of `soak`, and `PARTIAL_SABOTAGE=name`
//! breaks the engine in that way.
//!
//! `soak` runs `PARTIAL_SEEDS` seeds of every scenario from `PARTIAL_START` on, each at full
//! length. Crashes, and effects that happen exactly once, are the subject of `tests/simulation`.
//!
//! - `plan`: the contents of a run. `scenario`: the plans and their bounds. `judge`: whether the
//!   bounds hold.
//! - `world`: shared state. `queue` and `sqs`, `service`, `load` and `answers`, `store`: the
//!   dependencies of the engine.
//! - `lanes`: the order that processes share. `order`: whether it was kept.
//! - `run`: one seed of one scenario. `sabotage`: engines that are broken on purpose. `crowd`: many
//!   seeds on all cores.

// `soak` prints the measured bounds, and `replay` prints its log.
#![allow(clippy::print_stdout)]

mod answers;
mod crowd;
mod judge;
mod lanes;
mod load;
mod order;
mod plan;
#[path = "../simulation/points.rs"]
mod points;
mod queue;
mod run;
mod sabotage;
mod scenario;
mod service;
mod sqs;
mod store;
mod world;

use std::env;
use std::ops::Range;
use std::time::Instant;

use crowd::{catch_all, explain, metrics, run_all};
use sabotage::Sabotage;
use scenario::{SCENARIOS, Scenario, Size};

/// The number of seeds of a short scenario, and of any other one. Outside CI (`CI` is not set) each
/// has one.
const SEEDS: u64 = 2;
const SEEDS_LONG: u64 = 1;

/// Outside CI, one in this many scenarios is tried.
const SHARE_OF_SCENARIOS: usize = 4;

/// Outside CI, one in this many sabotages is tried: they test this simulation, not the engine.
const SHARE: usize = 5;

fn in_ci() -> bool {
    env::var_os("CI").is_some()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a whole number")))
}

/// The scenarios whose names contain the value of `PARTIAL_SCENARIO`. All without it.
fn chosen() -> Vec<Scenario> {
    let wanted = env::var("PARTIAL_SCENARIO").unwrap_or_default();
    let chosen = SCENARIOS.iter().filter(|scenario| scenario.name.contains(&wanted));
    let chosen: Vec<_> = chosen.copied().collect();
    assert!(!chosen.is_empty(), "PARTIAL_SCENARIO={wanted}: no scenario has this name");
    chosen
}

/// The chosen scenarios with their seeds.
fn jobs(seeds: impl Fn(&Scenario) -> Range<u64>) -> Vec<(Scenario, u64)> {
    let all = chosen().into_iter();
    all.flat_map(|scenario| seeds(&scenario).map(move |seed| (scenario, seed))).collect()
}

/// The size of a replay, from `PARTIAL_SIZE`.
fn size() -> Size {
    if env::var("PARTIAL_SIZE").is_ok_and(|size| size == "full") { Size::Full } else { Size::Small }
}

/// The sabotage of a replay, from `PARTIAL_SABOTAGE`.
fn broken() -> Option<Sabotage> {
    let name = env::var("PARTIAL_SABOTAGE").ok()?;
    let found = TRAPS.iter().find(|(sabotage, _)| format!("{sabotage:?}").contains(&name));
    assert!(found.is_some(), "PARTIAL_SABOTAGE={name}: no sabotage has this name");
    found.map(|(sabotage, _)| *sabotage)
}

#[test]
fn every_scenario_keeps_its_bounds() {
    let seeds = |it: &Scenario| 0..if it.is_short && in_ci() { SEEDS } else { SEEDS_LONG };
    let share = if in_ci() { 1 } else { SHARE_OF_SCENARIOS };
    let jobs: Vec<_> = jobs(seeds).into_iter().step_by(share).collect();
    let crowd = run_all(&jobs, size());
    println!("{}", crowd.lines().join("\n"));
    let failures = crowd.failures();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The number of seeds, one of which must catch the sabotage.
const SEEDS_TO_CATCH: u64 = 40;

/// The scenario that catches each sabotage.
const TRAPS: [(Sabotage, &str); 15] = [
    // A repeated failure of one reservation counts as new evidence.
    (Sabotage::Engine("evidence::repeats-are-fresh"), "few-bad-apples"),
    // A service is probed with the event that has waited longest.
    (Sabotage::Engine("probes::oldest-first"), "outage-then-thirty"),
    // A permanent error is final even while the service is treated as refusing all calls.
    (Sabotage::Engine("attribution::refusal-always-final"), "refusing-all"),
    // Permanent errors never count as evidence about the service.
    (Sabotage::Engine("evidence::refusals-unseen"), "refusing-all"),
    // Calls that began before the limit was lowered count as samples after it.
    (Sabotage::Engine("limit::late-samples-count"), "silent-moment"),
    // The limit is raised even if it is not reached.
    (Sabotage::Engine("limit::raised-unreached"), "quiet-between"),
    (Sabotage::OutageCharged, "half-away"),
    (Sabotage::PauseForOne, "one-bad-apple"),
    (Sabotage::LaneIgnored, "order"),
    (Sabotage::TicketIgnored, "order"),
    (Sabotage::StaleRelease, "order"),
    // An event that waits for another process goes before one of its own that was sent earlier.
    (Sabotage::Engine("inflight::waiting-keeps-its-place"), "order"),
    // The full limit applies at once after an outage.
    (Sabotage::Engine("limit::ramp-at-once"), "back-after-a-minute"),
    // The number of suspects that are tried at once has no bound.
    (Sabotage::Engine("suspects::unbounded"), "slow-and-sick"),
    // Events that wait for the concurrency limit of a service do not count as buffered.
    (Sabotage::Engine("waiting::full-not-buffered"), "twenty-a-second"),
];

#[test]
fn every_sabotage_is_caught_by_its_scenario() {
    let traps = TRAPS.map(|(sabotage, name)| {
        let scenario = SCENARIOS.into_iter().find(|scenario| scenario.name == name);
        (sabotage, scenario.unwrap_or_else(|| panic!("there is no scenario {name}")))
    });
    let share = if in_ci() { 1 } else { SHARE };
    let traps: Vec<_> = traps.into_iter().step_by(share).collect();
    for (sabotage, caught) in catch_all(&traps, SEEDS_TO_CATCH) {
        println!("{sabotage:?}: {}", caught.broken.join("; "));
        assert!(!caught.broken.is_empty(), "{sabotage:?} was not caught");
        assert!(caught.sound.is_empty(), "without {sabotage:?}: {:#?}", caught.sound);
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let metrics = metrics();
    let share = if in_ci() { 3 } else { 9 };
    for scenario in chosen().iter().filter(|scenario| scenario.is_short).step_by(share) {
        let log = || run::run(scenario.plan(7, Size::Small), None, true, &metrics).log;
        let (first, second) = (log(), log());
        let differs = first.iter().zip(&second).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{}", scenario.name);
        assert_eq!(first.len(), second.len(), "{}", scenario.name);
    }
}

#[test]
fn replay() {
    let Some(seed) = number("PARTIAL_SEED") else {
        println!("PARTIAL_SEED is not set: nothing to replay");
        return;
    };
    for scenario in chosen() {
        let (log, holds) = explain(&scenario, seed, broken(), size());
        println!("{log}");
        assert!(holds, "{}, seed {seed}", scenario.name);
    }
}

#[test]
fn soak() {
    let Some(seeds) = number("PARTIAL_SEEDS") else {
        println!("PARTIAL_SEEDS is not set: nothing to soak");
        return;
    };
    let began = Instant::now();
    let first = number("PARTIAL_START").unwrap_or(0);
    let crowd = run_all(&jobs(|_| first..first + seeds), Size::Full);
    println!("{}", crowd.lines().join("\n"));
    println!("{seeds} seeds of each scenario in {:.1} s", began.elapsed().as_secs_f64());
    let failures = crowd.failures();
    assert!(failures.is_empty(), "{failures:#?}");
}
