//! The demo's run: servers, the worker's process, the burst, the waits and the end. `world` has the
//! servers and their faults, `mail` sends, `balance` checks.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::balance::Balance;
use super::mail::Mail;
use super::options::Options;
use super::report::{self, Screen};
use super::workload::Workload;
use super::world::World;
use crate::servers::StartError;

/// Time limit for the worker's shutdown.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);
/// Interval of progress updates and of checks for an empty queue and due messages.
const TICK: Duration = Duration::from_millis(50);
/// Log lines that are shown if the worker dies.
const LOG_LINES_SHOWN: usize = 15;

/// Why a run has no balance.
#[derive(Debug)]
pub enum DemoError {
    /// A server could not be started.
    Servers(StartError),
    /// The worker could not be started, or stdout could not be written.
    Io(io::Error),
    /// The worker ended by itself.
    WorkerEnded(ExitStatus, Vec<String>),
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl fmt::Display for DemoError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers(error) => write!(out, "{error}"),
            Self::Io(error) => write!(out, "{error}"),
            Self::WorkerEnded(status, lines) => {
                write!(out, "the worker ended by itself ({status}); the end of its log:")?;
                lines.iter().try_for_each(|line| write!(out, "\n  {line}"))
            }
            Self::Interrupted => write!(out, "interrupted"),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs and shows the demo. Returns true if the ledger balances and the worker exited with code 0.
///
/// # Errors
///
/// If there is nothing to check. The worker's process is ended in every case.
pub async fn run(options: &Options) -> Result<bool, DemoError> {
    let deadline = Instant::now() + options.time_limit;
    let mut screen = Screen::default();
    let workload = Workload::new(options.events, options.seed);
    let world = World::start().await.map_err(DemoError::Servers)?;
    world.misbehave(options.seed);
    let log =
        std::env::temp_dir().join(format!("reservation-worker-demo-{}.log", std::process::id()));
    let (mut worker, port) = world.start_worker(options, &log)?;
    screen.line(&format!(
        "{} events (seed {}) through {} (pid {}), its log: {}",
        options.events,
        options.seed,
        options.worker.display(),
        worker.pid(),
        log.display()
    ))?;
    screen.line(&format!("what it does, while it runs: http://localhost:{port}/status"))?;

    let mut mail = Mail::new(&workload);
    let in_time = tokio::select! {
        ended = worker.wait() => return Err(DemoError::WorkerEnded(ended?, worker.last_lines(LOG_LINES_SHOWN))),
        interrupted = interrupted() => return Err(interrupted?),
        () = sleep_until(deadline) => false,
        driven = drive(&world, &mut mail, &mut screen) => driven.map(|()| true)?,
    };
    if !in_time {
        screen.line(&format!("not done after {} s", options.time_limit.as_secs()))?;
    }

    worker.terminate();
    let asked = Instant::now();
    let left = tokio::select! {
        left = worker.wait_at_most(LEAVE_LIMIT) => left?,
        interrupted = interrupted() => return Err(interrupted?),
    };
    let clean = left.is_some_and(|status| status.success());
    screen.line(&match left {
        Some(status) => {
            format!("SIGTERM: the worker left after {} ms ({status})", asked.elapsed().as_millis())
        }
        None => format!("SIGTERM: the worker had not left after {} s", LEAVE_LIMIT.as_secs()),
    })?;
    let balance = world.judge(&mail);
    screen
        .line(&format!("\n{}", report::table(&workload.events, workload.messages(), &balance)))?;
    conclude(&mut screen, &balance, clean)?;
    Ok(in_time && clean && balance.holds())
}

fn conclude(screen: &mut Screen, balance: &Balance, clean: bool) -> io::Result<()> {
    if !balance.holds() {
        screen.line(&format!(
            "the ledger does NOT balance:\n{}",
            report::problems(balance).trim_end()
        ))?;
    } else if clean {
        screen.line("the ledger balances: every event took effect once, nothing was lost")?;
    } else {
        screen.line("the ledger balances, but the worker did not leave with exit code 0")?;
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> io::Result<DemoError> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminated.recv() => {}
    }
    Ok(DemoError::Interrupted)
}

/// Sends all messages at their times. Returns when the queue is empty and the services have no open
/// call.
async fn drive(world: &World, mail: &mut Mail<'_>, screen: &mut Screen) -> Result<(), DemoError> {
    let started = Instant::now();
    let mut changes = world.servers.ledger.changes();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // One event before the burst: when it has arrived, the worker is running, so its start does not
    // count as latency.
    mail.send_first(world);
    while world.servers.ledger.totals().effects == 0 {
        changes.changed().await.expect("the ledger keeps the sender");
    }
    screen.line(&format!("first effect {} ms after the start", started.elapsed().as_millis()))?;
    mail.send_burst(world);
    loop {
        mail.send_due(world);
        let left = world.servers.sqs.counts(&world.servers.queue_url).total();
        let totals = world.servers.ledger.totals();
        if mail.all_sent() && left == 0 && totals.in_progress == 0 {
            return Ok(screen.progress(&world.progress(mail))?);
        }
        tick.tick().await;
        screen.progress(&world.progress(mail))?;
    }
}
