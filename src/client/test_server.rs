//! Test server on port 0: sends the answers of a test, broken ones too, and records requests.
//!
//! It is independent of the two services.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::lookup::Lookup;

/// Returns a resolver that finds these addresses for every name.
pub(super) fn fixed_lookup(addresses: Vec<SocketAddr>) -> Lookup {
    Lookup::new(move |_, _| std::future::ready(Ok(addresses.clone())))
}

/// Installs the TLS provider that `main` installs.
pub(crate) fn install_crypto_provider() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
}

/// How the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    /// It does not end, and no more data comes.
    Hang,
    /// It does not end: the last frame is repeated.
    Repeat,
    /// The connection or the stream is aborted.
    Break,
}

/// Body of an answer, frame by frame.
#[derive(Debug)]
pub(crate) struct TestBody {
    frames: VecDeque<Frame<Bytes>>,
    end: End,
    is_sent: bool,
}

impl TestBody {
    pub(crate) fn new(data: impl Into<Bytes>, end: End) -> Self {
        Self { frames: VecDeque::from([Frame::data(data.into())]), end, is_sent: false }
    }

    pub(crate) fn empty() -> Self {
        Self { frames: VecDeque::new(), end: End::Clean, is_sent: false }
    }

    pub(crate) fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.frames.push_back(Frame::trailers(trailers));
        self
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match (self.frames.pop_front(), self.end) {
            (Some(frame), End::Repeat) => {
                let data = frame.data_ref().unwrap().clone();
                self.frames.push_back(Frame::data(data));
                Poll::Ready(Some(Ok(frame)))
            }
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, End::Break) if self.is_sent => {
                Poll::Ready(Some(Err(io::Error::other("torn down by the test"))))
            }
            (None, End::Break) => {
                // Yields once first, so that the data before the error is sent.
                self.is_sent = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (None, End::Hang) => Poll::Pending,
            (None, End::Clean | End::Repeat) => Poll::Ready(None),
        }
    }
}

/// A request that the server received.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Test server. Stops when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

type Answer = dyn Fn(&Asked) -> Response<TestBody> + Send + Sync;

impl TestServer {
    /// Starts a server for HTTP/1.1, or for HTTP/2 without TLS. `answer` makes each answer.
    pub(crate) async fn start(
        http2: bool,
        answer: impl Fn(&Asked) -> Response<TestBody> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), http2, answer).await
    }

    /// As [`start`](Self::start), at the address of an earlier server.
    pub(crate) async fn start_at(
        address: SocketAddr,
        http2: bool,
        answer: impl Fn(&Asked) -> Response<TestBody> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(address, http2, None, answer).await
    }

    /// As [`start_at`](Self::start_at), with TLS.
    pub(crate) async fn start_tls(
        address: SocketAddr,
        http2: bool,
        tls: ServerConfig,
        answer: impl Fn(&Asked) -> Response<TestBody> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(address, http2, Some(TlsAcceptor::from(Arc::new(tls))), answer).await
    }

    async fn serve(
        address: SocketAddr,
        http2: bool,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Asked) -> Response<TestBody> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let answer: Arc<Answer> = Arc::new(answer);
        let (seen, count) = (Arc::clone(&asked), Arc::clone(&connections));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                let service = service_fn(move |request| {
                    serve(request, Arc::clone(&answer), Arc::clone(&seen))
                });
                let tls = tls.clone();
                open.spawn(async move {
                    match tls {
                        None => speak(stream, http2, service).await,
                        // The client may refuse the handshake.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                speak(stream, http2, service).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, connections, tasks }
    }

    /// Reads once on each connection, writes `bytes`, then closes it or keeps it open.
    pub(crate) async fn raw(bytes: &'static [u8], end: End) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut first = [0; 4096];
                // The client may have closed the connection.
                drop(stream.read(&mut first).await);
                drop(stream.write_all(bytes).await);
                if end == End::Hang {
                    held.push(stream);
                }
            }
        });
        Self { address, asked: Arc::default(), connections, tasks }
    }

    /// Stops the server. Its address is free when this returns.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Returns an address on which no server listens.
    pub(crate) async fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Serves HTTP on one connection. The client side of the test checks how it ends.
async fn speak<S>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    service: S,
) where
    S: HttpService<Incoming, ResBody = TestBody, Error = Infallible> + Send,
    S::Future: Send + 'static,
{
    let io = TokioIo::new(stream);
    if http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(server.serve_connection(io, service).await);
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        drop(server.serve_connection(io, service).await);
    }
}

async fn serve(
    request: Request<Incoming>,
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<TestBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = Asked { head, body };
    seen.lock().unwrap().push(asked.clone());
    Ok(answer(&asked))
}
