//! The admin port, for Prometheus, the kubelet and operators. Routes, for `GET` and `HEAD`:
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | 200: all metrics in the Prometheus text format |
//! | `/healthz`, `/health` | 200 while the worker is alive, else 503, with a JSON reason |
//! | `/readyz`, `/ready` | 200 while ready, else 503, with a JSON reason; the state of each part |
//! | `/status`, `/status.json` | 200: what the worker does, as a page and as JSON; else 403 |
//!
//! Another path returns 404, another method 405. No route changes anything, and no request body is
//! read. [`crate::metrics`], [`crate::health`] and [`crate::status`] describe the content.

pub mod control;
mod routes;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::http::HeaderValue;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::routes::Peer;
pub use self::routes::Routes;

/// Concurrent connections; further ones wait in the kernel. Scrapers, kubelet and operators need
/// few.
const CONNECTIONS_MAX: usize = 64;
/// Timeout for a request head and for idle connections. If slow clients occupy all connections, a
/// probe still gets one before its own timeout (2 s in the chart).
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum age of a connection: closes connections whose client never reads.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Timeout for the response in progress when a connection closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A request head has a few hundred bytes; this is the minimum that hyper accepts.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause between accepts while the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Timeout of the whole [`health_probe`].
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read of the response to [`health_probe`].
const PROBE_BYTES_MAX: u64 = 4096;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The admin port, bound but not yet served.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
}

impl AdminServer {
    /// Binds the port on all addresses: IPv6 and IPv4, or only IPv4 without IPv6. Port 0 takes any
    /// port.
    ///
    /// # Errors
    /// If the port is in use or binding is not permitted.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?,
        };
        Ok(Self { listener })
    }

    /// Returns the bound address.
    ///
    /// # Errors
    /// If the system call fails.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets responses in progress finish for at most one second.
    ///
    /// Dropping the future closes all connections at once.
    pub async fn serve(self, routes: Routes, stop: CancellationToken) {
        let routes = Arc::new(routes);
        let mut connections = JoinSet::new();
        loop {
            let may_accept = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => note_panic(ended),
                (stream, peer) = accept(&self.listener), if may_accept => {
                    connections.spawn(connection(stream, peer, Arc::clone(&routes), stop.clone()));
                }
            }
        }
        drop(self.listener);
        while let Some(ended) = connections.join_next().await {
            note_panic(ended);
        }
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %error, "A connection to the admin port ended badly");
    }
}

/// Accepts the next connection. Errors come from a client that left or from missing file
/// descriptors: both pass with time.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    let mut said = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip()),
            Err(error) => {
                if !said {
                    tracing::warn!(error = %error, "The admin port could not accept a connection");
                }
                said = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, routes: Arc<Routes>, stop: CancellationToken) {
    let service = TowerToHyperService::new(routes::router(routes).layer(Extension(Peer(peer))));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // An error is caused by the client: it left, was too slow, or did not speak HTTP.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(CLOSE_TIMEOUT, connection).await;
}

/// Queries this host's worker for liveness, for container runtimes that use a command as probe.
///
/// # Errors
/// A readable cause: not reachable, no response within 2 s, or the reason from the worker.
pub async fn health_probe(port: u16) -> Result<(), String> {
    match timeout(PROBE_TIMEOUT, ask_healthz(port)).await {
        Err(_) => Err(format!("port {port}: no answer within {PROBE_TIMEOUT:?}")),
        Ok(Err(error)) => Err(format!("port {port}: {error}")),
        Ok(Ok(answer)) => read_answer(&answer).map_err(|reason| format!("port {port}: {reason}")),
    }
}

async fn ask_healthz(port: u16) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.take(PROBE_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Parses the worker's own short response: status line, head without continuation lines, JSON body.
fn read_answer(answer: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match status {
        Some("200") => Ok(()),
        Some("503") => {
            let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            let reason = body["reason"].as_str().unwrap_or("no reason given");
            Err(format!("not alive: {}", reason.escape_debug()))
        }
        Some(_) | None => Err("the answer is not the worker's".to_owned()),
    }
}
