//! The shared store on a cluster of three real masters.

use reservation_worker::event::{EventId, ReservationId, Step};
use reservation_worker::idempotency::{
    Claim, ClaimToken, HandledAs, KeyPart, RecordKey, Store, StoreError,
};
use reservation_worker::outage::Shard;
use sandbox::redis::{Redis, RedisCluster, is_installed};

use crate::bench::{Bench, HASH, LONG, TTL, claimed, eventually, id, redis_store, request, steps};
use crate::contract;

async fn keys(node: &Redis) -> i64 {
    node.command(&["DBSIZE"]).await.unwrap().number()
}

#[tokio::test]
async fn the_contract_holds_on_a_cluster() {
    if !is_installed("the contract on a cluster") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    contract::all(&Bench::Redis(cluster.nodes[1].url())).await;
    let store = redis_store(&cluster.nodes[2].url(), "test:", TTL);
    assert!(store.probe().await.unwrap().is_cluster());
    for number in 0..300 {
        let id = id(&format!("evt_{number}"));
        let (token, _) = claimed(&store, &id, LONG).await;
        store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
        store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
    }
    for node in &cluster.nodes {
        assert!(keys(node).await > 50, "a node has too few of the records");
    }
    for named in ["evt_1", "evt_{1}", "{}", "a}b{c}"] {
        let asked = ["CLUSTER", "KEYSLOT", &format!("test:{named}")];
        let slot = cluster.nodes[0].command(&asked).await.unwrap().number();
        let shard = Shard::new(u16::try_from(slot).unwrap(), 16_384);
        assert_eq!(store.shard(&id(named)), shard, "{named}");
    }
}

/// Completes a new event whose record is on this node.
async fn on(node: &Redis, store: &dyn Store, named: &str) -> EventId {
    for number in 0.. {
        let id = id(&format!("{named}_{number}"));
        let before = keys(node).await;
        let (token, _) = claimed(store, &id, LONG).await;
        store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
        if keys(node).await > before {
            return id;
        }
    }
    unreachable!("each node has a third of the slots")
}

#[tokio::test]
async fn a_killed_node_affects_only_events_of_its_slots() {
    if !is_installed("a cluster that loses a node") {
        return;
    }
    let mut cluster = RedisCluster::start().await.unwrap();
    for node in &cluster.nodes {
        // As an operator may set it: the other nodes stay usable.
        let set = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        node.command(&set).await.unwrap();
    }
    let store = redis_store(&cluster.nodes[0].url(), "p:", TTL);
    let (there, gone) =
        (on(&cluster.nodes[1], &store, "a").await, on(&cluster.nodes[2], &store, "b").await);
    cluster.nodes[2].kill().await.unwrap();
    for _ in 0..20 {
        let claim = store.claim((&gone).into(), request(HASH, ClaimToken::unique(), LONG)).await;
        assert!(matches!(claim, Err(StoreError::Unavailable { .. })), "{claim:?}");
    }
    eventually("the events of the other nodes can be claimed", || async {
        store.claim((&there).into(), request(HASH, ClaimToken::unique(), LONG)).await.ok()
    })
    .await;
    cluster.nodes[2].start().await.unwrap();
    eventually("the node is back", || async {
        store.claim((&gone).into(), request(HASH, ClaimToken::unique(), LONG)).await.ok()
    })
    .await;
}

/// Returns a text whose key, `prefix` and the text, is on that node. The nodes have a third of the
/// slots each, in order.
async fn text_on(cluster: &RedisCluster, node: usize, prefix: &str, named: &str) -> String {
    for number in 0.. {
        let text = format!("{named}_{number}");
        let asked = ["CLUSTER", "KEYSLOT", &format!("{prefix}{text}")];
        let slot = cluster.nodes[0].command(&asked).await.unwrap().number();
        if usize::from(slot > 5_460) + usize::from(slot > 10_922) == node {
            return text;
        }
    }
    unreachable!("each node has a third of the slots")
}

#[tokio::test]
async fn an_error_names_the_part_whose_node_is_away() {
    if !is_installed("a cluster that loses records or lanes") {
        return;
    }
    let mut cluster = RedisCluster::start().await.unwrap();
    for node in &cluster.nodes {
        let set = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        node.command(&set).await.unwrap();
    }
    let store = redis_store(&cluster.nodes[0].url(), "p:", TTL);
    let mut cases = Vec::new();
    for (record, lane, expected) in [
        (0, 1, None),
        (0, 2, Some(KeyPart::Lane)),
        (2, 1, Some(KeyPart::Record)),
        (2, 2, Some(KeyPart::Both)),
    ] {
        let event = id(&text_on(&cluster, record, "p:", &format!("e{record}{lane}")).await);
        let lane = text_on(&cluster, lane, "p:\u{1}", &format!("r{record}{lane}")).await;
        cases.push((event, ReservationId::new(&lane).unwrap(), expected));
    }
    cluster.nodes[2].kill().await.unwrap();
    for (event, lane, expected) in &cases {
        let (key, token) = (RecordKey { id: event, lane: Some(lane) }, ClaimToken::unique());
        eventually("the claim fails where it must", || async {
            let claim = store.claim(key, request(HASH, token, LONG)).await;
            match claim {
                Ok(Claim::Ours(_)) => expected.is_none().then_some(()),
                Err(StoreError::Unavailable { at, .. }) => (*expected == Some(at)).then_some(()),
                other => panic!("{other:?}"),
            }
        })
        .await;
        for answer in [
            store.renew(key, token, LONG).await,
            store.record(key, token, steps(&[Step::ReservationStatus])).await,
            store.complete(key, token, HandledAs::Applied).await,
        ] {
            let at = match answer {
                Ok(()) => None,
                Err(StoreError::Unavailable { at, .. }) => Some(at),
                Err(other) => panic!("{other:?}"),
            };
            // A renewal does not ask for a lane whose record is away.
            let is_unasked = *expected == Some(KeyPart::Both) && at == Some(KeyPart::Record);
            assert!(at == *expected || is_unasked, "{event}: {at:?}, not {expected:?}");
        }
    }
    let of_lane = (&cases[1].0).into();
    let claim = store.claim(of_lane, request(HASH, ClaimToken::unique(), LONG)).await.unwrap();
    assert!(matches!(claim, Claim::Handled(_)), "it was completed without its lane: {claim:?}");
}

#[tokio::test]
async fn redirects_of_a_moving_slot_are_followed() {
    if !is_installed("a cluster that moves a slot") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    let [from, _, to] = &cluster.nodes[..] else { panic!("three nodes") };
    for node in &cluster.nodes {
        // A user with the least permissions that the store needs.
        let user =
            "ACL SETUSER worker on >hunter2 ~p:* +hello +info +evalsha +eval +get +set +time";
        let user = format!("{user} +cluster|slots +ping +asking");
        let words: Vec<&str> = user.split(' ').collect();
        assert_eq!(node.command(&words).await.unwrap().text(), "OK");
    }
    let url = format!("redis://worker:hunter2@127.0.0.1:{}", from.port());
    let store = redis_store(&url, "p:", TTL);
    let event = on(from, &store, "moving").await;
    let key = format!("p:{event}");
    let from_name = from.command(&["CLUSTER", "MYID"]).await.unwrap().text();
    let to_name = to.command(&["CLUSTER", "MYID"]).await.unwrap().text();
    let slot = from.command(&["CLUSTER", "KEYSLOT", &key]).await.unwrap().number().to_string();
    // As `redis-cli --cluster reshard` does it. During the move, the first node answers ASK.
    to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_name]).await.unwrap();
    from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_name]).await.unwrap();
    let port = to.port().to_string();
    let moved = from.command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await.unwrap();
    assert_eq!(moved.text(), "OK");
    let claim =
        store.claim((&event).into(), request(HASH, ClaimToken::unique(), LONG)).await.unwrap();
    assert!(matches!(claim, Claim::Handled(_)), "{claim:?}");
    // After the move, it answers MOVED.
    for node in [to, from] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_name]).await.unwrap();
    }
    let claim =
        store.claim((&event).into(), request(HASH, ClaimToken::unique(), LONG)).await.unwrap();
    assert!(matches!(claim, Claim::Handled(_)), "{claim:?}");
}
