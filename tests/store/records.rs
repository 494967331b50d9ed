//! The records that the shared store writes, and its handling of foreign and unreadable ones.

use std::fmt::Write;
use std::time::Duration;

use reservation_worker::event::{Step, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, Store, StoreError};
use sandbox::redis::{Redis, Reply, is_installed};

use crate::bench::{HASH, LONG, OTHER_HASH, TTL, claimed, id, left, redis_store, request, steps};

/// Memory of a record with a key of three bytes, by `MEMORY USAGE`. Redis 6.2 has the largest. A
/// record that is not in one piece with its header takes 112 bytes or more in Redis 6 and 7.
const RECORD_BYTES_MAX: i64 = 104;

async fn number(redis: &Redis, words: &[&str]) -> i64 {
    redis.command(words).await.unwrap().number()
}

#[tokio::test]
async fn a_record_has_36_bytes_and_the_configured_time_to_live() {
    if !is_installed("the records' size and time to live") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let ttl = i64::try_from(TTL.as_millis()).unwrap();
    let long = i64::try_from(LONG.as_millis()).unwrap();
    let is_kept = |left: i64, whole: i64| left <= whole && left > whole - 20_000;

    let (token, _) = claimed(&store, &id("e"), LONG).await;
    assert_eq!(number(&redis, &["STRLEN", "p:e"]).await, 36);
    let in_progress = number(&redis, &["PTTL", "p:e"]).await;
    assert!(
        is_kept(in_progress, ttl + long),
        "{in_progress} is not the claim and the time to live"
    );
    store.record((&id("e")).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let recorded = number(&redis, &["PTTL", "p:e"]).await;
    assert!(recorded <= in_progress && is_kept(recorded, ttl + long), "{recorded}");
    store.release((&id("e")).into(), token, StepSet::EMPTY).await.unwrap();
    assert!(is_kept(number(&redis, &["PTTL", "p:e"]).await, ttl));
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    store.complete((&id("e")).into(), token, HandledAs::Applied).await.unwrap();
    assert!(is_kept(number(&redis, &["PTTL", "p:e"]).await, ttl));
    // Stored in one piece with its header.
    let bytes = number(&redis, &["MEMORY", "USAGE", "p:e"]).await;
    assert!(bytes <= RECORD_BYTES_MAX, "{bytes}");
    assert_eq!(number(&redis, &["DBSIZE"]).await, 1);
}

#[tokio::test]
async fn stores_with_different_prefixes_are_independent() {
    if !is_installed("the keys' prefixes") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let (a, b) = (redis_store(&redis.url(), "a:", TTL), redis_store(&redis.url(), "b:", TTL));
    let (token, _) = claimed(&a, &id("e"), LONG).await;
    a.complete((&id("e")).into(), token, HandledAs::Applied).await.unwrap();
    claimed(&b, &id("e"), LONG).await;
    assert_eq!(number(&redis, &["EXISTS", "a:e", "b:e"]).await, 2);
}

#[tokio::test]
async fn two_stores_on_one_server_share_their_records() {
    if !is_installed("two stores on one Redis") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let (one, two) = (redis_store(&redis.url(), "p:", TTL), redis_store(&redis.url(), "p:", TTL));
    let (token, _) = claimed(&one, &id("e"), LONG).await;
    assert!(left(&two, &id("e")).await > Duration::ZERO);
    one.release((&id("e")).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let (token, done) = claimed(&two, &id("e"), LONG).await;
    assert_eq!(done, steps(&[Step::ReservationStatus]));
    two.complete((&id("e")).into(), token, HandledAs::Superseded).await.unwrap();
    let claim =
        one.claim((&id("e")).into(), request(HASH, ClaimToken::unique(), LONG)).await.unwrap();
    assert!(matches!(claim, Claim::Handled(it) if it.how == HandledAs::Superseded), "{claim:?}");
}

/// Changes one byte of a record, with a script: `SETRANGE` by itself takes no arbitrary bytes here.
async fn spoil(redis: &Redis, key: &str, at: usize, byte: u8) {
    let script = "return redis.call('SETRANGE', KEYS[1], ARGV[1], string.char(ARGV[2]))";
    let (at, byte) = (at.to_string(), byte.to_string());
    let reply = redis.command(&["EVAL", script, "1", key, &at, &byte]).await.unwrap();
    assert_eq!(reply, Reply::Number(36));
}

#[tokio::test]
async fn an_unreadable_record_is_reported_and_not_changed() {
    if !is_installed("records that cannot be read") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let token = ClaimToken::unique();
    for name in ["version", "kind", "steps"] {
        store.claim((&id(name)).into(), request(HASH, token, LONG)).await.unwrap();
    }
    spoil(&redis, "p:version", 0, 2).await;
    spoil(&redis, "p:kind", 1, 4).await;
    spoil(&redis, "p:steps", 2, 8).await;
    store.claim((&id("how")).into(), request(HASH, token, LONG)).await.unwrap();
    store.complete((&id("how")).into(), token, HandledAs::Applied).await.unwrap();
    spoil(&redis, "p:how", 3, 9).await;
    for words in [
        &["RPUSH", "p:list", "x"][..],
        &["SET", "p:empty", ""],
        &["SET", "p:short", "\u{1}\u{1}"],
        &["SET", "p:text", "a value of somebody else's, 36 bytes."],
    ] {
        redis.command(words).await.unwrap();
    }
    for (name, word) in [
        ("version", "format"),
        ("kind", "kind"),
        ("steps", "steps"),
        ("how", "handled"),
        ("list", "string"),
        ("empty", "format"),
        ("short", "bytes"),
        ("text", "format"),
    ] {
        let key = format!("p:{name}");
        let before = redis.command(&["DUMP", &key]).await.unwrap();
        let claim = store.claim((&id(name)).into(), request(HASH, token, LONG)).await;
        let Err(StoreError::Unreadable(why)) = claim else { panic!("{name}: {claim:?}") };
        assert!(why.contains(word), "{name}: {why}");
        let mut said = String::new();
        // With unknown steps or an unknown `how`, the owner can still use its record.
        if !matches!(name, "steps" | "how") {
            for answer in [
                store.renew((&id(name)).into(), token, LONG).await,
                store.record((&id(name)).into(), token, steps(&Step::ALL)).await,
                store.complete((&id(name)).into(), token, HandledAs::Applied).await,
                store.release((&id(name)).into(), token, StepSet::EMPTY).await,
            ] {
                write!(said, "{answer:?} ").unwrap();
                assert!(matches!(answer, Err(StoreError::Unreadable(_))), "{name}: {said}");
            }
        }
        assert_eq!(redis.command(&["DUMP", &key]).await.unwrap(), before, "{name}");
    }
}

/// Turns a record in progress into one that a release with the second version of the hash wrote.
async fn of_second_version(redis: &Redis, key: &str) {
    spoil(redis, key, 1, 1 + 16).await;
}

/// Records of an older or newer release, with another version of the hash.
#[tokio::test]
async fn hashes_of_different_versions_are_not_compared() {
    if !is_installed("content hashes of two versions") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    let ask = async |name| {
        store.claim((&id(name)).into(), request(OTHER_HASH, ClaimToken::unique(), LONG)).await
    };
    assert!(matches!(ask("e").await.unwrap(), Claim::IdReused(HASH)));
    of_second_version(&redis, "p:e").await;
    assert!(matches!(ask("e").await.unwrap(), Claim::Elsewhere(_)));
    store.complete((&id("e")).into(), token, HandledAs::Applied).await.unwrap();
    assert!(matches!(ask("e").await.unwrap(), Claim::Handled(_)));

    // What the other release had done counts, and the record gets this release's hash.
    let done = steps(&[Step::ReservationStatus]);
    let (token, _) = claimed(&store, &id("n"), LONG).await;
    of_second_version(&redis, "p:n").await;
    store.release((&id("n")).into(), token, done).await.unwrap();
    assert!(matches!(ask("n").await.unwrap(), Claim::Ours(ours) if ours == done));
    let claim = store.claim((&id("n")).into(), request(HASH, token, LONG)).await.unwrap();
    assert!(matches!(claim, Claim::IdReused(OTHER_HASH)), "{claim:?}");
    assert_eq!(number(&redis, &["STRLEN", "p:n"]).await, 36);
}

/// Moves the end of a claim into the future, as a clock that steps back does.
async fn step_back(redis: &Redis, key: &str, by: Duration) {
    let script = "local at = struct.unpack('>I8', string.sub(redis.call('GET', KEYS[1]), 29)) + ARGV[1] \
                  return redis.call('SETRANGE', KEYS[1], 28, struct.pack('>I8', at))";
    let by = by.as_millis().to_string();
    let reply = redis.command(&["EVAL", script, "1", key, &by]).await.unwrap();
    assert_eq!(reply, Reply::Number(36));
}

#[tokio::test]
async fn a_claim_still_ends_after_a_clock_step_back() {
    if !is_installed("a clock that steps back") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let lasts = Duration::from_secs(2);
    let hour = Duration::from_secs(3_600);
    let (token, _) = claimed(&store, &id("e"), lasts).await;
    step_back(&redis, "p:e", hour).await;
    // The claim was granted for this duration; the owner may still be alive.
    let first = left(&store, &id("e")).await;
    assert!(first <= lasts && first > lasts / 2, "{first:?}");
    store.renew((&id("e")).into(), token, lasts).await.unwrap();
    assert!(left(&store, &id("e")).await <= lasts);
    // The owner ends here. Each further attempt to claim limits the rest of the claim.
    step_back(&redis, "p:e", hour).await;
    crate::bench::eventually("the claim ends", || async {
        let claim = store
            .claim((&id("e")).into(), request(HASH, ClaimToken::unique(), lasts))
            .await
            .unwrap();
        matches!(claim, Claim::Ours(_)).then_some(())
    })
    .await;
}
