//! Life of a connection: opened once for all waiting calls, and replaced when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use h2::server::{Builder, Connection, SendResponse, handshake};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::*;
use crate::client::test_server::fixed_lookup;

type ServerConnection = Connection<TcpStream, Bytes>;

async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

fn client_of(lookup: Lookup) -> GrpcInventory {
    let credentials = Credentials::default();
    let settings = GrpcSettings { uri: "http://name:1".into(), credentials, timeout: LONG };
    GrpcInventory::with_lookup(settings, lookup).unwrap()
}

fn client_to(listener: &TcpListener) -> GrpcInventory {
    client_of(fixed_lookup(vec![listener.local_addr().unwrap()]))
}

fn spawn_call(api: &GrpcInventory) -> JoinHandle<Result<(), CallError>> {
    let api = api.clone();
    tokio::spawn(async move { release(&api).await })
}

fn released_head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn finish(mut body: h2::SendStream<Bytes>) {
    // The client may have closed the connection.
    drop(body.send_data(framed(&ReleaseHoldResponse { status: 1, error: None }), false));
    drop(body.send_trailers(trailers("0")));
}

fn answer(respond: &mut SendResponse<Bytes>) {
    if let Ok(body) = respond.send_response(released_head(), false) {
        finish(body);
    }
}

/// Answers every call until the connection ends, and returns their number.
async fn answer_all(mut connection: ServerConnection) -> usize {
    let mut calls = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        answer(&mut respond);
        calls += 1;
    }
    calls
}

async fn accept(listener: &TcpListener) -> ServerConnection {
    handshake(listener.accept().await.unwrap().0).await.unwrap()
}

async fn accept_with_limit(listener: &TcpListener, limit: u32) -> ServerConnection {
    let (tcp, _) = listener.accept().await.unwrap();
    Builder::new().max_concurrent_streams(limit).handshake(tcp).await.unwrap()
}

/// Yields long enough that calls begin to wait.
async fn a_while() {
    for _ in 0..1_000 {
        yield_now().await;
    }
}

#[tokio::test]
async fn waiting_calls_share_an_attempt_that_continues_without_them() {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let (asked, found) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let api = client_of(Lookup::new({
        let (asked, found) = (Arc::clone(&asked), Arc::clone(&found));
        move |_, _| {
            asked.fetch_add(1, Ordering::Relaxed);
            let found = Arc::clone(&found);
            async move {
                found.notified().await;
                Ok(vec![address])
            }
        }
    }));
    let brief = |_| timeout(Duration::from_millis(50), release(&api));
    let gave_up = join_all((0..5).map(brief)).await;
    assert!(gave_up.iter().all(Result::is_err));
    found.notify_one();
    let server = async {
        let mut connection = accept(&listener).await;
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        answer(&mut respond);
        tokio::spawn(async move { connection.accept().await.is_none() });
    };
    let (answer, ()) = timeout(LONG, join(release(&api), server)).await.unwrap();
    assert_eq!((answer, asked.load(Ordering::Relaxed)), (Ok(()), 1));
}

#[tokio::test]
async fn calls_abandoned_at_the_stream_limit_are_not_sent() {
    let listener = listener().await;
    let api = client_to(&listener);
    let first = spawn_call(&api);
    let mut connection = accept_with_limit(&listener, 1).await;
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    let rest = tokio::spawn(answer_all(connection));
    let gave_up = join_all((0..60).map(|_| timeout(SHORT, release(&api)))).await;
    assert!(gave_up.iter().all(Result::is_err));
    let last = spawn_call(&api);
    a_while().await;
    answer(&mut respond);
    for answered in [first, last] {
        assert_eq!(answered.await.unwrap(), Ok(()));
    }
    drop(api);
    let sent = rest.await.unwrap();
    // One call is handed to HTTP/2 in advance, and may be sent and reset.
    assert!((1..=2).contains(&sent), "{sent} calls were sent, one waited to the end");
}

#[tokio::test]
async fn calls_beyond_the_stream_limit_wait() {
    let listener = listener().await;
    let api = client_to(&listener);
    let calls: Vec<_> = (0..50).map(|_| spawn_call(&api)).collect();
    let connection = accept_with_limit(&listener, 3).await;
    let server = tokio::spawn(answer_all(connection));
    for call in calls {
        assert_eq!(timeout(LONG, call).await.unwrap().unwrap(), Ok(()));
    }
    drop(api);
    assert_eq!(server.await.unwrap(), 50, "calls were rejected and sent again");
}

#[tokio::test]
async fn a_closing_connection_finishes_its_calls_while_a_new_one_takes_others() {
    let listener = listener().await;
    let api = client_to(&listener);
    let first = spawn_call(&api);
    let mut one = accept(&listener).await;
    let (_, mut respond) = one.accept().await.unwrap().unwrap();
    one.graceful_shutdown();
    let one = tokio::spawn(answer_all(one));
    // These calls also use the first connection, until the client knows that it is closing.
    let others = tokio::spawn(async move {
        loop {
            release(&api).await.unwrap();
        }
    });
    let two = tokio::spawn(answer_all(accept(&listener).await));
    let body = respond.send_response(released_head(), false).unwrap();
    a_while().await;
    finish(body);
    assert_eq!(first.await.unwrap(), Ok(()));
    one.await.unwrap();
    assert!(!others.is_finished(), "{:?}", others.await);
    others.abort();
    assert!(two.await.unwrap() > 0);
}

#[tokio::test]
async fn a_call_that_waits_for_a_stream_leaves_a_closing_connection() {
    let listener = listener().await;
    let api = client_to(&listener);
    let _hangs = spawn_call(&api);
    let mut connection = accept_with_limit(&listener, 1).await;
    let (_, _unanswered) = connection.accept().await.unwrap().unwrap();
    let waiting: Vec<_> = (0..3).map(|_| spawn_call(&api)).collect();
    a_while().await;
    // The open call does not end.
    connection.graceful_shutdown();
    tokio::spawn(async move { connection.accept().await.is_none() });
    tokio::spawn(answer_all(accept(&listener).await));
    for waits in waiting {
        assert_eq!(timeout(LONG, waits).await.unwrap().unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_any_call_is_replaced() {
    let listener = listener().await;
    let api = client_to(&listener);
    let calls = [0; 3].map(|_| spawn_call(&api));
    let mut connection = accept_with_limit(&listener, 0).await;
    tokio::select! {
        // The settings are sent, and the calls wait for the stream limit.
        () = a_while() => {}
        _ = connection.accept() => panic!("a call beyond the stream limit"),
    }
    drop(connection);
    tokio::spawn(answer_all(accept(&listener).await));
    for call in calls {
        assert_eq!(timeout(LONG, call).await.unwrap().unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn a_refused_stream_is_retried_and_repeated_refusals_are_an_outage() {
    let listener = listener().await;
    let api = client_to(&listener);
    let call = spawn_call(&api);
    let mut connection = accept(&listener).await;
    for _ in 1..TRIES_MAX {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    answer(&mut respond);
    let refused = tokio::spawn(async move {
        let mut refused = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            refused += 1;
        }
        refused
    });
    assert_eq!(call.await.unwrap(), Ok(()));
    let error = release(&api).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"));
    drop(api);
    assert_eq!(refused.await.unwrap(), TRIES_MAX);
}
