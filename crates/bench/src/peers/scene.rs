//! A world with the processes of one program.

use std::time::Duration;

use faults::failed::Failed;
use faults::world::{self, Started, World};
use tokio::time::Instant;

use super::peer::{Peer, Setting, variables};
use crate::runner::system;
use crate::services::count;

/// Receives after which SQS dead-letters a message, as the README advises.
const RECEIVES_MAX: u32 = 10;
/// Lines of a program's output that an error shows.
const LINES: usize = 5;

/// The world, the processes that run in it, and what an ended one has used.
pub(crate) struct Scene {
    pub(crate) world: World,
    running: Vec<Started>,
    started_at: Option<Instant>,
    cpu_of_ended: Duration,
    peak_kb_of_ended: u64,
}

/// Counts so far.
pub(crate) struct Reading {
    pub(crate) at: Instant,
    pub(crate) effects: u64,
    pub(crate) sqs_calls: u64,
    pub(crate) cpu: Duration,
}

impl Scene {
    /// Starts the world. The programs get the worker's defaults, and reach all servers directly.
    pub(crate) async fn new(peer: &Peer, setting: &Setting<'_>) -> Result<Self, Failed> {
        let program = peer.program.clone();
        let folder = setting.folder.to_owned();
        let setting = world::Setting { program, folder, is_short: false };
        let mut world = World::redriving(&setting, RECEIVES_MAX).await?;
        world.use_defaults();
        world.use_no_proxies();
        world.variables.remove("SQS_WAIT_TIME");
        world.variables.extend(variables());
        Ok(Self {
            world,
            running: Vec::new(),
            started_at: None,
            cpu_of_ended: Duration::ZERO,
            peak_kb_of_ended: 0,
        })
    }

    /// Lets new processes reach both services through proxies, which can refuse.
    pub(crate) fn use_proxies(&mut self) {
        let world = &mut self.world;
        world.set("RESERVATION_API_BASE", format!("http://{}", world.to_api.addr()));
        world.set("INVENTORY_GRPC_ADDR", world.to_inventory.addr());
    }

    /// Starts a process.
    pub(crate) fn start(&mut self) -> Result<(), Failed> {
        self.started_at.get_or_insert_with(Instant::now);
        self.running.push(self.world.worker()?);
        Ok(())
    }

    /// Returns when the first process was started.
    pub(crate) fn started_at(&self) -> Instant {
        self.started_at.expect("every row starts a process first")
    }

    /// Ends all processes with SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<(), Failed> {
        self.cpu_of_ended = self.cpu()?;
        self.peak_kb_of_ended = self.peak_kb()?;
        for mut process in self.running.drain(..) {
            process.kill().await?;
        }
        Ok(())
    }

    /// Returns the counts so far.
    pub(crate) fn reading(&self) -> Result<Reading, Failed> {
        Ok(Reading {
            at: Instant::now(),
            effects: self.world.ledger.totals().effects,
            sqs_calls: self.world.sqs.ledger(&self.world.queue).requests
                + self.world.sqs.ledger(&self.world.dlq).requests,
            cpu: self.cpu()?,
        })
    }

    /// Returns the peak memory of all processes in MB.
    pub(crate) fn rss_peak_mb(&self) -> Result<f64, Failed> {
        Ok(count(self.peak_kb()?) * 1024.0 / 1e6)
    }

    /// Returns the last lines of the first process.
    pub(crate) fn last_lines(&self) -> String {
        self.running.first().map_or_else(String::new, |process| process.last_lines(LINES))
    }

    fn cpu(&self) -> Result<Duration, Failed> {
        let all = self.each(system::cpu_time)?;
        Ok(self.cpu_of_ended + all.into_iter().sum::<Duration>())
    }

    fn peak_kb(&self) -> Result<u64, Failed> {
        let all = self.each(|pid| system::memory_kb(pid).map(|(_, peak)| peak))?;
        Ok(self.peak_kb_of_ended.max(all.into_iter().sum()))
    }

    /// Returns a figure of each process.
    fn each<T>(&self, figure: impl Fn(u32) -> Option<T>) -> Result<Vec<T>, Failed> {
        let of = |process: &Started| {
            let pid = u32::try_from(process.pid().as_raw_nonzero().get()).ok()?;
            figure(pid)
        };
        let found: Option<Vec<T>> = self.running.iter().map(of).collect();
        found.ok_or_else(|| Failed(format!("a program ended:\n{}", self.last_lines())))
    }
}
