//! What only a server can do to a store: be away, freeze, forget, be full, refuse.

use std::time::{Duration, Instant};

use reservation_worker::event::Step;
use reservation_worker::idempotency::redis::RedisStore;
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, Store, StoreError};
use sandbox::redis::{Redis, RedisOptions, is_installed};
use tokio::task::JoinSet;

use crate::bench::{HASH, LONG, TTL, asked, claimed, eventually, id, redis_store, steps};

/// The store's limit for an operation, and what a busy machine adds.
const AT_MOST: Duration = Duration::from_millis(1_000 + 1_500);

/// What the store says when it is of no use; never any secret.
async fn refusal(store: &RedisStore) -> String {
    let began = Instant::now();
    let claim = store.claim(&id("refused"), HASH, ClaimToken::unique(), LONG).await;
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    let Err(StoreError::Unavailable(why)) = claim else { panic!("{claim:?}") };
    assert!(!why.contains("hunter2") && why.contains("127.0.0.1"), "{why}");
    why
}

async fn works_again(store: &RedisStore) {
    eventually("the store works again", || async { store.ping().await.ok() }).await;
}

#[tokio::test]
async fn it_works_again_when_the_server_is_back() {
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
        // The connection is known to be lost, so the first operation makes a new one. No script is known any more.
        store.record(&id("kept"), token, steps(&[Step::ReservationStatus])).await.unwrap();
    }
    store.complete(&id("kept"), token, HandledAs::Applied).await.unwrap();
}

#[tokio::test]
async fn a_restart_between_two_operations_costs_at_most_one() {
    if !is_installed("a Redis that restarts unseen") {
        return;
    }
    let mut redis = RedisOptions::default().append_only().start().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    redis.stop().await.unwrap();
    redis.start().await.unwrap();
    let first = store.renew(&id("e"), token, LONG).await;
    assert!(matches!(first, Ok(()) | Err(StoreError::Unavailable(_))), "{first:?}");
    store.renew(&id("e"), token, LONG).await.unwrap();
}

#[tokio::test]
async fn a_server_that_forgets_its_scripts_is_told_them_again() {
    if !is_installed("a Redis without its scripts") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    redis.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    assert!(matches!(asked(&store, &id("e")).await, Claim::Elsewhere(_)));
    redis.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    store.complete(&id("e"), token, HandledAs::Applied).await.unwrap();
}

#[tokio::test]
async fn a_server_that_forgets_everything_makes_us_no_owner() {
    if !is_installed("a Redis without its records") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    redis.command(&["FLUSHALL"]).await.unwrap();
    let complete = store.complete(&id("e"), token, HandledAs::Applied).await;
    assert_eq!(complete, Err(StoreError::NotOwner));
    assert_eq!(store.renew(&id("e"), token, LONG).await, Err(StoreError::NotOwner));
}

#[tokio::test]
async fn it_may_start_before_its_server() {
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
async fn a_frozen_server_costs_a_second_and_no_more() {
    if !is_installed("a Redis that freezes") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    store.ping().await.unwrap();
    redis.pause();
    // The first on a connection that is there, the second while it makes a new one.
    for what in ["has not answered", "could not be connected to"] {
        let said = refusal(&store).await;
        assert!(said.contains(what), "{said}");
    }
    // Many at once take no longer.
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
async fn many_at_once_share_one_attempt_to_connect_and_its_failure() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let store = std::sync::Arc::new(redis_store(&url, "p:", TTL));
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let store = std::sync::Arc::clone(&store);
        crowd.spawn(async move { store.ping().await });
    }
    // Each connection is closed as soon as it is made, once the whole crowd waits.
    let mut attempts = 0;
    while !crowd.is_empty() {
        tokio::select! {
            accepted = listener.accept() => {
                accepted.unwrap();
                attempts += 1;
            }
            answer = crowd.join_next() => {
                let answer = answer.unwrap().unwrap();
                assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
            }
        }
    }
    assert!((1..=3).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn many_at_once_share_one_connection() {
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
    // Ours, and those of the stand-in's handle: it looks whether the server has started, and asked just now.
    let named = redis.command(&["CLIENT", "LIST"]).await.unwrap().text();
    let ours = named.lines().filter(|line| line.contains("cmd=evalsha")).count();
    assert_eq!(ours, 1, "{named}");
    assert!(connections < 20, "{connections}");
}

#[tokio::test]
async fn the_password_is_given_and_what_is_refused_says_what_to_do() {
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
async fn a_user_that_may_not_run_scripts_is_told_so() {
    if !is_installed("a Redis with users") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let limited = ["ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "+@all", "-@scripting"];
    redis.command(&limited).await.unwrap();
    let url = format!("redis://reader:hunter2@127.0.0.1:{}", redis.port());
    let said = refusal(&redis_store(&url, "p:", TTL)).await;
    assert!(said.contains("NOPERM"), "{said}");
    // All that a user needs.
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
async fn a_full_server_takes_nothing_and_forgets_nothing() {
    if !is_installed("a Redis that is full") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("kept"), LONG).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "100kb"]).await.unwrap();
    let said = refusal(&store).await;
    assert!(said.contains("OOM"), "{said}");
    assert!(store.ping().await.is_err(), "it is of no use, though it can be reached");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    store.ping().await.unwrap();
    store.complete(&id("kept"), token, HandledAs::Applied).await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts_is_warned_of_and_a_replica_is_refused() {
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
    eventually("it has its master's records", || async {
        store.ping().await.unwrap_err().to_string().contains("READONLY").then_some(())
    })
    .await;
    let probe = store.probe().await.unwrap_err().to_string();
    assert!(probe.contains("read-only replica"), "{probe}");
    // It is made a master: the same store goes on.
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    claimed(&store, &id("e"), LONG).await;
}
