//! Names that cannot be resolved for a while, and that lead elsewhere afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::proxy::{Proxy, Way};
use crate::world::{Setting, World, address};

const SETTLED_MAX: Duration = Duration::from_secs(120);

/// For how long no name is known.
const LASTS: Duration = Duration::from_secs(10);

/// What the worker calls its neighbours.
const NAMES: [&str; 3] = ["sqs.faults.test", "reservations.faults.test", "inventory.faults.test"];

pub(super) const CASES: &[Case] = &[Case {
    name: "dns",
    injected: "no name can be resolved for 10 s while every connection is reset; then Inventory's leads to another address",
    must_hold: "the worker lives, goes on by itself, and follows the name; each event takes effect once, nothing is set aside",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    // In a mount namespace of its own the worker sees these in place of the system's.
    let folder = setting.folder.join("names");
    std::fs::create_dir_all(&folder)?;
    let (hosts, servers) = (folder.join("hosts"), folder.join("resolv.conf"));
    // Nobody listens there: a question fails at once.
    std::fs::write(&servers, "nameserver 127.0.0.254\noptions timeout:1 attempts:1\n")?;
    write_hosts(&hosts, &["127.0.0.1"; 3])?;
    let mut world = World::start(&setting).await?;
    let there = SocketAddr::from(([127, 0, 0, 2], world.to_inventory.addr().port()));
    let elsewhere = Proxy::start_on(there, address(&world.inventory.addr())?).await?;
    let port = |proxy: &Proxy| proxy.addr().port();
    world.set("AWS_ENDPOINT_URL", format!("http://{}:{}", NAMES[0], port(&world.to_sqs)));
    world.set("RESERVATION_API_BASE", format!("http://{}:{}", NAMES[1], port(&world.to_api)));
    world.set("INVENTORY_GRPC_ADDR", format!("{}:{}", NAMES[2], port(&world.to_inventory)));
    let (mut launch, side_port) = world.launch()?;
    let mounts = format!(
        "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$0\"",
        hosts.display(),
        servers.display()
    );
    launch.before = format!("exec unshare --mount /bin/sh -c '{mounts}' \"$0\"");
    let mut worker = world.start_worker(&launch, side_port)?;
    if worker.says("Worker started").await.is_err()
        && worker.log().contains("Operation not permitted")
    {
        let why = "a mount namespace can only be made by root";
        return Ok(Seen::LeftOut(why.to_owned()));
    }
    world.send_all(crowd("before", 60));
    Account::settled(&world, SETTLED_MAX).await?;

    write_hosts(&hosts, &[])?;
    world.harm.begin();
    world.forget();
    world.send_all(crowd("nameless", 60));
    worker.says("Polling fails").await?;
    // How long it lasts is what is injected; there is no condition to wait for.
    tokio::time::sleep(LASTS).await;
    write_hosts(&hosts, &["127.0.0.1", "127.0.0.1", "127.0.0.2"])?;
    world.to_inventory.refuse().await?;
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let passed = elsewhere.traffic().passed(Way::ToServer);
    ensure(passed > 0, || "the name's new address was not used".to_owned())?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {passed} bytes went to the new address")))
}

/// In place: the file is mounted elsewhere.
fn write_hosts(path: &Path, addresses: &[&str]) -> std::io::Result<()> {
    let lines = addresses.iter().zip(NAMES).map(|(address, name)| format!("{address} {name}\n"));
    std::fs::write(path, lines.collect::<String>())
}
