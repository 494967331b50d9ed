//! Lanes of reservations, on one server and on a cluster: each answer is compared with a
//! sequential model.

use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;

use reservation_worker::event::{EventId, ReservationId, StepSet};
use reservation_worker::idempotency::redis::RedisStore;
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, RecordKey, Store, StoreError,
};
use sandbox::redis::{Redis, RedisCluster, is_installed};

use crate::bench::{HASH, LONG, SHORT, TTL, eventually, id, redis_store};

/// A ticket ends 1.25 s after its owner asked. Runs that took longer are not judged.
const JUDGED_WITHIN: Duration = Duration::from_millis(900);

/// One delivery of one event of the reservation.
#[derive(Clone)]
struct Delivery {
    id: EventId,
    token: ClaimToken,
    sent_ms: u64,
}

impl Delivery {
    fn new(id: EventId, sent_ms: u64) -> Self {
        Self { id, token: ClaimToken::unique(), sent_ms }
    }

    fn key<'a>(&'a self, reservation: &'a ReservationId) -> RecordKey<'a> {
        RecordKey { id: &self.id, lane: Some(reservation) }
    }

    fn request(&self, lasts: Duration) -> ClaimRequest {
        let sent_at = SystemTime::UNIX_EPOCH + Duration::from_millis(self.sent_ms);
        ClaimRequest { hash: HASH, token: self.token, lasts, sent_at }
    }

    fn order(&self) -> (u64, [u8; 8]) {
        (self.sent_ms, self.token.to_bytes())
    }
}

/// An answer, without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ours,
    Handled,
    Elsewhere,
    Behind,
    Done,
    NotOwner,
    LaneLost,
}

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
        Err(StoreError::NotOwner) => Answer::NotOwner,
        Err(StoreError::LaneLost) => Answer::LaneLost,
        Err(error) => panic!("{error}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Claim,
    Renew,
    Record,
    Complete,
    Release,
    /// The lane's key is gone, as after a failover.
    Forget,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Free,
    InProgress(ClaimToken),
    GivenUp(ClaimToken),
    Handled(ClaimToken),
}

/// The model. No time passes in it.
struct Model {
    deliveries: Vec<Delivery>,
    records: std::collections::HashMap<EventId, Phase>,
    holder: Option<usize>,
    next: Option<usize>,
    /// Whether record and lane have a script each, which run at the same time.
    is_apart: bool,
}

impl Model {
    fn record(&mut self, n: usize) -> &mut Phase {
        self.records.entry(self.deliveries[n].id.clone()).or_default()
    }

    /// Returns whether the lane is ours.
    fn enter(&mut self, n: usize) -> bool {
        if self.holder != Some(n) {
            let order = |n: usize| self.deliveries[n].order();
            let is_first = self.next.is_none_or(|next| next == n || order(n) < order(next));
            if self.holder.is_some() || !is_first {
                if is_first {
                    self.next = Some(n);
                }
                return false;
            }
        }
        self.hold(n);
        true
    }

    fn hold(&mut self, n: usize) {
        self.holder = Some(n);
        if self.next == Some(n) {
            self.next = None;
        }
    }

    fn leave(&mut self, n: usize) {
        if self.holder == Some(n) {
            self.holder = None;
        } else if self.next == Some(n) {
            self.next = None;
        }
    }

    fn claim(&mut self, n: usize) -> Answer {
        let token = self.deliveries[n].token;
        let refused = match *self.record(n) {
            Phase::Handled(_) => Some(Answer::Handled),
            Phase::InProgress(other) if other != token => Some(Answer::Elsewhere),
            Phase::Free | Phase::InProgress(_) | Phase::GivenUp(_) => None,
        };
        if let Some(refused) = refused {
            if self.is_apart {
                self.enter(n);
                self.leave(n);
            }
            return refused;
        }
        if self.enter(n) {
            *self.record(n) = Phase::InProgress(token);
            return Answer::Ours;
        }
        if self.is_apart {
            *self.record(n) = Phase::GivenUp(token);
        }
        Answer::Behind
    }

    fn go_on(&mut self, n: usize, is_renewed: bool) -> Answer {
        let token = self.deliveries[n].token;
        if *self.record(n) != Phase::InProgress(token) {
            return Answer::NotOwner;
        }
        if self.holder.is_some_and(|holder| holder != n) {
            return Answer::LaneLost;
        }
        if is_renewed {
            self.hold(n);
        }
        Answer::Done
    }

    fn end(&mut self, n: usize, ended: fn(ClaimToken) -> Phase) -> Answer {
        let token = self.deliveries[n].token;
        let phase = *self.record(n);
        let is_again = phase == ended(token);
        let is_ours = phase == Phase::InProgress(token);
        if is_ours {
            *self.record(n) = ended(token);
        }
        self.leave(n);
        if is_ours || is_again { Answer::Done } else { Answer::NotOwner }
    }

    fn expected(&mut self, n: usize, operation: Operation) -> Answer {
        match operation {
            Operation::Claim => self.claim(n),
            Operation::Renew => self.go_on(n, true),
            Operation::Record => self.go_on(n, false),
            Operation::Complete => self.end(n, Phase::Handled),
            Operation::Release => self.end(n, Phase::GivenUp),
            Operation::Forget => {
                (self.holder, self.next) = (None, None);
                Answer::Done
            }
        }
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
