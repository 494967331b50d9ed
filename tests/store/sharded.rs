//! A proxy that spreads keys over shards and does not say so: order cannot be kept there, and the
//! error names the way out.

use reservation_worker::event::ReservationId;
use reservation_worker::idempotency::{Claim, HandledAs, Store, StoreError};
use sandbox::redis::{Redis, RedisCluster, ShardedProxy, is_installed};

use crate::bench::{LONG, TTL, claimed, eventually, id, redis_store};
use crate::lane_model::Delivery;

#[tokio::test]
async fn a_server_that_spreads_keys_is_named_with_the_way_out() {
    if !is_installed("order behind a proxy") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let proxy = ShardedProxy::start(&redis).await.unwrap();
    let store = redis_store(&proxy.url(), "p:", TTL);
    assert!(!store.probe().await.unwrap().is_cluster());
    let reservation = ReservationId::new("rsv").unwrap();
    let delivery = Delivery::new(id("ordered"), 1);
    let claim = store.claim(delivery.key(&reservation), delivery.request(LONG)).await;
    for refused in [claim.map(drop), store.probe_order().await] {
        let Err(StoreError::Unavailable { why, .. }) = refused else { panic!("{refused:?}") };
        for part in ["CROSSSLOT", "SHARED_ORDER=false", "IDEMPOTENCY_STORE"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
    // Without order it is a store as others are.
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    store.complete((&id("e")).into(), token, HandledAs::Applied).await.unwrap();
    let again = Delivery::new(id("e"), 1);
    let claim = store.claim((&again.id).into(), again.request(LONG)).await.unwrap();
    assert!(matches!(claim, Claim::Handled(_)), "{claim:?}");
}

#[tokio::test]
async fn order_is_kept_on_one_server_and_on_a_cluster() {
    if !is_installed("order on servers that keep it") {
        return;
    }
    let (redis, cluster) = (Redis::plain().await.unwrap(), RedisCluster::start().await.unwrap());
    for url in [redis.url(), cluster.nodes[0].url()] {
        assert_eq!(redis_store(&url, "p:", TTL).probe_order().await, Ok(()), "{url}");
    }
    eventually("nothing is left behind", || async {
        (redis.command(&["DBSIZE"]).await.unwrap().number() == 0).then_some(())
    })
    .await;
}
