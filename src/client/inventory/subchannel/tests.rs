//! A connection's life: made once for all that wait, watched while calls are open, followed by another when it ends.
#![allow(clippy::unwrap_used)]

mod late;

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicUsize;

use futures_util::future::join;
use tokio::io::{DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::connect::Target;
use super::*;
use crate::client::addresses::{Addresses, Lookup};

const INTERVAL: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3_600);
/// For what comes: far above what it takes.
const LONG: Duration = Duration::from_secs(10);

fn settings() -> Settings {
    Settings {
        scheme: Scheme::HTTP,
        authority: Authority::from_static("inventory.test"),
        keepalive_interval: INTERVAL,
        keepalive_timeout: PATIENCE,
    }
}

fn subchannel(lookup: Lookup) -> Subchannel {
    let target = Target { host: "name".into(), port: 1, lookup, tls: None, timeout: HOUR };
    let connector = Connector {
        target: Arc::new(target),
        addresses: Arc::new(Addresses::default()),
        count: Arc::default(),
    };
    Subchannel::new(connector, settings())
}

async fn call(subchannel: &Subchannel) -> Result<Bytes, StdError> {
    let request = Request::post("/service/Method").body(http_body_util::Full::<Bytes>::default());
    let answer = subchannel.send(request.unwrap()).await?;
    Ok(answer.into_body().collect().await?.to_bytes())
}

fn spawn_call(subchannel: &Subchannel) -> JoinHandle<Result<Bytes, String>> {
    let subchannel = subchannel.clone();
    tokio::spawn(async move { call(&subchannel).await.map_err(|error| error.to_string()) })
}

/// Until the client has read that the server takes so many calls at once.
async fn told(requests: &SendRequest<Bytes>, limit: usize) {
    while requests.current_max_send_streams() != limit {
        tokio::task::yield_now().await;
    }
}

/// How long a connection is watched before it is given up, an hour at most, while `calls` are made. `serve` is the other end.
async fn watched_for<F, C>(
    calls: impl FnOnce(Arc<Watch>) -> C,
    serve: impl FnOnce(DuplexStream) -> F,
) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
    C: Future<Output = ()> + Send + 'static,
{
    let (near, far) = duplex(64 << 10);
    tokio::spawn(serve(far));
    let (_requests, mut connection) = h2::client::handshake(near).await.unwrap();
    let pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    let watch = Arc::new(Watch::new(Arc::default()));
    let calls = tokio::spawn(calls(Arc::clone(&watch)));
    let since = Instant::now();
    let _ = timeout(HOUR, until_dead(pings, watch, INTERVAL, PATIENCE)).await;
    calls.abort();
    since.elapsed()
}

/// Calls of two seconds that are given up, and a pause after each.
fn brief_calls(pause: Duration) -> impl FnOnce(Arc<Watch>) -> BoxFuture<'static, ()> {
    move |watch| {
        async move {
            loop {
                watch.was_asked.store(true, Ordering::Relaxed);
                let open = OpenCall::new(Arc::clone(&watch));
                sleep(Duration::from_secs(2)).await;
                drop(open);
                sleep(pause).await;
            }
        }
        .boxed()
    }
}

async fn one_call(watch: Arc<Watch>) {
    let _open = OpenCall::new(watch);
    std::future::pending().await
}

async fn no_calls(_: Arc<Watch>) {}

/// Keeps its end open, and says nothing.
async fn silent(far: DuplexStream) {
    std::future::pending::<()>().await;
    drop(far);
}

/// Answers pings, and nothing else.
async fn living(far: DuplexStream) {
    let mut connection = h2::server::handshake(far).await.unwrap();
    while connection.accept().await.is_some() {}
}

/// A call that is open all the time, while the other end says something each second.
async fn busy(watch: Arc<Watch>) {
    let _open = OpenCall::new(Arc::clone(&watch));
    loop {
        watch.was_heard.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_answer_is_given_up_when_calls_were_made() {
    let in_time = INTERVAL..=INTERVAL * 3 / 2 + PATIENCE;
    let took = watched_for(one_call, silent).await;
    assert!(in_time.contains(&took), "{took:?}");
    for pause in [0, 1, 3, 8, 30] {
        let took = watched_for(brief_calls(Duration::from_secs(pause)), silent).await;
        assert!(in_time.contains(&took), "{took:?}, calls {pause} s apart");
    }
    assert_eq!(watched_for(no_calls, silent).await, HOUR, "idle connections are not asked");
    assert_eq!(watched_for(busy, silent).await, HOUR, "nor are those that are heard");
    assert_eq!(watched_for(one_call, living).await, HOUR);
    assert_eq!(watched_for(brief_calls(INTERVAL), living).await, HOUR);
}

#[tokio::test]
async fn calls_that_are_given_up_while_the_server_takes_no_more_are_never_sent() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let subchannel = subchannel(Lookup::fixed(vec![listener.local_addr().unwrap()]));
    let first = spawn_call(&subchannel);
    let (tcp, _) = listener.accept().await.unwrap();
    let mut server = h2::server::Builder::new();
    let mut connection: h2::server::Connection<_, Bytes> =
        server.max_concurrent_streams(1).handshake(tcp).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    let rest = tokio::spawn(async move {
        let mut calls = 0;
        while let Some(next) = connection.accept().await {
            next.unwrap().1.send_response(Response::new(()), true).unwrap();
            calls += 1;
        }
        calls
    });
    let Up { requests, .. } = subchannel.up().await.unwrap();
    told(&requests, 1).await;
    drop(requests);
    let brief = |_| timeout(Duration::from_millis(100), call(&subchannel));
    let gave_up = futures_util::future::join_all((0..60).map(brief)).await;
    assert!(gave_up.iter().all(Result::is_err));
    let last = spawn_call(&subchannel);
    respond.send_response(Response::new(()), true).unwrap();
    for answered in [first, last] {
        assert_eq!(answered.await.unwrap(), Ok(Bytes::new()));
    }
    drop(subchannel);
    assert_eq!(rest.await.unwrap(), 1, "the one that waited to the end");
}

#[tokio::test]
async fn calls_that_wait_share_an_attempt_that_goes_on_without_them() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, found) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let lookup = Lookup::of({
        let (asked, found) = (Arc::clone(&asked), Arc::clone(&found));
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let found = Arc::clone(&found);
            async move {
                found.notified().await;
                vec![address]
            }
        }
    });
    let subchannel = subchannel(lookup);
    let brief = |_| timeout(Duration::from_millis(50), call(&subchannel));
    let gave_up = futures_util::future::join_all((0..5).map(brief)).await;
    assert!(gave_up.iter().all(Result::is_err));
    found.notify_one();
    let server = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        tokio::spawn(async move { connection.accept().await.is_none() });
    };
    let (answer, ()) = timeout(LONG, join(call(&subchannel), server)).await.unwrap();
    assert_eq!((answer.unwrap(), asked.load(Ordering::Relaxed)), (Bytes::new(), 1));
    let Up { watch, .. } = subchannel.up().await.unwrap();
    assert!(watch.was_heard.load(Ordering::Relaxed), "the watch learns of what is read");
}

/// Answers every call with nothing, until the connection ends.
async fn answer_all(mut connection: h2::server::Connection<TcpStream, Bytes>) {
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        respond.send_response(Response::new(()), true).unwrap();
    }
}

async fn accept(listener: &TcpListener) -> h2::server::Connection<TcpStream, Bytes> {
    h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap()
}

#[tokio::test]
async fn a_connection_that_ends_in_good_order_finishes_its_calls_while_the_next_has_another() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let subchannel = subchannel(Lookup::fixed(vec![listener.local_addr().unwrap()]));
    let first = spawn_call(&subchannel);
    let mut one = accept(&listener).await;
    let (_, mut respond) = one.accept().await.unwrap().unwrap();
    one.graceful_shutdown();
    let one = tokio::spawn(answer_all(one));
    // Until the client has heard of it, the first connection has these too.
    let others = tokio::spawn(async move {
        loop {
            call(&subchannel).await.unwrap();
        }
    });
    let two = tokio::spawn(answer_all(accept(&listener).await));
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"whole"), true).unwrap();
    assert_eq!(first.await.unwrap(), Ok(Bytes::from_static(b"whole")));
    one.await.unwrap();
    assert!(!others.is_finished(), "{:?}", others.await);
    others.abort();
    two.await.unwrap();
}

#[tokio::test]
async fn a_call_that_waits_for_room_leaves_a_connection_that_is_being_ended() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let subchannel = subchannel(Lookup::fixed(vec![listener.local_addr().unwrap()]));
    let _hangs = spawn_call(&subchannel);
    let (tcp, _) = listener.accept().await.unwrap();
    let mut server = h2::server::Builder::new();
    let handshake = server.max_concurrent_streams(1).handshake::<_, Bytes>(tcp);
    let mut connection = handshake.await.unwrap();
    let (_, _unanswered) = connection.accept().await.unwrap().unwrap();
    let Up { requests, .. } = subchannel.up().await.unwrap();
    tokio::select! {
        () = told(&requests, 1) => {}
        _ = connection.accept() => panic!("one call was made"),
    }
    let waits = spawn_call(&subchannel);
    tokio::task::yield_now().await;
    // The call that is open does not end.
    connection.graceful_shutdown();
    tokio::spawn(async move { connection.accept().await.is_none() });
    tokio::spawn(answer_all(accept(&listener).await));
    assert_eq!(timeout(LONG, waits).await.unwrap().unwrap(), Ok(Bytes::new()));
}

#[tokio::test]
async fn a_connection_that_ends_without_having_taken_a_call_is_followed_by_another() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let subchannel = subchannel(Lookup::fixed(vec![listener.local_addr().unwrap()]));
    let waiting = subchannel.clone();
    let up = tokio::spawn(async move { waiting.up().await.unwrap().requests });
    let (tcp, _) = listener.accept().await.unwrap();
    let mut server = h2::server::Builder::new();
    let handshake = server.max_concurrent_streams(0).handshake::<_, Bytes>(tcp);
    let mut connection = handshake.await.unwrap();
    let requests = up.await.unwrap();
    tokio::select! {
        () = told(&requests, 0) => {}
        _ = connection.accept() => panic!("nothing was called"),
    }
    let calls = [0; 3].map(|_| spawn_call(&subchannel));
    tokio::task::yield_now().await;
    drop(connection);
    tokio::spawn(answer_all(accept(&listener).await));
    for call in calls {
        assert_eq!(timeout(LONG, call).await.unwrap().unwrap(), Ok(Bytes::new()));
    }
}
