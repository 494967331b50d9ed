//! The store that all processes share, in three shards, one of which may be down for a time. Its
//! records are kept by the in-memory store, in shards by the event's id. Where processes share the
//! order, it has lanes too, in shards by the reservation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{EventId, ReservationId, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, KeyPart, Lost, Notice, RecordKey, Store, StoreError,
};
use reservation_worker::outage::Shard;
use tokio::time::sleep;

use super::lanes::Entered;
use super::order::Asked;
use super::plan::{StorePlan, millis};
use super::world::{Sim, thaw};

const SHARDS: u16 = 3;

/// The shared store as one process reaches it.
pub(crate) struct SharedStore {
    pub(crate) sim: Arc<Sim>,
    pub(crate) records: Arc<MemoryStore>,
    pub(crate) process: usize,
}

/// The shard of the event with that number.
pub(crate) fn shard_of(event: usize) -> u16 {
    u16::try_from(event * 7 / 5 % usize::from(SHARDS)).expect("few shards")
}

/// The shard of the lane of the reservation with that number.
pub(crate) fn lane_shard_of(reservation: u32) -> u16 {
    u16::try_from(reservation * 5 / 3 % u32::from(SHARDS)).expect("few shards")
}

fn lane_number(id: &ReservationId) -> u32 {
    let number = id.as_str().strip_prefix("rsv_").and_then(|n| n.parse().ok());
    number.expect("a reservation of the plan")
}

fn number(id: &EventId) -> usize {
    let number = id.as_str().strip_prefix("evt_").and_then(|n| n.parse().ok());
    number.expect("an event of the plan")
}

impl SharedStore {
    /// Reaches the shards of the key. Returns the key, without its lane if that is away.
    async fn reach<'k>(&self, key: RecordKey<'k>) -> Result<RecordKey<'k>, StoreError> {
        thaw(&self.sim, self.process).await;
        let (away, latency) = {
            let mut world = self.sim.lock();
            world.called();
            let now = world.now();
            let away = match world.plan.store {
                StorePlan::Memory => None,
                StorePlan::Shards { away, from, to } => (from <= now && now < to).then_some(away),
            };
            (away, world.between((millis(1), millis(3))))
        };
        sleep(latency).await;
        let lane = key.lane.filter(|lane| away != Some(lane_shard_of(lane_number(lane))));
        if away == Some(shard_of(number(key.id))) {
            thaw(&self.sim, self.process).await;
            let at = if lane == key.lane { KeyPart::Record } else { KeyPart::Both };
            return Err(unavailable(at));
        }
        Ok(RecordKey { lane, ..key })
    }

    /// Returns the answer when this process can hear it. `reached` is the part of the key that was
    /// reached.
    async fn answer<T>(
        &self,
        key: RecordKey<'_>,
        reached: RecordKey<'_>,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        thaw(&self.sim, self.process).await;
        if answer.is_ok() && reached.lane != key.lane {
            return Err(unavailable(KeyPart::Lane));
        }
        answer
    }

    /// Claims the record, then the lane; gives the record back if another event has the lane.
    async fn claim_both(
        &self,
        key: RecordKey<'_>,
        request: ClaimRequest,
    ) -> Result<Claim, StoreError> {
        let claim = self.records.claim(key, request).await?;
        let Some(lane) = key.lane else { return Ok(claim) };
        let asked = Asked { event: number(key.id), process: self.process, token: request.token };
        let found = {
            let mut world = self.sim.lock();
            let Claim::Ours(_) = claim else {
                world.order.leaves(asked.event, asked.token);
                return Ok(claim);
            };
            let now = world.now();
            let times = (now, now + request.lasts);
            let found = world.lanes.enter(lane.as_str(), request.token, request.sent_at, times);
            world.entered(asked, found);
            found
        };
        let (Entered::Held(rest) | Entered::Promised(rest)) = found else { return Ok(claim) };
        self.records.release(key, request.token, StepSet::EMPTY).await?;
        Ok(Claim::Behind(rest))
    }

    /// Leaves the lane, whatever became of the record. A lane is left by its token.
    fn leave(&self, key: RecordKey<'_>, token: ClaimToken) {
        let Some(lane) = key.lane else { return };
        let mut world = self.sim.lock();
        let now = world.now();
        world.order.leaves(number(key.id), token);
        world.lanes.leave(lane.as_str(), token, now);
    }
}

fn unavailable(at: KeyPart) -> StoreError {
    StoreError::Unavailable { at, why: "CLUSTERDOWN simulated".to_owned() }
}

fn stands(is_ours: bool) -> Result<(), StoreError> {
    if is_ours { Ok(()) } else { Err(StoreError::NotOwner(Lost::Lane)) }
}

#[async_trait]
impl Store for SharedStore {
    fn shard(&self, id: &EventId) -> Shard {
        Shard::new(shard_of(number(id)), SHARDS)
    }

    fn lane_shard(&self, id: &ReservationId) -> Shard {
        Shard::new(lane_shard_of(lane_number(id)), SHARDS)
    }

    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        let reached = self.reach(key).await?;
        let claim = self.claim_both(reached, request).await;
        self.answer(key, reached, claim).await
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        let reached = self.reach(key).await?;
        let renewed = self.records.renew(key, token, lasts).await.and_then(|()| {
            let Some(lane) = reached.lane else { return Ok(()) };
            let mut world = self.sim.lock();
            let now = world.now();
            stands(world.lanes.stay(lane.as_str(), token, (now, now + lasts)))
        });
        self.answer(key, reached, renewed).await
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        let reached = self.reach(key).await?;
        let recorded = self.records.record(key, token, done).await.and_then(|()| {
            let Some(lane) = reached.lane else { return Ok(()) };
            let mut world = self.sim.lock();
            let now = world.now();
            stands(world.lanes.check(lane.as_str(), token, now))
        });
        self.answer(key, reached, recorded).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        let reached = self.reach(key).await?;
        let completed = self.records.complete(key, token, how).await;
        self.leave(reached, token);
        self.answer(key, reached, completed).await
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        let reached = self.reach(key).await?;
        let released = self.records.release(key, token, done).await;
        self.leave(reached, token);
        self.sim.lock().given_up(number(key.id));
        self.answer(key, reached, released).await
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        Ok(Notice::none())
    }
}
