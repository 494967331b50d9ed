//! The connections to the Reservation API: how long they are kept idle, and what is done where the service closes one just as a
//! call is sent on it. What is called, and what an answer means, is left to the client.
//!
//! A server closes idle connections after a while, most often without a word of when: Node.js after 5 s, load balancers after 60 s.
//! A call that is sent in that moment is lost, and nobody knows whether it took effect. Idle connections go before the shortest
//! of these times, or before the one that the service's own header names; the race that is left is run again at once, on a new
//! connection, as every change carries a key.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpInfo};
use reqwest::{Client, ClientBuilder, Request, RequestBuilder, Response};
use tokio::time::Instant;
use tower::util::MapResponseLayer;

/// Idle connections are closed after this long where the service does not say how long it keeps them: before Node.js does (5 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest and the shortest, whatever the service says: before AWS's load balancers close them (60 s).
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(55);
const IDLE_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// How much sooner than the service a connection is closed.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

const KEEP_ALIVE: &str = "keep-alive";

tokio::task_local! {
    /// This end of the connection that the call of this task has made, if it has made one. It need not be the one that
    /// carries the call: one that was kept may have come back sooner.
    static MADE: Cell<Option<SocketAddr>>;
}

/// Makes clients that differ in their idle connections only.
type Build = dyn Fn() -> ClientBuilder + Send + Sync;

/// The connections. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    build: Box<Build>,
    idle_connections_max: usize,
    /// For a whole call, both tries of it.
    timeout: Duration,
    kept: Mutex<Kept>,
    /// Keeps no connection: each call begins one.
    fresh: Client,
}

struct Kept {
    client: Client,
    idle_timeout: Duration,
    /// Whether the service has said it. From then on it only gets shorter: of several servers the most impatient counts.
    is_told: bool,
}

impl Connections {
    /// Connects to nothing.
    ///
    /// # Errors
    /// Where no client can be made.
    pub(super) fn new(
        build: impl Fn() -> ClientBuilder + Send + Sync + 'static,
        idle_connections_max: usize,
        timeout: Duration,
    ) -> reqwest::Result<Self> {
        let client = client(&build, idle_connections_max, IDLE_TIMEOUT)?;
        let fresh = client_without_idle(&build)?;
        let kept = Mutex::new(Kept { client, idle_timeout: IDLE_TIMEOUT, is_told: false });
        let build = Box::new(build);
        Ok(Self(Arc::new(Inner { build, idle_connections_max, timeout, kept, fresh })))
    }

    /// What requests are made with.
    pub(super) fn client(&self) -> Client {
        self.lock().client.clone()
    }

    /// Sends a request and awaits the head of its answer. Where a connection that was kept turns out to be closed, the request is
    /// sent once more on a new one.
    pub(super) async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        let began_at = Instant::now();
        let (client, request) = request.build_split();
        let request = request?;
        let again = request.try_clone();
        let sent = MADE.scope(Cell::new(None), async {
            let answer = client.execute(request).await;
            (answer, MADE.with(Cell::get))
        });
        let answer = match (sent.await, again) {
            ((Err(error), made), Some(again)) if was_kept(&error, made) && was_closed(&error) => {
                self.send_afresh(again, began_at).await?
            }
            ((answer, _), _) => answer?,
        };
        self.note_keep_alive(answer.headers());
        Ok(answer)
    }

    async fn send_afresh(
        &self,
        mut request: Request,
        began_at: Instant,
    ) -> reqwest::Result<Response> {
        let left = self.0.timeout.saturating_sub(began_at.elapsed());
        *request.timeout_mut() = Some(left);
        self.0.fresh.execute(request).await
    }

    /// Keeps idle connections as long as the service says that it does, less a margin.
    fn note_keep_alive(&self, headers: &HeaderMap) {
        let Some(idle_timeout) =
            headers.get(KEEP_ALIVE).and_then(|value| told(value.to_str().ok()?))
        else {
            return;
        };
        let mut kept = self.lock();
        let is_news =
            idle_timeout < kept.idle_timeout || (!kept.is_told && idle_timeout > kept.idle_timeout);
        kept.is_told = true;
        if is_news
            && let Ok(client) = client(&self.0.build, self.0.idle_connections_max, idle_timeout)
        {
            *kept = Kept { client, idle_timeout, is_told: true };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("idle_timeout", &self.lock().idle_timeout).finish()
    }
}

fn client(build: &Build, idle_max: usize, idle_timeout: Duration) -> reqwest::Result<Client> {
    let builder = build().pool_idle_timeout(idle_timeout).pool_max_idle_per_host(idle_max);
    builder.connector_layer(MapResponseLayer::new(note_made)).build()
}

fn client_without_idle(build: &Build) -> reqwest::Result<Client> {
    build().pool_max_idle_per_host(0).build()
}

/// A connection was made for the call of this task.
fn note_made<C: Connection>(connection: C) -> C {
    // One that is made for nobody is nobody's.
    let _ = MADE.try_with(|made| made.set(local_address(&connection.connected())));
    connection
}

fn local_address(connected: &Connected) -> Option<SocketAddr> {
    let mut extras = http::Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// Whether the call was carried by another connection than the one that it made.
fn was_kept(error: &reqwest::Error, made: Option<SocketAddr>) -> bool {
    let of_client = |error: &(dyn Error + 'static)| {
        local_address(error.downcast_ref::<hyper_util::client::legacy::Error>()?.connect_info()?)
    };
    let carried_by = chain(error).find_map(of_client);
    carried_by.is_some() && carried_by != made
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// How long to keep idle connections, of a `Keep-Alive` header: `timeout=5, max=100`.
fn told(header: &str) -> Option<Duration> {
    let named = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let seconds = value.trim().parse::<u32>().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds.into()))
    };
    let timeout = header.split(',').find_map(named)?;
    Some(timeout.saturating_sub(IDLE_MARGIN).clamp(IDLE_TIMEOUT_MIN, IDLE_TIMEOUT_MAX))
}

/// Whether a call failed in the way in which it does when the other end closes the connection before it has answered.
fn was_closed(error: &reqwest::Error) -> bool {
    if error.is_timeout() || error.is_connect() {
        return false;
    }
    chain(error).any(|error| {
        let closed = error.downcast_ref::<hyper::Error>();
        let closed =
            closed.is_some_and(|error| error.is_incomplete_message() || error.is_canceled());
        closed || error.downcast_ref::<io::Error>().is_some_and(|error| is_closed(error.kind()))
    })
}

fn is_closed(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_alive_header_says_how_long_connections_are_kept() {
        let ms = |header| told(header).map(|timeout| timeout.as_millis());
        for (header, expected) in [
            ("timeout=5", Some(4_000)),
            ("timeout=72, max=1000", Some(55_000)),
            ("max=5,Timeout = 15", Some(14_000)),
            ("timeout=1", Some(500)),
            ("timeout=0", Some(500)),
            ("timeout=4294967295", Some(55_000)),
            ("timeout=4294967296", None),
            ("timeout=-1", None),
            ("timeout=soon", None),
            ("max=5", None),
            ("", None),
        ] {
            assert_eq!(ms(header), expected, "{header}");
        }
    }
}
