//! Probes the queue's actions: all of them at startup, then failing ones until they work again.
//!
//! The probes at startup show a problem before an event needs the action.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::InFlight;
use crate::clock;
use crate::metrics::QueueAction;
use crate::queue::Queue;
use crate::queue::actions::QueueActions;

/// Interval between probes of a failing action. A repaired action is used within ten seconds.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// Interval between checks for a receipt whose extension can show whether extensions work.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pause before the second probe at startup, if the first one fails.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Timeout of a probe.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Actions probed at startup. Receiving itself tests the receive action.
const AT_START: [QueueAction; 4] =
    [QueueAction::Extend, QueueAction::Delete, QueueAction::Attributes, QueueAction::DeadLetter];

/// The task that probes the queue.
pub struct Prober {
    /// The held messages. Extending one of their leases shows whether extensions work.
    pub inflight: Arc<InFlight>,
    /// The source queue.
    pub queue: Arc<dyn Queue>,
    /// The known state of the actions.
    pub actions: Arc<QueueActions>,
}

impl Prober {
    /// Probes until stopped.
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
                // The channel closes only when the worker ends.
                drop(changes.changed().await);
            }
        }
    }

    /// Probes a failing action, preferably with real work.
    /// A probe cannot tell whether all entries of a batch fail.
    async fn ask_failing(&self, action: QueueAction) {
        let began_at = Instant::now();
        let is_asked_by_others = match action {
            QueueAction::Extend => self.inflight.renew_one(clock::now()),
            QueueAction::Delete | QueueAction::DeadLetter => self.actions.is_waited_for(action),
            QueueAction::Receive | QueueAction::Attributes => false,
        };
        // If nothing waits for the action and a probe cannot tell, its next use shows the result.
        if !is_asked_by_others && self.seems_to_work(action).await {
            self.actions.probed(action, began_at);
        }
    }

    /// Probes an action and returns whether it did not fail.
    /// The queue's decorator records failures.
    async fn seems_to_work(&self, action: QueueAction) -> bool {
        timeout(ASK_TIMEOUT, self.queue.probe(action)).await.is_ok_and(|answer| answer.is_ok())
    }
}
