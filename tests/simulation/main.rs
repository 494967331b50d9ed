//! The proof of the engine: it runs in a simulated world where everything goes wrong that may, and
//! must keep each of its promises. Every choice comes from one seed, so that a failure can be seen
//! again: `SIM_SEED=n cargo test --features simulation --test simulation replay -- --exact --nocapture`.
//!
//! `soak` runs as many seeds as `SIM_SEEDS` says, from `SIM_START` on.
//!
//! - `plan`: what a seed says will happen, drawn by `draw`. `rows`: the answers that services give.
//! - `world`: what all parts share. `queue`, `visible` and `sqs`, `services` and `calls`: a part's state and
//!   its checks, and how calls to it travel. `turn`: what may be called, and when. `judge`: what the engine must make of an answer. `order`: who goes first.
//! - `store`: the state of the store that all pods share; `shared`: how operations travel to it;
//!   `other`: who else uses it; `guard`: what it forbids; `store_plan`: what a seed says of it.
//! - `run`: one seed. `sabotage`: engines that are broken on purpose. `check`: what is asked at the end. `coverage`: what was met. `crowd`: many
//!   seeds on all cores.

// A soak shows how far it is, and a replay what happened.
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

/// The seeds of `make test`.
const SEEDS: u64 = 1_000;

/// Those of them in which one action of the queue fails.
const SEEDS_HALF_WELL: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a whole number")))
}

#[test]
fn a_thousand_seeds_keep_every_promise() {
    let crowd = run_all(0, SEEDS, None, |_| ());
    if let Some((seed, violations)) = &crowd.failure {
        panic!("{}", explain(*seed, violations));
    }
    println!("{}", crowd.cover.lines().collect::<Vec<_>>().join("\n"));
    let missing = crowd.cover.missing();
    assert!(missing.is_empty(), "met too seldom to prove anything: {missing:#?}");
}

#[test]
fn a_queue_that_is_half_well_costs_no_good_event() {
    let crowd = run_all(half_well::FIRST, SEEDS_HALF_WELL, None, |_| ());
    if let Some((seed, violations)) = &crowd.failure {
        panic!("{}", explain(*seed, violations));
    }
    for what in ["no receive", "no extension", "no delete", "no copy", "no attributes"] {
        let name = format!("half well: {what}");
        assert!(crowd.cover.count(&name) > 100, "{name}: {}", crowd.cover.count(&name));
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let metrics = metrics();
    for seed in 0..50 {
        let (first, second) = (run(seed, None, true, &metrics), run(seed, None, true, &metrics));
        let differs = first.log.iter().zip(&second.log).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}");
        assert!(first.cover == second.cover, "seed {seed}");
    }
}

#[test]
fn a_broken_engine_is_caught() {
    for sabotage in Sabotage::ALL {
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
        let mut said = said.lock().expect("no panic under it");
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

/// What each of the seeds that fail does wrong first: for finding out what they have in common.
fn survey(first: u64, seeds: u64) {
    let metrics = metrics();
    for seed in first..first + seeds {
        if let Some(violation) = run(seed, None, false, &metrics).violations.first() {
            println!("seed {seed}: {violation}");
        }
    }
}
