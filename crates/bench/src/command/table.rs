//! Measures the worker, the floor and the plain loop under every load, and writes the table.
//!
//! `table [--worker PROGRAM] [--rounds N] [--quick] [--only WORD] [--logs FOLDER] [--out FILE]
//! [--check]`. With `--check`, the exit code is 1 if a budget is missed. `--only` runs the rows
//! with that word in the name of their load, contender or trial.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::Failure;
use crate::runner::budget::budgets;
use crate::runner::plan::{self, Programs};
use crate::runner::results::Results;
use crate::runner::round::Round;
use crate::runner::table::{Setting, page};
use crate::trials::{Trial, Tried};

struct Options {
    worker: PathBuf,
    rounds: usize,
    quick: bool,
    only: Option<String>,
    logs: PathBuf,
    out: Option<PathBuf>,
    check: bool,
}

pub(super) fn run(words: &[&str]) -> Result<ExitCode, Failure> {
    let options = options(words)?;
    let programs = Programs { worker: options.worker.clone(), own: std::env::current_exe()? };
    let mut rows = plan::rows(&programs, options.quick);
    let mut trials = Trial::ALL.to_vec();
    if let Some(word) = &options.only {
        rows.retain(|row| row.load.name.contains(word) || row.contender.name.contains(word));
        trials.retain(|trial| trial.name().contains(word));
    }
    let seen = |round: &Round| {
        // A closed pipe is not a failure.
        let _ = show(round);
    };
    let results = Results(plan::run(&rows, options.rounds, &programs.own, seen)?);
    let tried = tried(&trials, &options)?;
    let setting = Setting {
        rounds: options.rounds,
        version: version(&options.worker)?,
        binary_bytes: std::fs::metadata(&options.worker)?.len(),
        cores: std::thread::available_parallelism()?.get(),
        processor: processor(),
    };
    let page = page(&results, &tried, &setting);
    match &options.out {
        Some(file) => std::fs::write(file, &page)?,
        None => std::io::stdout().write_all(page.as_bytes())?,
    }
    let missed = budgets(&results, &tried, setting.is_profiled())
        .into_iter()
        .filter(|budget| !budget.holds())
        .count();
    writeln!(std::io::stdout(), "{missed} budgets missed")?;
    Ok(if options.check && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs each trial once.
fn tried(trials: &[Trial], options: &Options) -> Result<Vec<(Trial, Tried)>, Failure> {
    std::fs::create_dir_all(&options.logs)?;
    let worker = std::fs::canonicalize(&options.worker)?;
    let run = |trial: &Trial| {
        let named = |failed| format!("{}: {failed}", trial.name());
        let tried = trial.run(&worker, &options.logs).map_err(named)?;
        let Tried { measured, possible, .. } = &tried;
        writeln!(std::io::stdout(), "{}: {measured:.1} of {possible:.1}", trial.name())?;
        Ok((*trial, tried))
    };
    trials.iter().map(run).collect()
}

/// Returns a program's own version text.
pub(super) fn version(worker: &Path) -> Result<String, Failure> {
    let output = Command::new(worker).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn options(words: &[&str]) -> Result<Options, Failure> {
    let mut options = Options {
        worker: PathBuf::from("./reservation-worker"),
        rounds: 1,
        quick: false,
        only: None,
        logs: PathBuf::from("target/trials"),
        out: None,
        check: false,
    };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word {
            "--worker" => options.worker = value()?.into(),
            "--rounds" => options.rounds = value()?.parse()?,
            "--quick" => options.quick = true,
            "--only" => options.only = Some(value()?.to_owned()),
            "--logs" => options.logs = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            "--check" => options.check = true,
            other => return Err(format!("unknown argument: {other}").into()),
        }
    }
    Ok(options)
}

/// Returns the processor's name.
pub(super) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(
        || "an unknown processor".to_owned(),
        |name| name.trim_matches([' ', '\t', ':']).to_owned(),
    )
}

fn show(round: &Round) -> Result<(), Failure> {
    let Round { contender, load, events_per_s, of_limit, cpu_us, machine_busy, figures, .. } =
        round;
    Ok(writeln!(
        std::io::stdout(),
        "{load} {contender}: {events_per_s:.0} events/s, {of_limit:.3} of the limit, {cpu_us:.1} µs CPU, services {:.2} + {:.2} ms, machine {:.0}% busy",
        figures.rest_us / 1e3,
        figures.rpc_us / 1e3,
        machine_busy * 100.0
    )?)
}
