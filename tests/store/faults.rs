//! Faults of a server: down, frozen, without its data, full, or rejecting commands.

use std::time::{Duration, Instant};

use reservation_worker::event::Step;
use reservation_worker::idempotency::redis::RedisStore;
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, Lost, Store, StoreError};
use sandbox::redis::{Redis, RedisOptions, is_installed};
use tokio::task::JoinSet;

use crate::bench::{HASH, LONG, TTL, asked, claimed, eventually, id, redis_store, request, steps};

/// The store's timeout for an operation, and a margin for a busy machine.
const AT_MOST: Duration = Duration::from_millis(1_000 + 1_500);

/// Returns the error of a store that cannot be used. It contains no secret.
async fn refusal(store: &RedisStore) -> String {
    let began = Instant::now();
    let claim =
        store.claim((&id("refused")).into(), request(HASH, ClaimToken::unique(), LONG)).await;
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    let Err(StoreError::Unavailable { why, .. }) = claim else { panic!("{claim:?}") };
    assert!(!why.contains("hunter2") && why.contains("127.0.0.1"), "{why}");
    why
}

async fn works_again(store: &RedisStore) {
    eventually("the store works again", || async { store.ping().await.ok() }).await;
}

#[tokio::test]
async fn the_store_works_again_when_the_server_is_back() {
    if !is_installed("a Redis that is killed and comes back") {
        return;
    }
    let mut redis = RedisOptions::default().append_only().start().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("kept"), LONG).await;
    for _ in 0..2 {
        redis.kill().await.unwrap();
        for _ in 0..3 {
            refusal(&store).await;
        }
        redis.start().await.unwrap();
        // The connection is known to be lost, so the next operation makes a new one. The server has
        // lost its scripts.
        store.record((&id("kept")).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    }
    store.complete((&id("kept")).into(), token, HandledAs::Applied).await.unwrap();
}

#[tokio::test]
async fn a_restart_between_operations_fails_at_most_one() {
    if !is_installed("a Redis that restarts unseen") {
        return;
    }
    let mut redis = RedisOptions::default().append_only().start().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    redis.stop().await.unwrap();
    redis.start().await.unwrap();
    let first = store.renew((&id("e")).into(), token, LONG).await;
    assert!(matches!(first, Ok(()) | Err(StoreError::Unavailable { .. })), "{first:?}");
    store.renew((&id("e")).into(), token, LONG).await.unwrap();
}

#[tokio::test]
async fn lost_scripts_are_loaded_again() {
    if !is_installed("a Redis without its scripts") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    redis.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    assert!(matches!(asked(&store, &id("e")).await, Claim::Elsewhere(_)));
    redis.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    store.complete((&id("e")).into(), token, HandledAs::Applied).await.unwrap();
}

#[tokio::test]
async fn after_a_loss_of_all_data_a_claim_has_no_owner() {
    if !is_installed("a Redis without its records") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    redis.command(&["FLUSHALL"]).await.unwrap();
    let complete = store.complete((&id("e")).into(), token, HandledAs::Applied).await;
    assert_eq!(complete, Err(StoreError::NotOwner(Lost::Claim)));
    assert_eq!(
        store.renew((&id("e")).into(), token, LONG).await,
        Err(StoreError::NotOwner(Lost::Claim))
    );
}

#[tokio::test]
async fn the_store_can_be_made_before_its_server_starts() {
    if !is_installed("a store that is there before its Redis") {
        return;
    }
    let mut redis = Redis::plain().await.unwrap();
    redis.stop().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    assert!(refusal(&store).await.contains("refused"));
    redis.start().await.unwrap();
    claimed(&store, &id("e"), LONG).await;
}

#[tokio::test]
async fn operations_on_a_frozen_server_time_out_after_a_second() {
    if !is_installed("a Redis that freezes") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    store.ping().await.unwrap();
    redis.pause();
    // The first operation times out on the open connection, the second while it connects.
    for what in ["has not answered", "could not be connected to"] {
        let said = refusal(&store).await;
        assert!(said.contains(what), "{said}");
    }
    // Many concurrent operations take no longer.
    let began = Instant::now();
    let store = std::sync::Arc::new(store);
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let store = std::sync::Arc::clone(&store);
        crowd.spawn(async move { store.ping().await.is_err() });
    }
    assert!(crowd.join_all().await.into_iter().all(|failed| failed));
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    redis.resume();
    works_again(&store).await;
    claimed(&*store, &id("e"), LONG).await;
}

#[tokio::test]
async fn concurrent_operations_share_one_attempt_to_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let store = std::sync::Arc::new(redis_store(&url, "p:", TTL));
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let store = std::sync::Arc::clone(&store);
        crowd.spawn(async move { store.ping().await });
    }
    // Each connection is closed at once, when all operations wait for it.
    let mut attempts = 0;
    while !crowd.is_empty() {
        tokio::select! {
            accepted = listener.accept() => {
                accepted.unwrap();
                attempts += 1;
            }
            answer = crowd.join_next() => {
                let answer = answer.unwrap().unwrap();
                assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
            }
        }
    }
    assert!((1..=3).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn concurrent_operations_share_one_connection() {
    if !is_installed("one connection for all") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = std::sync::Arc::new(redis_store(&redis.url(), "p:", TTL));
    let mut crowd = JoinSet::new();
    for number in 0..500 {
        let store = std::sync::Arc::clone(&store);
        crowd.spawn(async move { claimed(&*store, &id(&number.to_string()), LONG).await });
    }
    crowd.join_all().await;
    let seen = redis.command(&["INFO", "stats"]).await.unwrap().text();
    let connections = seen.lines().find_map(|it| it.strip_prefix("total_connections_received:"));
    let connections: u32 = connections.unwrap().parse().unwrap();
    // The other connections are those of the harness, which polls the start and sends commands.
    let named = redis.command(&["CLIENT", "LIST"]).await.unwrap().text();
    let ours = named.lines().filter(|line| line.contains("cmd=eval")).count();
    assert_eq!(ours, 1, "{named}");
    assert!(connections < 20, "{connections}");
}

#[tokio::test]
async fn a_rejected_password_is_reported_with_a_remedy() {
    if !is_installed("a Redis with a password") {
        return;
    }
    let redis = RedisOptions::default().password("hunter2").start().await.unwrap();
    claimed(&redis_store(&redis.url(), "p:", TTL), &id("e"), LONG).await;
    let port = redis.port();
    for (url, code) in [
        (format!("redis://:wrong-hunter2@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://nobody:hunter2@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
    ] {
        let said = refusal(&redis_store(&url, "p:", TTL)).await;
        assert!(said.contains("check the user and password"), "{said}");
        assert!(said.contains(code), "{said}");
    }
}

#[tokio::test]
async fn a_missing_permission_for_scripts_is_reported() {
    if !is_installed("a Redis with users") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let limited = ["ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all", "-@scripting"];
    redis.command(&limited).await.unwrap();
    let url = format!("redis://reader:hunter2@127.0.0.1:{}", redis.port());
    let said = refusal(&redis_store(&url, "p:", TTL)).await;
    assert!(said.contains("NOPERM"), "{said}");
    // The least permissions that a user needs.
    let enough = [
        "ACL", "SETUSER", "worker", "on", ">hunter2", "~p:*", "+hello", "+info", "+evalsha",
        "+eval", "+get", "+set", "+time",
    ];
    redis.command(&enough).await.unwrap();
    let url = format!("redis://worker:hunter2@127.0.0.1:{}", redis.port());
    let store = redis_store(&url, "p:", TTL);
    assert_eq!(store.probe().await.unwrap().advice(), None);
    claimed(&store, &id("e"), LONG).await;
}

#[tokio::test]
async fn a_full_server_rejects_writes_and_keeps_its_records() {
    if !is_installed("a Redis that is full") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("kept"), LONG).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "100kb"]).await.unwrap();
    let said = refusal(&store).await;
    assert!(said.contains("OOM"), "{said}");
    assert!(store.ping().await.is_err(), "a ping of a full server succeeded");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    store.ping().await.unwrap();
    store.complete((&id("kept")).into(), token, HandledAs::Applied).await.unwrap();
}

#[tokio::test]
async fn probe_warns_about_eviction_and_rejects_a_replica() {
    if !is_installed("a Redis that evicts, a replica") {
        return;
    }
    let evicts = RedisOptions::default().setting("maxmemory-policy", "allkeys-lru");
    let redis = evicts.start().await.unwrap();
    let facts = redis_store(&redis.url(), "p:", TTL).probe().await.unwrap();
    assert!(facts.advice().unwrap().contains("allkeys-lru"), "{facts}");
    let shown = facts.to_string();
    let is_named = ["redis ", "valkey "].iter().any(|name| shown.starts_with(name));
    assert!(!facts.is_cluster() && is_named, "{shown}");

    let replica = RedisOptions::default()
        .setting("replicaof", &format!("127.0.0.1 {}", redis.port()))
        .start()
        .await
        .unwrap();
    let store = redis_store(&replica.url(), "p:", TTL);
    eventually("the replica rejects writes", || async {
        store.ping().await.unwrap_err().to_string().contains("READONLY").then_some(())
    })
    .await;
    let probe = store.probe().await.unwrap_err().to_string();
    assert!(probe.contains("read-only replica"), "{probe}");
    // The replica becomes a master, and the same store works.
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    claimed(&store, &id("e"), LONG).await;
}
