//! Resources that the machine refuses: file descriptors and the admin port.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure, eventually};
use crate::proxy::{Course, Way};
use crate::worker::{Ended, LIMIT};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(90);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "descriptors",
        injected: "no descriptor can be opened any more (RLIMIT_NOFILE), and every connection is reset; 5 s later they can",
        must_hold: "the process does not exit, logs the reason, and continues without a restart; nothing is lost, nothing set aside",
        is_short: false,
        run: |setting| Box::pin(descriptors(setting)),
    },
    Case {
        name: "admin-port",
        injected: "another process listens on the admin port",
        must_hold: "exit code 2 before the first receive; the message names the variable",
        is_short: true,
        run: |setting| Box::pin(admin_port(setting)),
    },
];

/// Maximum time until the worker is ready again.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Duration of the lack of descriptors.
const OUT_OF_THEM: Duration = Duration::from_secs(5);

async fn descriptors(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    let mut worker = world.started().await?;
    world.send_all(crowd("before", 50));
    Account::settled(&world, SETTLED_MAX).await?;

    // Some events are in progress with open calls, and some are not yet received.
    world.to_api.set(Way::ToServer, Course::Hold);
    world.send_all(crowd("in_hand", 50));
    worker.counts("worker_messages_in_flight", &["state=\"running\""], 20.0).await?;
    let open = worker.usage().map_or(0, |usage| usage.descriptors);
    // The worker inherits the maximum of this process.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| -> Result<Rlimit, Failed> {
        let new = Rlimit { current, maximum };
        let old = prlimit(Some(worker.pid()), Resource::Nofile, new);
        old.map_err(|error| Failed(format!("prlimit: {error}")))
    };
    let before = limit(Some(3))?;
    world.harm.begin();
    world.forget();
    world.send_all(crowd("without", 100));
    worker.says("Polling fails").await?;
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(OUT_OF_THEM).await;
    limit(before.current)?;
    let account = Account::settled(&world, SETTLED_MAX).await?;
    world.harm.end();
    worker.says("Polling works again").await?;
    eventually("it is ready again", READY_WITHIN, async || {
        worker.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await?;
    worker.leave(LIMIT).await?;
    Ok(Seen::Held(format!("{account}; {open} descriptors were open before")))
}

async fn admin_port(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    let taken = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let (mut launch, port) = world.launch()?;
    launch.variables.insert("SERVER_PORT", taken.local_addr()?.port().to_string());
    let mut worker = world.start_worker(&launch, port)?;
    world.send_all(crowd("untouched", 5));
    let ended = worker.ended(LIMIT).await?;
    ensure(ended == Ended::Code(2), || format!("it ended with {ended:?}"))?;
    ensure(worker.log().contains("SERVER_PORT"), || {
        format!("it does not name the variable: {}", worker.last_lines(3))
    })?;
    let connections = world.to_sqs.traffic().opened;
    ensure(connections == 0, || "it had connected to the queue".to_owned())?;
    let counts = world.sqs.counts(&world.queue);
    ensure(counts.visible == 5, || format!("it had received: {counts:?}"))?;
    Ok(Seen::Held("exit code 2, no connection to the queue, 5 messages untouched".to_owned()))
}
