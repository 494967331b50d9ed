//! Both services down for a minute. A message is dead-lettered at its fourth receive.

use std::time::{Duration, Instant};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::proxy::{Course, Proxy, Way};
use crate::world::{Setting, Started, World};

const SETTLED_MAX: Duration = Duration::from_secs(60);

/// `maxReceiveCount`.
const RECEIVES_MAX: u32 = 3;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "services-down",
        injected: "both services refuse connections for 60 s, twelve visibility timeouts; maxReceiveCount 3",
        must_hold: "every event waits, held: handed out once, nothing set aside; alive and ready throughout; all go on by themselves",
        is_short: false,
        run: |setting| Box::pin(run(setting, Away::Refusing)),
    },
    Case {
        name: "services-silent",
        injected: "both services accept connections and answer nothing for 60 s; maxReceiveCount 3",
        must_hold: "the same",
        is_short: false,
        run: |setting| Box::pin(run(setting, Away::Silent)),
    },
    Case {
        name: "one-service-down",
        injected: "Inventory refuses connections for 60 s, the Reservation API answers; maxReceiveCount 3",
        must_hold: "the same, and the first step is not repeated",
        is_short: false,
        run: |setting| Box::pin(run(setting, Away::OnlyInventory)),
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Refusing,
    Silent,
    OnlyInventory,
}

impl Away {
    fn proxies(self, world: &World) -> Vec<&Proxy> {
        match self {
            Self::Refusing | Self::Silent => vec![&world.to_api, &world.to_inventory],
            Self::OnlyInventory => vec![&world.to_inventory],
        }
    }

    async fn begin(self, world: &World) -> Result<(), Failed> {
        for proxy in self.proxies(world) {
            match self {
                Self::Silent => proxy.set(Way::ToServer, Course::Drop),
                Self::Refusing | Self::OnlyInventory => proxy.refuse().await?,
            }
        }
        Ok(())
    }

    async fn end(self, world: &World) -> Result<(), Failed> {
        for proxy in self.proxies(world) {
            proxy.forget();
            proxy.accept().await?;
        }
        Ok(())
    }
}

async fn run(setting: Setting, away: Away) -> Result<Seen, Failed> {
    let lasts = Duration::from_secs(if setting.is_short { 12 } else { 60 });
    let mut world = World::redriving(&setting, RECEIVES_MAX).await?;
    let mut worker = world.started().await?;
    world.send_all(crowd("before", 50));
    Account::settled(&world, SETTLED_MAX).await?;

    world.harm.begin();
    away.begin(&world).await?;
    world.send_all(crowd("during", 300));
    stays_well(&worker, lasts).await?;
    let parked = worker.metric("worker_messages_in_flight", &["state=\"parked\""]).await;
    let parked = parked.unwrap_or_default();
    ensure(parked > 0.0, || "no event waits for a service".to_owned())?;
    away.end(&world).await?;
    world.harm.end();
    let back_at = Instant::now();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let took = back_at.elapsed().as_secs_f64();

    let (deliveries, sent) = (account.deliveries, account.sent);
    ensure(usize::try_from(deliveries) == Ok(sent), || {
        format!("{deliveries} deliveries of {sent} messages")
    })?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {parked} waited, all done {took:.1} s after the return")))
}

/// Checks the health endpoints for the duration of the outage.
async fn stays_well(worker: &Started, lasts: Duration) -> Result<(), Failed> {
    let until = Instant::now() + lasts;
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    while Instant::now() < until {
        looks.tick().await;
        for path in ["/healthz", "/readyz"] {
            let answer = worker.get(path).await;
            let is_well = answer.as_ref().is_some_and(|(status, _)| *status == 200);
            ensure(is_well, || format!("{path} answers {answer:?}"))?;
        }
    }
    Ok(())
}
