//! The store that all processes share, in three shards by the event's id, one of which may be down
//! for a time. Its records are kept by the in-memory store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{EventId, StepSet};
use reservation_worker::idempotency::memory::MemoryStore;
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, RecordKey, Store, StoreError,
};
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

    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        self.reach(key.id).await?;
        self.records.claim(key, request).await
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.reach(key.id).await?;
        self.records.renew(key, token, lasts).await
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.reach(key.id).await?;
        self.records.record(key, token, done).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.reach(key.id).await?;
        self.records.complete(key, token, how).await
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.reach(key.id).await?;
        self.records.release(key, token, done).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
