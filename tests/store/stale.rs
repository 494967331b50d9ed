//! A server that answers but rejects the store's scripts, such as a former master after a failover.
//! A stand-in answers as Redis 6 does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reservation_worker::idempotency::{Claim, ClaimToken, Store, StoreError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{HASH, LONG, TTL, id, redis_store, request};

/// The error of Redis 6.2, whose code is not `READONLY`.
const READONLY: &str = "-ERR Error running script (call to f_0e1f4d): @user_script:57: @user_script: 57: -READONLY You can't write against a read only replica. \r\n";

/// A script's answer: the claim is granted, and no step is done.
const OURS: &str = "*2\r\n:3\r\n:0\r\n";

/// Starts a server whose first connection gives scripts this answer; all others give the right one.
///
/// Returns its URL and its number of connections.
async fn stale_once(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            // The task ends with its connection.
            tokio::spawn(serve(socket, if is_first { answer } else { OURS }));
        }
    });
    (url, connections)
}

async fn serve(socket: TcpStream, to_scripts: &'static str) {
    let mut stream = BufStream::new(socket);
    while let Some(verb) = command(&mut stream).await {
        let answer = match verb.as_str() {
            "EVALSHA" | "EVAL" => to_scripts,
            "HELLO" => {
                "*8\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n6.2.0\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
            }
            "INFO" => "$29\r\nmaxmemory_policy:noeviction\r\n\r\n",
            _ => "+OK\r\n",
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Returns the first word of the next command.
async fn command(stream: &mut BufStream<TcpStream>) -> Option<String> {
    let words = number(stream, '*').await?;
    let mut first = None;
    for _ in 0..words {
        let mut word = vec![0; number(stream, '$').await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        first.get_or_insert(word);
    }
    Some(String::from_utf8(first?).ok()?.trim_end().to_uppercase())
}

async fn number(stream: &mut BufStream<TcpStream>, sign: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.strip_prefix(sign)?.trim_end().parse().ok()
}

/// Returns the number of claims that fail before one succeeds.
async fn failed_claims(url: &str) -> usize {
    let store = redis_store(url, "p:", TTL);
    for failed in 0..60 {
        match store.claim((&id("e")).into(), request(HASH, ClaimToken::unique(), LONG)).await {
            Ok(Claim::Ours(_)) => return failed,
            Err(StoreError::Unavailable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    60
}

#[tokio::test]
async fn a_readonly_error_inside_a_script_error_fails_one_claim() {
    let (url, connections) = stale_once(READONLY).await;
    assert_eq!(failed_claims(&url).await, 1);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// The error shows the cause and not the position in the script.
#[tokio::test]
async fn an_error_inside_a_script_error_is_shown_without_its_wrapping() {
    let (url, _) = stale_once("-ERR Error running script (call to f_0e1f4d): @user_script:57: @user_script: 57: -OOM command not allowed when used memory > 'maxmemory'. \r\n").await;
    let store = redis_store(&url, "p:", TTL);
    let said = store
        .claim((&id("e")).into(), request(HASH, ClaimToken::unique(), LONG))
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("answers OOM \"command not allowed"), "{said}");
}

#[tokio::test]
async fn a_connection_with_repeated_errors_is_replaced() {
    let wrapped_elsewhere = "-ERR Error running script: UNKILLABLE what nobody has heard of\r\n";
    for answer in [wrapped_elsewhere, "-BUSY Redis is busy\r\n", "+OK\r\n", "*1\r\n:99\r\n"] {
        let (url, connections) = stale_once(answer).await;
        assert_eq!(failed_claims(&url).await, 16, "{answer}");
        assert_eq!(connections.load(Ordering::SeqCst), 2, "{answer}");
    }
}
