//! Lease renewal: keeps messages invisible for as long as they are held.
//!
//! Each receipt is extended when half of its time is left, together with up to nine others due at
//! about that time. A failed extension is retried while time is left. A lost receipt stops its job
//! before the next step. This module decides when to call; the queue makes the call.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::timeout_estimator::{TimeoutEstimator, calls_max};
use super::{DueRenewal, HeldClaim, InFlight, Job, LostJob, Receipt, ReceiptKey, Renewal, Renewed};
use crate::clock;
use crate::queue::{EntryError, Queue, QueueError, QueueErrorKind};
use crate::retry::Backoff;

/// Backoff between attempts of an extension.
/// It is short, because only half of the visibility timeout is left.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// Maximum time between checks for due extensions.
/// A timer does not run while the machine is suspended, so a longer one would fire late.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Events that the lease keeper reports.
#[async_trait::async_trait]
pub trait LeaseEvents: Send + Sync {
    /// Reports how many receipts were extended, not extended, and lost.
    fn extended(&self, ok: usize, failed: usize, lost: usize);
    /// Releases a receipt that was released during its extension; the extension is complete now.
    async fn release(&self, receipt: Receipt, after: Duration);
    /// Reports that the last receipt of a job was lost while the job was not running.
    async fn lost(&self, forgotten: LostJob);
    /// Reports a job held for the maximum time. Its receipts are released.
    async fn overdue(&self, job: Box<Job>);
    /// Reports a job whose messages SQS soon drops: copy it to the dead-letter queue.
    async fn ending(&self, job: Box<Job>);
    /// Renews the claims of these events, because the leases of their messages were extended.
    async fn renew_claims(&self, claims: Vec<HeldClaim>);
    /// Hands back a job at once, because an earlier one of its group went back.
    async fn hand_back(&self, job: Box<Job>);
}

/// The task that extends leases.
pub struct LeaseKeeper {
    /// The table with the leases.
    pub inflight: Arc<InFlight>,
    /// The source queue.
    pub queue: Arc<dyn Queue>,
    /// The receiver of the reports.
    pub events: Arc<dyn LeaseEvents>,
}

/// The results of one extension call.
struct ExtensionAnswers {
    renewals: Vec<(ReceiptKey, Renewal)>,
    /// The error, if the whole call failed.
    error: Option<QueueError>,
    /// When the call started; `took` is its duration.
    began_at: Instant,
    took: Duration,
}

impl LeaseKeeper {
    /// Runs until stopped, then waits for the open extensions.
    /// Otherwise an extension could overtake a later change to its message.
    pub async fn run(self, stop: CancellationToken) {
        let mut calls = JoinSet::new();
        // The store may be slow and must not delay leases. A claim renewal that is cut off at the
        // end leaves a claim that expires earlier.
        let mut claims = JoinSet::new();
        let mut notifications = JoinSet::new();
        // Consecutive calls that failed as a whole.
        let mut failures = 0;
        let mut estimator = TimeoutEstimator::default();
        loop {
            let calls_max = calls_max(self.inflight.extended());
            while calls.len() < calls_max {
                let renewals = self.inflight.renewals_due(clock::now());
                if renewals.is_empty() {
                    break;
                }
                for job in renewals.ending {
                    let events = Arc::clone(&self.events);
                    notifications.spawn(async move { events.ending(job).await });
                }
                self.hand_back_overdue(renewals.overdue, renewals.ended, &mut notifications).await;
                if !renewals.due.is_empty() {
                    let queue = Arc::clone(&self.queue);
                    calls.spawn(extend(queue, renewals.due, failures, estimator));
                }
            }
            for job in self.inflight.take_abandoned() {
                self.events.hand_back(job).await;
            }
            let next = self.inflight.next_renewal();
            // A timer does not run while the machine is suspended.
            let pause = next.map_or(LOOK_EVERY, |at| clock::left(at).min(LOOK_EVERY));
            tokio::select! {
                biased;
                Some(answers) = calls.join_next() => {
                    let answers = answers.expect("an extension does not panic");
                    let error = answers.error.as_ref().map(|error| error.kind);
                    estimator.learn(answers.began_at, answers.took, error);
                    let extended = self.book(answers, &mut failures, &mut notifications).await;
                    if !extended.is_empty() {
                        let events = Arc::clone(&self.events);
                        claims.spawn(async move { events.renew_claims(extended).await });
                    }
                }
                Some(renewed) = claims.join_next() => renewed.expect("a renewal does not panic"),
                Some(notified) = notifications.join_next() => notified.expect("a notification does not panic"),
                () = stop.cancelled() => break,
                () = self.inflight.renewals_changed() => {}
                () = sleep(pause), if next.is_some() && calls.len() < calls_max => {}
            }
        }
        while let Some(answers) = calls.join_next().await {
            let answers = answers.expect("an extension does not panic");
            self.book(answers, &mut failures, &mut notifications).await;
        }
        while let Some(notified) = notifications.join_next().await {
            notified.expect("a notification does not panic");
        }
    }

    async fn hand_back_overdue(
        &self,
        receipts: Vec<Receipt>,
        jobs: Vec<Box<Job>>,
        notifications: &mut JoinSet<()>,
    ) {
        for job in jobs {
            let events = Arc::clone(&self.events);
            notifications.spawn(async move { events.overdue(job).await });
        }
        for receipt in receipts {
            self.events.release(receipt, Duration::ZERO).await;
        }
    }

    /// Records the results of a call and returns the events whose claims must be renewed.
    async fn book(
        &self,
        answers: ExtensionAnswers,
        failures: &mut u32,
        notifications: &mut JoinSet<()>,
    ) -> Vec<HeldClaim> {
        let ExtensionAnswers { renewals: answers, error, .. } = answers;
        match error {
            Some(error) => {
                if *failures == 0 {
                    warn!(error = %error, "Visibility timeouts cannot be extended, trying again while the leases last");
                }
                *failures = failures.saturating_add(1);
            }
            None if *failures > 0 => {
                info!(failures = *failures, "Visibility timeouts are extended again");
                *failures = 0;
            }
            None => {}
        }
        let ok = answers.iter().filter(|(_, a)| matches!(a, Renewal::Extended { .. })).count();
        let failed = answers.len() - ok;
        let Renewed { released, lost, receipts_lost, claims } =
            self.inflight.renewed(answers, clock::now());
        self.events.extended(ok, failed, receipts_lost);
        for (receipt, after) in released {
            self.events.release(receipt, after).await;
        }
        for job in lost {
            let events = Arc::clone(&self.events);
            let forgotten = LostJob { job, receipts_lost: 0 };
            notifications.spawn(async move { events.lost(forgotten).await });
        }
        claims
    }
}

/// Extends up to ten receipts with one call that ends before the first deadline.
async fn extend(
    queue: Arc<dyn Queue>,
    due: Vec<DueRenewal>,
    failures: u32,
    estimator: TimeoutEstimator,
) -> ExtensionAnswers {
    let changes: Vec<_> = due.iter().map(|due| (due.handle.clone(), due.visibility)).collect();
    let first_deadline = due.iter().map(|due| due.deadline).min().expect("not empty");
    // SQS counts from when it handles the call, which is not earlier than this instant.
    let called_at = clock::now();
    let left = first_deadline.saturating_duration_since(called_at);
    // A call that hangs must leave time for another, and a slow call must not be abandoned. Two
    // concurrent calls would avoid both, but the abandoned one could overtake a later change to its
    // message.
    let limit = estimator.for_call(left);
    let began_at = Instant::now();
    let answer = match timeout(limit, queue.extend(&changes)).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let detail = format!("no answer within {} ms", limit.as_millis());
            Err(QueueError { kind: QueueErrorKind::Timeout, detail })
        }
    };
    let took = began_at.elapsed();
    let pause = RETRY.delay(failures, &mut fastrand::Rng::new()).min(left / 4);
    let retry_at = clock::now() + pause;
    match answer {
        Ok(entries) => {
            let book = |(due, entry): (DueRenewal, _)| {
                let extended = Renewal::Extended { called_at, visibility: due.visibility };
                (due.key, entry_renewal(entry, extended, retry_at))
            };
            ExtensionAnswers {
                renewals: due.into_iter().zip(entries).map(book).collect(),
                error: None,
                began_at,
                took,
            }
        }
        Err(error) => {
            let again = |due: DueRenewal| (due.key, Renewal::RetryAt(retry_at));
            ExtensionAnswers {
                renewals: due.into_iter().map(again).collect(),
                error: Some(error),
                began_at,
                took,
            }
        }
    }
}

fn entry_renewal(entry: Result<(), EntryError>, extended: Renewal, retry_at: Instant) -> Renewal {
    match entry {
        Ok(()) => extended,
        Err(EntryError::Retry(_)) => Renewal::RetryAt(retry_at),
        Err(EntryError::Lost(_)) => Renewal::Lost,
    }
}
