//! gRPC connections in a cluster: closed with GOAWAY, lost silently, or moved to another address.

use std::time::{Duration, Instant};

use sandbox::inventory::{ConnectionLife, Inventory, Reply as RpcReply};
use sandbox::script::Faults;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::proxy::Course;
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(90);
const EVENTS: usize = 500;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "grpc-goaway",
        injected: "Inventory ends each connection (GOAWAY) after 7 calls",
        must_hold: "each event takes effect once, nothing waits",
        is_short: false,
        run: |setting| {
            Box::pin(ends(setting, ConnectionLife { calls_max: Some(7), age_max: None }))
        },
    },
    Case {
        name: "grpc-max-age",
        injected: "Inventory ends each connection (GOAWAY) after 50 ms",
        must_hold: "the same",
        is_short: false,
        run: |setting| {
            let age_max = Some(Duration::from_millis(50));
            Box::pin(ends(setting, ConnectionLife { calls_max: None, age_max }))
        },
    },
    Case {
        name: "grpc-half-open",
        injected: "all packets of the open connections to Inventory are dropped, new connections work",
        must_hold: "they are given up within 30 s; each event takes effect once, nothing is set aside",
        is_short: false,
        run: |setting| Box::pin(half_open(setting)),
    },
    Case {
        name: "grpc-restart",
        injected: "Inventory restarts on the same address, five times under load; then on another",
        must_hold: "each event takes effect once; the new address is used by itself",
        is_short: false,
        run: |setting| Box::pin(restarts(setting)),
    },
];

/// Creates a world with a slow Inventory service, so that calls are open when the fault occurs.
async fn world(setting: &Setting) -> Result<World, Failed> {
    let world = World::start(setting).await?;
    let (least, spread) = (Duration::from_millis(5), Duration::from_millis(20));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(least, spread).seed(4));
    Ok(world)
}

async fn ends(setting: Setting, life: ConnectionLife) -> Result<Seen, Failed> {
    let mut world = world(&setting).await?;
    world.inventory.set_connection_life(life);
    let mut worker = world.started().await?;
    world.harm.begin();
    let began = Instant::now();
    world.send_all(crowd("ended", EVENTS));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let took = began.elapsed().as_secs_f64();
    let connections = world.to_inventory.traffic().opened;
    ensure(connections > 5, || format!("{connections} connections"))?;
    let parked = worker.said("Service is away");
    ensure(parked == 0, || "a GOAWAY was taken for an outage".to_owned())?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {connections} connections, {took:.1} s")))
}

async fn half_open(setting: Setting) -> Result<Seen, Failed> {
    let mut world = world(&setting).await?;
    let mut worker = world.started().await?;
    world.send_all(crowd("before", 100));
    Account::settled(&world, SETTLED_MAX).await?;
    world.harm.begin();
    let proxy = world.to_inventory.clone();
    let (fallen, taken) =
        (proxy.traffic().opened, proxy.traffic().taken(crate::proxy::Way::ToServer));
    proxy.set_both(Course::Drop);
    let began = Instant::now();
    world.send_all(crowd("silent", 100));
    // A connection stays silent once bytes were lost on it; later connections are not affected.
    let lost =
        |proxy: &crate::proxy::Proxy| proxy.traffic().taken(crate::proxy::Way::ToServer) > taken;
    ensure(proxy.wait_until(lost, SETTLED_MAX).await, || "nothing was sent".to_owned())?;
    proxy.set_both(Course::Pass);
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let took = began.elapsed();
    world.harm.end();
    let opened = proxy.traffic().opened - fallen;
    ensure(opened > 0, || "no new connection was made".to_owned())?;
    ensure(took < Duration::from_secs(30), || format!("it took {took:?}"))?;
    worker.leave(SETTLED_MAX).await?;
    let took = took.as_secs_f64();
    Ok(Seen::Held(format!("{account}; all done {took:.1} s after the silence began")))
}

async fn restarts(setting: Setting) -> Result<Seen, Failed> {
    let mut world = world(&setting).await?;
    let mut worker = world.started().await?;
    world.harm.begin();
    for n in 0..5 {
        world.send_all(crowd(&format!("restart_{n}"), 100));
        let some = world.ledger.totals().effects + 40;
        let under_way = |ledger: &sandbox::ledger::Ledger| ledger.totals().effects >= some;
        ensure(world.ledger.wait_until(under_way, SETTLED_MAX).await, || "no load".to_owned())?;
        world.inventory.go_down().await?;
        world.inventory.come_back().await?;
    }
    Account::settled(&world, SETTLED_MAX).await?;
    // The new process does not have the keys of the first one, so no call may be open.
    let here = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    let next = Inventory::start_on(here, world.ledger.clone()).await?;
    world.to_inventory.lead_to(crate::world::address(&next.addr())?);
    world.inventory.go_down().await?;
    world.send_all(crowd("elsewhere", 100));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(account.to_string()))
}
