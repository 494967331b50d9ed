//! The program with a shared store: `check`, the log, TLS with a private authority, and a duplicate
//! in another process.

use std::path::{Path, PathBuf};

use sandbox::redis::{Redis, RedisOptions, ShardedProxy, TlsFiles, is_installed};
use tokio::process::Command;

use sandbox::testing::program::{Env, Running, env, free_port, run, stderr, stdout};
use sandbox::testing::world::{World, eventually, expired};

/// Runs `check` and returns its line about the store and its exit code.
async fn checked(variables: &Env) -> (String, Option<i32>) {
    let output = run(&["check"], variables).await;
    let said = stdout(&output);
    for text in [&said, &stderr(&output)] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let line = said.lines().find(|line| line.contains(" idempotency store "));
    (line.unwrap_or_else(|| panic!("{said}")).to_owned(), output.status.code())
}

fn with_store(world: &World, url: impl Into<String>) -> Env {
    let mut variables = env(world);
    variables.insert("IDEMPOTENCY_STORE", url.into());
    variables
}

#[tokio::test]
async fn check_describes_the_store_and_its_faults() {
    if !is_installed("`check` of a shared store") {
        return;
    }
    let world = World::start().await;
    let redis = RedisOptions::default().password("hunter2").start().await.unwrap();
    let port = redis.port();
    let (line, code) = checked(&with_store(&world, redis.url())).await;
    assert!(line.contains("ok ") && line.contains(&format!("redis://127.0.0.1:{port}")), "{line}");
    assert!(line.contains("standalone"), "{line}");
    assert_eq!(code, Some(0));

    redis.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await.unwrap();
    let (line, code) = checked(&with_store(&world, redis.url())).await;
    assert!(line.contains("warn") && line.contains("noeviction"), "{line}");
    assert_eq!(code, Some(0));

    for (url, says) in [
        (format!("redis://:not-hunter2@127.0.0.1:{port}"), "IDEMPOTENCY_STORE"),
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
        (format!("redis://:hunter2@127.0.0.1:{port}/99"), "DB index"),
        (format!("redis://:hunter2@127.0.0.1:{}", free_port()), "refused"),
        (format!("rediss://:hunter2@127.0.0.1:{port}"), "127.0.0.1"),
    ] {
        let (line, code) = checked(&with_store(&world, url)).await;
        assert!(line.contains("FAIL") && line.contains(says), "{says}: {line}");
        assert_eq!(code, Some(1));
    }
    let (line, _) = checked(&env(&world)).await;
    assert!(line.contains("ok ") && line.contains("in memory"), "{line}");
}

#[tokio::test]
async fn check_and_the_log_name_a_proxy_that_cannot_keep_order() {
    if !is_installed("`check` of a store behind a proxy") {
        return;
    }
    let world = World::start().await;
    let redis = Redis::plain().await.unwrap();
    let proxy = ShardedProxy::start(&redis).await.unwrap();
    let mut variables = with_store(&world, proxy.url());
    let (line, code) = checked(&variables).await;
    assert!(line.contains("FAIL") && line.contains("CROSSSLOT"), "{line}");
    assert!(line.contains("set SHARED_ORDER=false"), "{line}");
    assert_eq!(code, Some(1));

    let worker = Running::started(&variables).await;
    world.send(&expired("evt-1", "rsv-1"));
    eventually("the log names the way out", || worker.log().contains("set SHARED_ORDER=false"))
        .await;
    drop(worker);

    variables.insert("SHARED_ORDER", "false".into());
    let (line, code) = checked(&variables).await;
    assert!(line.contains("ok "), "{line}");
    assert_eq!(code, Some(0));
}

/// Runs openssl in a folder.
async fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Makes a certificate for 127.0.0.1, signed by a new authority.
pub(crate) async fn certificate(folder: &Path) -> TlsFiles {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(file("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder,
        &format!("req -x509 {curve} -subj /CN=authority -days 2 -keyout ca.key -out ca.pem"),
    )
    .await;
    openssl(folder, &format!("req {curve} -subj /CN=redis -keyout redis.key -out redis.csr")).await;
    let sign = "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2";
    openssl(folder, &format!("{sign} -extfile names -out redis.pem")).await;
    TlsFiles { certificate: file("redis.pem"), key: file("redis.key"), authority: file("ca.pem") }
}

#[tokio::test]
async fn with_tls_the_server_needs_a_certificate_of_a_trusted_authority() {
    if !is_installed("a Redis with TLS") {
        return;
    }
    let world = World::start().await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
    let files = certificate(&folder).await;
    let redis =
        RedisOptions::default().password("hunter2").tls(files.clone()).start().await.unwrap();
    let mut variables = with_store(&world, redis.url());
    let (line, code) = checked(&variables).await;
    assert!(line.contains("FAIL") && line.contains("certificate"), "{line}");
    assert_eq!(code, Some(1));
    variables.insert("SSL_CERT_FILE", files.authority.to_string_lossy().into_owned());
    let (line, code) = checked(&variables).await;
    assert!(line.contains("ok ") && line.contains("rediss://127.0.0.1"), "{line}");
    assert_eq!(code, Some(0));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_event_that_another_process_handled_is_a_duplicate() {
    if !is_installed("two processes with one store") {
        return;
    }
    let world = World::start().await;
    let redis = RedisOptions::default().password("hunter2").start().await.unwrap();
    let variables = with_store(&world, redis.url());
    let mut first = Running::started(&variables).await;
    assert!(first.log().contains(&format!("redis://127.0.0.1:{}", redis.port())));
    world.send(&expired("evt-1", "a"));
    eventually("the event is handled", || first.log().contains("Event processed successfully"))
        .await;
    first.process.terminate();
    assert_eq!(first.exit_code().await, Some(0));
    let effects = world.ledger.totals().effects;

    let mut second = Running::started(&variables).await;
    world.send(&expired("evt-1", "a"));
    eventually("the copy is dropped", || second.log().contains("\"dropped\"")).await;
    second.process.terminate();
    assert_eq!(second.exit_code().await, Some(0));
    assert_eq!(world.ledger.totals().effects, effects);
    for worker in [first, second] {
        assert!(worker.log().contains("Connected to the shared store"), "{}", worker.log());
        assert!(!worker.log().contains("hunter2"), "{}", worker.log());
    }
}

#[tokio::test]
async fn the_worker_starts_without_its_store_and_handles_events_when_it_is_back() {
    if !is_installed("a worker that starts before its store") {
        return;
    }
    let world = World::start().await;
    let mut redis = Redis::plain().await.unwrap();
    redis.stop().await.unwrap();
    let worker = Running::started(&with_store(&world, redis.url())).await;
    world.send(&expired("evt-1", "a"));
    eventually("the event is received", || world.sqs.ledger(&world.queue).delivered > 0).await;
    assert_eq!(world.ledger.totals().effects, 0, "an event was handled without a claim");
    redis.start().await.unwrap();
    eventually("the event is handled", || worker.log().contains("Event processed successfully"))
        .await;
}

/// What the store's user may do, as words of `ACL SETUSER`.
const PERMISSIONS: &str = "~reservation-worker:* +hello +info +evalsha +eval +get +set +time";

#[tokio::test]
async fn check_says_how_the_worker_logs_in_with_a_file() {
    if !is_installed("`check` of a login by file") {
        return;
    }
    let world = World::start().await;
    let redis = Redis::plain().await.unwrap();
    let user = format!("ACL SETUSER worker on >hunter2/# {PERMISSIONS}");
    redis.command(&user.split(' ').collect::<Vec<_>>()).await.unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("password-{}", std::process::id()));
    std::fs::write(&file, "hunter2/#\n").unwrap();
    let mut variables = with_store(&world, format!("redis://worker@127.0.0.1:{}", redis.port()));
    variables.insert("IDEMPOTENCY_STORE_AUTH", "file".to_owned());
    variables.insert("IDEMPOTENCY_STORE_PASSWORD_FILE", file.to_str().unwrap().to_owned());
    let (line, code) = checked(&variables).await;
    let login = "logged in as \"worker\", with the password in IDEMPOTENCY_STORE_PASSWORD_FILE";
    assert!(line.contains("ok ") && line.contains(login), "{line}");
    assert_eq!(code, Some(0));
    std::fs::write(&file, "not-hunter2").unwrap();
    let (line, code) = checked(&variables).await;
    let cure = "and the password in the file that IDEMPOTENCY_STORE_PASSWORD_FILE names";
    assert!(line.contains("FAIL") && line.contains("WRONGPASS") && line.contains(cure), "{line}");
    assert_eq!(code, Some(1));
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn check_says_how_the_worker_logs_in_with_tokens_of_aws() {
    if !is_installed("`check` of a login with tokens") {
        return;
    }
    let world = World::start().await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("iam-{}", std::process::id()));
    let files = certificate(&folder).await;
    // A user without a password takes every token, as AWS does with a valid one.
    let redis = RedisOptions::default()
        .tls(files.clone())
        .setting("user", &format!("worker on nopass {PERMISSIONS}"))
        .start()
        .await
        .unwrap();
    let url = format!("rediss://worker@127.0.0.1:{}", redis.port());
    let mut variables = with_store(&world, url.clone());
    variables.insert("IDEMPOTENCY_STORE_AUTH", "aws-iam".to_owned());
    variables.insert("IDEMPOTENCY_STORE_AWS_CACHE", "serverless/my-cache".to_owned());
    variables.insert("IDEMPOTENCY_STORE_CA_FILE", files.authority.to_str().unwrap().to_owned());
    let (line, code) = checked(&variables).await;
    let login = "logged in as \"worker\", with tokens of AWS IAM for the serverless ElastiCache cache my-cache, signed for the region ";
    assert!(line.contains("ok ") && line.contains(login), "{line}");
    assert_eq!(code, Some(0));
    variables.insert("IDEMPOTENCY_STORE", url.replace("worker", "nobody"));
    let (line, code) = checked(&variables).await;
    assert!(line.contains("FAIL") && line.contains("WRONGPASS"), "{line}");
    assert!(line.contains("elasticache:Connect") && line.contains("AWS_REGION"), "{line}");
    assert!(!line.contains("X-Amz"), "a token is shown: {line}");
    assert_eq!(code, Some(1));
    std::fs::remove_dir_all(folder).unwrap();
}
