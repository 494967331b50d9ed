//! Tests over a real socket, also with clients that misbehave.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};
use tokio::net::UnixStream as Stream;

use super::*;
use crate::config::LogLevel;
use crate::controls::Controls;
use crate::health::Health;
use crate::idempotency::memory::MemoryStore;
use crate::metrics::Metrics;
use crate::status::Status;

/// No admin port has such a number: these sockets belong to no worker.
fn free_name() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in one process: the number of the process tells other runs apart.
    let of_run = u16::try_from(std::process::id() % 600).unwrap() * 100;
    of_run + NEXT.fetch_add(1, Ordering::Relaxed)
}

struct Served {
    port: u16,
    status: Arc<Status>,
    controls: Arc<Controls>,
    task: tokio::task::JoinHandle<()>,
}

fn serve() -> Served {
    serve_at(free_name())
}

fn serve_at(port: u16) -> Served {
    let (metrics, health) = (Arc::new(Metrics::new(&[])), Arc::new(Health::new()));
    let sources = crate::status::tests::sources(Arc::clone(&metrics), health);
    let controls = Arc::new(Controls::new(metrics));
    let status = Arc::new(Status::new(sources));
    let parts = ControlParts {
        status: Arc::clone(&status),
        controls: Arc::clone(&controls),
        store: Arc::new(MemoryStore::new(10, Duration::from_secs(60))),
        workers_max: 1_000,
    };
    let task = tokio::spawn(super::serve(port, Arc::new(parts)));
    Served { port, status, controls, task }
}

/// Connects, as soon as the socket is bound.
async fn connect(port: u16) -> Stream {
    let address = address(port).unwrap();
    let stream = loop {
        match std::os::unix::net::UnixStream::connect_addr(&address) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    stream.set_nonblocking(true).unwrap();
    Stream::from_std(stream).unwrap()
}

async fn ask(port: u16, request: &[u8]) -> Value {
    let mut stream = connect(port).await;
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test]
async fn each_command_is_carried_out() {
    let served = serve();
    let text = |answer: &Value| answer["text"].as_str().unwrap().to_owned();
    let answer =
        ask(served.port, b"{\"command\":\"pause\",\"for_s\":60,\"reason\":\"why\"}\n").await;
    assert!(answer["ok"] == true && text(&answer).starts_with("paused until "), "{answer}");
    assert_eq!(served.controls.paused().unwrap().0.reason, "why");
    let answer = ask(served.port, b"{\"command\":\"resume\"}\n").await;
    assert_eq!((text(&answer).as_str(), served.controls.paused()), ("resumed", None));
    assert_eq!(text(&ask(served.port, b"{\"command\":\"resume\"}\n").await), "it was not paused");
    let concurrency = b"{\"command\":\"concurrency\",\"workers\":7,\"for_s\":60}\n";
    assert_eq!(ask(served.port, concurrency).await["ok"], true);
    assert_eq!(served.controls.concurrency().unwrap().get(), 7);
    let log_level = b"{\"command\":\"log-level\",\"level\":\"DEBUG\",\"for_s\":60}\n";
    assert_eq!(ask(served.port, log_level).await["ok"], true);
    assert_eq!(served.controls.log_level(), Some(LogLevel::Debug));
    let status = ask(served.port, b"{\"command\":\"status\"}\n").await;
    assert_eq!(status["data"]["held_total"], json!(0));
    let event = ask(served.port, b"{\"command\":\"event\",\"id\":\"e\\u0007\"}\n").await;
    assert!(text(&event).contains(r#"does not hold "e\u{7}""#), "{event}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let served = serve();
    let long =
        format!("{{\"command\":\"pause\",\"for_s\":1,\"reason\":\"{}\"}}\n", "x".repeat(201));
    let cases: [(&[u8], &str); 10] = [
        (b"{\"command\":\"pause\",\"for_s\":43201}\n", "at most 43200 s"),
        (b"{\"command\":\"pause\",\"for_s\":0}\n", "nonzero"),
        (b"{\"command\":\"concurrency\",\"workers\":0,\"for_s\":1}\n", "1 to 1000"),
        (b"{\"command\":\"concurrency\",\"workers\":1001,\"for_s\":1}\n", "1 to 1000"),
        (
            b"{\"command\":\"log-level\",\"level\":\"loud\",\"for_s\":1}\n",
            "debug, info, warn, error",
        ),
        (b"{\"command\":\"sudo\"}\n", "sudo"),
        (b"{\"command\":\"resume\",\"all\":true}\n", "--all needs a shared store"),
        (b"\xff\xfe\n", "cannot be read"),
        (b"\n", "cannot be read"),
        (long.as_bytes(), "at most 200 characters"),
    ];
    for (request, expected) in cases {
        let answer = ask(served.port, request).await;
        let text = answer["text"].as_str().unwrap();
        assert!(answer["ok"] == false && text.contains(expected), "{request:?}: {answer}");
    }
    assert_eq!(served.controls.in_effect(), []);
}

#[tokio::test]
async fn a_request_without_an_end_is_cut_off() {
    let served = serve();
    let mut stream = connect(served.port).await;
    stream.write_all(&vec![b'x'; 5 * 1024]).await.unwrap();
    let mut answer = String::new();
    // What was not read resets the connection after the answer.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.contains("no line, or too long"), "{answer}");
}

#[tokio::test]
async fn slow_clients_keep_nobody_out_for_long() {
    let served = serve();
    let mut slow = Vec::new();
    for _ in 0..64 {
        slow.push(connect(served.port).await);
    }
    let answer = timeout(Duration::from_secs(20), ask(served.port, b"{\"command\":\"status\"}\n"));
    assert_eq!(answer.await.expect("in time")["ok"], true);
    served.task.abort();
}

/// Returns whether the status says that the socket is bound.
fn is_bound(status: &Status) -> bool {
    let parts = status.fresh_report().parts;
    parts.iter().find(|part| part.name == "control socket").unwrap().is_ok
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_that_another_worker_has_is_bound_as_soon_as_it_is_free() {
    let first = serve();
    ask(first.port, b"{\"command\":\"resume\"}\n").await;
    let second = serve_at(first.port);
    assert_eq!(ControlServer::bind(first.port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let bound = async {
        while !is_bound(&second.status) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let mut bound = std::pin::pin!(bound);
    assert!(timeout(Duration::from_millis(1_200), &mut bound).await.is_err(), "it is taken");
    assert!(is_bound(&first.status));
    first.task.abort();
    bound.await;
    ask(second.port, b"{\"command\":\"pause\",\"for_s\":60}\n").await;
    assert!(second.controls.paused().is_some() && first.controls.paused().is_none());
}
