//! `dlq` while SQS is throttled, others use the queue, messages come, and somebody presses Ctrl-C.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use sandbox::process::{Process, interrupt};
use sandbox::sqs::{Action, ErrorCode, Fault};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use sandbox::testing::program::{program, stderr, stdout};
use sandbox::testing::world::{LIMIT, World, eventually, expired};

use crate::dlq::{all_visible, dlq, event, ids, objects, operator, put};

#[tokio::test]
async fn throttling_and_lost_answers_lose_nothing() {
    let world = World::start().await;
    for n in 0..100 {
        put(&world, n, "rejected");
    }
    let throttled = Fault::Error(ErrorCode::RequestThrottled);
    for (queue, action, fault) in [
        (&world.queue, Action::SendMessage, Fault::ReplyLost),
        (&world.dlq, Action::ReceiveMessage, throttled),
        (&world.dlq, Action::DeleteMessageBatch, throttled),
        (&world.dlq, Action::ChangeMessageVisibilityBatch, throttled),
    ] {
        world.sqs.faults(queue).fail_sometimes(action, 0.2, fault);
    }
    let done = objects(&world, &["redrive", "--all", "--yes", "--rate", "500"], 0).await;
    assert_eq!(done.last().unwrap()["summary"]["redriven"], 100);
    assert_eq!(world.sqs.counts(&world.dlq).total(), 0);
    let sent = ids(&world.sqs.peek_all(&world.queue));
    assert!(sent.len() > 100, "no answer was lost");
    assert_eq!(sent.into_iter().collect::<BTreeSet<_>>(), (0..100).map(event).collect());
}

#[tokio::test]
async fn two_runs_at_once_share_the_queue() {
    let world = World::start().await;
    for n in 0..200 {
        put(&world, n, "rejected");
    }
    let arguments = ["redrive", "--all", "--yes", "--rate", "200"];
    let (one, other) = tokio::join!(redrive(&world, &arguments), redrive(&world, &arguments));
    assert_eq!(one + other, 200);
    assert_eq!(world.sqs.peek_all(&world.queue).len(), 200);
}

/// Returns how many were redriven. The exit code is 1 if the other run held some to the end.
async fn redrive(world: &World, arguments: &[&str]) -> u64 {
    let output = dlq(world, &[arguments, &["--json"]].concat()).await;
    let summary: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    let summary = &summary["summary"];
    let code = i32::from(summary["held_by_others"] != 0);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    summary["redriven"].as_u64().unwrap()
}

#[tokio::test]
async fn messages_that_come_during_the_run_are_left_alone() {
    let world = World::start().await;
    for n in 0..40 {
        put(&world, n, "rejected");
    }
    let running = objects(&world, &["redrive", "--all", "--yes", "--rate", "20"], 0);
    let sending = async {
        let has_begun = || world.sqs.ledger(&world.queue).sent > 0;
        eventually("the first is sent", has_begun).await;
        // SQS's time of sending has milliseconds.
        let sent_at = std::time::Instant::now();
        eventually("the clock goes on", || sent_at.elapsed() > Duration::from_millis(2)).await;
        (100..110).for_each(|n| drop(put(&world, n, "rejected")));
    };
    let (done, ()) = tokio::join!(running, sending);
    assert_eq!(done.last().unwrap()["summary"]["redriven"], 40);
    assert_eq!(done.last().unwrap()["summary"]["left_newer_than_run"], 10);
    all_visible(&world, &world.dlq, 10);
}

#[tokio::test]
async fn ctrl_c_ends_with_130_and_gives_back_the_rest() {
    let world = World::start().await;
    for n in 0..100 {
        put(&world, n, "rejected");
    }
    let log =
        std::env::temp_dir().join(format!("dlq-{}-{}", std::process::id(), fastrand::u32(..)));
    let arguments = ["dlq", "redrive", "--all", "--yes", "--rate", "20"];
    let script = log.with_extension("sh");
    std::fs::write(&script, format!("#!/bin/sh\nexec '{}' {}\n", program(), arguments.join(" ")))
        .unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let mut process = Process::start(&script, operator(&world), &log).unwrap();
    let has_begun = || world.sqs.ledger(&world.queue).sent >= 10;
    eventually("ten are sent", has_begun).await;
    process.interrupt();
    let status = process.wait_at_most(LIMIT).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130), "{}", std::fs::read_to_string(&log).unwrap());
    let sent = world.sqs.peek_all(&world.queue).len();
    assert!((10..100).contains(&sent), "{sent}");
    all_visible(&world, &world.dlq, 100 - sent);
    let done = objects(&world, &["redrive", "--all", "--yes", "--rate", "500"], 0).await;
    assert_eq!(done.last().unwrap()["summary"]["redriven"], 100 - sent);
    std::fs::remove_file(log).unwrap();
    std::fs::remove_file(script).unwrap();
}

#[tokio::test]
async fn ctrl_c_ends_a_command_whose_output_nobody_reads() {
    let world = World::start().await;
    // Longer than what a pipe holds.
    let body = expired("evt-1", &"r".repeat(200)).to_string() + &" ".repeat(500_000);
    world.sqs.send(&world.dlq, body);
    let mut command = Command::new(program());
    command.args(["dlq", "show", "--json"]).env_clear().envs(&operator(&world));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_u8().await.unwrap();
    interrupt(&child);
    let status = timeout(LIMIT, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(130));
    all_visible(&world, &world.dlq, 1);
}
