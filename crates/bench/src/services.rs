//! Cheap servers in place of SQS, the Reservation API and the Inventory service.
//!
//! They run on one or a few threads, take the same time for every service call, and count all
//! calls. They have no failures, duplicates or visibility timeouts: the tests' servers in
//! `crates/sandbox` have those, but cost too much CPU for a measurement.

mod account;
mod calls;
mod queue;
mod sqs;

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(crate) use self::account::count;
pub use self::account::{Figures, Spread};
use self::calls::{Inventory, Reservations};
pub use self::queue::Source;
use self::queue::World;
use crate::clock::Clock;

/// HTTP/2 streams per client: more than any worker opens.
const STREAMS_MAX: u32 = 2_000;

/// Settings of the servers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Duration of each call to the two services.
    pub service: Duration,
    /// The source of messages.
    pub source: Source,
}

/// Ports of the servers, all on the loopback address.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// SQS.
    pub sqs: u16,
    /// The Reservation API.
    pub reservations: u16,
    /// The Inventory service, which also accepts and ignores traces.
    pub inventory: u16,
}

/// The running servers. They stop on drop.
#[derive(Debug)]
pub struct Services {
    /// Ports of the servers.
    pub ports: Ports,
    world: Arc<World>,
    tasks: JoinSet<()>,
}

impl Services {
    /// Starts the servers.
    ///
    /// # Errors
    /// If no port or timer is available.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let clock = Arc::new(Clock::new(settings.service)?);
        let world = Arc::new(World::new(settings.source));
        let mut tasks = JoinSet::new();
        let runs = Arc::clone(&clock);
        tasks.spawn(async move { runs.run().await.expect("the timer works") });
        if let Source::Rate { per_s } = settings.source {
            tasks.spawn(queue::fill(Arc::clone(&world), per_s));
        }
        let (sqs, sqs_port) = listen().await?;
        let (rest, reservations) = listen().await?;
        let (grpc, inventory) = listen().await?;
        let of_queue = Arc::clone(&world);
        tasks.spawn(accept(sqs, move |stream| serve_sqs(stream, Arc::clone(&of_queue))));
        let api = Reservations { world: Arc::clone(&world), clock: Arc::clone(&clock) };
        tasks.spawn(accept(rest, move |stream| serve_rest(stream, api.clone())));
        let rpcs = Inventory { world: Arc::clone(&world), clock };
        tasks.spawn(accept(grpc, move |stream| serve_grpc(stream, rpcs.clone())));
        let ports = Ports { sqs: sqs_port, reservations, inventory };
        Ok(Self { ports, world, tasks })
    }

    /// Starts a new account.
    pub fn mark(&self) {
        self.world.lock().account.mark();
    }

    /// Returns the account since the last mark.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let world = self.world.lock();
        world.account.figures(world.unsettled())
    }

    /// Returns only if a server fails.
    pub async fn broken(&mut self) {
        let _ = self.tasks.join_next().await;
    }
}

async fn listen() -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                // Small responses must not wait for Nagle's algorithm.
                let _ = stream.set_nodelay(true);
                open.spawn(serve(stream));
            }
            Some(_) = open.join_next() => {}
        }
    }
}

type Answer = Response<Full<Bytes>>;

async fn serve_http1<F>(stream: TcpStream, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    // A connection error concerns only its client.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_sqs(stream: TcpStream, world: Arc<World>) {
    serve_http1(stream, |request| sqs::answer(request, &world)).await;
}

async fn serve_rest(stream: TcpStream, api: Reservations) {
    serve_http1(stream, |request| api.answer(request)).await;
}

async fn serve_grpc(stream: TcpStream, rpcs: Inventory) {
    let service = service_fn(|request| {
        let rpcs = rpcs.clone();
        async move { Ok::<_, Infallible>(rpcs.answer(request).await) }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
