//! Tests of the shared store, of how its operations travel, of the other pod and of the guard.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reservation_worker::client::TargetStatus;
use reservation_worker::event::{ContentHash, EventId, Step, StepSet};
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Lost, Store, StoreError,
};
use tokio::time::{Instant, advance, sleep};

use super::other;
use super::plan::{Fate, Plan, secs};
use super::services::{Ask, What};
use super::shared::SimStore;
use super::store::{Holder, Op, Reply, StoreState};
use super::store_plan::{OtherEnd, OtherSpec, StoreDown, StorePlan};
use super::world::Sim;

const HASH: ContentHash = ContentHash::from_bytes([1; 16]);
const OTHER_HASH: ContentHash = ContentHash::from_bytes([2; 16]);

fn first_step() -> StepSet {
    let mut done = StepSet::EMPTY;
    done.insert(Step::ReservationStatus);
    done
}

/// A store with one event, and its clock.
struct Bench {
    state: StoreState,
    now: Duration,
}

impl Bench {
    fn new(failovers: Vec<Duration>) -> Self {
        Self { state: StoreState::new(1, failovers), now: secs(100) }
    }

    fn say(&mut self, holder: usize, op: Op) -> Reply {
        self.state.fail_over(self.now);
        self.state.apply(0, Holder::Other(holder), op, self.now).reply
    }

    fn claim(&mut self, holder: usize) -> Claim {
        let op = Op::Claim { hash: HASH, lasts: secs(10) };
        self.say(holder, op).expect("the claim is answered").expect("the answer is a claim")
    }

    fn release(&mut self, holder: usize, done: StepSet) -> Reply {
        self.say(holder, Op::Release { done })
    }
}

#[test]
fn a_claim_excludes_others_until_expiry_and_is_renewable_until_taken() {
    let mut bench = Bench::new(vec![]);
    assert_eq!(bench.claim(1), Claim::Ours(StepSet::EMPTY));
    bench.now += secs(4);
    assert_eq!(bench.claim(2), Claim::Elsewhere(secs(6)));
    assert_eq!(
        bench.claim(1),
        Claim::Ours(StepSet::EMPTY),
        "a repeated claim of the owner succeeds"
    );
    bench.now += secs(10);
    assert_eq!(
        bench.say(1, Op::Renew { lasts: secs(10) }),
        Ok(None),
        "an expired claim can be renewed"
    );
    assert_eq!(bench.say(1, Op::Record { done: first_step() }), Ok(None));
    bench.now += secs(10);
    assert_eq!(bench.claim(2), Claim::Ours(first_step()), "the claim has expired");
    for op in [
        Op::Renew { lasts: secs(1) },
        Op::Record { done: first_step() },
        Op::Complete { how: HandledAs::Applied },
        Op::Release { done: StepSet::EMPTY },
    ] {
        assert_eq!(bench.say(1, op), Err(StoreError::NotOwner(Lost::Claim)), "{op:?}");
    }
    assert_eq!(bench.state.holder(0, bench.now), Some(Holder::Other(2)));
}

#[test]
fn release_and_completion_can_be_repeated_by_their_owner_only() {
    let mut bench = Bench::new(vec![]);
    bench.claim(1);
    assert_eq!(bench.release(1, first_step()), Ok(None));
    assert_eq!(bench.release(1, first_step()), Ok(None));
    assert_eq!(bench.release(2, first_step()), Err(StoreError::NotOwner(Lost::Claim)));
    assert_eq!(bench.claim(2), Claim::Ours(first_step()));
    let complete = Op::Complete { how: HandledAs::Applied };
    assert_eq!(bench.say(2, complete), Ok(None));
    assert_eq!(bench.say(2, complete), Ok(None));
    assert_eq!(bench.say(1, complete), Err(StoreError::NotOwner(Lost::Claim)));
    assert!(matches!(bench.claim(1), Claim::Handled(handled) if handled.how == HandledAs::Applied));
    let reused = bench.say(3, Op::Claim { hash: OTHER_HASH, lasts: secs(1) });
    assert_eq!(reused, Ok(Some(Claim::IdReused(HASH))));
}

#[test]
fn a_failover_loses_only_the_writes_of_the_last_second() {
    let mut bench = Bench::new(vec![secs(105)]);
    bench.claim(1);
    bench.now = secs(104);
    bench.say(1, Op::Record { done: first_step() }).expect("the caller is the owner");
    assert!(bench.state.fail_over(bench.now).is_empty());
    bench.now = Duration::from_millis(104_001);
    bench.say(1, Op::Complete { how: HandledAs::Applied }).expect("the caller is the owner");
    bench.now = secs(200);
    assert_eq!(bench.state.fail_over(bench.now), [0]);
    assert!(bench.state.is_forgotten(0) && !bench.state.is_handled(0));
    assert_eq!(bench.claim(2), Claim::Ours(first_step()), "the older write is kept");
}

/// A world with one event of two steps, no faults of the services, and a shared store with the
/// given faults.
fn sim(store: StorePlan) -> Arc<Sim> {
    let mut plan = (0..)
        .map(Plan::draw)
        .find(|plan| plan.events[0].steps.len() == 2)
        .expect("some plan begins with an event of two steps");
    plan.events.truncate(1);
    plan.events[0].fate = Fate::Normal;
    plan.messages.clear();
    plan.interrupts.clear();
    plan.locked_until.fill(secs(0));
    (plan.api, plan.inventory) = Default::default();
    plan.calm_at = secs(1_000);
    plan.store = Some(StorePlan { timeout: secs(1), ..store });
    let sim = Arc::new(Sim::new(plan, true));
    sim.lock().begin_life();
    sim
}

struct Client {
    store: SimStore,
    id: EventId,
    token: ClaimToken,
}

impl Client {
    fn new(sim: &Arc<Sim>) -> Self {
        let name = sim.lock().plan.events[0].id.clone();
        let id = EventId::new(&name).expect("the id is valid");
        Self { store: SimStore { sim: Arc::clone(sim), life: 1 }, id, token: ClaimToken::unique() }
    }

    async fn claim(&self) -> Result<Claim, StoreError> {
        let hash = self.store.sim.lock().plan.events[0].hash;
        self.store
            .claim(
                (&self.id).into(),
                ClaimRequest {
                    hash,
                    token: self.token,
                    lasts: secs(10),
                    sent_at: SystemTime::UNIX_EPOCH,
                },
            )
            .await
    }

    async fn complete(&self) -> Result<(), StoreError> {
        self.store.complete((&self.id).into(), self.token, HandledAs::Applied).await
    }

    /// The call of the first step, as the engine makes it.
    fn patch(&self) -> Ask {
        let event = self.store.sim.lock().plan.events[0].clone();
        let what = What::Patch(super::services::target_of(event.event_type));
        Ask { what, key: event.steps[0].1, reservation: event.reservation }
    }

    fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.store.sim.lock().violations)
    }

    /// The violations that the guard reports for the first step now.
    fn guard(&self) -> Vec<String> {
        let ask = self.patch();
        self.store.sim.lock().check_guarded(0, 0, &ask);
        self.violations()
    }
}

#[tokio::test(start_paused = true)]
async fn a_down_store_refuses_and_a_silent_store_fails_at_the_timeout() {
    let down = |from, to, is_silent| StoreDown { from: secs(from), to: secs(to), is_silent };
    let down = vec![down(0, 10, false), down(10, 20, true)];
    let client = Client::new(&sim(StorePlan { down, ..StorePlan::default() }));
    assert!(matches!(client.claim().await, Err(StoreError::Unavailable { .. })));
    assert!(client.store.ping().await.is_err());
    advance(secs(10)).await;
    let asked_at = Instant::now();
    assert!(matches!(client.claim().await, Err(StoreError::Unavailable { .. })));
    assert_eq!(asked_at.elapsed(), secs(1));
    advance(secs(10)).await;
    assert!(matches!(client.claim().await, Ok(Claim::Ours(_))));
    assert!(client.store.ping().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_an_operation_occurs_and_some_take_effect() {
    let sim = sim(StorePlan { faults_pct: 100, ..StorePlan::default() });
    let client = Client::new(&sim);
    for _ in 0..100 {
        assert!(matches!(client.claim().await, Err(StoreError::Unavailable { .. })));
    }
    let world = sim.lock();
    for fault in [
        "store refuses",
        "store's answer lost",
        "store does not answer",
        "store does not answer, and does it",
        "store does it too late",
        "claim: ours, the first",
        "claim: ours already",
    ] {
        assert!(world.cover.count(fault) > 0, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_guard_requires_an_own_unexpired_claim() {
    let sim = sim(StorePlan::default());
    let client = Client::new(&sim);
    assert!(client.guard()[0].contains("nobody has its claim"));
    client.claim().await.expect("no faults are planned");
    assert!(client.guard().is_empty());
    sleep(secs(10)).await;
    assert!(client.guard()[0].contains("nobody has its claim"), "the claim has expired");
    let hash = sim.lock().plan.events[0].hash;
    let claim = Op::Claim { hash, lasts: secs(10) };
    sim.lock().store_apply(0, Holder::Other(0), claim).expect("no faults are planned");
    assert!(client.guard()[0].contains("somebody else has its claim"));
}

#[tokio::test(start_paused = true)]
async fn the_guard_rejects_untrue_records_and_repeated_steps() {
    let sim = sim(StorePlan::default());
    let client = Client::new(&sim);
    client.claim().await.expect("no faults are planned");
    let done = first_step();
    client
        .store
        .record((&client.id).into(), client.token, done)
        .await
        .expect("no faults are planned");
    assert!(client.violations()[0].contains("told what is not so"));
    assert!(client.guard()[0].contains("knows as done"));
    client.complete().await.expect("no faults are planned");
    assert!(client.violations()[0].contains("told what is not so"));
    assert!(client.guard()[0].contains("says it is handled"));
}

#[tokio::test(start_paused = true)]
async fn the_guard_requires_the_first_step_recorded_before_the_second() {
    let sim = sim(StorePlan::default());
    let client = Client::new(&sim);
    client.claim().await.expect("no faults are planned");
    let ask = client.patch();
    assert!(matches!(
        ask.what,
        What::Patch(TargetStatus::Expired | TargetStatus::Confirmed | TargetStatus::Cancelled)
    ));
    sim.lock().apply(0, &ask).expect("the reservation is held and not locked");
    let (step, key) = sim.lock().plan.events[0].steps[1];
    let second = Ask { what: What::Commit(1), key, ..ask };
    let place = Step::ALL.iter().position(|one| *one == step).expect("the step is in Step::ALL");
    sim.lock().check_guarded(0, place, &second);
    assert!(client.violations()[0].contains("before the store knows"));
    client
        .store
        .record((&client.id).into(), client.token, first_step())
        .await
        .expect("no faults are planned");
    sim.lock().check_guarded(0, place, &second);
    assert!(client.violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_guard_requires_a_release_unless_the_store_missed_it() {
    let sim = sim(StorePlan::default());
    let client = Client::new(&sim);
    client.claim().await.expect("no faults are planned");
    sim.lock().check_nothing_claimed();
    assert!(client.violations()[0].contains("with its claim standing"));
    sim.lock().store_missed(0, Op::Release { done: StepSet::EMPTY });
    sim.lock().check_nothing_claimed();
    assert!(client.violations().is_empty());
}

/// Runs another pod that stops in that way. Returns the world and a client of the store.
async fn ends(end: OtherEnd) -> (Arc<Sim>, Client) {
    let (at, pace, lasts) = (secs(1), secs(12), secs(5));
    let others = vec![OtherSpec { at, event: 0, end, pace, lasts }];
    let sim = sim(StorePlan { others, ..StorePlan::default() });
    other::spawn_all(&sim);
    sleep(secs(12)).await;
    let client = Client::new(&sim);
    assert!(matches!(client.claim().await, Ok(Claim::Elsewhere(_))) || end == OtherEnd::GivesUp);
    sleep(secs(28)).await;
    assert!(client.violations().is_empty());
    (sim, client)
}

#[tokio::test(start_paused = true)]
async fn another_pod_completes() {
    let (sim, client) = ends(OtherEnd::Completes).await;
    assert!(matches!(client.claim().await, Ok(Claim::Handled(_))));
    let world = sim.lock();
    assert!(world.services.complete(&world.plan.events[0]));
}

#[tokio::test(start_paused = true)]
async fn another_pod_gives_up_after_its_first_step() {
    let (_sim, client) = ends(OtherEnd::GivesUp).await;
    assert_eq!(client.claim().await, Ok(Claim::Ours(first_step())));
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_vanished_pod_is_taken_over_after_expiry() {
    for (end, known, begun) in [
        (OtherEnd::VanishesAtOnce, StepSet::EMPTY, false),
        (OtherEnd::VanishesUnrecorded, StepSet::EMPTY, true),
        (OtherEnd::VanishesRecorded, first_step(), true),
    ] {
        let (sim, client) = ends(end).await;
        assert_eq!(client.claim().await, Ok(Claim::Ours(known)), "{end:?}");
        assert_eq!(sim.lock().may_repeat(0), end == OtherEnd::VanishesUnrecorded, "{end:?}");
        let world = sim.lock();
        assert_eq!(world.services.begun(&world.plan.events[0]), begun, "{end:?}");
    }
}
