//! The store that all processes share, in three shards by the event's id, one of which may be down
//! for a time. Its records are kept by the in-memory store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{ContentHash, EventId, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, Store, StoreError};
use reservation_worker::outage::Shard;
use tokio::time::sleep;

use super::plan::{StorePlan, millis};
use super::world::Sim;

const SHARDS: u16 = 3;

/// The shared store as one process reaches it.
pub(crate) struct SharedStore {
    pub(crate) sim: Arc<Sim>,
    pub(crate) records: Arc<MemoryStore>,
}

/// The shard of the event with that number.
pub(crate) fn shard_of(event: usize) -> u16 {
    u16::try_from(event * 7 / 5 % usize::from(SHARDS)).expect("few shards")
}

fn number(id: &EventId) -> usize {
    let number = id.as_str().strip_prefix("evt_").and_then(|n| n.parse().ok());
    number.expect("an event of the plan")
}

impl SharedStore {
    async fn reach(&self, id: &EventId) -> Result<(), StoreError> {
        let shard = shard_of(number(id));
        let (is_away, latency) = {
            let mut world = self.sim.lock();
            world.called();
            let now = world.now();
            let is_away = match world.plan.store {
                StorePlan::Memory => false,
                StorePlan::Shards { away, from, to } => away == shard && from <= now && now < to,
            };
            (is_away, world.between((millis(1), millis(3))))
        };
        sleep(latency).await;
        if is_away {
            return Err(StoreError::Unavailable("CLUSTERDOWN simulated".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for SharedStore {
    fn shard(&self, id: &EventId) -> Shard {
        Shard::new(shard_of(number(id)), SHARDS)
    }

    async fn claim(
        &self,
        id: &EventId,
        hash: ContentHash,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<Claim, StoreError> {
        self.reach(id).await?;
        self.records.claim(id, hash, token, lasts).await
    }

    async fn renew(
        &self,
        id: &EventId,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.reach(id).await?;
        self.records.renew(id, token, lasts).await
    }

    async fn record(
        &self,
        id: &EventId,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.reach(id).await?;
        self.records.record(id, token, done).await
    }

    async fn complete(
        &self,
        id: &EventId,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.reach(id).await?;
        self.records.complete(id, token, how).await
    }

    async fn release(
        &self,
        id: &EventId,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.reach(id).await?;
        self.records.release(id, token, done).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
