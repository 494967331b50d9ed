//! The system clock, moved by an hour in both directions while events wait and leases are held. The
//! monotonic clock is not changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, Scripted};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// Offsets of the clock in order, in seconds.
const MOVES: [i32; 4] = [3_600, -3_600, 3_600, 0];

/// More than half a visibility timeout: leases are extended under each offset.
const BETWEEN_MOVES: Duration = Duration::from_secs(4);

pub(super) const CASES: &[Case] = &[Case {
    name: "clock",
    injected: "the system's clock is moved by an hour forward and back, every 4 s under load (libfaketime)",
    must_hold: "no lease is lost, no wait ends early or late; each event takes effect once, in one delivery",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    let Some(library) = library() else {
        return Ok(Seen::LeftOut("libfaketime is not installed (Debian: faketime)".to_owned()));
    };
    let offset = setting.folder.join("clock");
    std::fs::write(&offset, "+0")?;
    let mut world = World::start(&setting).await?;
    let (least, spread) = (Duration::from_millis(20), Duration::from_millis(200));
    let error = Scripted::<Reply>::status(500);
    world.api.set_faults(Faults::<Reply>::none().latency(least, spread).seed(1).with(0.2, error));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(least, spread).seed(2));
    // Many events wait for seconds, so leases are extended meanwhile.
    world.set("BACKOFF_BASE_MS", 4_000);
    world.set("BACKOFF_MAX_MS", 8_000);
    let (mut launch, port) = world.launch()?;
    launch.variables.insert("LD_PRELOAD", library.display().to_string());
    launch.variables.insert("FAKETIME_TIMESTAMP_FILE", offset.display().to_string());
    launch.variables.insert("FAKETIME_NO_CACHE", "1".to_owned());
    launch.variables.insert("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned());
    let mut worker = world.start_worker(&launch, port)?;
    worker.says("Worker started").await?;
    for (number, seconds) in MOVES.into_iter().enumerate() {
        // Replaced atomically: the worker reads the file whenever it reads the clock.
        let next = setting.folder.join("clock-next");
        std::fs::write(&next, format!("{seconds:+}"))?;
        std::fs::rename(&next, &offset)?;
        world.send_all(crowd(&format!("moved_{number}"), 100));
        // The duration is part of the fault; there is no condition to wait for.
        tokio::time::sleep(BETWEEN_MOVES).await;
    }
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let hours = hours_in(&worker.log());
    ensure(hours >= 3, || format!("the clock was not moved: the log is of {hours} hours"))?;
    let (deliveries, sent) = (account.deliveries, account.sent);
    ensure(usize::try_from(deliveries) == Ok(sent), || {
        format!("{deliveries} deliveries of {sent} messages")
    })?;
    let extended = worker.metric("worker_lease_extensions_total", &[]).await.unwrap_or_default();
    ensure(extended > 0.0, || "no lease was extended meanwhile".to_owned())?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {extended} leases extended meanwhile")))
}

/// Counts the different hours in the timestamps of the log.
fn hours_in(log: &str) -> usize {
    let hour = |line: &str| line.get("{\"ts\":\"2024-01-01T".len()..)?.get(..2).map(str::to_owned);
    log.lines().filter_map(hour).collect::<std::collections::BTreeSet<String>>().len()
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|it| it.path());
    let in_it = |folder: &Path| folder.join("faketime/libfaketimeMT.so.1");
    folders.map(|folder| in_it(&folder)).find(|path| path.is_file())
}
