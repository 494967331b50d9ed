//! The store as the worker uses it: behind its breaker, counted. What is done about a refusal is
//! left to others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Claim, HandledAs, Store, StoreError, Token};
use crate::event::{ContentHash, EventId, StepSet};
use crate::health::Health;
use crate::metrics::{Call, CallResult, Metrics};
use crate::outage::{Dependency, Outages, Sign};

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

/// Why an event goes no further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The store is away, and is not asked.
    #[error("the idempotency store is away")]
    Away,
    /// It did not answer.
    #[error("idempotency store: {0}")]
    Unavailable(String),
    /// The claim is not ours any more.
    #[error("the claim is not ours any more")]
    ClaimLost,
    /// The record cannot be read.
    #[error("idempotency store: the record cannot be read: {0}")]
    Unreadable(String),
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
    ) -> Result<Claim, Refusal> {
        self.ask(Call::Claim, self.store.claim(id, hash, token, lasts)).await
    }

    /// See [`Store::renew`].
    ///
    /// # Errors
    /// Any but that the record cannot be read.
    pub async fn renew(&self, id: &EventId, token: Token, lasts: Duration) -> Result<(), Refusal> {
        self.ask(Call::Renew, self.store.renew(id, token, lasts)).await
    }

    /// See [`Store::record`].
    ///
    /// # Errors
    /// Any.
    pub async fn record(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), Refusal> {
        self.ask(Call::Record, self.store.record(id, token, done)).await
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
    ) -> Result<(), Refusal> {
        self.ask(Call::Complete, self.store.complete(id, token, how)).await
    }

    /// See [`Store::release`].
    ///
    /// # Errors
    /// Any.
    pub async fn release(&self, id: &EventId, token: Token, done: StepSet) -> Result<(), Refusal> {
        self.ask(Call::Release, self.store.release(id, token, done)).await
    }

    /// Looks again and again whether a shared store is there, so that an idle worker knows it too.
    /// Never ends.
    pub async fn watch(self) {
        let mut was_there = true;
        loop {
            let looked = self.store.ping().await;
            // A store that can be reached, and fails what it is asked, is away all the same.
            self.health.store(looked.is_ok() && !self.outages.is_away(Dependency::Store));
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
        call: Call,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Refusal> {
        let Some(pass) = self.outages.enter(Dependency::Store) else {
            return Err(Refusal::Away);
        };
        let began_at = Instant::now();
        let answer = operation.await;
        let (sign, result) = match &answer {
            Ok(_) => (Sign::Well, CallResult::Ok),
            Err(StoreError::NotOwner) => (Sign::Well, CallResult::Conflict),
            Err(StoreError::Unreadable(_)) => (Sign::Well, CallResult::Permanent),
            Err(StoreError::Unavailable(_)) => (Sign::Outage, CallResult::Outage),
        };
        self.metrics.call(call, result, began_at.elapsed());
        let is_asked = pass.report_alone(sign).called;
        self.health.store(is_asked);
        answer.map_err(|why| match why {
            StoreError::NotOwner => Refusal::ClaimLost,
            StoreError::Unreadable(why) => Refusal::Unreadable(why),
            StoreError::Unavailable(_) if !is_asked => Refusal::Away,
            StoreError::Unavailable(why) => Refusal::Unavailable(why),
        })
    }
}
