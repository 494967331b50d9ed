//! The store with its circuit breaker and its metrics. The callers handle the errors.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Claim, ClaimRequest, ClaimToken, HandledAs, RecordKey, Store, StoreError};
use crate::client::Load;
use crate::event::StepSet;
use crate::health::Health;
use crate::metrics::{Call, CallResult, Metrics};
use crate::outage::{CallOutcome, Dependency, Outages};

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
    /// Any [`StoreError`] except [`StoreError::Unreadable`].
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
        self.ask(key, Call::Complete, |key| self.store.complete(key, token, how)).await
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
        self.ask(key, Call::Release, |key| self.store.release(key, token, done)).await
    }

    /// Checks a shared store periodically, so that an idle worker also knows its state. Never
    /// returns.
    pub async fn watch(self) {
        let mut was_there = true;
        loop {
            let looked = self.store.ping().await;
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
        let shard = self.store.shard(key.id);
        let permit = match self.outages.enter(Dependency::Store(shard), key.id) {
            Ok(permit) => permit,
            Err(not_now) => return Err(StoreError::Away { shard, is_fresh: not_now.is_fresh }),
        };
        let began_at = Instant::now();
        let key = RecordKey { lane: key.lane.filter(|_| self.is_ordered), ..key };
        let answer = operation(key).await;
        let (outcome, result) = match &answer {
            Ok(_) => (CallOutcome::Done, CallResult::Ok),
            Err(StoreError::NotOwner | StoreError::LaneLost) => {
                (CallOutcome::Done, CallResult::Conflict)
            }
            Err(StoreError::Unreadable(_)) => (CallOutcome::Done, CallResult::Permanent),
            Err(StoreError::Unavailable(_) | StoreError::Away { .. }) => {
                (CallOutcome::Outage, CallResult::Outage)
            }
        };
        let took = began_at.elapsed();
        self.metrics.call(call, result, took);
        let is_called = permit.report(outcome, Load::Unknown, took).is_called;
        if answer.is_ok() || !is_called {
            self.health.store(is_called && !self.outages.is_store_away());
        }
        match answer {
            Err(StoreError::LaneLost) => {
                self.metrics.order_lost();
                Err(StoreError::NotOwner)
            }
            Err(StoreError::Unavailable(_)) if !is_called => {
                Err(StoreError::Away { shard, is_fresh: false })
            }
            answer => answer,
        }
    }
}
