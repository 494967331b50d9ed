//! `ctl` and a running worker: each command, what is refused, and who is told.

use std::io::Write;
use std::time::Duration;

use sandbox::redis::{RedisOptions, is_installed};
use sandbox::testing::program::{Env, Running, env, free_port, run, stderr, stdout};
use sandbox::testing::world::{World, eventually, expired};
use tokio::time::sleep;

fn with_port(world: &World) -> Env {
    let mut variables = env(world);
    variables.insert("SERVER_PORT", free_port().to_string());
    variables
}

/// Runs `ctl` as the worker's own user, with the same SERVER_PORT; returns exit code and output.
async fn ctl(variables: &Env, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["ctl"], arguments].concat(), variables).await;
    (output.status.code(), format!("{}{}", stdout(&output), stderr(&output)))
}

#[tokio::test]
async fn a_paused_worker_takes_nothing_stays_ready_and_goes_on_when_it_is_resumed() {
    let world = World::start().await;
    let variables = with_port(&world);
    let mut worker = Running::started(&variables).await;
    worker.answers("/readyz", 200).await;
    let (code, said) = ctl(&variables, &["pause", "--for", "10m", "--reason", "a test"]).await;
    assert!(code == Some(0) && said.contains("paused until"), "{said}");
    let ready = worker.answers("/readyz", 200).await;
    assert!(ready.contains("\"paused\"") && ready.contains("a test"), "{ready}");
    // A receive that was open may still bring some: it ends within the long-poll wait.
    let receives = || world.sqs.ledger(&world.queue).receives;
    let mut before = receives();
    loop {
        sleep(Duration::from_millis(1_500)).await;
        let now = receives();
        if now == before {
            break;
        }
        before = now;
    }
    world.send(&expired("evt-1", "a"));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(world.sqs.counts(&world.queue).total(), 1, "nothing is received");
    let metrics = worker.answers("/metrics", 200).await;
    assert!(metrics.contains("worker_control_active{lever=\"pause\"} 1"));
    let (code, said) = ctl(&variables, &["status"]).await;
    assert!(code == Some(0) && said.contains("pause") && said.contains("a test"), "{said}");
    assert_eq!(ctl(&variables, &["resume"]).await, (Some(0), "resumed\n".to_owned()));
    world.emptied().await;
    let log = worker.log();
    assert!(log.contains("Paused by an operator") && log.contains("Resumed by an operator"));
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn workers_and_log_level_change_while_the_worker_runs() {
    let world = World::start().await;
    let mut variables = with_port(&world);
    variables.insert("LOG_LEVEL", "warn".to_owned());
    let worker = Running::start(&variables);
    worker.answers("/readyz", 200).await;
    for workers in ["3", "50", "1"] {
        let (code, said) = ctl(&variables, &["concurrency", workers]).await;
        assert!(code == Some(0) && said.starts_with(&format!("{workers} workers")), "{said}");
        for n in 0..10 {
            world.send(&expired(&format!("evt-{workers}-{n}"), &format!("r{n}")));
        }
        world.emptied().await;
        let metrics = worker.answers("/metrics", 200).await;
        assert!(metrics.contains(&format!("worker_pool_size {workers}\n")), "{workers}");
    }
    assert!(!worker.log().contains("\"level\":\"debug\""));
    assert_eq!(ctl(&variables, &["log-level", "debug", "--for", "1h"]).await.0, Some(0));
    world.send(&expired("evt-debug", "r"));
    world.emptied().await;
    eventually("a debug line", || worker.log().contains("\"level\":\"debug\"")).await;
    assert_eq!(ctl(&variables, &["log-level", "error"]).await.0, Some(0));
    assert!(worker.log().contains("Log level changed by an operator"));
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let variables = with_port(&world);
    let worker = Running::started(&variables).await;
    for (arguments, code, says) in [
        (&["pause", "--for", "13h"][..], 2, "at most 12h"),
        (&["pause", "--for", "soon"], 2, "90s, 15m or 2h"),
        (&["concurrency", "0"], 2, "0"),
        (&["concurrency", "1001"], 2, "1001"),
        (&["log-level", "loud"], 2, "debug, info, warn, error"),
        (&["--all", "status"], 2, "pause, resume or concurrency"),
        (&["sudo"], 2, "sudo"),
        (&["--all", "pause"], 1, "IDEMPOTENCY_STORE"),
        (&["event", "evt-none"], 0, "does not hold \"evt-none\""),
        (&["resume"], 0, "it was not paused"),
    ] {
        let (found, said) = ctl(&variables, arguments).await;
        assert!(found == Some(code) && said.contains(says), "{arguments:?}: {found:?} {said}");
    }
    assert!(!worker.log().contains("by an operator"), "{}", worker.log());
    let mut elsewhere = Env::new();
    elsewhere.insert("SERVER_PORT", free_port().to_string());
    let (code, said) = ctl(&elsewhere, &["status"]).await;
    assert!(code == Some(1) && said.contains("no worker with SERVER_PORT="), "{said}");
}

#[tokio::test]
async fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        let why = "LEFT OUT: another user at the control socket. Only root can become one.";
        let _ = writeln!(std::io::stderr(), "{why}");
        return;
    }
    let world = World::start().await;
    let variables = with_port(&world);
    let worker = Running::started(&variables).await;
    let (program, port) = (sandbox::testing::program::program(), &variables["SERVER_PORT"]);
    // The program may lie where only root can read it: the other user runs a copy.
    let folder = std::env::temp_dir().join(format!("ctl-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("reservation-worker");
    std::fs::copy(program, &copy).unwrap();
    let output = tokio::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c"])
        .args(["for n in 1 2 3 4 5; do \"$0\" ctl pause; done; exit $?"])
        .arg(&copy)
        .env_clear()
        .env("SERVER_PORT", port)
        .output()
        .await
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("only the worker's own user and root"), "{output:?}");
    eventually("it is logged", || worker.log().contains("Another user tried")).await;
    let log = worker.log();
    assert_eq!(log.matches("Another user tried").count(), 1, "one line a minute: {log}");
    assert!(!log.contains("Paused by an operator"));
}

#[tokio::test]
async fn all_workers_of_a_store_are_told_and_so_is_a_new_one() {
    if !is_installed("`ctl --all`") {
        return;
    }
    let world = World::start().await;
    let redis = RedisOptions::default().start().await.unwrap();
    let start = || {
        let mut variables = with_port(&world);
        variables.insert("IDEMPOTENCY_STORE", redis.url());
        variables
    };
    let (first, second) = (start(), start());
    let (one, other) = (Running::started(&first).await, Running::started(&second).await);
    let (code, said) = ctl(&first, &["--all", "pause", "--for", "1h", "--reason", "all"]).await;
    assert!(code == Some(0) && said.contains("all workers are paused"), "{said}");
    assert!(one.answers("/readyz", 200).await.contains("\"scope\":\"all\""));
    eventually("the other is told", || other.log().contains("Paused by an operator of all")).await;
    let late = Running::started(&start()).await;
    let ready = late.answers("/readyz", 200).await;
    assert!(ready.contains("\"paused\""), "a roll-out does not wait for the end: {ready}");
    let ready = late.answers("/metrics", 200).await;
    assert!(ready.contains("worker_control_active{lever=\"pause\"} 1"), "from its start");
    let (code, said) = ctl(&second, &["resume"]).await;
    assert!(code == Some(0) && said.contains("ctl --all resume"), "{said}");
    assert_eq!(ctl(&second, &["--all", "resume"]).await.0, Some(0));
    for worker in [&one, &other, &late] {
        eventually("it goes on", || worker.log().contains("The pause of all workers is over"))
            .await;
    }
}

#[tokio::test]
async fn each_change_and_its_end_are_logged_at_every_level() {
    let world = World::start().await;
    let mut variables = with_port(&world);
    variables.insert("LOG_LEVEL", "error".to_owned());
    let worker = Running::start(&variables);
    worker.answers("/readyz", 200).await;
    for (arguments, begun) in [
        (&["pause", "--for", "1s"][..], "Paused by an operator"),
        (&["concurrency", "3", "--for", "1s"], "Number of workers changed by an operator"),
        (&["log-level", "error", "--for", "1s"], "Log level changed by an operator"),
    ] {
        let ends = || worker.log().matches("The time of a change is over").count();
        let before = ends();
        assert_eq!(ctl(&variables, arguments).await.0, Some(0), "{arguments:?}");
        eventually(begun, || worker.log().contains(begun)).await;
        eventually("its end is logged", || ends() == before + 1).await;
    }
    let log = worker.log();
    assert!(log.lines().all(|line| line.contains("\"level\":\"warn\"")), "{log}");
}

/// A worker that leaves may still have the socket when the next one starts.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_control_socket_in_use_is_taken_as_soon_as_it_is_free() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let world = World::start().await;
    let variables = with_port(&world);
    let name = format!("reservation-worker/{}", variables["SERVER_PORT"]);
    let taken = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let worker = Running::started(&variables).await;
    let socket = async || {
        let status = worker.answers("/status.json", 200).await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let parts = status["parts"].as_array().unwrap().clone();
        parts.into_iter().find(|part| part["name"] == "control socket")
    };
    let shown = socket().await.expect("the page says it");
    assert_eq!(shown["is_ok"], false, "{shown}");
    drop(taken);
    eventually("it is bound", || worker.log().contains("The control socket can be used")).await;
    assert_eq!(ctl(&variables, &["status"]).await.0, Some(0));
    let warnings = worker.log().matches("The control socket cannot be used").count();
    assert_eq!(warnings, 1, "{}", worker.log());
    // A report is shown for a second.
    while socket().await.expect("the page says it")["is_ok"] == false {
        sleep(Duration::from_millis(50)).await;
    }
}
