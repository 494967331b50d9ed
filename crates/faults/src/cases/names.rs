//! DNS names that cannot be resolved for a while, change their address, or have several addresses.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::proxy::{Proxy, Way};
use crate::world::{Setting, Started, World, address};

const SETTLED_MAX: Duration = Duration::from_secs(120);

/// Duration of the fault.
const LASTS: Duration = Duration::from_secs(10);

/// Names of the worker's dependencies.
const NAMES: [&str; 3] = ["sqs.faults.test", "reservations.faults.test", "inventory.faults.test"];

const NOT_ROOT: &str = "a mount namespace can only be made by root";

/// Maximum time until a new address gets calls: 30 s between two resolutions, plus connecting.
const FOUND_MAX: Duration = Duration::from_secs(32);

pub(super) const CASES: &[Case] = &[DNS, HEADLESS];

const DNS: Case = Case {
    name: "dns",
    injected: "no name can be resolved for 10 s while every connection is reset; then Inventory's leads to another address",
    must_hold: "the worker does not exit, continues without a restart, and uses the new address; each event takes effect once, nothing is set aside",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
};

const HEADLESS: Case = Case {
    name: "grpc-headless",
    injected: "Inventory's name has two addresses; a third is added while all connections last; then the first refuses and its connection is reset",
    must_hold: "both have a connection each; the third gets calls within 30 s though no connection ended; of the calls after the reset none fails",
    is_short: false,
    run: |setting| Box::pin(headless(setting)),
};

async fn run(setting: Setting) -> Result<Seen, Failed> {
    // In its own mount namespace, the worker sees these files in place of the system's.
    let folder = setting.folder.join("names");
    std::fs::create_dir_all(&folder)?;
    let (hosts, servers) = (folder.join("hosts"), folder.join("resolv.conf"));
    // No server listens there, so a query fails at once.
    std::fs::write(&servers, "nameserver 127.0.0.254\noptions timeout:1 attempts:1\n")?;
    write_hosts(&hosts, &["127.0.0.1"; 3])?;
    let mut world = World::start(&setting).await?;
    let elsewhere = another_address(&world, 2).await?;
    let Some(mut worker) = named(&mut world, &hosts, &servers).await? else {
        return Ok(Seen::LeftOut(NOT_ROOT.to_owned()));
    };
    world.send_all(crowd("before", 60));
    Account::settled(&world, SETTLED_MAX).await?;

    write_hosts(&hosts, &[])?;
    world.harm.begin();
    world.forget();
    world.send_all(crowd("nameless", 60));
    worker.says("Polling fails").await?;
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(LASTS).await;
    write_hosts(&hosts, &["127.0.0.1", "127.0.0.1", "127.0.0.2"])?;
    world.to_inventory.refuse().await?;
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let passed = elsewhere.traffic().passed(Way::ToServer);
    ensure(passed > 0, || "the name's new address was not used".to_owned())?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {passed} bytes went to the new address")))
}

/// Starts a proxy to the Inventory service on another loopback address with the same port.
async fn another_address(world: &World, last: u8) -> Result<Proxy, Failed> {
    let there = SocketAddr::from(([127, 0, 0, last], world.to_inventory.addr().port()));
    Ok(Proxy::start_on(there, address(&world.inventory.addr())?).await?)
}

/// Starts a worker that uses names, resolved by these files; none without the permission for it.
async fn named(world: &mut World, hosts: &Path, servers: &Path) -> Result<Option<Started>, Failed> {
    let port = |proxy: &Proxy| proxy.addr().port();
    world.set("AWS_ENDPOINT_URL", format!("http://{}:{}", NAMES[0], port(&world.to_sqs)));
    world.set("RESERVATION_API_BASE", format!("http://{}:{}", NAMES[1], port(&world.to_api)));
    world.set("INVENTORY_GRPC_ADDR", format!("{}:{}", NAMES[2], port(&world.to_inventory)));
    let (mut launch, admin_port) = world.launch()?;
    let mounts = format!(
        "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$0\"",
        hosts.display(),
        servers.display()
    );
    launch.before = format!("exec unshare --mount /bin/sh -c '{mounts}' \"$0\"");
    let worker = world.start_worker(&launch, admin_port)?;
    let started = worker.says("Worker started").await;
    if started.is_err() && worker.log().contains("Operation not permitted") {
        return Ok(None);
    }
    started?;
    Ok(Some(worker))
}

async fn headless(setting: Setting) -> Result<Seen, Failed> {
    let folder = setting.folder.join("headless");
    std::fs::create_dir_all(&folder)?;
    let (hosts, servers) = (folder.join("hosts"), folder.join("resolv.conf"));
    std::fs::write(&servers, "nameserver 127.0.0.254\noptions timeout:1 attempts:1\n")?;
    let write = |inventory: &[&str]| {
        let others = ["127.0.0.1"; 2].into_iter().zip(NAMES);
        let inventory = inventory.iter().map(|address| (*address, NAMES[2]));
        write_lines(&hosts, others.chain(inventory))
    };
    write(&["127.0.0.1", "127.0.0.2"])?;
    let mut world = World::start(&setting).await?;
    let (second, third) = (another_address(&world, 2).await?, another_address(&world, 3).await?);
    let Some(mut worker) = named(&mut world, &hosts, &servers).await? else {
        return Ok(Seen::LeftOut(NOT_ROOT.to_owned()));
    };
    world.send_all(crowd("before", 100));
    Account::settled(&world, SETTLED_MAX).await?;
    write(&["127.0.0.1", "127.0.0.2", "127.0.0.3"])?;
    let added = Instant::now();
    let mut sent = 0;
    while third.traffic().passed(Way::ToServer) == 0 && added.elapsed() < FOUND_MAX {
        world.send_all(crowd(&format!("added_{sent}"), 5));
        sent += 1;
        Account::settled(&world, SETTLED_MAX).await?;
    }
    let found = added.elapsed();
    let opened = [&world.to_inventory, &second, &third].map(|proxy| proxy.traffic().opened);
    ensure(opened == [1, 1, 1], || format!("connections to the three addresses: {opened:?}"))?;
    world.harm.begin();
    world.to_inventory.refuse().await?;
    let before = third.traffic().passed(Way::ToServer);
    world.send_all(crowd("after", 300));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let failed = worker.metric("worker_events_total", &["outcome=\"retried\""]).await;
    ensure(failed.unwrap_or_default() == 0.0, || format!("{failed:?} events were retried"))?;
    ensure(worker.said("Service is away") == 0, || "a dead address was an outage".to_owned())?;
    let shared = third.traffic().passed(Way::ToServer) > before;
    ensure(shared, || "the new address was not used any more".to_owned())?;
    worker.leave(SETTLED_MAX).await?;
    let found = found.as_secs_f64();
    Ok(Seen::Held(format!("{account}; the new address had calls after {found:.1} s")))
}

/// Writes the file in place, because it is mounted elsewhere.
fn write_lines<'a>(
    path: &Path,
    lines: impl Iterator<Item = (&'a str, &'a str)>,
) -> std::io::Result<()> {
    let lines = lines.map(|(address, name)| format!("{address} {name}\n"));
    std::fs::write(path, lines.collect::<String>())
}

fn write_hosts(path: &Path, addresses: &[&str]) -> std::io::Result<()> {
    write_lines(path, addresses.iter().copied().zip(NAMES))
}
