//! Permits for the shards that one operation calls. Each shard is told what it did itself.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Load;
use crate::idempotency::{KeyPart, Lost, RecordKey, Store, StoreError};
use crate::outage::{CallOutcome, CallPermit, Dependency, Outages, Shard};

/// A permit for one shard.
struct ShardPermit {
    shard: Shard,
    permit: CallPermit,
}

impl ShardPermit {
    fn enter(
        outages: &Arc<Outages>,
        shard: Shard,
        subject: &impl Hash,
    ) -> Result<Self, StoreError> {
        match outages.enter(Dependency::Store(shard), subject) {
            Ok(permit) => Ok(Self { shard, permit }),
            Err(not_now) => Err(StoreError::Away { shard, is_fresh: not_now.is_fresh }),
        }
    }

    /// Reports what the shard did, if that is known. Returns the shard if it is not called any
    /// more.
    fn report(self, outcome: Option<CallOutcome>, took: Duration) -> Option<Shard> {
        let snapshot = self.permit.report(outcome?, Load::Unknown, took);
        (!snapshot.is_called).then_some(self.shard)
    }
}

/// Permits for the shards of a record and of its lane.
pub(super) struct ShardPermits {
    record: ShardPermit,
    /// `None` if the operation has no lane, or if it is in the shard of the record.
    lane: Option<ShardPermit>,
}

impl ShardPermits {
    /// Requests the permits.
    ///
    /// # Errors
    /// [`StoreError::Away`] names the shard that gave none.
    pub(super) fn enter(
        outages: &Arc<Outages>,
        store: &dyn Store,
        key: RecordKey<'_>,
    ) -> Result<Self, StoreError> {
        let shard = store.shard(key.id);
        let record = ShardPermit::enter(outages, shard, key.id)?;
        let apart = key.lane.map(|lane| (store.lane_shard(lane), lane));
        let lane = match apart.filter(|(other, _)| *other != shard) {
            Some((other, lane)) => Some(ShardPermit::enter(outages, other, lane)?),
            None => None,
        };
        Ok(Self { record, lane })
    }

    /// Reports to each shard what it did. Returns a shard that failed and is not called any more.
    pub(super) fn report(self, error: Option<&StoreError>, took: Duration) -> Option<Shard> {
        let (record, lane) = outcomes(error);
        let Some(permit) = self.lane else {
            let is_away = [record, lane].contains(&Some(CallOutcome::Outage));
            let outcome = if is_away { Some(CallOutcome::Outage) } else { record };
            return self.record.report(outcome, took);
        };
        let away = self.record.report(record, took);
        permit.report(lane, took).or(away)
    }
}

/// Returns what is known of the record's shard, and of the lane's.
fn outcomes(error: Option<&StoreError>) -> (Option<CallOutcome>, Option<CallOutcome>) {
    let (done, outage) = (Some(CallOutcome::Done), Some(CallOutcome::Outage));
    match error {
        None | Some(StoreError::NotOwner(Lost::Lane)) => (done, done),
        Some(StoreError::NotOwner(Lost::Claim) | StoreError::Unreadable(_)) => (done, None),
        Some(StoreError::Unavailable { at: KeyPart::Record, .. } | StoreError::Away { .. }) => {
            (outage, None)
        }
        Some(StoreError::Unavailable { at: KeyPart::Lane, .. }) => (done, outage),
        Some(StoreError::Unavailable { at: KeyPart::Both, .. }) => (outage, outage),
    }
}
