//! Answers that come after their call was abandoned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::channel::BalancedChannel;
use super::network::call;
use super::*;

/// Calls that are made and abandoned at once; fewer than the client's limit of open calls.
const BATCH: usize = 50;
const BATCHES: usize = 50;

const PREFACE_LEN: usize = 24;
const HEAD_LEN: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
/// Flags END_STREAM and END_HEADERS, and `:status: 200` of HPACK's static table.
const END: u8 = 5;
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// Frames that the server has read.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    given_up: AtomicUsize,
}

/// Serves a connection, and answers the abandoned calls late.
///
/// It answers them all once all batches are abandoned, and later calls at once. `h2`'s server would
/// not answer a call that it knows to be abandoned.
async fn answer_late(mut tcp: TcpStream, seen: Arc<Seen>) {
    tcp.read_exact(&mut [0; PREFACE_LEN]).await.unwrap();
    tcp.write_all(&frame(SETTINGS, 0, [0; 4], &[])).await.unwrap();
    let mut given_up = Vec::new();
    loop {
        let mut head = [0; HEAD_LEN];
        if tcp.read_exact(&mut head).await.is_err() {
            return;
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        tcp.read_exact(&mut payload).await.unwrap();
        let answer = |stream| frame(HEADERS, END, stream, &[STATUS_200]);
        match kind {
            SETTINGS if flags & ACK == 0 => {
                tcp.write_all(&frame(SETTINGS, ACK, [0; 4], &[])).await.unwrap();
            }
            HEADERS => {
                seen.calls.fetch_add(1, Ordering::Relaxed);
                if given_up.len() == BATCH * BATCHES {
                    tcp.write_all(&answer(stream)).await.unwrap();
                }
            }
            RST_STREAM if given_up.len() < BATCH * BATCHES => {
                given_up.push(stream);
                seen.given_up.fetch_add(1, Ordering::Relaxed);
                if given_up.len() == BATCH * BATCHES {
                    let answers: Vec<u8> = given_up.iter().copied().flat_map(answer).collect();
                    tcp.write_all(&answers).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

fn spawn_call(channel: &BalancedChannel) -> JoinHandle<Result<Bytes, String>> {
    let channel = channel.clone();
    tokio::spawn(async move { call(&channel).await.map_err(|error| chain(&*error)) })
}

#[tokio::test]
async fn late_answers_to_abandoned_calls_do_not_end_the_connection() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let name = service_name(&uri, Lookup::system(), &Credentials::default(), LONG).unwrap();
    let channel = BalancedChannel::new(name);
    let seen = Arc::new(Seen::default());
    let connections = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let (seen, connections) = (Arc::clone(&seen), Arc::clone(&connections));
        async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer_late(tcp, Arc::clone(&seen)));
            }
        }
    });
    let reached = async |count: &AtomicUsize, total| {
        while count.load(Ordering::Relaxed) < total {
            tokio::task::yield_now().await;
        }
    };
    for batch in 1..=BATCHES {
        let calls: Vec<_> = (0..BATCH).map(|_| spawn_call(&channel)).collect();
        timeout(LONG, reached(&seen.calls, batch * BATCH)).await.unwrap();
        calls.iter().for_each(JoinHandle::abort);
        timeout(LONG, reached(&seen.given_up, batch * BATCH)).await.unwrap();
    }
    // This answer comes after the late ones.
    let last = timeout(LONG, spawn_call(&channel)).await.unwrap().unwrap();
    assert_eq!(last, Ok(Bytes::new()));
    let next = timeout(LONG, spawn_call(&channel)).await.unwrap().unwrap();
    assert_eq!(next, Ok(Bytes::new()));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
