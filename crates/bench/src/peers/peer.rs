//! A program that is measured, how, and its figures.

use std::path::{Path, PathBuf};

use super::fate::Fates;

/// A program with its name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name in the table.
    pub name: String,
    /// The path of the program, which takes the worker's variables and no arguments.
    pub program: PathBuf,
    /// The first line that it prints for `--version`.
    pub version: String,
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The path of this program, which runs the cheap services.
    pub own: &'a Path,
    /// The folder for the programs' logs.
    pub folder: &'a Path,
    /// The length of a measurement under load; an outage is three times as long.
    pub seconds: u64,
}

/// The figures of one run of a program in a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Events done per second; none where the load does not ask for as many as possible.
    pub events_per_s: Option<f64>,
    /// Seconds that a good event took at most, or from the end of the fault to the last effect;
    /// none in rows that measure throughput.
    pub last_s: Option<f64>,
    /// CPU time of the program per event done, in microseconds.
    pub cpu_us: f64,
    /// Time from start to the first effect, in milliseconds; none where nothing can take effect at
    /// the start.
    pub first_effect_ms: Option<f64>,
    /// Peak memory of all its processes, in MB.
    pub rss_peak_mb: f64,
    /// Calls to SQS per event done.
    pub sqs_calls: f64,
    /// What became of the events.
    pub fates: Fates,
}

/// Returns the variables that a program needs to start, beside the worker's.
pub(super) fn variables() -> impl Iterator<Item = (&'static str, String)> {
    // Scripts look for `node` and `java` there.
    ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
}
