//! The plan: which contender runs under which load.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::contender::Contender;
use super::load::Load;
use super::round::{self, Round};

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The program.
    pub contender: Contender,
    /// Its load.
    pub load: Load,
}

/// The worker with default settings.
pub const WORKER: &str = "worker";
/// The floor.
pub const FLOOR: &str = "floor";
/// The plain loop.
pub const PLAIN: &str = "plain loop";
/// The worker with its records in Redis.
pub const WITH_REDIS: &str = "worker, Redis";
/// The worker on two threads.
pub const TWO_THREADS: &str = "worker, 2 threads";
/// The worker while its status page is open.
pub const WITH_STATUS_POLL: &str = "worker, status page open";
/// The worker with a sampling ratio above zero: names and ratios.
pub const TRACED: [(&str, &str); 2] = [("worker, traces 10%", "0.1"), ("worker, traces 100%", "1")];

/// Duration of the idle measurement in a quick run.
const IDLE_QUICK: Duration = Duration::from_secs(25);

/// Paths of the programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The worker.
    pub worker: PathBuf,
    /// This program: both yardsticks and the services.
    pub own: PathBuf,
}

impl Programs {
    fn contender(&self, name: &str) -> Contender {
        match name {
            FLOOR => Contender::new(name, &self.own).argument("floor"),
            PLAIN => Contender::new(name, &self.own).argument("plain"),
            _ => Contender::new(name, &self.worker),
        }
    }
}

/// Returns all rows of the table.
#[must_use]
pub fn rows(programs: &Programs, quick: bool) -> Vec<Row> {
    let load = |name: &str| Load::named(name).expect("every name below is the name of a load");
    let row = |contender: Contender, name| Row { contender, load: load(name) };
    let mut rows = Vec::new();
    for name in ["rate-50", "saturated-20", "saturated-100", "cpu-bound"] {
        rows.extend([WORKER, FLOOR, PLAIN].map(|who| row(programs.contender(who), name)));
    }
    for name in ["saturated-20", "cpu-bound"] {
        rows.push(row(programs.contender(TWO_THREADS).with("WORKER_THREADS", "2"), name));
    }
    for name in ["backlog-1000", "backlog-10000", "backlog-100000"] {
        rows.push(row(programs.contender(WORKER), name));
    }
    rows.extend([WORKER, FLOOR, PLAIN].map(|who| row(programs.contender(who), "burst-10000")));
    for name in ["rate-500", "saturated-20"] {
        let mut with_redis = programs.contender(WITH_REDIS);
        with_redis.has_redis = true;
        rows.push(row(with_redis, name));
    }
    rows.push(row(programs.contender(WORKER), "rate-500"));
    for (name, ratio) in TRACED {
        let traced = programs.contender(name).with("OTEL_TRACES_SAMPLER_ARG", ratio);
        rows.push(row(traced, "saturated-20"));
    }
    let mut polled = programs.contender(WITH_STATUS_POLL);
    polled.is_polled = true;
    rows.push(row(polled, "saturated-20"));
    for name in ["processes-2", "processes-3", "processes-4"] {
        rows.push(row(programs.contender(WORKER), name));
    }
    let mut idle = load("idle");
    if quick {
        idle.measured = IDLE_QUICK;
    }
    rows.push(Row { contender: programs.contender(WORKER), load: idle });
    rows
}

/// Runs all rows `rounds` times, in turn; every second round goes from last to first.
///
/// The idle row runs only once: it takes two minutes and is not compared with other rows.
///
/// # Errors
/// The cause that stopped a round; the text names the row.
pub fn run(
    rows: &[Row],
    rounds: usize,
    own: &Path,
    mut seen: impl FnMut(&Round),
) -> io::Result<Vec<Round>> {
    let mut results = Vec::new();
    for number in 0..rounds {
        let mut order: Vec<&Row> =
            rows.iter().filter(|row| number == 0 || row.load.name != "idle").collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for Row { contender, load } in order {
            let named = |error: io::Error| {
                let what = format!("{} under {}: {error}", contender.name, load.name);
                io::Error::new(error.kind(), what)
            };
            let round = round::run(contender, load, own).map_err(named)?;
            seen(&round);
            results.push(round);
        }
    }
    Ok(results)
}
