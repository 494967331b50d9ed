//! Connections to the Reservation API: idle timeout, and retry on a connection that was closed.
//!
//! A server closes idle connections after a time, usually without announcing it: Node.js after 5 s,
//! load balancers after 60 s. A call that is sent at that moment is lost, and whether it took
//! effect is unknown. So idle connections are closed before the shortest of these times, or before
//! the one in the service's `Keep-Alive` header. A call that still meets a closed connection is
//! sent again at once on a new one. This is safe because every change has an idempotency key.

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

/// Idle timeout while the service has announced none: shorter than that of Node.js (5 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Limits of the idle timeout: shorter than that of AWS's load balancers (60 s).
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(55);
const IDLE_TIMEOUT_MIN: Duration = Duration::from_millis(500);

/// A connection is closed this much before the service would close it.
const IDLE_MARGIN: Duration = Duration::from_secs(1);

const KEEP_ALIVE: &str = "keep-alive";

tokio::task_local! {
    /// Local address of the connection that this task's call opened, if it opened one.
    ///
    /// The call may use another one: an idle connection may have become free first.
    static MADE: Cell<Option<SocketAddr>>;
}

/// Builds clients that differ only in their settings for idle connections.
type Build = dyn Fn() -> ClientBuilder + Send + Sync;

/// The connections. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<ConnectionPool>);

struct ConnectionPool {
    build: Box<Build>,
    idle_connections_max: usize,
    /// Timeout of a whole call, both tries included.
    timeout: Duration,
    kept: Mutex<KeptClient>,
    /// Keeps no idle connection: each call opens a new one.
    fresh: Client,
}

struct KeptClient {
    client: Client,
    idle_timeout: Duration,
    /// Whether the service has announced its timeout.
    ///
    /// From then on the idle timeout only gets shorter: of several servers the shortest counts.
    is_told: bool,
}

impl Connections {
    /// Builds the clients. Opens no connection.
    ///
    /// # Errors
    /// Where the client cannot be built.
    pub(super) fn new(
        build: impl Fn() -> ClientBuilder + Send + Sync + 'static,
        idle_connections_max: usize,
        timeout: Duration,
    ) -> reqwest::Result<Self> {
        let client = client(&build, idle_connections_max, IDLE_TIMEOUT)?;
        let fresh = client_without_idle(&build)?;
        let kept = Mutex::new(KeptClient { client, idle_timeout: IDLE_TIMEOUT, is_told: false });
        let build = Box::new(build);
        Ok(Self(Arc::new(ConnectionPool { build, idle_connections_max, timeout, kept, fresh })))
    }

    /// Returns the client that builds requests.
    pub(super) fn client(&self) -> Client {
        self.lock().client.clone()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// If an idle connection turns out to be closed, the request is sent once more on a new one.
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

    /// Sets the idle timeout to the one that the service announces, minus [`IDLE_MARGIN`].
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
            *kept = KeptClient { client, idle_timeout, is_told: true };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, KeptClient> {
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

/// Records that a connection was opened for this task's call.
fn note_made<C: Connection>(connection: C) -> C {
    // Outside a call the connection belongs to no task, and nothing is recorded.
    let _ = MADE.try_with(|made| made.set(local_address(&connection.connected())));
    connection
}

fn local_address(connected: &Connected) -> Option<SocketAddr> {
    let mut extras = http::Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::local_addr)
}

/// Whether the call used a connection that it did not open.
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

/// Returns the idle timeout of a `Keep-Alive` header such as `timeout=5, max=100`.
fn told(header: &str) -> Option<Duration> {
    let named = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let seconds = value.trim().parse::<u32>().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds.into()))
    };
    let timeout = header.split(',').find_map(named)?;
    Some(timeout.saturating_sub(IDLE_MARGIN).clamp(IDLE_TIMEOUT_MIN, IDLE_TIMEOUT_MAX))
}

/// Whether the error shows that the server closed the connection before it answered.
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
    fn the_keep_alive_header_sets_the_idle_timeout() {
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
