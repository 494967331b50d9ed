//! Standard output that is closed or on a full disk. Events are still handled, and lost lines are
//! counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure, eventually};
use crate::worker::{LIMIT, Output};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// Enough events for a log larger than the small disk.
const EVENTS: usize = 400;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "stdout-closed",
        injected: "standard output is closed from the start",
        must_hold: "every event is handled; exit code 0",
        is_short: true,
        run: |setting| Box::pin(closed(setting)),
    },
    Case {
        name: "stdout-full",
        injected: "standard output is /dev/full: every write fails with ENOSPC",
        must_hold: "every event is handled; the lost lines are counted; exit code 0",
        is_short: true,
        run: |setting| Box::pin(full(setting)),
    },
    Case {
        name: "disk-full",
        injected: "standard output is a file on a disk of 64 KiB that fills, and is emptied later",
        must_hold: "every event is handled; the lost lines are counted; once there is space, the log continues and says how many lines were lost",
        is_short: false,
        run: |setting| Box::pin(disk(setting)),
    },
];

async fn closed(setting: Setting) -> Result<Seen, Failed> {
    let account = with_output(&setting, Output::Closed, 0.0).await?;
    Ok(Seen::Held(account.to_string()))
}

async fn full(setting: Setting) -> Result<Seen, Failed> {
    let output = Output::To(PathBuf::from("/dev/full"));
    let account = with_output(&setting, output, 50.0).await?;
    Ok(Seen::Held(format!("{account}; at least 50 lines lost and counted")))
}

/// Handles 50 events and checks that at least `lines_lost` lines were counted as lost.
async fn with_output(
    setting: &Setting,
    output: Output,
    lines_lost: f64,
) -> Result<Account, Failed> {
    let mut world = World::start(setting).await?;
    let (mut launch, port) = world.launch()?;
    launch.output = output;
    let mut worker = world.start_worker(&launch, port)?;
    world.send_all(crowd("unsaid", 50));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    if lines_lost > 0.0 {
        worker.counts("worker_log_lines_dropped_total", &[], lines_lost).await?;
    }
    worker.leave(LIMIT).await?;
    Ok(account)
}

async fn disk(setting: Setting) -> Result<Seen, Failed> {
    let folder = setting.folder.join("small-disk");
    let Some(disk) = Disk::mount(&folder)? else {
        return Ok(Seen::LeftOut("a file system can only be mounted by root".to_owned()));
    };
    let file = disk.folder.join("log");
    let mut world = World::start(&setting).await?;
    let (mut launch, port) = world.launch()?;
    launch.output = Output::To(file.clone());
    let mut worker = world.start_worker(&launch, port)?;
    world.send_all(crowd("full", EVENTS));
    let before = Account::settled(&world, SETTLED_MAX).await?;
    worker.counts("worker_log_lines_dropped_total", &[], 1.0).await?;
    let lost = worker.metric("worker_log_lines_dropped_total", &[]).await.unwrap_or_default();
    let half_a_line = std::fs::read(&file)?.last() != Some(&b'\n');

    // Emptied as by a log rotation. The worker has it open for appending.
    std::fs::File::options().write(true).open(&file)?.set_len(0)?;
    let log = || std::fs::read_to_string(&file).unwrap_or_default();
    world.send_all(crowd("room", 20));
    Account::settled(&world, SETTLED_MAX).await?;
    eventually("the log continues", LIMIT, async || log().contains("Event processed successfully"))
        .await?;
    worker.leave(LIMIT).await?;
    let log = log();
    ensure(log.contains("Log lines were dropped"), || "the gap is not named".to_owned())?;
    // If the disk took half a line, the rest of it may come first.
    let whole = log.lines().skip(usize::from(half_a_line));
    for line in whole {
        let is_whole = serde_json::from_str::<serde_json::Value>(line).is_ok();
        ensure(is_whole, || format!("not a whole line: {line:.200}"))?;
    }
    ensure(log.lines().last().is_some_and(|line| line.contains("Stopped")), || {
        "its last line is missing".to_owned()
    })?;
    Ok(Seen::Held(format!("{before}; {lost} lines lost and counted, then the log continued")))
}

/// A very small disk; unmounted on drop.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts the disk; returns none without the permission for it.
    fn mount(folder: &Path) -> Result<Option<Self>, Failed> {
        std::fs::create_dir_all(folder)?;
        let options = ["-t", "tmpfs", "-o", "size=64k", "faults"];
        let is_mounted = run(Command::new("mount").args(options).arg(folder));
        Ok(is_mounted.then(|| Self { folder: folder.to_owned() }))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because the worker may not have been killed yet.
        run(Command::new("umount").arg("--lazy").arg(&self.folder));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
