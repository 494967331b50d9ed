//! Lanes of reservations, on one server and on a cluster: each answer is compared with a
//! sequential model.

use std::time::{Duration, Instant};

use fastrand::Rng;

use reservation_worker::event::{ReservationId, Step, StepSet};
use reservation_worker::idempotency::redis::RedisStore;
use reservation_worker::idempotency::{Claim, HandledAs, Lost, Store, StoreError};
use sandbox::redis::{Redis, RedisCluster, is_installed};

use crate::bench::{LONG, SHORT, TTL, eventually, id, redis_store, steps};
use crate::lane_model::{Answer, Delivery, Model, Operation};

/// A ticket ends 1.25 s after its owner asked. Runs that took longer are not judged.
const JUDGED_WITHIN: Duration = Duration::from_millis(900);

fn claimed(claim: Claim) -> Answer {
    match claim {
        Claim::Ours(_) => Answer::Ours,
        Claim::Handled(_) => Answer::Handled,
        Claim::Elsewhere(_) => Answer::Elsewhere,
        Claim::Behind(_) => Answer::Behind,
        Claim::IdReused(_) => panic!("all events have one content"),
    }
}

fn done(result: Result<(), StoreError>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(StoreError::NotOwner(Lost::Claim)) => Answer::NotOwner,
        Err(StoreError::NotOwner(Lost::Lane)) => Answer::LaneLost,
        Err(error) => panic!("{error}"),
    }
}

async fn answer(
    store: &RedisStore,
    nodes: &[&Redis],
    reservation: &ReservationId,
    delivery: &Delivery,
    operation: Operation,
) -> Answer {
    let (key, token) = (delivery.key(reservation), delivery.token);
    match operation {
        Operation::Claim => claimed(store.claim(key, delivery.request(LONG)).await.unwrap()),
        Operation::Renew => done(store.renew(key, token, LONG).await),
        Operation::Record => done(store.record(key, token, StepSet::EMPTY).await),
        Operation::Complete => done(store.complete(key, token, HandledAs::Applied).await),
        Operation::Release => done(store.release(key, token, StepSet::EMPTY).await),
        Operation::Forget => {
            let lane = format!("lanes:\u{1}{}", reservation.as_str());
            for node in nodes {
                // Another node of a cluster answers that the key has moved.
                let _ = node.command(&["DEL", &lane]).await;
            }
            Answer::Done
        }
    }
}

/// Runs random operations of four deliveries, two of them of one event.
async fn follows_the_model(store: &RedisStore, nodes: &[&Redis], is_apart: bool, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let reservation = ReservationId::new(&format!("rsv_{seed}")).unwrap();
    let events: Vec<_> = (0..3).map(|n| id(&format!("evt_{seed}_{n}"))).collect();
    let mut deliveries: Vec<_> =
        events.iter().map(|id| Delivery::new(id.clone(), rng.u64(1..4))).collect();
    deliveries.push(Delivery::new(events[0].clone(), rng.u64(1..4)));
    let mut model = Model {
        deliveries: deliveries.clone(),
        records: Default::default(),
        holder: None,
        next: None,
        is_apart,
    };
    let (began_at, mut done) = (Instant::now(), Vec::new());
    for _ in 0..30 {
        let n = rng.usize(..deliveries.len());
        let operation = match rng.u8(..20) {
            0..10 => Operation::Claim,
            10..12 => Operation::Renew,
            12..14 => Operation::Record,
            14..17 => Operation::Complete,
            17..19 => Operation::Release,
            _ => Operation::Forget,
        };
        done.push((n, operation));
        let expected = model.expected(n, operation);
        let found = answer(store, nodes, &reservation, &deliveries[n], operation).await;
        if began_at.elapsed() > JUDGED_WITHIN {
            return;
        }
        assert_eq!(found, expected, "seed {seed}, after {done:?}");
    }
}

#[tokio::test]
async fn answers_on_one_server_follow_the_model() {
    if !is_installed("lanes on one server") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "lanes:", TTL);
    for seed in 0..500 {
        follows_the_model(&store, &[&redis], false, seed).await;
    }
}

#[tokio::test]
async fn answers_on_a_cluster_follow_the_model() {
    if !is_installed("lanes on a cluster") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    let store = redis_store(&cluster.nodes[0].url(), "lanes:", TTL);
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    for seed in 0..200 {
        follows_the_model(&store, &nodes, true, seed).await;
    }
}

fn pair() -> (ReservationId, Delivery, Delivery) {
    let reservation = ReservationId::new("rsv").unwrap();
    (reservation, Delivery::new(id("first"), 1), Delivery::new(id("second"), 2))
}

#[tokio::test]
async fn a_lane_is_free_when_its_holder_vanishes() {
    if !is_installed("a lane whose holder vanishes") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "lanes:", TTL);
    let (reservation, first, second) = pair();
    let claim = store.claim(first.key(&reservation), first.request(SHORT)).await.unwrap();
    assert_eq!(claimed(claim), Answer::Ours);
    let claim = store.claim(second.key(&reservation), second.request(LONG)).await.unwrap();
    let Claim::Behind(rest) = claim else { panic!("{claim:?}") };
    assert!(rest <= SHORT, "{rest:?}");
    eventually("the lane is free", || async {
        let claim = store.claim(second.key(&reservation), second.request(LONG)).await.unwrap();
        matches!(claim, Claim::Ours(_)).then_some(())
    })
    .await;
    let late = store.renew(first.key(&reservation), first.token, LONG).await;
    assert_eq!(done(late), Answer::LaneLost, "its turn is over");
    let late = store.record(first.key(&reservation), first.token, StepSet::EMPTY).await;
    assert_eq!(done(late), Answer::LaneLost);
}

#[tokio::test]
async fn a_waiting_delivery_that_vanishes_delays_the_others_by_its_ticket_only() {
    if !is_installed("a ticket whose owner vanishes") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "lanes:", TTL);
    let (reservation, first, second) = pair();
    let holder = Delivery::new(id("holder"), 0);
    let claim = |delivery: &Delivery| {
        let (store, reservation, delivery) = (&store, &reservation, delivery.clone());
        async move {
            let key = delivery.key(reservation);
            claimed(store.claim(key, delivery.request(LONG)).await.unwrap())
        }
    };
    assert_eq!(claim(&holder).await, Answer::Ours);
    assert_eq!(claim(&first).await, Answer::Behind);
    let ended_at = Instant::now();
    store.complete(holder.key(&reservation), holder.token, HandledAs::Applied).await.unwrap();
    assert_eq!(claim(&second).await, Answer::Behind, "the first is next, and asks no more");
    eventually("the ticket has ended", || async {
        (claim(&second).await == Answer::Ours).then_some(())
    })
    .await;
    assert!(ended_at.elapsed() >= Duration::from_millis(1_000), "{:?}", ended_at.elapsed());
}

#[tokio::test]
async fn a_finished_step_and_the_claim_outlive_the_loss_of_a_lane() {
    if !is_installed("a lane that is lost half-way") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "lanes:", TTL);
    let (reservation, first, second) = pair();
    let claim = async |delivery: &Delivery| {
        store.claim(delivery.key(&reservation), delivery.request(LONG)).await.unwrap()
    };
    assert_eq!(claimed(claim(&first).await), Answer::Ours);
    redis.command(&["DEL", "lanes:\u{1}rsv"]).await.unwrap();
    assert_eq!(claimed(claim(&second).await), Answer::Ours, "the lane was forgotten");
    let step = steps(&[Step::ReservationStatus]);
    let recorded = store.record(first.key(&reservation), first.token, step).await;
    assert_eq!(done(recorded), Answer::LaneLost);
    assert_eq!(claimed(claim(&first).await), Answer::Behind);
    // Its message is handed back: another delivery need not wait for the end of the claim.
    store.release(first.key(&reservation), first.token, StepSet::EMPTY).await.unwrap();
    store.complete(second.key(&reservation), second.token, HandledAs::Applied).await.unwrap();
    let again = Delivery::new(first.id.clone(), 1);
    assert_eq!(claim(&again).await, Claim::Ours(step), "the step must not be repeated");
}

#[tokio::test]
async fn a_lane_takes_42_bytes_and_leaves_nothing() {
    if !is_installed("the size of a lane") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "lanes:", TTL);
    let (reservation, first, second) = pair();
    store.claim(first.key(&reservation), first.request(LONG)).await.unwrap();
    store.claim(second.key(&reservation), second.request(LONG)).await.unwrap();
    let lane = "lanes:\u{1}rsv";
    assert_eq!(redis.command(&["STRLEN", lane]).await.unwrap().number(), 42);
    store.complete(first.key(&reservation), first.token, HandledAs::Applied).await.unwrap();
    assert_eq!(redis.command(&["EXISTS", lane]).await.unwrap().number(), 1, "the second is next");
    store.claim(second.key(&reservation), second.request(LONG)).await.unwrap();
    store.release(second.key(&reservation), second.token, StepSet::EMPTY).await.unwrap();
    eventually("the lane is gone", || async {
        (redis.command(&["EXISTS", lane]).await.unwrap().number() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_lane_counts_as_free() {
    if !is_installed("a lane that cannot be read") {
        return;
    }
    let redis = Redis::plain().await.unwrap();
    let store = redis_store(&redis.url(), "lanes:", TTL);
    let (reservation, first, _) = pair();
    let lane = "lanes:\u{1}rsv";
    for set in [["SET", lane, "\u{2}of a later version"], ["LPUSH", lane, "a list"]] {
        redis.command(&["DEL", lane]).await.unwrap();
        redis.command(&set).await.unwrap();
        let claim = store.claim(first.key(&reservation), first.request(LONG)).await.unwrap();
        assert_eq!(claimed(claim), Answer::Ours, "{set:?}");
        store.release(first.key(&reservation), first.token, StepSet::EMPTY).await.unwrap();
    }
}
