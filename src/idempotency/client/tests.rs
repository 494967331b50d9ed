//! Each shard of the store is judged by what it did itself.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::time::timeout;

use super::*;
use crate::event::{EventId, ReservationId};
use crate::idempotency::Notice;
use crate::outage::{Dependency, OutageSettings, Waiting};

/// More failures in a row than open a breaker.
const FAILURES: usize = 8;

/// Two shards, either of which may be away. The first letter of an id is its shard.
#[derive(Default)]
struct TwoShards {
    away: Mutex<Option<Shard>>,
    /// What was asked: the record, and the lane.
    asked: Mutex<Vec<(String, Option<String>)>>,
    /// How often it was checked.
    checks: AtomicUsize,
    is_unreachable: AtomicBool,
}

fn shard(id: &str) -> Shard {
    Shard::new(u16::from(id.starts_with('b')), 2)
}

impl TwoShards {
    fn answer(&self, key: RecordKey<'_>) -> Result<(), StoreError> {
        let lane = key.lane.map(|lane| lane.as_str().to_owned());
        self.asked.lock().unwrap().push((key.id.as_str().to_owned(), lane.clone()));
        let away = *self.away.lock().unwrap();
        let fails = |id: &str| away == Some(shard(id));
        let at = match (fails(key.id.as_str()), lane.is_some_and(|lane| fails(&lane))) {
            (false, false) => return Ok(()),
            (true, false) => KeyPart::Record,
            (false, true) => KeyPart::Lane,
            (true, true) => KeyPart::Both,
        };
        Err(StoreError::Unavailable { at, why: "away".to_owned() })
    }
}

#[async_trait]
impl Store for TwoShards {
    async fn claim(&self, key: RecordKey<'_>, _: ClaimRequest) -> Result<Claim, StoreError> {
        self.answer(key).map(|()| Claim::Ours(StepSet::EMPTY))
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        _: ClaimToken,
        _: Duration,
    ) -> Result<(), StoreError> {
        self.answer(key)
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        _: ClaimToken,
        _: StepSet,
    ) -> Result<(), StoreError> {
        self.answer(key)
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        _: ClaimToken,
        _: HandledAs,
    ) -> Result<(), StoreError> {
        self.answer(key)
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        _: ClaimToken,
        _: StepSet,
    ) -> Result<(), StoreError> {
        self.answer(key)
    }

    fn shard(&self, id: &EventId) -> Shard {
        shard(id.as_str())
    }

    fn lane_shard(&self, id: &ReservationId) -> Shard {
        shard(id.as_str())
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        self.checks.fetch_add(1, Ordering::Relaxed);
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { at: KeyPart::Both, why: "no route".to_owned() });
        }
        Ok(Notice::none())
    }
}

struct Bench {
    store: Arc<TwoShards>,
    client: IdempotencyClient,
}

impl Bench {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(&[]));
        let settings = OutageSettings {
            calls_max: 20,
            calls_min: 1,
            reservation_target: None,
            inventory_target: None,
        };
        let store = Arc::new(TwoShards::default());
        let client = IdempotencyClient {
            store: Arc::clone(&store) as Arc<dyn Store>,
            is_ordered: true,
            outages: Arc::new(Outages::new(settings, Arc::clone(&metrics))),
            metrics,
            health: Arc::new(Health::new()),
        };
        Self { store, client }
    }

    /// Renews the claim of an event: any operation that needs its lane.
    async fn renew(&self, id: &str, lane: &str) -> Result<(), StoreError> {
        let (id, lane) = (EventId::new(id).unwrap(), ReservationId::new(lane).unwrap());
        let key = RecordKey { id: &id, lane: Some(&lane) };
        self.client.renew(key, ClaimToken::unique(), Duration::from_secs(30)).await
    }

    async fn complete(&self, id: &str, lane: &str) -> Result<(), StoreError> {
        let (id, lane) = (EventId::new(id).unwrap(), ReservationId::new(lane).unwrap());
        let key = RecordKey { id: &id, lane: Some(&lane) };
        self.client.complete(key, ClaimToken::unique(), HandledAs::Applied).await
    }

    /// Makes so many operations fail at the shard of `id` that it is not called any more.
    async fn take_down(&self, id: &str) {
        self.set_away(id);
        for n in 0..FAILURES {
            assert!(self.renew(&format!("{id}{n}"), &format!("{id}{n}")).await.is_err());
        }
    }

    /// Makes the shard of `id` answer again, by a probe.
    async fn bring_back(&self, id: &str) {
        *self.store.away.lock().unwrap() = None;
        sleep(Duration::from_secs(2)).await;
        let waiting = crate::outage::Waiting { fresh: 1, ..Default::default() };
        let due = self.client.outages.due(Dependency::Store(shard(id)), waiting, Instant::now());
        let probe = format!("{id}-probe");
        assert_eq!(self.renew(&probe, &probe).await, Ok(()), "{due:?}");
    }

    fn is_ready(&self) -> bool {
        self.client.health.parts_ready().contains(&("store", true))
    }

    /// Watches the store for a time, and returns how often it was checked.
    async fn watch_s(&self, seconds: u64) -> usize {
        let checks = self.store.checks.load(Ordering::Relaxed);
        let watch = self.client.clone().watch(|_| ());
        assert!(timeout(Duration::from_secs(seconds), watch).await.is_err(), "it never returns");
        self.store.checks.load(Ordering::Relaxed) - checks
    }

    fn set_away(&self, id: &str) {
        *self.store.away.lock().unwrap() = Some(shard(id));
    }

    fn is_away(&self, id: &str) -> bool {
        self.client.outages.is_away(Dependency::Store(shard(id)))
    }
}

fn is_away(answer: &Result<(), StoreError>, id: &str) -> bool {
    matches!(answer, Err(StoreError::Away { shard: away, .. }) if *away == shard(id))
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_shard_is_away_charges_that_shard_only() {
    let bench = Bench::new();
    bench.set_away("b");
    for n in 0..FAILURES {
        assert!(bench.renew(&format!("a{n}"), &format!("b{n}")).await.is_err());
    }
    assert!(bench.is_away("b") && !bench.is_away("a"), "{:?}", bench.store.asked);
    let waits = bench.renew("a-last", "b-last").await;
    assert!(is_away(&waits, "b"), "an event waits for its lane: {waits:?}");
    let waits = bench.renew("b-last", "a-last").await;
    assert!(is_away(&waits, "b"), "an event waits for its record: {waits:?}");
    assert_eq!(bench.renew("a-other", "a-other").await, Ok(()), "it needs nothing of the other");
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_shard_is_away_charges_that_shard_only() {
    let bench = Bench::new();
    bench.set_away("b");
    for n in 0..FAILURES {
        assert!(bench.renew(&format!("b{n}"), &format!("a{n}")).await.is_err());
    }
    assert!(bench.is_away("b") && !bench.is_away("a"), "{:?}", bench.store.asked);
    assert_eq!(bench.renew("a-other", "a-other").await, Ok(()), "it needs nothing of the other");
}

#[tokio::test(start_paused = true)]
async fn two_parts_in_one_shard_are_charged_once() {
    let bench = Bench::new();
    bench.set_away("b");
    for n in 0..FAILURES {
        assert!(bench.renew(&format!("b{n}"), &format!("b{n}")).await.is_err());
    }
    assert!(bench.is_away("b") && !bench.is_away("a"), "{:?}", bench.store.asked);
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_lanes_that_answers_again_is_called_again() {
    let bench = Bench::new();
    bench.set_away("b");
    for n in 0..FAILURES {
        assert!(bench.renew(&format!("a{n}"), &format!("b{n}")).await.is_err());
    }
    *bench.store.away.lock().unwrap() = None;
    assert!(bench.renew("a-soon", "b-soon").await.is_err(), "not before a probe is due");
    sleep(Duration::from_secs(2)).await;
    let waiting = Waiting { fresh: 1, ..Waiting::default() };
    let due = bench.client.outages.due(Dependency::Store(shard("b")), waiting, Instant::now());
    assert_eq!(bench.renew("a-probe", "b-probe").await, Ok(()), "{due:?}");
    assert!(!bench.is_away("b"));
}

#[tokio::test(start_paused = true)]
async fn an_event_ends_without_its_lane() {
    let bench = Bench::new();
    bench.set_away("b");
    let asked = |lane: Option<&str>| ("a-done".to_owned(), lane.map(str::to_owned));
    assert_eq!(bench.complete("a-done", "b-done").await, Ok(()), "the lane could not be left");
    assert_eq!(bench.store.asked.lock().unwrap().last(), Some(&asked(Some("b-done"))));
    for n in 0..FAILURES {
        assert!(bench.renew(&format!("a{n}"), &format!("b{n}")).await.is_err());
    }
    assert_eq!(bench.complete("a-done", "b-done").await, Ok(()));
    let last = bench.store.asked.lock().unwrap().last().cloned();
    assert_eq!(last, Some(asked(None)), "a shard that is away is not called");
    assert!(bench.complete("b-done", "a-done").await.is_err(), "the record is away");
}

#[tokio::test(start_paused = true)]
async fn the_worker_is_ready_only_while_all_shards_are_called() {
    let bench = Bench::new();
    bench.set_away("b");
    assert!(bench.renew("b-once", "b-once").await.is_err());
    assert!(bench.is_ready(), "one failure is no outage");
    bench.take_down("b").await;
    assert!(!bench.is_ready());
    assert_eq!(bench.renew("a-other", "a-other").await, Ok(()));
    assert!(!bench.is_ready(), "the other shard is still away");
    bench.bring_back("b").await;
    assert!(bench.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_idle_is_checked_every_ten_seconds() {
    let bench = Bench::new();
    bench.client.health.store(false);
    assert_eq!(bench.watch_s(25).await, 3);
    assert!(bench.is_ready());
    bench.store.is_unreachable.store(true, Ordering::Relaxed);
    bench.watch_s(1).await;
    assert!(!bench.is_ready(), "it cannot be reached");
    bench.store.is_unreachable.store(false, Ordering::Relaxed);
    bench.watch_s(1).await;
    assert!(bench.is_ready());
    bench.take_down("b").await;
    bench.watch_s(1).await;
    assert!(!bench.is_ready(), "it can be reached, and a shard of it fails");
}

#[tokio::test(start_paused = true)]
async fn steps_are_recorded_and_claims_released_at_the_store() {
    let bench = Bench::new();
    let (id, lane) = (EventId::new("a-1").unwrap(), ReservationId::new("a-1").unwrap());
    let key = RecordKey { id: &id, lane: Some(&lane) };
    let asked = || bench.store.asked.lock().unwrap().len();
    assert_eq!(bench.client.record(key, ClaimToken::unique(), StepSet::EMPTY).await, Ok(()));
    assert_eq!(asked(), 1);
    assert_eq!(bench.client.release(key, ClaimToken::unique(), StepSet::EMPTY).await, Ok(()));
    assert_eq!(asked(), 2);
}
