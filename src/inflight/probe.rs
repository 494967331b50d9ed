//! Asks the queue's actions whether they work: all of them at the start, before anything depends on it; then those that
//! fail, until they work again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::InFlight;
use crate::clock;
use crate::metrics::QueueAction;
use crate::queue::Queue;
use crate::queue::actions::Actions;

/// Between the questions about an action that fails. A cure is to be used within ten seconds.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// Between the looks whether something is held with which a doubt about extensions can be ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between the two questions of the start, where the first fails.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How long an answer is waited for.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked at the start. A receive is asked by receiving.
const AT_START: [QueueAction; 4] =
    [QueueAction::Extend, QueueAction::Delete, QueueAction::Attributes, QueueAction::DeadLetter];

/// The task that asks.
pub struct Prober {
    /// What is held, with which a lease can be extended to see whether that works.
    pub inflight: Arc<InFlight>,
    /// Whom it asks.
    pub queue: Arc<dyn Queue>,
    /// What is known.
    pub actions: Arc<Actions>,
}

impl Prober {
    /// Asks until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.ask_all() => {}
        }
    }

    async fn ask_all(&self) {
        for action in AT_START {
            if !self.seems_to_work(action).await {
                sleep(ASK_AGAIN).await;
                self.seems_to_work(action).await;
            }
        }
        let mut changes = self.actions.changes();
        loop {
            let is_failing = |action: &QueueAction| self.actions.is_failing(*action);
            if AT_START.iter().any(is_failing) {
                sleep(ASK_EVERY).await;
                for action in AT_START.into_iter().filter(is_failing) {
                    self.ask_failing(action).await;
                }
            } else if self.actions.is_doubted(QueueAction::Extend) {
                sleep(LOOK_EVERY).await;
                self.inflight.renew_one(clock::now());
            } else {
                // It ends only with the worker.
                drop(changes.changed().await);
            }
        }
    }

    /// Asks about an action that fails. What is held asks best: a probe cannot tell whether all entries of a batch fail.
    async fn ask_failing(&self, action: QueueAction) {
        let began_at = Instant::now();
        let is_asked_by_others = match action {
            QueueAction::Extend => self.inflight.renew_one(clock::now()),
            QueueAction::Delete | QueueAction::DeadLetter => self.actions.is_waited_for(action),
            QueueAction::Receive | QueueAction::Attributes => false,
        };
        // Where nothing waits for it and a probe cannot tell, the next that needs it will.
        if !is_asked_by_others && self.seems_to_work(action).await {
            self.actions.probed(action, began_at);
        }
    }

    /// Asks, and says whether the answer is no failure; the queue's decorator has noted one that is.
    async fn seems_to_work(&self, action: QueueAction) -> bool {
        timeout(ASK_TIMEOUT, self.queue.probe(action)).await.is_ok_and(|answer| answer.is_ok())
    }
}
