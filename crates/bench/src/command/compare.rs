//! `compare ROUNDS LOAD A B`: runs the worker in two ways, in turn, under one load, and shows the
//! cost of B relative to A.
//!
//! A and B are each `PROGRAM[,redis][,status-poll][,NAME=VALUE]...`. PROGRAM is a path, `floor`,
//! `plain`, or `plain-1`: the plain loop on one thread, which is the cost of the libraries alone.
//! LOAD is a name of `load::named`. With `status-poll`, `/status` is asked for once a second.

use std::io::Write;
use std::path::Path;

use super::Failure;
use crate::runner::contender::Contender;
use crate::runner::load::Load;
use crate::runner::round::{Round, run};
use crate::runner::statistics::summary;

type Figure = (&'static str, fn(&Round) -> f64);

const FIGURES: [Figure; 9] = [
    ("events/s", |round| round.events_per_s),
    ("of limit", |round| round.of_limit),
    ("CPU us/event", |round| round.cpu_us),
    ("services' CPU us", |round| round.services_cpu_us),
    ("Redis's CPU us", |round| round.redis_cpu_us),
    ("latency p50 us", |round| f64::from(round.figures.since_received.p50_us)),
    ("latency p99 us", |round| f64::from(round.figures.since_received.p99_us)),
    ("RSS peak MB", |round| round.rss_peak_mb),
    ("first effect ms", |round| round.first_effect_ms),
];

pub(super) fn run_pairs(words: &[&str]) -> Result<(), Failure> {
    let [rounds, load, a, b] = words else {
        return Err("compare ROUNDS LOAD A B".into());
    };
    let load = Load::named(load).ok_or("no such load")?;
    let services = std::env::current_exe()?;
    let contenders = [contender("A", a)?, contender("B", b)?];
    let mut results: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
    for number in 0..rounds.parse()? {
        for turn in 0..2 {
            // A and B alternate in going first.
            let which = (turn + number) % 2;
            let round = run(&contenders[which], &load, &services)?;
            show(&round)?;
            results[which].push(round);
        }
    }
    for (name, figure) in FIGURES {
        let of = |which: usize| summary(results[which].iter().map(figure));
        let pairs = results[0].iter().zip(&results[1]);
        let ratio = summary(pairs.map(|(a, b)| figure(b) / figure(a)));
        let (Some(a), Some(b), Some(ratio)) = (of(0), of(1), ratio) else { continue };
        say(&format!(
            "{name:>18}: A {:9.2} ({:.2}-{:.2})  B {:9.2} ({:.2}-{:.2})  B/A {:.3} ({:.3}-{:.3})",
            a.median, a.min, a.max, b.median, b.min, b.max, ratio.median, ratio.min, ratio.max
        ))?;
    }
    Ok(())
}

fn contender(name: &str, text: &str) -> Result<Contender, Failure> {
    let mut parts = text.split(',');
    let own = std::env::current_exe()?;
    let mut contender = match parts.next() {
        Some("floor") => Contender::new(name, &own).argument("floor"),
        Some("plain") => Contender::new(name, &own).argument("plain"),
        Some("plain-1") => Contender::new(name, &own).argument("plain-1"),
        Some(program) => Contender::new(name, Path::new(program)),
        None => return Err("no program".into()),
    };
    for part in parts {
        match part.split_once('=') {
            Some((name, value)) => contender = contender.with(name, value),
            None if part == "redis" => contender.has_redis = true,
            None if part == "status-poll" => contender.is_polled = true,
            None => return Err(format!("{part}: `redis`, `status-poll`, or NAME=VALUE").into()),
        }
    }
    Ok(contender)
}

fn show(round: &Round) -> Result<(), Failure> {
    let Round { contender, events_per_s, of_limit, cpu_us, machine_busy, figures, .. } = round;
    say(&format!(
        "{contender}: {events_per_s:.0} events/s, {of_limit:.3} of the limit, {cpu_us:.1} us CPU, p50 {} us; machine {:.0}% busy",
        figures.since_received.p50_us,
        machine_busy * 100.0
    ))
}

fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
