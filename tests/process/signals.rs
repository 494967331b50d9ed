//! SIGTERM, SIGINT and SIGHUP: once, twice, blocked or ignored by the parent; and `kill -9`.

use std::time::{Duration, Instant};

use sandbox::process::Process;
use sandbox::reservation_api::Reply;
use sandbox::script::{Faults, Scripted};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::sleep;

use sandbox::testing::program::{Running, env, scrape};
use sandbox::testing::world::{LIMIT, World, eventually, expired};

use crate::terminal::OnTerminal;

fn last_line(worker: &Running) -> Value {
    serde_json::from_str(worker.log().lines().last().unwrap()).unwrap()
}

#[tokio::test]
async fn after_a_signal_the_worker_exits_with_0_and_logs_its_account_last() {
    for signal in [Process::terminate, Process::interrupt, Process::hang_up] {
        let world = World::start().await;
        let mut worker = Running::started(&env(&world)).await;
        for n in 0..5 {
            world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
        }
        world.sqs.send(&world.queue, "poison");
        world.emptied().await;
        let begun = Instant::now();
        signal(&worker.process);
        assert_eq!(worker.exit_code().await, Some(0));
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        let account = last_line(&worker);
        assert_eq!(account["msg"], "Stopped", "{account}");
        for (term, count) in [
            ("received", 6),
            ("deleted", 5),
            ("dead_lettered", 1),
            ("handed_back", 0),
            ("unsettled", 0),
        ] {
            assert_eq!(account[term], json!(count), "{term}: {account}");
        }
        assert_eq!(account["balanced"], json!(true), "{account}");
    }
}

#[tokio::test]
async fn a_signal_before_the_region_is_known_ends_the_start() {
    let world = World::start().await;
    // Like an instance's metadata service that accepts connections and answers nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut variables = env(&world);
    variables.remove("AWS_REGION");
    variables.insert("AWS_EC2_METADATA_DISABLED", "false".to_owned());
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    variables.insert("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint);
    let mut worker = Running::start(&variables);
    let _asked = tokio::time::timeout(LIMIT, silent.accept()).await.unwrap().unwrap();
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(last_line(&worker)["msg"], "Leaving before the first receive", "{}", worker.log());
    assert_eq!(world.sqs.ledger(&world.queue).requests, 0);
}

#[tokio::test]
async fn running_events_are_finished_after_a_signal() {
    let world = World::start().await;
    let slow = Scripted::<Reply>::normal().delayed(Duration::from_secs(2));
    world.api.script_for("a", [slow]);
    let mut worker = Running::started(&env(&world)).await;
    world.send(&expired("evt-1", "a"));
    assert!(world.ledger.wait_until(|ledger| ledger.totals().calls == 1, LIMIT).await);
    worker.process.terminate();
    eventually("the drain has begun", || worker.log().contains("\"Leaving\"")).await;
    // Not ready any more, but still alive.
    if let Some((status, _)) = worker.get("/readyz").await {
        assert_eq!(status, 503);
    }
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(world.methods("a"), ["PATCH", "ReleaseHold"]);
    assert_eq!(world.sqs.counts(&world.queue).total(), 0);
}

#[tokio::test]
async fn a_second_signal_ends_the_worker_at_once() {
    let terminate: fn(&Process) = Process::terminate;
    let signals = [(terminate, 143), (Process::interrupt, 130), (Process::hang_up, 129)];
    for (signal, code) in signals {
        let world = World::start().await;
        let stuck = Scripted::<Reply>::normal().delayed(Duration::from_secs(9));
        world.api.script_for("a", [stuck]);
        let mut worker = Running::started(&env(&world)).await;
        world.send(&expired("evt-1", "a"));
        assert!(world.ledger.wait_until(|ledger| ledger.totals().calls == 1, LIMIT).await);
        worker.process.terminate();
        eventually("the drain has begun", || {
            worker.log().contains("\"Finishing what is in hand\"")
        })
        .await;
        signal(&worker.process);
        assert_eq!(worker.exit_code().await, Some(code));
        assert!(!worker.log().contains("\"Stopped\""), "the worker finished its drain");
        assert_eq!(world.sqs.counts(&world.queue).total(), 1, "the message is lost");
    }
}

#[tokio::test]
async fn signals_blocked_by_the_parent_are_handled() {
    let world = World::start().await;
    let script = "exec /usr/bin/env --block-signal=TERM --block-signal=INT \"$PROGRAM\"";
    let mut worker = Running::start_by(script, &env(&world));
    worker.has_started().await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(last_line(&worker)["msg"], "Stopped");
}

#[tokio::test]
async fn an_ignored_sighup_does_not_end_the_worker() {
    let world = World::start().await;
    let mut worker = Running::start_by("trap '' HUP\nexec \"$PROGRAM\"", &env(&world));
    worker.has_started().await;
    worker.process.hang_up();
    world.send(&expired("evt-1", "a"));
    world.emptied().await;
    assert!(!worker.log().contains("\"Leaving\""));
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn on_a_terminal_the_hint_about_a_second_ctrl_c_is_shown() {
    const HINT: &str = "Press Ctrl-C again to exit at once";
    let world = World::start().await;
    for level in ["info", "warn", "error"] {
        let mut variables = env(&world);
        variables.insert("LOG_LEVEL", level.to_owned());
        let terminal = OnTerminal::start(&[], &variables);
        let has_hint = || terminal.has_written(HINT);
        let port = variables["SERVER_PORT"].parse().unwrap();
        while scrape(port, "/readyz").await.is_none_or(|(status, _)| status != 200) {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(!has_hint(), "{level}");
        let pid = terminal.child.id().unwrap();
        let mut kill = Command::new("/bin/sh");
        assert!(kill.args(["-c", &format!("kill -INT {pid}")]).status().await.unwrap().success());
        eventually("the hint is shown", has_hint).await;
    }

    let mut worker = Running::started(&env(&world)).await;
    worker.process.interrupt();
    assert_eq!(worker.exit_code().await, Some(0));
    assert!(!worker.log().contains(HINT), "the hint is shown without a terminal");
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_no_event_and_repeats_no_effect() {
    let world = World::start().await;
    let busy = Faults::none().latency(Duration::from_millis(2), Duration::from_millis(20));
    world.api.set_faults(busy.seed(5).with(0.05, Scripted::<Reply>::lost_reply()));
    let mut variables = env(&world);
    variables.insert("SQS_VISIBILITY_TIMEOUT", "5".to_owned());
    let count = 200;
    for n in 0..count {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    for target in [40, 120] {
        let mut worker = Running::start(&variables);
        let middle =
            world.ledger.wait_until(|ledger| ledger.totals().effects >= target, LIMIT).await;
        assert!(middle, "{}", worker.log());
        worker.kill().await;
        assert_eq!(worker.exit_code().await, None, "an exit code after a kill");
        assert!(world.sqs.counts(&world.queue).total() > 0, "the queue was empty before the kill");
    }
    let mut worker = Running::start(&variables);
    world.emptied().await;
    for n in 0..count {
        assert_eq!(world.ledger.effects_for(&format!("r{n}")).len(), 2, "r{n}");
    }
    assert_eq!(world.ledger.totals().effects, 2 * count);
    assert_eq!(world.sqs.peek_all(&world.dlq), []);
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}
