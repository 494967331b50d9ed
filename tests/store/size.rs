//! The memory that a million handled events take in each store. Not part of the suite: it takes
//! minutes. Run one by one:
//! `cargo test --release --test store size:: -- --ignored --nocapture --test-threads 1`

use std::sync::Arc;
use std::time::Duration;

use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{HandledAs, Store};
use sandbox::redis::{Redis, is_installed};
use tokio::task::JoinSet;

use crate::bench::{TTL, claimed, id, redis_store};

const RECORDS: u64 = 1_000_000;
const AT_ONCE: u64 = 64;

/// Handles a million events whose ids are UUIDs (36 characters), as producers make them.
async fn fill(store: Arc<dyn Store>) {
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in (task..RECORDS).step_by(usize::try_from(AT_ONCE).unwrap()) {
                let id = id(&format!("{number:08x}-7a4e-4c1c-9d2f-0123456789ab"));
                let (token, _) = claimed(&*store, &id, Duration::from_secs(30)).await;
                store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[allow(clippy::print_stdout, reason = "a figure for whoever asked for it")]
fn print(what: &str, before: u64, after: u64) {
    let each = (after - before) / RECORDS;
    println!("{what}: {each} bytes a record at {RECORDS} records");
    assert!((40..1_000).contains(&each), "{each}");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

async fn used_memory(redis: &Redis) -> u64 {
    let info = redis.command(&["INFO", "memory"]).await.unwrap().text();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn in_redis() {
    if !is_installed("the size of a million records in Redis") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = Arc::new(redis_store(&redis.url(), "reservation-worker:", TTL));
    store.ping().await.unwrap();
    let before = used_memory(&redis).await;
    fill(store).await;
    print("Redis", before, used_memory(&redis).await);
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn in_memory() {
    let store = Arc::new(MemoryStore::new(RECORDS * 2, TTL));
    let before = resident_bytes();
    fill(Arc::clone(&store) as Arc<dyn Store>).await;
    assert_eq!(store.len() as u64, RECORDS);
    print("memory", before, resident_bytes());
}
