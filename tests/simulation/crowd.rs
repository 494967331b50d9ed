//! Runs many seeds on all cores.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use reservation_worker::metrics::Metrics;
use reservation_worker::settle::DeadLetterReason;

use super::coverage::Coverage;
use super::plan::Plan;
use super::run::run;
use super::sabotage::Sabotage;

/// The result of many seeds.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) runs: u64,
    pub(crate) cover: Coverage,
    /// The lowest seed that failed, and its violations.
    pub(crate) failure: Option<(u64, Vec<String>)>,
}

/// The metrics of one thread's runs. A registry per run would be too expensive.
pub(crate) fn metrics() -> Arc<Metrics> {
    let reasons: Vec<_> = DeadLetterReason::all().map(DeadLetterReason::as_str).collect();
    Arc::new(Metrics::new(&reasons))
}

/// Runs the seeds `first..first + count` until one fails. Calls `tick` after each with the number
/// of finished runs.
pub(crate) fn run_all(
    first: u64,
    count: u64,
    sabotage: Option<Sabotage>,
    tick: impl Fn(u64) + Sync,
) -> Crowd {
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let crowd = Mutex::new(Crowd::default());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let metrics = metrics();
                let mut cover = Coverage::default();
                let mut runs = 0;
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let report = run(first + n, sabotage, false, &metrics);
                    cover.add(&report.cover);
                    runs += 1;
                    tick(done.fetch_add(1, Ordering::Relaxed) + 1);
                    if !report.violations.is_empty() {
                        stop.store(true, Ordering::Relaxed);
                        let mut crowd = crowd.lock().expect("the lock is not poisoned");
                        let lowest =
                            crowd.failure.as_ref().is_none_or(|(seed, _)| first + n < *seed);
                        if lowest {
                            crowd.failure = Some((first + n, report.violations));
                        }
                    }
                }
                let mut crowd = crowd.lock().expect("the lock is not poisoned");
                crowd.cover.add(&cover);
                crowd.runs += runs;
            });
        }
    });
    crowd.into_inner().expect("the lock is not poisoned")
}

/// The full report on a failed seed: violations, schedule, log and the command that replays it.
pub(crate) fn explain(seed: u64, violations: &[String]) -> String {
    let log = run(seed, None, true, &metrics()).log;
    let schedule = Plan::draw(seed).describe();
    format!(
        "seed {seed} failed:\n  {}\n\nschedule:\n{}\n\nlog:\n{}\n\nagain: SIM_SEED={seed} cargo test --features simulation --test simulation replay -- --exact --nocapture\n",
        violations.join("\n  "),
        schedule.join("\n"),
        log.join("\n"),
    )
}
