//! What operators see of a record and a lane, and when a record may be forgotten.

use std::time::{Duration, SystemTime};

use reservation_worker::event::{EventId, ReservationId, Step, StepSet};
use reservation_worker::idempotency::redis::{Forgotten, RecordState, RedisStore, SearchOutcome};
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, ProcessId, RecordKey, Store,
};
use sandbox::redis::{Redis, RedisCluster, Reply, is_installed};

use crate::bench::{HASH, LONG, TTL, claimed, id, redis_store, request, steps};

/// Claims the event for no time at all, and waits until the store sees that the claim has ended.
async fn with_ended_claim(store: &RedisStore, id: &EventId) {
    claimed(store, id, Duration::ZERO).await;
}

async fn forgets_nothing_that_has_an_owner(store: &RedisStore) {
    let event = id("evt_1");
    assert_eq!(store.look(&event).await.unwrap(), None);
    let (token, _) = claimed(store, &event, LONG).await;
    store.record((&event).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let seen = store.look(&event).await.unwrap().unwrap();
    let RecordState::InProgress { left } = seen.state else { panic!("{seen:?}") };
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    assert_eq!(seen.steps, steps(&[Step::ReservationStatus]));
    assert_eq!(seen.token.to_bytes(), token.to_bytes());
    assert_eq!(seen.token.process(), Some(ProcessId::own()));
    assert!(matches!(store.forget(&event, &seen).await.unwrap(), Forgotten::Claimed(_)));

    store.release((&event).into(), token, StepSet::EMPTY).await.unwrap();
    // Between the look and the forgetting the event was given up.
    assert_eq!(store.forget(&event, &seen).await.unwrap(), Forgotten::Changed);
    let given_up = store.look(&event).await.unwrap().unwrap();
    assert!(matches!(given_up.state, RecordState::GivenUp { .. }), "{given_up:?}");
    assert_eq!(given_up.steps, steps(&[Step::ReservationStatus]));
    // Between the look and the forgetting another process claims it.
    let (token, _) = claimed(store, &event, LONG).await;
    assert!(matches!(store.forget(&event, &given_up).await.unwrap(), Forgotten::Claimed(_)));
    store.complete((&event).into(), token, HandledAs::Superseded).await.unwrap();
    assert_eq!(store.forget(&event, &given_up).await.unwrap(), Forgotten::Changed);

    let handled = store.look(&event).await.unwrap().unwrap();
    let RecordState::Handled(how) = handled.state else { panic!("{handled:?}") };
    assert_eq!(how.how, HandledAs::Superseded);
    assert!(how.at.elapsed().unwrap_or_default() < LONG && how.at <= SystemTime::now() + LONG);
    assert_eq!(store.forget(&event, &handled).await.unwrap(), Forgotten::Gone);
    assert_eq!(store.look(&event).await.unwrap(), None);
    assert_eq!(store.forget(&event, &handled).await.unwrap(), Forgotten::Gone, "again");
    assert_eq!(claimed(store, &event, LONG).await.1, StepSet::EMPTY, "it is new");

    let left_behind = id("evt_2");
    with_ended_claim(store, &left_behind).await;
    let ended = store.look(&left_behind).await.unwrap().unwrap();
    assert!(matches!(ended.state, RecordState::Expired { .. }), "{ended:?}");
    assert_eq!(store.forget(&left_behind, &ended).await.unwrap(), Forgotten::Gone);
}

#[tokio::test]
async fn a_record_is_forgotten_only_as_it_was_shown() {
    if !is_installed("forgetting on one server") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    forgets_nothing_that_has_an_owner(&redis_store(&redis.url(), "p:", TTL)).await;
}

#[tokio::test]
async fn a_record_on_a_cluster_is_forgotten_only_as_it_was_shown() {
    if !is_installed("forgetting on a cluster") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    forgets_nothing_that_has_an_owner(&redis_store(&cluster.nodes[0].url(), "p:", TTL)).await;
}

#[tokio::test]
async fn the_workers_own_permissions_suffice_to_look_and_to_forget() {
    if !is_installed("forgetting without DEL") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let user = "ACL SETUSER worker on >hunter2 ~p:* +hello +info +evalsha +eval +get +set +time";
    redis.command(&user.split(' ').collect::<Vec<_>>()).await.unwrap();
    let url = redis.url().replace("redis://", "redis://worker:hunter2@");
    let store = redis_store(&url, "p:", TTL);
    let event = id("evt_1");
    let (token, _) = claimed(&store, &event, LONG).await;
    store.complete((&event).into(), token, HandledAs::Applied).await.unwrap();
    let seen = store.look(&event).await.unwrap().unwrap();
    assert_eq!(store.forget(&event, &seen).await.unwrap(), Forgotten::Gone);
    // It is written over for a millisecond, as the user may not delete it.
    while redis.command(&["EXISTS", "p:evt_1"]).await.unwrap().number() != 0 {}
    assert_eq!(store.look(&event).await.unwrap(), None);
    // Only the search of all records needs more.
    assert_eq!(store.find(seen.token, LONG).await.unwrap(), SearchOutcome::Denied);
}

/// The scripts, and between them what the second one is given. A script's time stands still, so the
/// millisecond for which the record is written over is not over when the claim comes.
const CLAIM_WHILE_WRITTEN_OVER: [&str; 6] = [
    include_str!("../../src/idempotency/redis/layout.lua"),
    include_str!("../../src/idempotency/redis/format.lua"),
    include_str!("../../src/idempotency/redis/lane.lua"),
    "ARGV[1] = redis.call('GET', KEYS[1])\nlocal function forget()\n",
    include_str!("../../src/idempotency/redis/forget.lua"),
    "end
    local answer = forget()
    if answer[1] ~= DONE or redis.call('EXISTS', KEYS[1]) == 0 then return { -1, -1 } end
    ARGV[1], ARGV[2], ARGV[3] = string.rep('h', 16), '12345678', '1000'
    ARGV[4], ARGV[5], ARGV[6] = '1000', '7', '1'\n",
];

#[tokio::test]
async fn an_event_is_new_also_while_its_record_is_written_over() {
    if !is_installed("a claim right after forgetting without DEL") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "p:", TTL);
    let (token, _) = claimed(&store, &id("evt_1"), LONG).await;
    store.complete((&id("evt_1")).into(), token, HandledAs::Applied).await.unwrap();
    redis.command(&["ACL", "SETUSER", "default", "-del"]).await.unwrap();
    let claim = include_str!("../../src/idempotency/redis/claim.lua");
    let script = CLAIM_WHILE_WRITTEN_OVER.concat() + claim;
    let answer = redis.command(&["EVAL", &script, "1", "p:evt_1"]).await.unwrap();
    // Ours, with no step done.
    assert_eq!(answer, Reply::List(vec![Reply::Number(3), Reply::Number(0)]));
}

#[tokio::test]
async fn a_lane_shows_whose_turn_it_is_and_who_is_next() {
    if !is_installed("looking at a lane") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    // A prefix in which each character means something in a pattern.
    shows_the_lane(&redis_store(&redis.url(), "p[*?]\\-^:", TTL), None).await;
}

#[tokio::test]
async fn a_lane_on_a_cluster_shows_whose_turn_it_is_and_who_is_next() {
    if !is_installed("looking at a lane of a cluster") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    let store = redis_store(&cluster.nodes[0].url(), "p[*?]\\-^:", TTL);
    shows_the_lane(&store, Some(id("second"))).await;
}

/// `waiting` is what is found of the event that waits: in a cluster its claim was granted, and
/// given back.
async fn shows_the_lane(store: &RedisStore, waiting: Option<EventId>) {
    let reservation = ReservationId::new("rsv_1").unwrap();
    let lane = store.look_lane(&reservation).await.unwrap();
    assert_eq!((lane.holder, lane.next), (None, None));

    let (first, second) = (id("first"), id("second"));
    let ask = |token| ClaimRequest { sent_at: SystemTime::now(), ..request(HASH, token, LONG) };
    let key = |id| RecordKey { id, lane: Some(&reservation) };
    let (holder, waits) = (ClaimToken::unique(), ClaimToken::unique());
    let claim = store.claim(key(&first), ask(holder)).await.unwrap();
    assert!(matches!(claim, Claim::Ours(_)), "{claim:?}");
    let claim = store.claim(key(&second), ask(waits)).await.unwrap();
    assert!(matches!(claim, Claim::Behind(_)), "{claim:?}");

    let lane = store.look_lane(&reservation).await.unwrap();
    let (turn, left) = lane.holder.unwrap();
    assert_eq!(turn.to_bytes(), holder.to_bytes());
    assert!(left > LONG / 2, "{left:?}");
    assert_eq!(lane.next.unwrap().0.to_bytes(), waits.to_bytes());
    // Many others, so that the search takes several pages.
    for number in 0..3_000 {
        claimed(store, &id(&format!("evt_{number}")), LONG).await;
    }
    let found = |id: EventId| SearchOutcome::Found(id);
    assert_eq!(store.find(turn, LONG).await.unwrap(), found(first));
    let waiting = waiting.map_or(SearchOutcome::NotThere, found);
    assert_eq!(store.find(lane.next.unwrap().0, LONG).await.unwrap(), waiting);
    assert_eq!(store.find(turn, Duration::ZERO).await.unwrap(), SearchOutcome::TimeIsUp);
}
