//! The engine where the world is half well: services of which a part fails, that take only so much, or that refuse everybody; a
//! store of which a shard is away; an action of SQS that is denied. 1 to 50 processes share one simulated queue. What must hold
//! are the bounds that each scenario names. Every choice comes from the scenario and one seed, so that a run can be seen again:
//! `PARTIAL_SCENARIO=name PARTIAL_SEED=n cargo test --features simulation --test partial replay -- --exact --nocapture`.
//! `PARTIAL_SIZE=full` makes it as long as a soak's, and `PARTIAL_SABOTAGE=name` breaks the engine in that way.
//!
//! `soak` runs as many seeds of every scenario as `PARTIAL_SEEDS` says, from `PARTIAL_START` on, each at its full length.
//! What crashes do, and that effects happen once, is `tests/simulation`' to prove.
//!
//! - `plan`: what will happen; `scenario`: which plans there are, and their bounds; `judge`: whether they hold.
//! - `world`: what all parts share. `queue` and `sqs`, `service`, `load` and `answers`, `store`: what the engine talks to.
//! - `run`: one seed of one scenario. `sabotage`: engines that are broken on purpose. `crowd`: many of them on all cores.

// A soak shows its figures, and a replay what happened.
#![allow(clippy::print_stdout)]

mod answers;
mod crowd;
mod judge;
mod load;
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

/// The seeds of `make test`, of each scenario that takes next to no time, and of each other one.
const SEEDS: u64 = 2;
const SEEDS_LONG: u64 = 1;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a whole number")))
}

/// Those whose names contain what `PARTIAL_SCENARIO` says, or all.
fn chosen() -> Vec<Scenario> {
    let wanted = env::var("PARTIAL_SCENARIO").unwrap_or_default();
    let chosen = SCENARIOS.iter().filter(|scenario| scenario.name.contains(&wanted));
    let chosen: Vec<_> = chosen.copied().collect();
    assert!(!chosen.is_empty(), "PARTIAL_SCENARIO={wanted}: there is none of that name");
    chosen
}

/// Those that are chosen, each with its seeds.
fn jobs(seeds: impl Fn(&Scenario) -> Range<u64>) -> Vec<(Scenario, u64)> {
    let all = chosen().into_iter();
    all.flat_map(|scenario| seeds(&scenario).map(move |seed| (scenario, seed))).collect()
}

/// `PARTIAL_SIZE=full` makes a replay as long as a soak's runs.
fn size() -> Size {
    if env::var("PARTIAL_SIZE").is_ok_and(|size| size == "full") { Size::Full } else { Size::Small }
}

/// `PARTIAL_SABOTAGE` breaks the engine of a replay in that way.
fn broken() -> Option<Sabotage> {
    let name = env::var("PARTIAL_SABOTAGE").ok()?;
    let found = TRAPS.iter().find(|(sabotage, _)| format!("{sabotage:?}").contains(&name));
    assert!(found.is_some(), "PARTIAL_SABOTAGE={name}: there is none of that name");
    found.map(|(sabotage, _)| *sabotage)
}

#[test]
fn what_is_half_well_keeps_its_bounds() {
    let seeds = |scenario: &Scenario| 0..if scenario.is_short { SEEDS } else { SEEDS_LONG };
    let crowd = run_all(&jobs(seeds), size());
    println!("{}", crowd.lines().join("\n"));
    let failures = crowd.failures();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The seeds in one of which a sabotage is caught.
const SEEDS_TO_CATCH: u64 = 4;

/// The scenario that catches each sabotage.
const TRAPS: [(Sabotage, &str); 11] = [
    // The failure of a reservation that failed before is fresh evidence.
    (Sabotage::Engine("evidence::repeats-are-fresh"), "few-bad-apples"),
    // A service is probed with the event that has waited longest.
    (Sabotage::Engine("probes::oldest-first"), "outage-then-thirty"),
    // A permanent error is final although the service is not called.
    (Sabotage::Engine("attribution::refusal-always-final"), "refusing-all"),
    // Refusals are no evidence about the service, however many there are.
    (Sabotage::Engine("evidence::refusals-unseen"), "refusing-all"),
    // Calls that began before a decrease of the limit are samples after it.
    (Sabotage::Engine("limit::late-samples-count"), "silent-moment"),
    // A limit that is not reached is raised.
    (Sabotage::Engine("limit::raised-unreached"), "quiet-between"),
    (Sabotage::OutageCharged, "half-away"),
    (Sabotage::PauseForOne, "one-bad-apple"),
    // The full limit holds at once when a service is back.
    (Sabotage::Engine("limit::ramp-at-once"), "back-after-a-minute"),
    // Any number of suspects is tried at once.
    (Sabotage::Engine("suspects::unbounded"), "slow-and-sick"),
    // Events that wait for room at a service do not count as buffered.
    (Sabotage::Engine("waiting::full-not-buffered"), "twenty-a-second"),
];

#[test]
fn an_engine_that_judges_wrongly_is_caught() {
    let traps = TRAPS.map(|(sabotage, name)| {
        let scenario = SCENARIOS.into_iter().find(|scenario| scenario.name == name);
        (sabotage, scenario.unwrap_or_else(|| panic!("there is no scenario {name}")))
    });
    for (sabotage, caught) in catch_all(&traps, SEEDS_TO_CATCH) {
        println!("{sabotage:?}: {}", caught.broken.join("; "));
        assert!(!caught.broken.is_empty(), "{sabotage:?} was not caught");
        assert!(caught.sound.is_empty(), "without {sabotage:?}: {:#?}", caught.sound);
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let metrics = metrics();
    for scenario in chosen().iter().filter(|scenario| scenario.is_short).step_by(3) {
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
