//! What the shared store writes, and how it meets what it did not write.

use std::fmt::Write;
use std::time::Duration;

use reservation_worker::event::{ContentHash, Step, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, Store, StoreError};
use sandbox::redis::{Redis, Reply, is_installed};

use crate::bench::{HASH, LONG, OTHER_HASH, TTL, claimed, id, left, redis_store, steps};

async fn number(redis: &Redis, words: &[&str]) -> i64 {
    redis.command(words).await.unwrap().number()
}

#[tokio::test]
async fn a_record_is_short_and_is_kept_for_its_time() {
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
    assert!(is_kept(in_progress, ttl + long), "the claim's time, and the steps' after it");
    store.record(&id("e"), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let recorded = number(&redis, &["PTTL", "p:e"]).await;
    assert!(recorded <= in_progress && is_kept(recorded, ttl + long), "{recorded}");
    store.release(&id("e"), token, StepSet::EMPTY).await.unwrap();
    assert!(is_kept(number(&redis, &["PTTL", "p:e"]).await, ttl));
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    store.complete(&id("e"), token, HandledAs::Applied).await.unwrap();
    assert!(is_kept(number(&redis, &["PTTL", "p:e"]).await, ttl));
    // Kept in one piece with its header (an `embstr`), as it always was.
    let kind = redis.command(&["OBJECT", "ENCODING", "p:e"]).await.unwrap();
    assert_eq!(kind.text(), "embstr");
    assert_eq!(number(&redis, &["DBSIZE"]).await, 1);
}

#[tokio::test]
async fn stores_with_other_prefixes_do_not_meet() {
    if !is_installed("the keys' prefixes") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let (a, b) = (redis_store(&redis.url(), "a:", TTL), redis_store(&redis.url(), "b:", TTL));
    let (token, _) = claimed(&a, &id("e"), LONG).await;
    a.complete(&id("e"), token, HandledAs::Applied).await.unwrap();
    claimed(&b, &id("e"), LONG).await;
    assert_eq!(number(&redis, &["EXISTS", "a:e", "b:e"]).await, 2);
}

#[tokio::test]
async fn two_processes_share_one_truth() {
    if !is_installed("two stores on one Redis") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let (one, two) = (redis_store(&redis.url(), "p:", TTL), redis_store(&redis.url(), "p:", TTL));
    let (token, _) = claimed(&one, &id("e"), LONG).await;
    assert!(left(&two, &id("e")).await > Duration::ZERO);
    one.release(&id("e"), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let (token, done) = claimed(&two, &id("e"), LONG).await;
    assert_eq!(done, steps(&[Step::ReservationStatus]));
    two.complete(&id("e"), token, HandledAs::Superseded).await.unwrap();
    let claim = one.claim(&id("e"), HASH, ClaimToken::unique(), LONG).await.unwrap();
    assert!(matches!(claim, Claim::Handled(it) if it.how == HandledAs::Superseded), "{claim:?}");
}

/// A record of our format with one byte changed, for `redis-cli`'s own kind of script: how else would a test write bytes?
async fn spoil(redis: &Redis, key: &str, at: usize, byte: u8) {
    let script = "return redis.call('SETRANGE', KEYS[1], ARGV[1], string.char(ARGV[2]))";
    let (at, byte) = (at.to_string(), byte.to_string());
    let reply = redis.command(&["EVAL", script, "1", key, &at, &byte]).await.unwrap();
    assert_eq!(reply, Reply::Number(36));
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_left_as_it_is() {
    if !is_installed("records that cannot be read") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let token = ClaimToken::unique();
    for name in ["version", "kind", "steps"] {
        store.claim(&id(name), HASH, token, LONG).await.unwrap();
    }
    spoil(&redis, "p:version", 0, 2).await;
    spoil(&redis, "p:kind", 1, 4).await;
    spoil(&redis, "p:steps", 2, 8).await;
    store.claim(&id("how"), HASH, token, LONG).await.unwrap();
    store.complete(&id("how"), token, HandledAs::Applied).await.unwrap();
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
        let claim = store.claim(&id(name), HASH, token, LONG).await;
        let Err(StoreError::Unreadable(why)) = claim else { panic!("{name}: {claim:?}") };
        assert!(why.contains(word), "{name}: {why}");
        let mut said = String::new();
        // With steps or a `how` that is not known, its owner's own record is what it is.
        if !matches!(name, "steps" | "how") {
            for answer in [
                store.renew(&id(name), token, LONG).await,
                store.record(&id(name), token, steps(&Step::ALL)).await,
                store.complete(&id(name), token, HandledAs::Applied).await,
                store.release(&id(name), token, StepSet::EMPTY).await,
            ] {
                write!(said, "{answer:?} ").unwrap();
                assert!(matches!(answer, Err(StoreError::Unreadable(_))), "{name}: {said}");
            }
        }
        assert_eq!(redis.command(&["DUMP", &key]).await.unwrap(), before, "{name}");
    }
}

/// As bytes of an older release, which wrote no length of a claim; or of a newer one.
#[tokio::test]
async fn hashes_of_two_versions_say_nothing_about_each_other() {
    if !is_installed("content hashes of two versions") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let newer = ContentHash::of_version(2, OTHER_HASH.to_bytes());
    let (token, _) = claimed(&store, &id("e"), LONG).await;
    let ask = async |hash| store.claim(&id("e"), hash, ClaimToken::unique(), LONG).await;
    assert!(matches!(ask(OTHER_HASH).await.unwrap(), Claim::IdReused(HASH)));
    assert!(matches!(ask(newer).await.unwrap(), Claim::Elsewhere(_)));
    store.complete(&id("e"), token, HandledAs::Applied).await.unwrap();
    assert!(matches!(ask(newer).await.unwrap(), Claim::Handled(_)));

    // And the other way round, as an older pod finds what a newer one wrote.
    let token = ClaimToken::unique();
    let done = steps(&[Step::ReservationStatus]);
    let claim = store.claim(&id("n"), newer, token, LONG).await.unwrap();
    assert!(matches!(claim, Claim::Ours(_)), "{claim:?}");
    store.release(&id("n"), token, done).await.unwrap();
    assert_eq!(claimed(&store, &id("n"), LONG).await.1, done);
    assert_eq!(number(&redis, &["STRLEN", "p:n"]).await, 36);
}

/// Moves the end of a claim further away, which is what a clock that steps back by as much does.
async fn step_back(redis: &Redis, key: &str, by: Duration) {
    let script = "local at = struct.unpack('>I8', string.sub(redis.call('GET', KEYS[1]), 29)) + ARGV[1] \
                  return redis.call('SETRANGE', KEYS[1], 28, struct.pack('>I8', at))";
    let by = by.as_millis().to_string();
    let reply = redis.command(&["EVAL", script, "1", key, &by]).await.unwrap();
    assert_eq!(reply, Reply::Number(36));
}

#[tokio::test]
async fn a_clock_that_steps_back_orphans_no_claim_for_long() {
    if !is_installed("a clock that steps back") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let lasts = Duration::from_secs(2);
    let hour = Duration::from_secs(3_600);
    let (token, _) = claimed(&store, &id("e"), lasts).await;
    step_back(&redis, "p:e", hour).await;
    // Its owner may live: it was told that the claim stands for as long as this.
    let first = left(&store, &id("e")).await;
    assert!(first <= lasts && first > lasts / 2, "{first:?}");
    store.renew(&id("e"), token, lasts).await.unwrap();
    assert!(left(&store, &id("e")).await <= lasts);
    // It dies now. Asked again and again, the end comes nearer.
    step_back(&redis, "p:e", hour).await;
    crate::bench::eventually("the claim ends", || async {
        let claim = store.claim(&id("e"), HASH, ClaimToken::unique(), lasts).await.unwrap();
        matches!(claim, Claim::Ours(_)).then_some(())
    })
    .await;
}
