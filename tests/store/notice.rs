//! The notice that all processes with one store share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use reservation_worker::controls::{Controls, SharedChange};
use reservation_worker::idempotency::{Notice, Store};
use reservation_worker::metrics::Metrics;
use sandbox::redis::{RedisCluster, RedisOptions, is_installed};

use crate::bench::{TTL, eventually, redis_store};

const LONG: Duration = Duration::from_secs(60);

async fn text(store: &impl Store) -> Vec<u8> {
    let Notice { text, .. } = store.ping().await.unwrap();
    text
}

async fn is_posted_replaced_and_ended(store: &impl Store, other: &impl Store) {
    let shortly = Duration::from_millis(300);
    assert_eq!(text(store).await, b"");
    assert!(store.post_notice(b"", b"\0one\xff", LONG).await.unwrap());
    assert_eq!(text(other).await, b"\0one\xff", "each process reads it");
    assert_eq!(text(other).await, b"\0one\xff", "a look leaves it as it is");
    for read in [&b""[..], b"another"] {
        assert!(!store.post_notice(read, b"late", LONG).await.unwrap(), "it has changed since");
    }
    assert!(other.post_notice(b"\0one\xff", b"two", shortly).await.unwrap());
    eventually("its time is over", || async { text(store).await.is_empty().then_some(()) }).await;
    assert!(!store.post_notice(b"two", b"late", LONG).await.unwrap(), "it has ended since");
    assert!(store.post_notice(b"", b"three", LONG).await.unwrap());
    assert!(store.post_notice(b"three", b"", Duration::from_millis(1)).await.unwrap());
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

/// Two operators change different levers at once, again and again.
#[tokio::test]
async fn of_changes_at_the_same_time_none_is_lost() {
    if !is_installed("changes of a shared store's notice at the same time") {
        return;
    }
    let redis = RedisOptions::default().start().await.unwrap();
    let store = || Arc::new(redis_store(&redis.url(), "p:", TTL)) as Arc<dyn Store>;
    let controls = || Controls::new(Arc::new(Metrics::new(&[])));
    let (first, second) = (store(), store());
    for round in 1..=50 {
        let (one, other) = (controls(), controls());
        let workers = NonZeroUsize::new(round).unwrap();
        let (paused, sized) = tokio::join!(
            one.change_all(&first, SharedChange::Pause(LONG, round.to_string())),
            other.change_all(&second, SharedChange::Concurrency(workers, LONG)),
        );
        paused.unwrap();
        sized.unwrap();
        let reader = controls();
        reader.apply_notice(&first.ping().await.unwrap());
        let reason = reader.paused().map(|(lever, _)| lever.reason);
        assert_eq!((reason, reader.concurrency()), (Some(round.to_string()), Some(workers)));
    }
}
