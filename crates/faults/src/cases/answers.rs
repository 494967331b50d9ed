//! Services that answer late, incorrectly, endlessly or not at all, at byte level.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sandbox::inventory::Reply as RpcReply;
use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, Scripted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::account::Account;
use crate::case::{Case, Seen, rounds};
use crate::events::crowd;
use crate::failed::{Failed, ensure, eventually};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(90);

/// Timeout of both services.
const TIMEOUT_MS: u64 = 1_000;

/// Duration of the fault.
const LASTS: Duration = Duration::from_secs(6);

/// Maximum memory growth whatever a service sends: debug build, 20 concurrent calls.
const MEMORY_MAX_KB: u64 = 32 * 1_024;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "answers-late",
        injected: "every answer takes 80% of the timeout; then every third takes 130%",
        must_hold: "an answer just before the timeout counts; a late one is called for again with the same key; each event takes effect once",
        is_short: false,
        run: |setting| Box::pin(late(setting)),
    },
    Case {
        name: "answers-broken",
        injected: "for 6 s a service hangs after its headers, sends headers or a body without end, closes mid-answer or at once, answers garbage, redirects, or hangs: REST and gRPC",
        must_hold: "no redirect is followed, memory does not grow, nothing is set aside; each event takes effect once",
        is_short: false,
        run: |setting| Box::pin(broken(setting)),
    },
];

async fn late(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    world.set("RESERVATION_TIMEOUT_MS", TIMEOUT_MS);
    world.set("INVENTORY_TIMEOUT_MS", TIMEOUT_MS);
    let mut worker = world.started().await?;
    let nearly = Duration::from_millis(TIMEOUT_MS * 8 / 10);
    world.api.set_faults(Faults::<Reply>::none().latency(nearly, Duration::ZERO));
    world.inventory.set_faults(Faults::<RpcReply>::none().latency(nearly, Duration::ZERO));
    world.send_all(crowd("in_time", 60));
    let in_time = Account::settled(&world, SETTLED_MAX).await?;
    ensure(in_time.calls == 120, || format!("called again though in time: {in_time}"))?;

    let late = Duration::from_millis(TIMEOUT_MS * 13 / 10);
    world.api.set_faults(
        Faults::<Reply>::none()
            .seed(5)
            .with(0.33, Scripted::<Reply>::normal().answering_after(late)),
    );
    world.inventory.set_faults(
        Faults::<RpcReply>::none()
            .seed(6)
            .with(0.33, Scripted::<RpcReply>::normal().answering_after(late)),
    );
    world.send_all(crowd("late", 60));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    ensure(account.calls > 240, || "no call was late".to_owned())?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(account.to_string()))
}

/// What the server does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    HangsAfterHeaders,
    EndlessHeaders,
    EndlessBody,
    ClosesMidAnswer,
    ClosesAtOnce,
    Garbage,
    Redirects,
    Hangs,
}

impl Manner {
    const ALL: [Self; 8] = [
        Self::HangsAfterHeaders,
        Self::EndlessHeaders,
        Self::EndlessBody,
        Self::ClosesMidAnswer,
        Self::ClosesAtOnce,
        Self::Garbage,
        Self::Redirects,
        Self::Hangs,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Api,
    Inventory,
}

async fn broken(setting: Setting) -> Result<Seen, Failed> {
    let round = |number: usize| {
        let manner = Manner::ALL[number % Manner::ALL.len()];
        let who = if number < Manner::ALL.len() { Who::Api } else { Who::Inventory };
        let round = breaks(setting.clone(), who, manner);
        async move { round.await.map_err(|failed| failed.at(format!("{who:?} {manner:?}"))) }
    };
    let done = rounds(2 * Manner::ALL.len(), 4, round).await?;
    let (mut sum, mut growth_max) = (Account::default(), 0);
    for (account, growth_kb) in &done {
        sum += *account;
        growth_max = growth_max.max(*growth_kb);
    }
    Ok(Seen::Held(format!("{} manners; {sum}; memory grew by {growth_max} kB at most", done.len())))
}

async fn breaks(setting: Setting, who: Who, manner: Manner) -> Result<(Account, u64), Failed> {
    let mut world = World::start(&setting).await?;
    world.set("RESERVATION_TIMEOUT_MS", TIMEOUT_MS);
    world.set("INVENTORY_TIMEOUT_MS", TIMEOUT_MS);
    let mut worker = world.started().await?;
    world.send_all(crowd("before", 20));
    Account::settled(&world, SETTLED_MAX).await?;
    let memory = |worker: &crate::worker::Worker| worker.usage().map_or(0, |it| it.rss_kb);
    let memory_before = memory(&worker);

    let (proxy, target) = match who {
        Who::Api => (world.to_api.clone(), world.api.base_url()),
        Who::Inventory => (world.to_inventory.clone(), world.inventory.addr()),
    };
    let elsewhere = Broken::start(Manner::ClosesAtOnce, None).await?;
    let broken = Broken::start(manner, Some(elsewhere.addr)).await?;
    proxy.lead_to(broken.addr);
    proxy.reset();
    world.harm.begin();
    world.send_all(crowd("during", 40));
    eventually("it is called", SETTLED_MAX, async || broken.calls() > 0).await?;
    let mut growth_kb = 0;
    let until = tokio::time::Instant::now() + LASTS;
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    while tokio::time::Instant::now() < until {
        looks.tick().await;
        growth_kb = growth_kb.max(memory(&worker).saturating_sub(memory_before));
    }
    proxy.lead_to(crate::world::address(&target)?);
    proxy.reset();
    let account = Account::settled(&world, SETTLED_MAX).await?;
    world.harm.end();
    ensure(elsewhere.connections() == 0, || "a redirect was followed".to_owned())?;
    ensure(growth_kb < MEMORY_MAX_KB, || format!("memory grew by {growth_kb} kB"))?;
    worker.leave(SETTLED_MAX).await?;
    Ok((account, growth_kb))
}

/// A broken server.
struct Broken {
    addr: SocketAddr,
    seen: Arc<SeenHere>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct SeenHere {
    connections: AtomicU64,
    calls: AtomicU64,
}

impl Broken {
    async fn start(manner: Manner, elsewhere: Option<SocketAddr>) -> Result<Self, Failed> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let seen = Arc::new(SeenHere::default());
        let mut tasks = JoinSet::new();
        let sees = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sees.connections.fetch_add(1, Ordering::Relaxed);
                let sees = Arc::clone(&sees);
                open.spawn(async move {
                    // The connection ends when the client closes it.
                    let _ = answer(stream, manner, elsewhere, &sees).await;
                });
            }
        });
        Ok(Self { addr, seen, _tasks: tasks })
    }

    fn calls(&self) -> u64 {
        self.seen.calls.load(Ordering::Relaxed)
    }

    fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

async fn answer(
    mut stream: TcpStream,
    manner: Manner,
    elsewhere: Option<SocketAddr>,
    seen: &SeenHere,
) -> std::io::Result<()> {
    let mut request = vec![0; 16 * 1_024];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    seen.calls.fetch_add(1, Ordering::Relaxed);
    match manner {
        Manner::HangsAfterHeaders => {
            // The status must not be 2xx: that would confirm the call whatever follows.
            stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n").await?;
        }
        Manner::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(&b"X-More: and more, and more\r\n".repeat(100)).await?;
            }
        }
        Manner::EndlessBody => {
            stream.write_all(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Manner::ClosesMidAnswer => {
            // A complete response would mean that the reservation does not exist, which is
            // permanent.
            let half = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"error\":{\"code\":";
            return stream.write_all(half.as_bytes()).await;
        }
        Manner::ClosesAtOnce => return Ok(()),
        Manner::Garbage => {
            let garbage: Vec<u8> = (0..=255).rev().cycle().take(4_096).collect();
            stream.write_all(&garbage).await?;
        }
        Manner::Redirects => {
            let there = elsewhere.map_or_else(String::new, |addr| format!("http://{addr}/"));
            let head =
                format!("HTTP/1.1 307 There\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Manner::Hangs => {}
    }
    // Until the client closes the connection.
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}
