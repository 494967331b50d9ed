//! Keeps messages invisible for as long as they are held.
//!
//! Each receipt is extended when half of its time is left, together with up to nine others that
//! are due about then. An extension that fails is tried again while there is time; a receipt that
//! is lost stops its job before the next step. This module decides when to call; the queue calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::patience::{Patience, calls_max};
use super::{DueRenewal, Forgotten, InFlight, Job, Lease, Receipt, ReceiptKey, Renewal, Renewed};
use crate::clock;
use crate::event::EventId;
use crate::queue::{EntryError, Queue, QueueError, QueueErrorKind};
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, on};

/// Between the tries of an extension: short, as half a timeout is all the time that there is.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// How often it is looked whether an extension is due, at least: a suspended machine wakes late.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the keeper hands on.
#[async_trait::async_trait]
pub trait LeaseEvents: Send + Sync {
    /// Messages were extended, or could not be.
    fn extended(&self, ok: usize, failed: usize, lost: usize);
    /// This receipt was released while it was being extended; the extension is over now.
    async fn release(&self, receipt: Receipt, after: Duration);
    /// The last receipt of this job is lost, and nobody had the job in hand.
    async fn lost(&self, forgotten: Forgotten);
    /// This job has been held for as long as may be, and its receipts are given back.
    async fn overdue(&self, job: Box<Job>);
    /// SQS drops this job's messages soon: it is to be copied to the dead-letter queue.
    async fn ending(&self, job: Box<Job>);
    /// The leases of these events' messages were renewed: their claims are to be renewed too.
    async fn renew_claims(&self, claims: Vec<(EventId, Lease)>);
    /// This job is to be handed back at once, because an earlier one of its group was.
    async fn hand_back(&self, job: Box<Job>);
}

/// The task that extends leases.
pub struct LeaseKeeper {
    /// Whose leases.
    pub inflight: Arc<InFlight>,
    /// Who extends them.
    pub queue: Arc<dyn Queue>,
    /// Who wants to know.
    pub events: Arc<dyn LeaseEvents>,
}

/// The answer to one call.
struct Answers {
    renewals: Vec<(ReceiptKey, Renewal)>,
    /// Why the whole call failed, where it did.
    error: Option<QueueError>,
    /// When it was made, and how long it took.
    began_at: Instant,
    took: Duration,
}

impl LeaseKeeper {
    /// Runs until told to stop; then waits for the extensions that are open, so that none can
    /// overtake what is said of its message later.
    pub async fn run(self, stop: CancellationToken) {
        let mut calls = JoinSet::new();
        // The store may be slow, and leases do not wait for it. A renewal that is cut off at the end
        // leaves a claim that runs out earlier.
        let mut claims = JoinSet::new();
        let mut farewells = JoinSet::new();
        // Calls in a row that failed whole.
        let mut failures = 0;
        let mut patience = Patience::default();
        loop {
            let calls_max = calls_max(self.inflight.extended());
            while calls.len() < calls_max && !on(Sabotage::LeaseNotExtended) {
                let renewals = self.inflight.renewals_due(clock::now());
                if renewals.is_empty() {
                    break;
                }
                for job in renewals.ending {
                    let events = Arc::clone(&self.events);
                    farewells.spawn(async move { events.ending(job).await });
                }
                self.hand_back_overdue(renewals.overdue, renewals.ended, &mut farewells).await;
                if !renewals.due.is_empty() {
                    let queue = Arc::clone(&self.queue);
                    calls.spawn(extend(queue, renewals.due, failures, patience));
                }
            }
            for job in self.inflight.take_abandoned() {
                self.events.hand_back(job).await;
            }
            let next = self.inflight.next_renewal().filter(|_| !on(Sabotage::LeaseNotExtended));
            // A timer stands still while the machine is suspended.
            let pause = next.map_or(LOOK_EVERY, |at| clock::left(at).min(LOOK_EVERY));
            tokio::select! {
                biased;
                Some(answers) = calls.join_next() => {
                    let answers = answers.expect("an extension does not panic");
                    let error = answers.error.as_ref().map(|error| error.kind);
                    patience.learn(answers.began_at, answers.took, error);
                    let extended = self.book(answers, &mut failures, &mut farewells).await;
                    if !extended.is_empty() {
                        let events = Arc::clone(&self.events);
                        claims.spawn(async move { events.renew_claims(extended).await });
                    }
                }
                Some(renewed) = claims.join_next() => renewed.expect("a renewal does not panic"),
                Some(told) = farewells.join_next() => told.expect("a farewell does not panic"),
                () = stop.cancelled() => break,
                () = self.inflight.renewals_changed() => {}
                () = sleep(pause), if next.is_some() && calls.len() < calls_max => {}
            }
        }
        while let Some(answers) = calls.join_next().await {
            let answers = answers.expect("an extension does not panic");
            self.book(answers, &mut failures, &mut farewells).await;
        }
        while let Some(told) = farewells.join_next().await {
            told.expect("a farewell does not panic");
        }
    }

    async fn hand_back_overdue(
        &self,
        receipts: Vec<Receipt>,
        jobs: Vec<Box<Job>>,
        farewells: &mut JoinSet<()>,
    ) {
        for job in jobs {
            let events = Arc::clone(&self.events);
            farewells.spawn(async move { events.overdue(job).await });
        }
        for receipt in receipts {
            self.events.release(receipt, Duration::ZERO).await;
        }
    }

    /// Gives the events whose claims are to be renewed.
    async fn book(
        &self,
        answers: Answers,
        failures: &mut u32,
        farewells: &mut JoinSet<()>,
    ) -> Vec<(EventId, Lease)> {
        let Answers { renewals: answers, error, .. } = answers;
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
            let forgotten = Forgotten { job, receipts_lost: 0 };
            farewells.spawn(async move { events.lost(forgotten).await });
        }
        claims
    }
}

/// Extends up to ten receipts with one call, which ends before the first of their deadlines.
async fn extend(
    queue: Arc<dyn Queue>,
    due: Vec<DueRenewal>,
    failures: u32,
    patience: Patience,
) -> Answers {
    let changes: Vec<_> = due.iter().map(|due| (due.handle.clone(), due.visibility)).collect();
    let first_deadline = due.iter().map(|due| due.deadline).min().expect("not empty");
    // SQS counts from when it handles the call, which is not before this instant.
    let called_at = clock::now();
    let left = first_deadline.saturating_duration_since(called_at);
    // A call that hangs must leave time for another; one that is only slow must not be given up. Two at once would be safe
    // from both, but the one that is not waited for could overtake what is said of its message later.
    let patience = patience.for_call(left);
    let began_at = Instant::now();
    let answer = match timeout(patience, queue.extend(&changes)).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let detail = format!("no answer within {} ms", patience.as_millis());
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
            Answers {
                renewals: due.into_iter().zip(entries).map(book).collect(),
                error: None,
                began_at,
                took,
            }
        }
        Err(error) => {
            let again = |due: DueRenewal| (due.key, Renewal::RetryAt(retry_at));
            Answers {
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
