//! One HTTP/2 connection to the Inventory service: made when a call needs it, kept, asked whether it still lives, and made anew after it
//! was lost. It stands where `tonic` has a channel of its own: there a call passes through four tasks, here through the one that
//! reads and writes the connection. Which connection a call goes to is `spread`'s; what an answer means, `not_grpc`'s and `failure`'s.
//!
//! A call takes the connection that is there; where none is, all that come wait for the same attempt to make one, and share how it
//! ends. The attempt goes on when they give up, so that one slow handshake is not begun again by each call. A connection that the
//! server ends in good order (GOAWAY) finishes the calls that it began, while the next call makes another.

#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::USER_AGENT as USER_AGENT_HEADER;
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::codegen::StdError;

use self::watch::{End, OpenCall, Watch, until_dead};
use super::connect::Connector;
use crate::client::USER_AGENT;

/// What may be under way on a connection before answers are read: for a hundred answers at once, each of which is tiny.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// The header lists that are accepted. What is longer ends its call.
const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// Calls that were given up, and are remembered for a while to read over their late answers.
const GIVEN_UP_KEPT_MAX: usize = 1_000;

/// How many calls are open at once before the server has said how many may be: no less than what servers are advised to allow
/// (RFC 9113, 6.5.2).
const CALLS_MAX_UNTIL_TOLD: usize = 100;

/// How often a call that waits to be admitted looks whether the server takes more by now.
const ADMIT_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How the connection is watched and what it is called.
#[derive(Clone)]
pub(super) struct Settings {
    /// Of the service, as calls name it.
    pub(super) scheme: Scheme,
    /// Its host and port, likewise.
    pub(super) authority: Authority,
    /// With calls made and nothing heard for this long, and up to half as long again, a connection is asked whether it lives.
    pub(super) keepalive_interval: Duration,
    /// How long it may take to say so.
    pub(super) keepalive_timeout: Duration,
}

/// There is no connection: why.
#[derive(Debug, Clone)]
pub(super) struct ConnectError(Arc<dyn std::error::Error + Send + Sync>);

impl ConnectError {
    fn new(why: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(why))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// The call was not sent: the connection ended before that.
#[derive(Debug)]
pub(super) struct Unsent(h2::Error);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ended before the call was sent")
    }
}

impl std::error::Error for Unsent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// The connection. Clones share it.
#[derive(Clone)]
pub(super) struct Subchannel(Arc<Inner>);

struct Inner {
    connector: Connector,
    settings: Settings,
    /// The last one: under way, done, or failed.
    attempt: Mutex<Option<Attempt>>,
    /// The attempt that is under way, and what carries connections: more than one where an old one finishes its calls.
    tasks: Mutex<JoinSet<()>>,
}

impl Inner {
    /// Begins a task that ends with the last clone, if not before.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

type Attempt = Shared<BoxFuture<'static, Result<Up, ConnectError>>>;

impl fmt::Debug for Subchannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subchannel").field(&self.0.settings.authority).finish()
    }
}

/// A connection that was made.
#[derive(Clone)]
struct Up {
    requests: SendRequest<Bytes>,
    watch: Arc<Watch>,
}

impl Up {
    /// Waits until the server takes one more call at a time. `h2` would do that too, but keep those that are given up meanwhile, send
    /// them later to reset them, and so look like an attack.
    ///
    /// Returns too where the connection has ended; it then takes no call.
    async fn admit(&self) -> OpenCall {
        let Watch { turn, open_calls, has_room, was_asked, .. } = &*self.watch;
        was_asked.store(true, Ordering::Relaxed);
        let _turn = turn.lock().await;
        while open_calls.load(Ordering::Relaxed) >= self.requests.current_max_send_streams()
            && !self.watch.has_ended()
            && self.requests.clone().ready().await.is_ok()
        {
            // A server that raises its limit, or says that it ends the connection, wakes nobody.
            let _ = timeout(ADMIT_LOOK_INTERVAL, has_room.notified()).await;
        }
        OpenCall::new(Arc::clone(&self.watch))
    }
}

impl Subchannel {
    /// Connects to nothing yet.
    pub(super) fn new(connector: Connector, settings: Settings) -> Self {
        let (attempt, tasks) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { connector, settings, attempt, tasks }))
    }

    /// Sends a request, whose body must be short, and awaits the head of its answer. Cancel-safe in that a call whose future is dropped
    /// is reset: whether it took effect is then unknown.
    ///
    /// # Errors
    /// [`ConnectError`] and [`Unsent`] where nothing was sent, [`h2::Error`] where something may have been.
    pub(super) async fn send<B>(&self, request: Request<B>) -> Result<Response<Answer>, StdError>
    where
        B: Body<Data = Bytes, Error: Into<StdError>>,
    {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        head.uri = self.absolute(head.uri);
        head.version = Version::HTTP_2;
        head.headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        let (mut requests, open) = self.ready().await?;
        let (answer, mut rest) =
            requests.send_request(Request::from_parts(head, ()), false).map_err(Unsent)?;
        // Fails where the stream has ended already. Why it did, the answer says.
        let _ = rest.send_data(body, true);
        Ok(answer.await?.map(|stream| Answer { stream, is_data_read: false, _open: open }))
    }

    fn absolute(&self, path: Uri) -> Uri {
        let Settings { scheme, authority, .. } = &self.0.settings;
        let mut parts = Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        parts.path_and_query = path.into_parts().path_and_query;
        Uri::from_parts(parts).expect("calls have a path")
    }

    /// A connection that takes a call. One that has ended since its last call is made anew.
    async fn ready(&self) -> Result<(SendRequest<Bytes>, OpenCall), StdError> {
        let mut is_first = true;
        loop {
            let up = self.up().await?;
            let open = up.admit().await;
            match up.requests.ready().await {
                Ok(requests) => return Ok((requests, open)),
                Err(_ended) if is_first => self.forget(&up.watch),
                Err(ended) => {
                    self.forget(&up.watch);
                    return Err(Unsent(ended).into());
                }
            }
            is_first = false;
        }
    }

    /// The connection, made if there is none.
    async fn up(&self) -> Result<Up, ConnectError> {
        let attempt = {
            let mut attempt = self.lock();
            match attempt.as_ref().map(|last| (last, last.peek())) {
                Some((_, Some(Ok(up)))) if !up.watch.has_ended() => return Ok(up.clone()),
                Some((under_way, None)) => under_way.clone(),
                None | Some((_, Some(_))) => {
                    let new = make_or_say_why(Arc::clone(&self.0)).boxed().shared();
                    *attempt = Some(new.clone());
                    // It goes on, whoever gives up waiting.
                    self.0.spawn(new.clone().map(drop));
                    new
                }
            }
        };
        attempt.await
    }

    /// The connection has ended; another may have been made meanwhile.
    fn forget(&self, ended: &Arc<Watch>) {
        let mut attempt = self.lock();
        let last = attempt.as_ref().and_then(|last| last.peek());
        if matches!(last, Some(Ok(up)) if Arc::ptr_eq(&up.watch, ended)) {
            *attempt = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Attempt>> {
        self.0.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic is no more than an attempt that failed: whoever waits for a shared future that panicked waits for ever, or panics too.
async fn make_or_say_why(inner: Arc<Inner>) -> Result<Up, ConnectError> {
    let made = AssertUnwindSafe(make(inner)).catch_unwind().await;
    made.unwrap_or_else(|_panic| Err(ConnectError::new(io::Error::other("connecting panicked"))))
}

/// Makes a connection, and has a task carry it from then on.
async fn make(inner: Arc<Inner>) -> Result<Up, ConnectError> {
    let io = inner.connector.connect().await.map_err(ConnectError::new)?;
    let watch = Arc::new(Watch::new(io.was_heard()));
    let (requests, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_max_send_streams(CALLS_MAX_UNTIL_TOLD)
        .max_header_list_size(HEADERS_BYTES_MAX)
        // Calls that are given up are a slow server's everyday: neither how many it still answers, nor how many answers come after
        // their call was forgotten, is a reason to end a connection on which others do well.
        .max_concurrent_reset_streams(GIVEN_UP_KEPT_MAX)
        .max_local_error_reset_streams(None)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(ConnectError::new)?;
    let pings = connection.ping_pong().expect("nobody took it before");
    let Settings { keepalive_interval, keepalive_timeout, .. } = inner.settings;
    let dead = until_dead(pings, Arc::clone(&watch), keepalive_interval, keepalive_timeout);
    let end = End(Arc::clone(&watch));
    inner.spawn(async move {
        let _end = end;
        // Either way the calls that are open are told as the connection is dropped.
        tokio::select! {
            biased;
            _ended = connection => {}
            () = dead => {}
        }
    });
    Ok(Up { requests, watch })
}

/// The body of an answer. Dropping it before its end resets the call.
#[derive(Debug)]
pub(super) struct Answer {
    stream: RecvStream,
    is_data_read: bool,
    _open: OpenCall,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_data_read {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only where the stream is gone, as the next poll says.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.is_data_read = true,
            }
        }
        let trailers: Option<HeaderMap> = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
