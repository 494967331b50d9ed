//! The same message, delivered to two processes at the same time.

use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::redis::{RedisOptions, is_installed};
use sandbox::reservation_api::Reply;
use sandbox::script::Faults;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::world::{Setting, World};

const LIMIT: Duration = Duration::from_secs(120);

/// Share of deliveries after which the message stays visible and can be received again at once.
const SHARE: f64 = 0.6;

pub(super) const CASES: &[Case] = &[Case {
    name: "duplicates",
    injected: "60% of all deliveries leave the message visible: two processes with a shared store (Redis) get it at once, again and again",
    must_hold: "each effect once, and no call twice",
    is_short: true,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    if !is_installed("duplicates") {
        return Ok(Seen::LeftOut("redis-server is not installed".to_owned()));
    }
    let count = if setting.is_short { 100 } else { 1_000 };
    let mut world = World::start(&setting).await?.with_redis(RedisOptions::default()).await?;
    let (least, spread) = (Duration::from_millis(5), Duration::from_millis(45));
    world.api.set_faults(Faults::<Reply>::none().latency(least, spread).seed(1));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(least, spread).seed(2));
    let faults = world.sqs.faults(&world.queue);
    faults.seed(3);
    faults.duplicate_sometimes(SHARE);
    let mut workers = [world.started().await?, world.started().await?];
    world.send_all(crowd("twice", count));
    let account = Account::settled(&world, LIMIT).await?;
    let calls = account.calls;
    ensure(calls == 2 * count, || format!("{calls} calls for {count} events"))?;
    let mut handled = Vec::new();
    for worker in &mut workers {
        let success = worker.metric("worker_events_total", &["outcome=\"success\""]).await;
        handled.push(success.unwrap_or_default());
        worker.leave(LIMIT).await?;
    }
    ensure(handled.iter().all(|count| *count > 0.0), || {
        format!("one of them did nothing: {handled:?}")
    })?;
    Ok(Seen::Held(format!("{account}; handled by each: {} and {}", handled[0], handled[1])))
}
