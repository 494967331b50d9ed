//! One run of a contender under a load.

use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::contender::{Contender, Process, Redis, ServicesProcess};
use super::load::Load;
use super::system::machine_ticks;
use crate::services::{Figures, Source, count};

/// The results of a round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// The name of the contender.
    pub contender: String,
    /// The name of the load.
    pub load: &'static str,
    /// Events per second; of a burst, from the start of the contender to the last effect.
    pub events_per_s: f64,
    /// Share of the throughput that the services' measured times allow at this concurrency. Not a
    /// number if the services take no time.
    pub of_limit: f64,
    /// CPU time of the contender per event, in microseconds.
    pub cpu_us: f64,
    /// CPU time of the services per event.
    pub services_cpu_us: f64,
    /// CPU time of Redis per event; zero without Redis.
    pub redis_cpu_us: f64,
    /// CPU time of the contender, in cores.
    pub cores: f64,
    /// Memory of the contender in MB at the end.
    pub rss_mb: f64,
    /// Peak memory in MB.
    pub rss_peak_mb: f64,
    /// Time from start to the first effect, in milliseconds.
    pub first_effect_ms: f64,
    /// Load of the whole machine, as a share of all cores.
    pub machine_busy: f64,
    /// The counts of the services.
    pub figures: Figures,
}

struct Reading {
    contender: Duration,
    services: Duration,
    redis: Duration,
    machine: (u64, u64),
}

/// Runs `contender` under `load`, with the services of this program, `own`.
///
/// # Errors
/// If a program cannot be started, ends early or handles nothing.
pub fn run(contender: &Contender, load: &Load, own: &Path) -> io::Result<Round> {
    let redis = if contender.has_redis { Some(Redis::start()?) } else { None };
    let mut services = ServicesProcess::start(own, load)?;
    let ports = services.ports;
    let start = || contender.start(load, ports, redis.as_ref());
    let processes = (0..load.processes).map(|_| start()).collect::<io::Result<Vec<_>>>()?;
    let mut before = read(&processes, &services, redis.as_ref())?;
    let first_effect_ms = if load.source == Source::Idle {
        0.0
    } else {
        since_start_ms(&processes, services.first_effect()?)
    };
    let is_burst = matches!(load.source, Source::Burst { .. });
    // Of a burst all counts, from the start.
    if !is_burst {
        sleep(load.warm_up);
        services.mark()?;
        before = read(&processes, &services, redis.as_ref())?;
    }
    let pages_before = status_pages(&processes);
    let figures = if let Source::Burst { messages } = load.source {
        services.all_done(messages, load.measured)?
    } else {
        sleep(load.measured);
        services.figures()?
    };
    check_polls(pages_before, status_pages(&processes), load.measured)?;
    let after = read(&processes, &services, redis.as_ref())?;
    let memory = processes.iter().map(Process::memory_kb).collect::<io::Result<Vec<_>>>()?;
    let mb = |kb: u64| count(kb) * 1024.0 / 1e6;
    let per_event = |after: Duration, before: Duration| {
        // Not below zero where the time of an ended thread was rounded.
        after.saturating_sub(before).as_secs_f64() * 1e6 / count(figures.effects)
    };
    let elapsed_s = match figures.last_effect_at_s {
        Some(last) if is_burst => since_start_ms(&processes, last) / 1e3,
        _ => figures.elapsed_s,
    };
    let events_per_s = count(figures.effects) / elapsed_s;
    let service_s = (figures.rest_us + figures.rpc_us) / 1e6;
    let at_once = count(
        u64::try_from(load.concurrency * load.processes).expect("the product is a few thousand"),
    );
    let busy = count(after.machine.0 - before.machine.0);
    Ok(Round {
        contender: contender.name.clone(),
        load: load.name,
        events_per_s,
        of_limit: events_per_s * service_s / at_once,
        cpu_us: per_event(after.contender, before.contender),
        services_cpu_us: per_event(after.services, before.services),
        redis_cpu_us: per_event(after.redis, before.redis),
        cores: after.contender.saturating_sub(before.contender).as_secs_f64() / elapsed_s,
        rss_mb: mb(memory.iter().map(|(now, _)| now).sum()),
        rss_peak_mb: mb(memory.iter().map(|(_, peak)| peak).sum()),
        first_effect_ms,
        machine_busy: busy / (busy + count(after.machine.1 - before.machine.1)),
        figures,
    })
}

/// Counts the status pages that all processes have answered; `None` if they are not asked for any.
fn status_pages(processes: &[Process]) -> Option<u64> {
    processes.iter().map(Process::status_pages).sum()
}

/// Checks that the status was shown for at least half of the measured time: a round without its
/// polls would show that they cost nothing.
fn check_polls(before: Option<u64>, after: Option<u64>, measured: Duration) -> io::Result<()> {
    let Some(pages) = before.zip(after).map(|(before, after)| after - before) else {
        return Ok(());
    };
    if pages < measured.as_secs() / 2 {
        let text = format!("{pages} status pages were answered in {} s", measured.as_secs());
        return Err(io::Error::other(text));
    }
    Ok(())
}

fn read(
    processes: &[Process],
    services: &ServicesProcess,
    redis: Option<&Redis>,
) -> io::Result<Reading> {
    Ok(Reading {
        contender: processes.iter().map(Process::cpu_time).sum::<io::Result<_>>()?,
        services: services.process.cpu_time()?,
        redis: redis.map_or(Ok(Duration::ZERO), |redis| redis.process.cpu_time())?,
        machine: machine_ticks().ok_or_else(|| io::Error::other("no /proc/stat"))?,
    })
}

fn since_start_ms(processes: &[Process], effect_at_s: f64) -> f64 {
    let first = processes.iter().map(|process| process.started_at).min();
    let started = first.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    (effect_at_s - started.unwrap_or_default().as_secs_f64()) * 1e3
}
