//! Standard output that is not read or is closed: events are handled nevertheless, and dropped
//! lines are counted.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use sandbox::process::terminate;
use sandbox::testing::log_schema::assert_log_fits;
use sandbox::testing::program::{Env, env, program, scrape};
use sandbox::testing::world::{LIMIT, World, eventually, expired};

/// Enough events to fill a pipe and the worker's log buffer several times at level debug.
const EVENTS: usize = 1_500;

fn start(variables: &Env, stdout: Stdio) -> Child {
    let mut command = Command::new(program());
    command.env_clear().envs(variables).stdin(Stdio::null()).stdout(stdout).kill_on_drop(true);
    command.spawn().unwrap()
}

fn port(variables: &Env) -> u16 {
    variables["SERVER_PORT"].parse().unwrap()
}

async fn dropped_lines(port: u16) -> u64 {
    let (_, text) = scrape(port, "/metrics").await.expect("the admin port answers");
    let line = text.lines().find_map(|l| l.strip_prefix("worker_log_lines_dropped_total "));
    line.unwrap().parse().unwrap()
}

/// Sends SIGTERM and waits for the exit.
async fn leave(mut worker: Child) -> Option<i32> {
    terminate(&worker);
    timeout(LIMIT, worker.wait()).await.expect("the worker exits").unwrap().code()
}

fn send_events(world: &World) {
    for n in 0..EVENTS {
        // Long ids make long lines.
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}-{}", "x".repeat(100))));
    }
}

#[tokio::test]
async fn an_unread_pipe_does_not_hold_up_events() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("LOG_LEVEL", "debug".to_owned());
    let mut worker = start(&variables, Stdio::piped());
    let mut pipe = worker.stdout.take().unwrap();
    send_events(&world);
    world.emptied().await;
    assert!(dropped_lines(port(&variables)).await > 0, "the pipe was not filled");

    // A reader that continues later finds whole lines and a line about the gap.
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        pipe.read_to_string(&mut text).await.unwrap();
        text
    });
    world.send(&expired("evt-last", "last"));
    world.emptied().await;
    assert_eq!(leave(worker).await, Some(0));
    let text = timeout(LIMIT, reading).await.unwrap().unwrap();
    assert_log_fits(&text, false);
    assert!(text.contains("Log lines were dropped"));
    assert!(text.lines().last().unwrap().contains("Stopped"), "{:.300}", text);
}

#[tokio::test]
async fn a_drain_ends_in_time_although_the_log_is_not_read() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("LOG_LEVEL", "debug".to_owned());
    let mut worker = start(&variables, Stdio::piped());
    let _pipe = worker.stdout.take();
    send_events(&world);
    world.emptied().await;
    assert_eq!(leave(worker).await, Some(0));
}

#[tokio::test]
async fn a_pipe_closed_by_its_reader_does_not_hold_up_events() {
    let world = World::start().await;
    let variables = env(&world);
    let mut worker = start(&variables, Stdio::piped());
    // As `| head -1` does.
    let mut pipe = BufReader::new(worker.stdout.take().unwrap());
    let mut first = String::new();
    timeout(LIMIT, pipe.read_line(&mut first)).await.unwrap().unwrap();
    assert_log_fits(&first, false);
    drop(pipe);
    send_events(&world);
    world.emptied().await;
    let mut dropped = 0;
    // One line per event; the last ones are counted a little later.
    while dropped < u64::try_from(EVENTS).unwrap() {
        dropped = timeout(LIMIT, dropped_lines(port(&variables))).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(leave(worker).await, Some(0));
}

#[tokio::test]
async fn a_closed_standard_output_does_not_hold_up_events() {
    let world = World::start().await;
    let variables = env(&world);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" >&-", program()]).env_clear().envs(&variables);
    let worker = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    world.send(&expired("evt-1", "r1"));
    world.emptied().await;
    assert_eq!(leave(worker).await, Some(0));
}

#[tokio::test]
async fn a_pretty_log_has_no_colours_without_a_terminal() {
    let world = World::start().await;
    let mut variables = env(&world);
    variables.insert("LOG_FORMAT", "pretty".to_owned());
    let mut worker = sandbox::testing::program::Running::started(&variables).await;
    world.send(&expired("evt-1", "r1"));
    world.sqs.send(&world.queue, r#"{"type":"\u001b[31m"}"#);
    world.emptied().await;
    eventually("the event is logged", || worker.log().contains("Event processed successfully"))
        .await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    let log = worker.log();
    assert!(!log.contains('\u{1b}'), "{log}");
    let line = log.lines().find(|line| line.contains("Event processed")).unwrap();
    for part in ["INFO", "event_type=reservation.expired", "attempt=1", "outcome=success"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}
