//! The notice that all processes with one store share.

use std::time::Duration;

use reservation_worker::idempotency::{Notice, Store};
use sandbox::redis::{RedisCluster, RedisOptions, is_installed};

use crate::bench::{TTL, eventually, redis_store};

const LONG: Duration = Duration::from_secs(60);

async fn text(store: &impl Store) -> Vec<u8> {
    let Notice { text, .. } = store.ping().await.unwrap();
    text
}

async fn is_posted_replaced_and_ended(store: &impl Store, other: &impl Store) {
    assert_eq!(text(store).await, b"");
    store.post_notice(b"\0one\xff", LONG).await.unwrap();
    assert_eq!(text(other).await, b"\0one\xff", "each process reads it");
    assert_eq!(text(other).await, b"\0one\xff", "a look leaves it as it is");
    other.post_notice(b"two", Duration::from_millis(300)).await.unwrap();
    eventually("its time is over", || async { text(store).await.is_empty().then_some(()) }).await;
    store.post_notice(b"three", LONG).await.unwrap();
    store.post_notice(b"", Duration::from_millis(1)).await.unwrap();
    eventually("it is ended", || async { text(other).await.is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_notice_reaches_every_process_until_its_time_is_over() {
    if !is_installed("a shared store's notice") {
        return;
    }
    let redis = RedisOptions::default().start().await.unwrap();
    let store = || redis_store(&redis.url(), "p:", TTL);
    is_posted_replaced_and_ended(&store(), &store()).await;
    let cluster = RedisCluster::start().await.unwrap();
    let store = || redis_store(&cluster.nodes[1].url(), "p:", TTL);
    is_posted_replaced_and_ended(&store(), &store()).await;
}
