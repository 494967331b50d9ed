//! A container's memory limit, and messages of many times its size.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply;
use sandbox::script::Faults;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::worker::LIMIT;
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(240);

/// The memory limit of the container.
const LIMIT_BYTES: u64 = 64 << 20;

/// Size of a body: near the old limit of SQS, 256 KiB.
const BODY_BYTES: usize = 200_000;

/// `MAX_IN_FLIGHT_MB`: a quarter of the memory.
const BODIES_MB: u64 = 16;

pub(super) const CASES: &[Case] = &[Case {
    name: "memory",
    injected: "64 MiB of memory (cgroup), WORKER_CONCURRENCY=1000, MAX_IN_FLIGHT=10000, MAX_IN_FLIGHT_MB=16, 1000 messages of 200 KB, services that take 200 ms",
    must_hold: "it becomes slower and does not exit; every event is handled",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    let Some(container) = Container::new(LIMIT_BYTES) else {
        let why = "no memory cgroup can be made (root, and a hierarchy that can be written)";
        return Ok(Seen::LeftOut(why.to_owned()));
    };
    let mut world = World::start(&setting).await?;
    world.set("WORKER_CONCURRENCY", 1_000);
    world.set("MAX_IN_FLIGHT", 10_000);
    world.set("MAX_IN_FLIGHT_MB", BODIES_MB);
    world.set("SQS_VISIBILITY_TIMEOUT", 30);
    let slow = Duration::from_millis(200);
    world.api.set_faults(Faults::<Reply>::none().latency(slow, Duration::ZERO));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(slow, Duration::ZERO));
    let events = if setting.is_short { 200 } else { 1_000 };
    world.send_all(crowd("large", events).into_iter().map(|event| event.padded(BODY_BYTES)));

    let (mut launch, port) = world.launch()?;
    launch.before = format!("echo $$ > {}", container.folder.join("cgroup.procs").display());
    let mut worker = world.start_worker(&launch, port)?;
    let account = Account::settled(&world, SETTLED_MAX).await;
    ensure(!worker.has_ended()?, || format!("it exited:\n{}", worker.last_lines(5)))?;
    let account = account?;
    let peak_kb = container.peak_bytes().unwrap_or_default() / 1_024;
    ensure(peak_kb > 0, || "the process was not in its container".to_owned())?;
    worker.leave(LIMIT).await?;
    let took_in = events * BODY_BYTES / 1_000_000;
    Ok(Seen::Held(format!("{account}; {took_in} MB of bodies through it, peak {peak_kb} kB")))
}

/// A memory cgroup of version 1 or 2; removed on drop.
struct Container {
    folder: PathBuf,
}

impl Container {
    fn new(limit_bytes: u64) -> Option<Self> {
        let name = format!("reservation-worker-faults-{}", std::process::id());
        let (one, two) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (parent, limit) = if one.join("memory.limit_in_bytes").exists() {
            (one, "memory.limit_in_bytes")
        } else {
            // Fails if it is already enabled or not permitted. Setting the limit below shows which.
            let _ = fs::write(two.join("cgroup.subtree_control"), "+memory");
            (two, "memory.max")
        };
        let folder = parent.join(name);
        fs::create_dir(&folder).ok()?;
        let container = Self { folder };
        fs::write(container.folder.join(limit), limit_bytes.to_string()).ok()?;
        Some(container)
    }

    /// Returns the peak memory usage.
    fn peak_bytes(&self) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).ok();
        read("memory.max_usage_in_bytes").or_else(|| read("memory.peak"))?.trim().parse().ok()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The cgroup can be removed only after its last process has exited, which was just killed.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() || !self.folder.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
