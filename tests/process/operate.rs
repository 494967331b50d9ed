//! The operators' commands on one event and one body, as they are typed.

use std::path::Path;
use std::process::Stdio;

use reservation_worker::event::EventId;
use sandbox::redis::{Redis, RedisOptions, is_installed};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use sandbox::testing::program::{Env, Running, env, program, run, stderr, stdout};
use sandbox::testing::world::{World, eventually, expired};

use crate::store::certificate;

/// Runs `decode` with this text on its standard input.
async fn decoded(arguments: &[&str], text: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.arg("decode").args(arguments).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    (output.status.code(), stdout(&output) + &stderr(&output))
}

#[tokio::test]
async fn decode_needs_no_configuration_and_says_what_the_worker_would_do() {
    let body = expired("evt_123456", "rsv_abc123").to_string();
    let (code, said) = decoded(&[], &body).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("key: 17f16bd2-d941-53dc-8b73-fff0816074c2"), "{said}");
    let (code, said) = decoded(&["--json", "-"], "{}").await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["reason"], "invalid_event");
    let output = run(&["decode", "/nowhere/\u{1b}"], &Env::new()).await;
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("nowhere/\\u001b") && !said.contains('\u{1b}'), "{said}");
}

#[tokio::test]
async fn decode_announces_the_calls_that_the_worker_makes() {
    let world = World::start().await;
    let worker = Running::started(&env(&world)).await;
    let body = expired("evt-1", "rsv 1/2");
    let (_, said) = decoded(&["--json"], &body.to_string()).await;
    let announced: Value = serde_json::from_str(&said).unwrap();
    world.send(&body);
    eventually("the event is handled", || worker.log().contains("Event processed successfully"))
        .await;
    let keys: Vec<&Value> =
        announced["steps"].as_array().unwrap().iter().map(|s| &s["idempotency_key"]).collect();
    assert_eq!(keys.len(), 2);
    for (call, key) in world.ledger.calls().iter().zip(keys) {
        assert_eq!(json!(call.key), *key, "{call:?}");
    }
}

fn with_store(world: &World, redis: &Redis) -> Env {
    let mut variables = env(world);
    variables.insert("IDEMPOTENCY_STORE", redis.url());
    variables
}

/// The variables that these commands need, and no other.
fn store_only(redis: &Redis) -> Env {
    Env::from([("IDEMPOTENCY_STORE", redis.url())])
}

#[tokio::test]
async fn event_and_forget_show_and_remove_what_a_worker_wrote() {
    if !is_installed("`event` and `forget`") {
        return;
    }
    let world = World::start().await;
    let redis = Redis::plain().await.unwrap();
    let variables = store_only(&redis);
    let output = run(&["event", "evt-1"], &variables).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("unknown to the store"), "{said}");
    let place = format!("{}, keys begin with \"reservation-worker:\"", redis.url());
    assert!(said.contains(&place), "{said}");
    let output = run(&["forget", "evt-1", "--yes"], &variables).await;
    assert_eq!(output.status.code(), Some(1));

    let worker = Running::started(&with_store(&world, &redis)).await;
    let done = |times| {
        let log = worker.log();
        log.lines().filter(|line| line.contains("Event processed successfully")).count() == times
    };
    world.send(&expired("evt-1", "a"));
    eventually("the event is handled", || done(1)).await;
    let log = worker.log();
    let start = log.lines().find(|line| line.contains("Worker started")).unwrap();
    let start: Value = serde_json::from_str(start).unwrap();
    let output = run(&["event", "evt-1", "--json", "--reservation", "a"], &variables).await;
    let shown: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&shown["state"], &shown["how"]), (&json!("handled"), &json!("applied")));
    assert_eq!(shown["process"], start["process"]);
    assert_eq!(shown["key_prefix"], "reservation-worker:");
    assert_eq!(shown["lane"], json!({"reservation_id": "a"}));

    let output = run(&["forget", "evt-1"], &variables).await;
    assert_eq!(output.status.code(), Some(2), "there is no terminal to ask on");
    assert!(stdout(&output).contains("idempotency\nkeys are unchanged"), "{}", stdout(&output));
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    let (calls, effects) = (world.ledger.totals().calls, world.ledger.totals().effects);
    let output = run(&["forget", "evt-1", "--yes"], &variables).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    world.send(&expired("evt-1", "a"));
    eventually("the event is handled anew", || done(2)).await;
    assert!(world.ledger.totals().calls > calls);
    assert_eq!(world.ledger.totals().effects, effects, "the keys are known");
}

#[tokio::test]
async fn an_event_in_work_is_shown_and_not_forgotten() {
    if !is_installed("`forget` of an event in work") {
        return;
    }
    let world = World::start().await;
    let redis = Redis::plain().await.unwrap();
    let variables = store_only(&redis);
    // The event waits for the service, claimed.
    world.inventory.go_down().await.unwrap();
    let worker = Running::started(&with_store(&world, &redis)).await;
    world.send(&expired("evt-1", "a"));
    eventually("the first step is done", || world.ledger.totals().effects > 0).await;
    let shown = || async {
        let output = run(&["event", "evt-1", "--json"], &variables).await;
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()
    };
    while shown().await["steps_done"] != json!(["reservation-status"]) {}
    let output = run(&["event", "evt-2", "--reservation", "a"], &variables).await;
    let said = stdout(&output);
    assert!(said.contains("turn of      event \"evt-1\""), "{said}");
    assert_eq!(shown().await["state"], "in_progress");
    let output = run(&["forget", "evt-1", "--yes"], &variables).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a process works on this event"), "{}", stderr(&output));
    world.inventory.come_back().await.unwrap();
    eventually("the event is handled", || worker.log().contains("Event processed successfully"))
        .await;
}

#[tokio::test]
async fn without_a_shared_store_there_is_nothing_to_look_at() {
    let id = EventId::new("evt-1").unwrap();
    for command in ["event", "forget"] {
        let output = run(&[command, id.as_str()], &Env::new()).await;
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains("IDEMPOTENCY_STORE is \"memory\": must be"), "{said}");
        let wrong = Env::from([("IDEMPOTENCY_STORE", "redis://127.0.0.1:1".to_owned())]);
        let output = run(&[command, id.as_str()], &wrong).await;
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let wrong = Env::from([("IDEMPOTENCY_TTL", "no".to_owned())]);
        let output = run(&[command, id.as_str()], &wrong).await;
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}

/// With a private authority, a password in a file, and a prefix of its own, as in production.
#[tokio::test]
async fn event_and_forget_reach_a_store_with_tls() {
    if !is_installed("`event` and `forget` with TLS") {
        return;
    }
    let world = World::start().await;
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("event-tls-{}", std::process::id()));
    let files = certificate(&folder).await;
    let redis =
        RedisOptions::default().password("hunter2").tls(files.clone()).start().await.unwrap();
    let password = folder.join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let without_authority = Env::from([
        ("IDEMPOTENCY_STORE", url.clone()),
        ("IDEMPOTENCY_STORE_AUTH", "file".to_owned()),
        ("IDEMPOTENCY_STORE_PASSWORD_FILE", password.to_str().unwrap().to_owned()),
        ("IDEMPOTENCY_KEY_PREFIX", "seats:".to_owned()),
    ]);
    let mut store = without_authority.clone();
    store.insert("IDEMPOTENCY_STORE_CA_FILE", files.authority.to_str().unwrap().to_owned());
    let mut variables = env(&world);
    variables.extend(store.clone());
    let worker = Running::started(&variables).await;
    world.send(&expired("evt-1", "a"));
    eventually("the event is handled", || worker.log().contains("Event processed successfully"))
        .await;

    let output = run(&["event", "evt-1", "--reservation", "a"], &store).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(said.contains("event \"evt-1\": handled"), "{said}");
    assert!(said.contains(&format!("{url}, keys begin with \"seats:\"")), "{said}");
    let output = run(&["event", "evt-1"], &without_authority).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("certificate"), "{}", stderr(&output));
    let output = run(&["forget", "evt-1", "--yes"], &store).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for text in [stdout(&output), stderr(&output), said] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
