//! The store with its circuit breakers and its metrics. The callers handle the errors.

mod permits;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use self::permits::ShardPermits;
use super::{
    Claim, ClaimRequest, ClaimToken, HandledAs, KeyPart, Lost, Notice, RecordKey, Store, StoreError,
};
use crate::event::StepSet;
use crate::health::Health;
use crate::metrics::{Call, CallResult, Metrics};
use crate::outage::{Outages, Shard};

/// Interval of the checks of a shared store. A pod that cannot reach it becomes unready within a
/// few kubelet probes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The store as the worker uses it. Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyClient {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whether the events of a reservation are ordered across processes.
    pub is_ordered: bool,
    /// The circuit breakers.
    pub outages: Arc<Outages>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The health state, which is updated when the store is away or back.
    pub health: Arc<Health>,
}

impl IdempotencyClient {
    /// Calls [`Store::claim`].
    ///
    /// # Errors
    /// Any [`StoreError`] except [`StoreError::NotOwner`].
    pub async fn claim(
        &self,
        key: RecordKey<'_>,
        request: ClaimRequest,
    ) -> Result<Claim, StoreError> {
        self.ask(key, Call::Claim, |key| self.store.claim(key, request)).await
    }

    /// Calls [`Store::renew`].
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn renew(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.ask(key, Call::Renew, |key| self.store.renew(key, token, lasts)).await
    }

    /// Calls [`Store::record`].
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn record(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.ask(key, Call::Record, |key| self.store.record(key, token, done)).await
    }

    /// Calls [`Store::complete`].
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn complete(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.ask_to_end(key, Call::Complete, |key| self.store.complete(key, token, how)).await
    }

    /// Calls [`Store::release`].
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn release(
        &self,
        key: RecordKey<'_>,
        token: ClaimToken,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.ask_to_end(key, Call::Release, |key| self.store.release(key, token, done)).await
    }

    /// Reads the notice, and hands it to `apply`.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub async fn look(&self, apply: impl Fn(&Notice)) -> Result<(), StoreError> {
        apply(&self.store.ping().await?);
        Ok(())
    }

    /// Checks a shared store periodically, so that an idle worker also knows its state, and hands
    /// its notice to `apply`. Never returns.
    pub async fn watch(self, apply: impl Fn(&Notice)) {
        let mut was_there = true;
        loop {
            let looked = self.look(&apply).await;
            // A store that can be reached but fails its operations counts as away.
            self.health.store(looked.is_ok() && !self.outages.is_store_away());
            match &looked {
                Err(why) if was_there => {
                    warn!(error = %why, "The idempotency store cannot be reached: events will wait, held");
                }
                Ok(()) if !was_there => info!("The idempotency store can be reached"),
                Ok(()) | Err(_) => {}
            }
            was_there = looked.is_ok();
            sleep(LOOK_EVERY).await;
        }
    }

    /// Runs an operation that ends a claim. It needs its record only: a lane that cannot be left
    /// becomes free when its turn ends.
    async fn ask_to_end<'k, F>(
        &self,
        key: RecordKey<'k>,
        call: Call,
        operation: impl FnOnce(RecordKey<'k>) -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let key = self.ordered(key);
        let entered = self.enter(key).map(|permits| (permits, key)).or_else(|_| {
            let key = RecordKey { lane: None, ..key };
            self.enter(key).map(|permits| (permits, key))
        });
        let (permits, key) = entered?;
        match self.call(permits, call, operation(key)).await {
            (Err(StoreError::Unavailable { at: KeyPart::Lane, .. }), _) => Ok(()),
            (answer, away) => or_away(answer, away),
        }
    }

    /// Runs an operation on the key, without its lane if processes do not order their events.
    async fn ask<'k, T, F>(
        &self,
        key: RecordKey<'k>,
        call: Call,
        operation: impl FnOnce(RecordKey<'k>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let key = self.ordered(key);
        let permits = self.enter(key)?;
        let (answer, away) = self.call(permits, call, operation(key)).await;
        or_away(answer, away)
    }

    fn ordered<'k>(&self, key: RecordKey<'k>) -> RecordKey<'k> {
        RecordKey { lane: key.lane.filter(|_| self.is_ordered), ..key }
    }

    fn enter(&self, key: RecordKey<'_>) -> Result<ShardPermits, StoreError> {
        ShardPermits::enter(&self.outages, &*self.store, key)
    }

    /// Makes the call. Returns its answer, and a shard that failed and is not called any more.
    async fn call<T>(
        &self,
        permits: ShardPermits,
        call: Call,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> (Result<T, StoreError>, Option<Shard>) {
        let began_at = Instant::now();
        let answer = operation.await;
        let error = answer.as_ref().err();
        let result = error.map_or(CallResult::Ok, result);
        let took = began_at.elapsed();
        self.metrics.call(call, result, took);
        let away = permits.report(error, took);
        if error.is_none() || away.is_some() {
            self.health.store(away.is_none() && !self.outages.is_store_away());
        }
        if let Some(StoreError::NotOwner(Lost::Lane)) = error {
            self.metrics.order_lost();
        }
        (answer, away)
    }
}

/// Returns the result of a failed call, for metrics.
fn result(error: &StoreError) -> CallResult {
    match error {
        StoreError::NotOwner(_) => CallResult::Conflict,
        StoreError::Unreadable(_) => CallResult::Permanent,
        StoreError::Unavailable { .. } | StoreError::Away { .. } => CallResult::Outage,
    }
}

/// Returns the answer. An event that failed at a shard that is not called any more waits for it.
fn or_away<T>(answer: Result<T, StoreError>, away: Option<Shard>) -> Result<T, StoreError> {
    match (answer, away) {
        (Err(StoreError::Unavailable { .. }), Some(shard)) => {
            Err(StoreError::Away { shard, is_fresh: false })
        }
        (answer, _) => answer,
    }
}
