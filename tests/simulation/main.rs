//! Simulation of the engine with faults of every kind: crashes, lost responses, outages,
//! duplicates. The engine must keep all its guarantees. Every choice comes from one seed, so a
//! failure can be replayed:
//!
//! ```sh
//! SIM_SEED=n cargo test --features simulation --test simulation replay -- --exact --nocapture
//! ```
//!
//! `soak` runs `SIM_SEEDS` seeds from `SIM_START` on.
//!
//! - `plan`: the contents of a seed, drawn by `draw`. `rows`: the errors of the services.
//! - `world`: shared state. `queue`, `visible` and `sqs`, `services` and `calls`: the state of a
//!   part, its checks, and how calls to it travel. `half_well`: the faults of the queue. `turn`:
//!   which calls may be made, and when. `judge`: what an answer means for the engine. `order`: the
//!   order of events.
//! - `store`: the state of the shared store. `shared`: how operations travel to it. `other`: other
//!   pods that use it. `guard`: the checks against its state. `store_plan`: its part of a plan.
//! - `run`: one seed. `sabotage`: engines that are broken on purpose, `points`: their fail points.
//!   `check`: the checks on the queue. `expect`: switches for checks. `coverage`: the counts of
//!   what happened. `crowd`: many seeds on all cores.

// `soak` prints its progress, and `replay` prints its log.
#![allow(clippy::print_stdout)]

mod calls;
mod check;
mod coverage;
mod crowd;
mod draw;
mod expect;
mod guard;
mod half_well;
mod judge;
mod order;
mod other;
mod plan;
mod points;
mod queue;
mod rows;
mod run;
mod sabotage;
mod services;
mod shared;
mod sqs;
mod store;
mod store_plan;
mod store_tests;
mod tests;
mod turn;
mod visible;
mod world;

use std::env;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crowd::{explain, metrics, run_all};
use run::run;
use sabotage::Sabotage;

/// The number of seeds in CI.
const SEEDS: u64 = 1_000;

/// The number of seeds in CI in which one action of the queue fails.
const SEEDS_HALF_WELL: u64 = 300;

/// Outside CI (`CI` is not set), one in this many seeds and sabotages is tried.
const SHARE: u64 = 15;

/// The share that is tried here: 1 in this many.
fn share() -> u64 {
    if env::var_os("CI").is_some() { 1 } else { SHARE }
}

/// The number of seeds to try, of those that CI tries.
fn here(seeds: u64) -> u64 {
    seeds / share()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a whole number")))
}

#[test]
fn every_seed_passes_every_check() {
    let seeds = here(SEEDS);
    let crowd = run_all(0, seeds, None, |_| ());
    if let Some((seed, violations)) = &crowd.failure {
        panic!("{}", explain(*seed, violations));
    }
    println!("{}", crowd.cover.lines().collect::<Vec<_>>().join("\n"));
    let missing = crowd.cover.missing(seeds, SEEDS);
    assert!(missing.is_empty(), "coverage below the minimum: {missing:#?}");
}

#[test]
fn a_failing_queue_action_dead_letters_no_good_event() {
    let seeds = here(SEEDS_HALF_WELL);
    let crowd = run_all(half_well::FIRST, seeds, None, |_| ());
    if let Some((seed, violations)) = &crowd.failure {
        panic!("{}", explain(*seed, violations));
    }
    for what in ["no receive", "no extension", "no delete", "no copy", "no attributes"] {
        let name = format!("half well: {what}");
        let (count, least) = (crowd.cover.count(&name), 100 * seeds / SEEDS_HALF_WELL);
        assert!(count > least, "{name}: {count} of {least}");
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let metrics = metrics();
    for seed in 0..here(50) {
        let (first, second) = (run(seed, None, true, &metrics), run(seed, None, true, &metrics));
        let differs = first.log.iter().zip(&second.log).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}");
        assert!(first.cover == second.cover, "seed {seed}");
    }
}

#[test]
fn every_broken_engine_is_caught() {
    for sabotage in
        Sabotage::ALL.into_iter().step_by(usize::try_from(share()).expect("it is small"))
    {
        let crowd = run_all(0, SEEDS, Some(sabotage), |_| ());
        let Some((seed, violations)) = crowd.failure else {
            panic!("{sabotage:?} was not caught in {SEEDS} seeds");
        };
        println!("{sabotage:?}: caught by seed {seed}: {}", violations[0]);
    }
}

#[test]
fn replay() {
    let Some(seed) = number("SIM_SEED") else {
        println!("SIM_SEED is not set: nothing to replay");
        return;
    };
    let report = run(seed, None, true, &metrics());
    println!("{}", explain(seed, &report.violations));
    assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
}

#[test]
fn soak() {
    let Some(seeds) = number("SIM_SEEDS") else {
        println!("SIM_SEEDS is not set: nothing to soak");
        return;
    };
    let first = number("SIM_START").unwrap_or(0);
    if env::var_os("SIM_SURVEY").is_some() {
        return survey(first, seeds);
    }
    let began = Instant::now();
    let said = Mutex::new(began);
    let crowd = run_all(first, seeds, None, |done| {
        let mut said = said.lock().expect("the lock is not poisoned");
        if said.elapsed() >= Duration::from_secs(1) {
            *said = Instant::now();
            println!("{done} of {seeds} seeds, {:.0} s", began.elapsed().as_secs_f64());
        }
    });
    println!("{}", crowd.cover.lines().collect::<Vec<_>>().join("\n"));
    println!("{} seeds in {:.1} s", crowd.runs, began.elapsed().as_secs_f64());
    if let Some((seed, violations)) = &crowd.failure {
        panic!("{}", explain(*seed, violations));
    }
}

/// Prints the first violation of each failed seed, to show what failures have in common.
fn survey(first: u64, seeds: u64) {
    let metrics = metrics();
    for seed in first..first + seeds {
        if let Some(violation) = run(seed, None, false, &metrics).violations.first() {
            println!("seed {seed}: {violation}");
        }
    }
}
