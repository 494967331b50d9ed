//! What `dlq` costs: time, and calls to SQS, counted between the program and the stand-in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandbox::sqs::NewMessage;
use sandbox::testing::program::{program, stderr};
use sandbox::testing::world::{World, expired};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::dlq::operator;

/// Calls by action.
type Calls = Arc<Mutex<BTreeMap<String, usize>>>;

/// How long a run may take, unoptimised and on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What is before an action's name in a request.
const TARGET: &[u8] = b"x-amz-target: AmazonSQS.";

/// Forwards connections to `to`, and counts the calls on them.
async fn counted(to: SocketAddr) -> (SocketAddr, Calls) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (here, calls) = (listener.local_addr().unwrap(), Calls::default());
    let shared = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let calls = Arc::clone(&shared);
            tokio::spawn(async move {
                let far = TcpStream::connect(to).await.unwrap();
                let ((mut near_out, mut near_in), (mut far_out, mut far_in)) =
                    (near.into_split(), far.into_split());
                let answers = copy(&mut far_out, &mut near_in);
                let requests = async {
                    let (mut buffer, mut tail) = (vec![0; 65_536], Vec::new());
                    while let Ok(length @ 1..) = near_out.read(&mut buffer).await {
                        count(&calls, &mut tail, &buffer[..length]);
                        far_in.write_all(&buffer[..length]).await.unwrap();
                    }
                };
                let _ = tokio::join!(answers, requests);
            });
        }
    });
    (here, calls)
}

/// Counts the calls whose names are complete, and keeps the rest.
fn count(calls: &Calls, tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    let mut from = 0;
    while let Some(at) = tail[from..].windows(TARGET.len()).position(|part| part == TARGET) {
        let name = from + at + TARGET.len();
        let Some(length) = tail[name..].iter().position(|byte| *byte == b'\r') else { break };
        let action = String::from_utf8_lossy(&tail[name..name + length]).into_owned();
        *calls.lock().unwrap().entry(action).or_default() += 1;
        from = name + length;
    }
    tail.drain(..from);
    // A name that is cut is at the end.
    let rest = tail.len().saturating_sub(TARGET.len() + 64);
    tail.drain(..rest);
}

/// Lists and redrives so many, prints what that costs, and returns the calls of both.
#[allow(clippy::print_stdout, reason = "the figures are what it is run for")]
async fn measured(letters: usize) -> [BTreeMap<String, usize>; 2] {
    let world = World::start().await;
    for n in 0..letters {
        let body = expired(&format!("evt-{n}"), &format!("rsv-{n}")).to_string();
        let message = NewMessage::new(body).attribute("dlq_reason", "rejected");
        world.sqs.send_message(&world.dlq, message).unwrap();
    }
    let address = world.sqs.endpoint_url().trim_start_matches("http://").parse().unwrap();
    let (endpoint, calls) = counted(address).await;
    let mut variables = operator(&world);
    variables.insert("AWS_ENDPOINT_URL", format!("http://{endpoint}"));
    let mut seen = Vec::new();
    for arguments in [&["list"][..], &["redrive", "--all", "--yes", "--rate", "500"]] {
        let began = Instant::now();
        let mut command = Command::new(program());
        command.arg("dlq").args(arguments).env_clear().envs(&variables);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(RUN_MAX, command.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let calls = std::mem::take(&mut *calls.lock().unwrap());
        println!("{arguments:?}: {letters} in {:.1} s: {calls:?}", began.elapsed().as_secs_f64());
        seen.push(calls);
    }
    assert_eq!(world.sqs.peek_all(&world.queue).len(), letters);
    seen.try_into().unwrap()
}

/// The calls that are needed, and a few more: ten messages a batch, two empty receives at the end.
fn assert_few(calls: &BTreeMap<String, usize>, batches: usize, of: &[&str], sends: usize) {
    for action in of {
        let count = calls[*action];
        assert!((batches..=batches + batches / 10 + 3).contains(&count), "{action}: {count}");
    }
    assert_eq!(calls.get("SendMessage").copied().unwrap_or(0), sends);
}

async fn costs_few_calls(letters: usize) {
    let [list, redrive] = measured(letters).await;
    assert_few(&list, letters / 10, &["ReceiveMessage", "ChangeMessageVisibilityBatch"], 0);
    assert_few(&redrive, letters / 10, &["ReceiveMessage", "DeleteMessageBatch"], letters);
    assert_eq!(redrive.get("ChangeMessageVisibilityBatch"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_takes_a_tenth_of_the_messages_in_calls() {
    costs_few_calls(500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: a minute"]
async fn ten_thousand_are_listed_and_redriven() {
    costs_few_calls(10_000).await;
}
