//! A process that is stopped for longer than its leases and then continues.

use std::time::Duration;

use rustix::process::Signal;
use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::Ledger;
use sandbox::redis::{RedisOptions, is_installed};
use sandbox::reservation_api::Reply;
use sandbox::script::Faults;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// More than two visibility timeouts.
const FROZEN: Duration = Duration::from_secs(12);

const EVENTS: usize = 200;

pub(super) const CASES: &[Case] = &[Case {
    name: "frozen",
    injected: "one of two processes is stopped (SIGSTOP) for 12 s under load, more than two visibility timeouts, and continued (SIGCONT)",
    must_hold: "the other takes its events over; the first, when it continues, detects that its leases have ended: each takes effect once, and no step is begun twice but those under way when it stopped",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    if !is_installed("frozen") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let mut world = World::start(&setting).await?.with_redis(RedisOptions::default()).await?;
    let (least, spread) = (Duration::from_millis(50), Duration::from_millis(200));
    world.api.set_faults(Faults::<Reply>::none().latency(least, spread).seed(1));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(least, spread).seed(2));
    let mut frozen = world.started().await?;
    world.send_all(crowd("frozen", EVENTS));
    // Each call takes at least 50 ms: most of these are still open when the process stops.
    let busy = |ledger: &Ledger| ledger.totals().in_progress >= 10;
    ensure(world.ledger.wait_until(busy, SETTLED_MAX).await, || "nothing is called".to_owned())?;
    world.harm.begin();
    frozen.signal(Signal::STOP);
    let under_way = world.ledger.totals().in_progress;
    // Open calls are answered while the process is stopped.
    let answered = |ledger: &Ledger| ledger.totals().in_progress == 0;
    ensure(world.ledger.wait_until(answered, SETTLED_MAX).await, || "calls stay open".to_owned())?;
    world.harm.end();
    let mut other = world.started().await?;
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(FROZEN).await;
    frozen.signal(Signal::CONT);
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let taken_over = other.metric("worker_events_total", &["outcome=\"success\""]).await;
    let taken_over = taken_over.unwrap_or_default();
    ensure(taken_over > 0.0, || "the other process did nothing".to_owned())?;
    frozen.leave(SETTLED_MAX).await?;
    other.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!(
        "{account}; {under_way} calls were under way, {taken_over} events taken over"
    )))
}
