//! Opens one connection to one address of the Inventory service, as a tonic channel.
//!
//! `resolver` decides when to connect, and to which addresses.

use std::fmt;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::endpoints::InventoryConnection;
use crate::client::USER_AGENT;

/// Receive window of a connection: room for a hundred small answers at once.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Receive window of a stream: HTTP/2's default. Answers of the contract are tiny.
const STREAM_WINDOW_BYTES: u32 = 65_535;

/// Maximum bytes of an answer's headers. Longer ones fail their call.
const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// Maximum abandoned calls that are remembered, so that their late answers are ignored.
const GIVEN_UP_KEPT_MAX: usize = 1_000;

/// Timeout of a keepalive ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Byte stream in both directions: TCP, or TLS over TCP.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

type OpenFuture = BoxFuture<'static, io::Result<Box<dyn ByteStream>>>;

/// Opens a stream to an address.
type Open = dyn Fn(SocketAddr) -> OpenFuture + Send + Sync;

/// Error of a connection that accepts no more calls. The call that gets it was not sent.
#[derive(Debug)]
pub(super) struct ConnectionEnded;

impl fmt::Display for ConnectionEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ended before the call was sent")
    }
}

impl std::error::Error for ConnectionEnded {}

/// Opens connections to one service.
pub(super) struct ChannelConnector {
    endpoint: Endpoint,
    open: Arc<Open>,
    timeout: Duration,
}

impl ChannelConnector {
    /// Creates a connector. `origin` is the scheme and authority that calls send.
    ///
    /// `timeout` applies to opening one connection as a whole.
    pub(super) fn new(
        origin: Uri,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        keepalive_interval: Duration,
        timeout: Duration,
    ) -> Self {
        let open = move |address| -> OpenFuture { Box::pin(open(address, tls.clone())) };
        Self::with_open(origin, keepalive_interval, timeout, open)
    }

    /// As [`new`](Self::new), with another function that opens streams.
    pub(super) fn with_open(
        origin: Uri,
        keepalive_interval: Duration,
        timeout: Duration,
        open: impl Fn(SocketAddr) -> OpenFuture + Send + Sync + 'static,
    ) -> Self {
        // `http` for tonic: TLS, if there is any, is handled in the stream below it.
        let endpoint = Endpoint::from_static("http://inventory")
            .origin(origin)
            .user_agent(USER_AGENT)
            .expect("it is a header's value")
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .http2_keep_alive_interval(keepalive_interval)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            // A slow server answers many calls after they were abandoned. Neither the number of
            // abandoned calls nor the number of late answers must close a connection that serves
            // other calls.
            .http2_max_concurrent_reset_streams(GIVEN_UP_KEPT_MAX)
            .http2_max_local_error_reset_streams(None::<usize>);
        Self { endpoint, open: Arc::new(open), timeout }
    }

    /// Opens one connection, and waits until the server speaks HTTP/2.
    ///
    /// Cancel-safe: a connection that is not complete is closed.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<InventoryConnection> {
        match timeout(self.timeout, self.connect_in_time(address)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                let ms = self.timeout.as_millis();
                let text = format!("no connection to {address} within {ms} ms");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    async fn connect_in_time(&self, address: SocketAddr) -> io::Result<InventoryConnection> {
        let stream = (self.open)(address).await?;
        let ended = CancellationToken::new();
        let (is_open, (heard, is_heard)) = (ended.clone().drop_guard(), oneshot::channel());
        let mut heard = Some(heard);
        // The guard is dropped with the connection, however that ends.
        let stream = InspectReader::new(stream, move |read: &[u8]| {
            let _is_open = &is_open;
            if !read.is_empty()
                && let Some(heard) = heard.take()
            {
                // The receiver is gone if the attempt to connect was abandoned.
                let _ = heard.send(());
            }
        });
        let channel = self.channel(stream).await?;
        // A server first sends its SETTINGS frame. An address from which nothing arrives has no
        // live server, though its kernel, or a proxy, accepts connections.
        is_heard.await.map_err(|_closed| {
            io::Error::new(io::ErrorKind::ConnectionAborted, "closed before HTTP/2 was spoken")
        })?;
        Ok(InventoryConnection::new(channel, ended))
    }

    /// Creates a channel over this stream, which never reconnects.
    ///
    /// tonic by itself would reconnect for one call after the other, and calls would wait at a dead
    /// address. Here such a call fails at once and uses another address.
    async fn channel(&self, stream: impl ByteStream + 'static) -> io::Result<Channel> {
        let mut stream = Some(TokioIo::new(stream));
        let once = service_fn(move |_: Uri| ready(stream.take().ok_or(ConnectionEnded)));
        self.endpoint.connect_with_connector(once).await.map_err(io::Error::other)
    }
}

async fn open(
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> io::Result<Box<dyn ByteStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(match tls {
        Some((tls, name)) => Box::new(tls.connect(name, tcp).await?),
        None => Box::new(tcp),
    })
}
