//! The store as the worker uses it: behind its breaker, counted. What is done about an error is
//! left to others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Claim, HandledAs, Store, StoreError, Token};
use crate::client::Load;
use crate::event::{ContentHash, EventId, StepSet};
use crate::health::Health;
use crate::metrics::{Call, CallResult, Metrics};
use crate::outage::{CallOutcome, Dependency, Outages};

/// How often a shared store is looked at: a pod that cannot reach it is taken out within a few probes
/// of the kubelet's.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    /// Who remembers.
    pub store: Arc<dyn Store>,
    /// Whether it may be asked.
    pub outages: Arc<Outages>,
    /// What counts the asking.
    pub metrics: Arc<Metrics>,
    /// Who is told when it is away.
    pub health: Arc<Health>,
}

impl Records {
    /// See [`Store::claim`].
    ///
    /// # Errors
    /// Any but that the claim is lost.
    pub async fn claim(
        &self,
        id: &EventId,
        hash: ContentHash,
        token: Token,
        lasts: Duration,
    ) -> Result<Claim, StoreError> {
        self.ask(id, Call::Claim, self.store.claim(id, hash, token, lasts)).await
    }

    /// See [`Store::renew`].
    ///
    /// # Errors
    /// Any but that the record cannot be read.
    pub async fn renew(
        &self,
        id: &EventId,
        token: Token,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.ask(id, Call::Renew, self.store.renew(id, token, lasts)).await
    }

    /// See [`Store::record`].
    ///
    /// # Errors
    /// Any.
    pub async fn record(
        &self,
        id: &EventId,
        token: Token,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.ask(id, Call::Record, self.store.record(id, token, done)).await
    }

    /// See [`Store::complete`].
    ///
    /// # Errors
    /// Any.
    pub async fn complete(
        &self,
        id: &EventId,
        token: Token,
        how: HandledAs,
    ) -> Result<(), StoreError> {
        self.ask(id, Call::Complete, self.store.complete(id, token, how)).await
    }

    /// See [`Store::release`].
    ///
    /// # Errors
    /// Any.
    pub async fn release(
        &self,
        id: &EventId,
        token: Token,
        done: StepSet,
    ) -> Result<(), StoreError> {
        self.ask(id, Call::Release, self.store.release(id, token, done)).await
    }

    /// Looks again and again whether a shared store is there, so that an idle worker knows it too.
    /// Never ends.
    pub async fn watch(self) {
        let mut was_there = true;
        loop {
            let looked = self.store.ping().await;
            // A store that can be reached, and fails what it is asked, is away all the same.
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

    async fn ask<T>(
        &self,
        id: &EventId,
        call: Call,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let shard = self.store.shard(id);
        let permit = match self.outages.enter(Dependency::Store(shard), id) {
            Ok(permit) => permit,
            Err(not_now) => return Err(StoreError::Away { shard, is_fresh: not_now.is_fresh }),
        };
        let began_at = Instant::now();
        let answer = operation.await;
        let (outcome, result) = match &answer {
            Ok(_) => (CallOutcome::Done, CallResult::Ok),
            Err(StoreError::NotOwner) => (CallOutcome::Done, CallResult::Conflict),
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
            Err(StoreError::Unavailable(_)) if !is_called => {
                Err(StoreError::Away { shard, is_fresh: false })
            }
            answer => answer,
        }
    }
}
