//! Formats the results as a Markdown page.

use std::fmt::Write;

use super::budget::{budgets, sqs_calls};
use super::plan::FLOOR;
use super::results::Results;
use super::round::Round;
use super::statistics::Summary;
use crate::services::{Spread, count};
use crate::trials::{Trial, Tried};

/// Facts about the measurement and the machine.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The number of rounds.
    pub rounds: usize,
    /// The output of the worker's `--version`.
    pub version: String,
    /// The size of the worker's binary in bytes.
    pub binary_bytes: u64,
    /// The number of cores.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
}

impl Setting {
    /// Returns whether the worker is laid out by a profile.
    #[must_use]
    pub fn is_profiled(&self) -> bool {
        self.version.contains("profile-guided")
    }
}

const HEAD: &str = "| load | who | events/s | of the limit | CPU µs/event | × floor | spread | added p50 / p99 / p99.9 ms | SQS calls an event: receive + delete + change | RSS, peak MB | first effect ms | services' CPU µs/event |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";

/// Each is run once, and fails where an event is lost, done twice, dead-lettered or left.
const TRIALS: &str = "Each once. Every event took effect once, or the row would have failed.\n\n| name | what is done, and what is measured | measured | possible | refused |\n| --- | --- | ---: | ---: | ---: |";

/// Formats the page.
#[must_use]
pub fn page(results: &Results, tried: &[(Trial, Tried)], setting: &Setting) -> String {
    let mut page = String::new();
    let mut put = |text: std::fmt::Arguments<'_>| {
        page.write_fmt(text).expect("writing to a String never fails");
    };
    let Setting { rounds, version, binary_bytes, cores, processor } = setting;
    let busy = super::statistics::summary(results.0.iter().map(|round| round.machine_busy));
    put(format_args!(
        "# Measured\n\nWritten by `make bench` and `make bench-full`. Medians of {rounds} interleaved rounds; the spread is the smallest and the largest CPU an event. {cores} cores of {processor}"
    ));
    if let Some(busy) = busy {
        put(format_args!(", {:.0}% busy in all (median)", busy.median * 100.0));
    }
    put(format_args!(
        ". The worker is {version}, of {:.1} MB.\n\n{HEAD}",
        count(*binary_bytes) / 1e6
    ));
    for (contender, load) in results.rows() {
        put(format_args!("{}\n", line(results, contender, load)));
    }
    if !tried.is_empty() {
        put(format_args!("\n## Services with a limit, or back after an outage\n\n{TRIALS}\n"));
    }
    for (trial, Tried { measured, possible, refused, .. }) in tried {
        put(format_args!(
            "| {} | {} | {measured:.1} | {possible:.1} | {:.1} % |\n",
            trial.name(),
            trial.about(),
            refused * 100.0
        ));
    }
    put(format_args!(
        "\n## Budgets\n\n| figure | budget | measured | |\n| --- | --- | ---: | --- |\n"
    ));
    for budget in budgets(results, tried, setting.is_profiled()) {
        put(format_args!("{budget}\n"));
    }
    page
}

fn line(results: &Results, contender: &str, load: &str) -> String {
    let median = |figure: &dyn Fn(&Round) -> f64| {
        results.summary(contender, load, figure).map_or(f64::NAN, |summary| summary.median)
    };
    let shown = |value: f64, digits: usize| {
        if value.is_finite() { format!("{value:.digits$}") } else { "-".to_owned() }
    };
    if load == "idle" {
        return format!(
            "| idle | {contender} | {} receives a minute | - | {} % of a core | - | - | - | - | {} | - | - |",
            shown(median(&|r| count(r.figures.receives) / r.figures.elapsed_s * 60.0), 1),
            shown(median(&|round| round.cores * 100.0), 3),
            memory(&median),
        );
    }
    let Some(Summary { min, max, .. }) = results.summary(contender, load, |round| round.cpu_us)
    else {
        return String::new();
    };
    let beside = results.ratio((contender, load), (FLOOR, load), |round| round.cpu_us);
    let calls = |figure: fn(&Round) -> u64| {
        shown(median(&move |round| count(figure(round)) / count(round.figures.effects)), 3)
    };
    // Services limit the throughput only if their calls take time.
    let limit = if load == "cpu-bound" { f64::NAN } else { median(&|round| round.of_limit) };
    format!(
        "| {load} | {contender} | {} | {} | {} | {} | {min:.0}-{max:.0} | {} | {}: {} + {} + {} | {} | {} | {} |",
        shown(median(&|round| round.events_per_s), 0),
        if load.starts_with("rate") { "-".to_owned() } else { shown(limit, 3) },
        shown(median(&|round| round.cpu_us), 1),
        beside.map_or_else(|| "-".to_owned(), |ratio| shown(ratio.median, 2)),
        latency(load, &median),
        shown(median(&sqs_calls), 3),
        calls(|round| round.figures.receives),
        calls(|round| round.figures.delete_calls),
        calls(|round| round.figures.change_calls),
        memory(&median),
        shown(median(&|round| round.first_effect_ms), 0),
        shown(median(&|round| round.services_cpu_us), 1),
    )
}

type Median<'a> = dyn Fn(&dyn Fn(&Round) -> f64) -> f64 + 'a;

fn memory(median: &Median<'_>) -> String {
    format!("{:.1}, {:.1}", median(&|round| round.rss_mb), median(&|round| round.rss_peak_mb))
}

/// Latency since visible under a rate; since received where there is always a backlog.
fn latency(load: &str, median: &Median<'_>) -> String {
    let is_rate = load.starts_with("rate");
    let spread = move |round: &Round| -> Spread {
        if is_rate { round.figures.since_visible } else { round.figures.since_received }
    };
    let ms =
        |figure: fn(Spread) -> u32| median(&move |round| f64::from(figure(spread(round))) / 1e3);
    format!("{:.2} / {:.2} / {:.2}", ms(|s| s.p50_us), ms(|s| s.p99_us), ms(|s| s.p999_us))
}
