//! The store of an engine that uses it wrongly.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::event::{EventId, ReservationId, StepSet};
use reservation_worker::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};
use reservation_worker::outage::Shard;
use tokio::time::sleep;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreFault {
    /// An event always begins at its first step.
    RetryFromStepOne,
    /// An event is handled although the store did not answer its claim.
    UnclaimedHandled,
    /// An event is handled although another owner has claimed it.
    ElsewhereIgnored,
    /// Steps are reported as recorded without being recorded.
    RecordSkipped,
    /// Claims are reported as renewed without being renewed.
    ClaimNotRenewed,
    /// An event is recorded as handled only after its message is deleted.
    CompletedAfterDelete,
    /// The claim of an event that is given up is not released.
    ClaimNotReleased,
}

/// Longer than the deletion of a message without faults.
const LATER: Duration = Duration::from_secs(1);

pub(super) struct BrokenStore {
    pub(super) whole: Arc<dyn Store>,
    pub(super) fault: StoreFault,
}

#[async_trait]
impl Store for BrokenStore {
    async fn claim(&self, key: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        let claim = self.whole.claim(key, request).await;
        let is_ignored = match &claim {
            Err(_) => self.fault == StoreFault::UnclaimedHandled,
            Ok(Claim::Elsewhere(_)) => self.fault == StoreFault::ElsewhereIgnored,
            Ok(Claim::Ours(_)) => self.fault == StoreFault::RetryFromStepOne,
            Ok(Claim::Handled(_) | Claim::IdReused(_) | Claim::Behind(_)) => false,
        };
        if is_ignored { Ok(Claim::Ours(StepSet::EMPTY)) } else { claim }
    }

    async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        if self.fault == StoreFault::ClaimNotRenewed {
            return Ok(());
        }
        self.whole.renew(key, token, lasts).await
    }

    async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        if self.fault == StoreFault::RecordSkipped {
            return Ok(());
        }
        self.whole.record(key, token, done).await
    }

    async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        if self.fault == StoreFault::CompletedAfterDelete {
            let (whole, id) = (Arc::clone(&self.whole), key.id.clone());
            tokio::spawn(async move {
                sleep(LATER).await;
                drop(whole.complete((&id).into(), token, how).await);
            });
            return Ok(());
        }
        self.whole.complete(key, token, how).await
    }

    async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        if self.fault == StoreFault::ClaimNotReleased {
            return Ok(());
        }
        self.whole.release(key, token, done).await
    }

    fn shard(&self, id: &EventId) -> Shard {
        self.whole.shard(id)
    }

    fn lane_shard(&self, id: &ReservationId) -> Shard {
        self.whole.lane_shard(id)
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        self.whole.ping().await
    }
}
