//! Logins to a real server: the password's file, its rotation, refusals, renewals, and a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::credentials::{CredentialFile, Password, PasswordSource, password};
use reservation_worker::idempotency::redis::{RedisStore, StoreAccess};
use reservation_worker::idempotency::{ClaimToken, Store, StoreError};
use sandbox::redis::{Redis, RedisCluster, is_installed};

use crate::bench::{Folder, HASH, LONG, claimed, eventually, id, request, store_with};

/// What the store's user may do, in a cluster too.
const PERMISSIONS: &str =
    "~p:* +hello +info +evalsha +eval +get +set +time +cluster|slots +ping +asking";

/// Sets the only password of the user `worker`.
async fn set_password(redis: &Redis, password: &str) {
    let user = format!("ACL SETUSER worker on resetpass >{password} {PERMISSIONS}");
    let words: Vec<&str> = user.split(' ').collect();
    assert_eq!(redis.command(&words).await.unwrap().text(), "OK");
}

/// Closes the connections of the user `worker`; returns how many there were.
async fn kill_connections(redis: &Redis) -> i64 {
    redis.command(&["CLIENT", "KILL", "USER", "worker"]).await.unwrap().number()
}

async fn connections(redis: &Redis) -> usize {
    let list = redis.command(&["CLIENT", "LIST"]).await.unwrap().text();
    list.lines().filter(|line| line.contains("user=worker")).count()
}

fn url(redis: &Redis) -> String {
    format!("redis://worker@127.0.0.1:{}", redis.port())
}

/// Returns the access by the file `password`, which holds `text`.
fn by_file(folder: &Folder, text: &str) -> StoreAccess {
    let path = folder.write("password", text);
    let file = password(CredentialFile { variable: "THE_FILE", path }).unwrap();
    let check = "check THE_FILE".to_owned();
    StoreAccess { passwords: Some(Arc::new(file)), check, ..StoreAccess::default() }
}

/// A source of passwords that are counted.
#[derive(Clone)]
struct Counted {
    password: &'static str,
    given: Arc<AtomicU32>,
}

impl Counted {
    fn new(password: &'static str) -> Self {
        Self { password, given: Arc::default() }
    }

    fn given(&self) -> u32 {
        self.given.load(Ordering::Relaxed)
    }

    fn access(&self) -> StoreAccess {
        let passwords = Some(Arc::new(self.clone()) as Arc<dyn PasswordSource>);
        StoreAccess { passwords, ..StoreAccess::default() }
    }
}

#[async_trait]
impl PasswordSource for Counted {
    async fn password(&self) -> Result<Password, String> {
        self.given.fetch_add(1, Ordering::Relaxed);
        Ok(Password::new(self.password.to_owned()))
    }
}

async fn refusal(store: &RedisStore) -> String {
    let claim =
        store.claim((&id("refused")).into(), request(HASH, ClaimToken::unique(), LONG)).await;
    let Err(StoreError::Unavailable { why, .. }) = claim else { panic!("{claim:?}") };
    assert!(!why.contains("hunter"), "{why}");
    why
}

#[tokio::test]
async fn a_changed_password_is_read_for_the_next_connection() {
    if !is_installed("a password that is rotated") {
        return;
    }
    let folder = Folder::new();
    let mut redis = Redis::plain().await.unwrap();
    set_password(&redis, "hunter2").await;
    let store = store_with(&url(&redis), by_file(&folder, "hunter2\n"));
    claimed(&store, &id("e"), LONG).await;
    folder.write("password", "hunter3");
    set_password(&redis, "hunter3").await;
    assert_eq!(kill_connections(&redis).await, 1);
    // The operation that finds the connection closed may fail; the next one logs in anew.
    let _ = store.ping().await;
    store.ping().await.unwrap();
    // A restart, after which the server has yet another password.
    redis.stop().await.unwrap();
    folder.write("password", "hunter4");
    redis.start().await.unwrap();
    set_password(&redis, "hunter4").await;
    eventually("the store works again", || async { store.ping().await.ok() }).await;
}

#[tokio::test]
async fn the_new_password_may_reach_the_file_after_the_server() {
    if !is_installed("a password that is rotated late") {
        return;
    }
    let folder = Folder::new();
    let redis = Redis::plain().await.unwrap();
    set_password(&redis, "hunter2").await;
    let store = store_with(&url(&redis), by_file(&folder, "hunter2"));
    store.ping().await.unwrap();
    set_password(&redis, "hunter3").await;
    store.ping().await.unwrap();
    kill_connections(&redis).await;
    let _ = store.ping().await;
    let said = refusal(&store).await;
    assert!(said.contains("refuses us (WRONGPASS") && said.contains("check THE_FILE"), "{said}");
    folder.write("password", "hunter3");
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_refusal_names_the_way_out() {
    if !is_installed("a login that is refused") {
        return;
    }
    let (folder, wrong) = (Folder::new(), Folder::new());
    let redis = Redis::plain().await.unwrap();
    set_password(&redis, "hunter2").await;
    let wrong_password = store_with(&url(&redis), by_file(&wrong, "hunter1"));
    let wrong_user = url(&redis).replace("worker", "nobody");
    for store in [wrong_password, store_with(&wrong_user, by_file(&folder, "hunter2"))] {
        let said = refusal(&store).await;
        assert!(said.ends_with("refuses us (WRONGPASS or the like): check THE_FILE"), "{said}");
    }
    // The user has no permission for other keys.
    let access = by_file(&folder, "hunter2");
    let url = url(&redis).parse().unwrap();
    let other_keys = RedisStore::with_access(&url, access, "other:", LONG).unwrap();
    let said = refusal(&other_keys).await;
    assert!(said.contains("NOPERM") && said.contains("docs/idempotency.md"), "{said}");
}

#[tokio::test]
async fn a_source_without_a_password_is_reported() {
    struct Empty;
    #[async_trait]
    impl PasswordSource for Empty {
        async fn password(&self) -> Result<Password, String> {
            Err("no AWS credentials are configured".to_owned())
        }
    }
    let passwords = Some(Arc::new(Empty) as Arc<dyn PasswordSource>);
    let access = StoreAccess { passwords, ..StoreAccess::default() };
    let said = refusal(&store_with("redis://worker@127.0.0.1:1", access)).await;
    let why = "Redis at 127.0.0.1:1 cannot be logged in to: no AWS credentials are configured";
    assert_eq!(said, why);
}

#[tokio::test]
async fn an_old_connection_is_renewed_without_a_fault() {
    if !is_installed("a connection that is renewed") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    set_password(&redis, "hunter2").await;
    let source = Counted::new("hunter2");
    let renew_after = Some(Duration::from_secs(1));
    let store = store_with(&url(&redis), StoreAccess { renew_after, ..source.access() });
    eventually("the connection is renewed twice", || async {
        store.ping().await.unwrap();
        (source.given() >= 3).then_some(())
    })
    .await;
    eventually("old connections are closed", || async {
        (connections(&redis).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_renewed_stays_in_use() {
    if !is_installed("a renewal that is refused") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    set_password(&redis, "hunter2").await;
    let source = Counted::new("hunter2");
    let renew_after = Some(Duration::from_millis(200));
    let store = store_with(&url(&redis), StoreAccess { renew_after, ..source.access() });
    store.ping().await.unwrap();
    set_password(&redis, "hunter3").await;
    eventually("a renewal was refused", || async {
        store.ping().await.unwrap();
        (source.given() >= 2).then_some(())
    })
    .await;
    // The next one is tried after a pause only.
    let given = source.given();
    for _ in 0..50 {
        store.ping().await.unwrap();
    }
    assert_eq!(source.given(), given);
}

/// Claims events until each node of the cluster has answered.
async fn on_all_nodes(store: &RedisStore, name: &str) -> Result<(), StoreError> {
    for number in 0..30 {
        let event = id(&format!("{name}_{number}"));
        store.claim((&event).into(), request(HASH, ClaimToken::unique(), LONG)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn each_connection_to_a_node_gets_a_new_password() {
    if !is_installed("a cluster whose password is rotated") {
        return;
    }
    let folder = Folder::new();
    let cluster = RedisCluster::start().await.unwrap();
    for node in &cluster.nodes {
        set_password(node, "hunter2").await;
    }
    let counted = Counted::new("hunter2");
    let by_source = store_with(&url(&cluster.nodes[0]), counted.access());
    on_all_nodes(&by_source, "counted").await.unwrap();
    assert!(counted.given() >= 4, "three nodes and the first look: {}", counted.given());
    let store = store_with(&url(&cluster.nodes[0]), by_file(&folder, "hunter2"));
    assert!(store.probe().await.unwrap().is_cluster());
    on_all_nodes(&store, "before").await.unwrap();

    folder.write("password", "hunter3");
    for node in &cluster.nodes {
        set_password(node, "hunter3").await;
    }
    on_all_nodes(&store, "open").await.unwrap();
    // One node closes its connections: the cluster's client makes that one anew.
    let given = counted.given();
    kill_connections(&cluster.nodes[1]).await;
    eventually("the node is used again", || async { on_all_nodes(&store, "one").await.ok() }).await;
    for node in &cluster.nodes {
        kill_connections(node).await;
    }
    eventually("all are used again", || async { on_all_nodes(&store, "all").await.ok() }).await;
    let refused = on_all_nodes(&by_source, "refused").await.unwrap_err().to_string();
    assert!(!refused.contains("hunter"), "{refused}");
    eventually("the source is asked again", || async {
        let _ = by_source.ping().await;
        (counted.given() > given).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_renewed_without_a_fault() {
    if !is_installed("a cluster that is renewed") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    for node in &cluster.nodes {
        set_password(node, "hunter2").await;
    }
    let source = Counted::new("hunter2");
    let renew_after = Some(Duration::from_secs(1));
    let store = store_with(&url(&cluster.nodes[0]), StoreAccess { renew_after, ..source.access() });
    on_all_nodes(&store, "first").await.unwrap();
    let first = source.given();
    eventually("all nodes were logged in to anew, twice", || async {
        on_all_nodes(&store, "later").await.unwrap();
        (source.given() >= 3 * first).then_some(())
    })
    .await;
}
