//! The receive loop: reserves room, long-polls, and adjusts the number of concurrent receives.
//!
//! One receive is open while the queue is quiet. Each full reply adds one, up to [`RECEIVES_MAX`];
//! each other reply removes one. A receive is sent only if there is room for its messages, and only
//! while the buffer of ready jobs is not full: messages that this process does not hold are
//! available to other consumers. While SQS refuses deletes or visibility extensions, the loop
//! receives less or nothing ([`gate`]).
//!
//! The loop ends only when it is stopped. It then awaits open receives and never drops them:
//! otherwise SQS would hide the messages of the reply for a whole visibility timeout.

mod gate;
mod receive;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::gate::{Allowance, Gate, Situation};
use self::receive::{ReceiveReply, receive};
use crate::controls::Controls;
use crate::health::{Health, Heartbeat};
use crate::inflight::InFlight;
use crate::inflight::capacity::{InFlightLimiter, Permit, ReservedPermits};
use crate::intake::{Intake, Received};
use crate::metrics::{Metrics, QueueAction};
use crate::queue::actions::QueueActions;
use crate::queue::{Message, Queue, QueueError, QueueErrorKind};
use crate::retry::Backoff;
use crate::settle::account::{Disposition, MessageAccount};

/// Concurrent receives at most. Eight receives of ten messages every ten milliseconds are 8,000
/// messages per second, more than one pod handles.
const RECEIVES_MAX: usize = 8;

/// Backoff between failed receives.
const ERROR_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(10) };

/// Minimum pause after a failed receive: full jitter may draw nearly zero.
const ERROR_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Consecutive failed receives before the worker reports not ready. One throttled call is normal.
const UNREADY_AFTER: u32 = 3;

/// Interval between the starts of receives that return empty early: without a long poll
/// (`SQS_WAIT_TIME=0`), or if the endpoint does not honor the wait time. After a long poll that
/// lasts longer, the next receive starts at once.
const EMPTY_PAUSE: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };

/// Interval at which the gate is checked again, in addition to its notifications.
const GATE_LOOK: Duration = Duration::from_secs(1);

/// Interval of heartbeats while the loop waits for room as intended.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// Returns the longest time that one iteration of a healthy loop takes.
#[must_use]
pub fn turn_max(wait: Duration) -> Duration {
    wait + receive::MARGIN + ERROR_BACKOFF.cap + HEARTBEAT_EVERY
}

/// The receive task.
pub struct Poller {
    /// The source queue.
    pub queue: Arc<dyn Queue>,
    /// Room for further messages.
    pub limiter: InFlightLimiter,
    /// Table of held jobs; shows whether the workers keep up.
    pub inflight: Arc<InFlight>,
    /// Turns messages into jobs.
    pub intake: Intake,
    /// Queue actions that currently fail.
    pub actions: Arc<QueueActions>,
    /// The levers: receives stop during a pause.
    pub controls: Arc<Controls>,
    /// The long-poll wait.
    pub wait: Duration,
    /// The visibility timeout of each receipt.
    pub visibility: Duration,
    /// Events handled concurrently.
    pub concurrency: usize,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Accounting of all messages.
    pub account: Arc<MessageAccount>,
    /// Health state for polling.
    pub health: Arc<Health>,
    /// Heartbeat of the loop.
    pub heartbeat: Heartbeat,
}

/// State that controls the rate of receives.
struct ReceivePace {
    /// Concurrent receives that are allowed.
    receives: usize,
    /// No receive starts before this instant.
    not_before: Option<Instant>,
    /// Consecutive failures, and the time of the last one.
    failures: u32,
    failed_at: Option<Instant>,
    /// Consecutive replies that were empty early.
    empty: u32,
    /// Messages that the open receives may return.
    coming: usize,
}

impl Poller {
    /// Receives until `stop`; then awaits open receives and hands their messages back.
    pub async fn run(self, stop: CancellationToken) {
        let mut pace = ReceivePace {
            receives: 1,
            not_before: None,
            failures: 0,
            failed_at: None,
            empty: 0,
            coming: 0,
        };
        let mut open: JoinSet<ReceiveReply> = JoinSet::new();
        let gate = Mutex::new(Gate::new(self.concurrency, self.visibility));
        loop {
            self.heartbeat.beat();
            let receives_open = open.len();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(reply) = open.join_next() => {
                    let reply = reply.expect("a receive does not panic");
                    pace.coming -= reply.asked;
                    note_received(&gate, &reply);
                    self.take_in(reply, &mut pace).await;
                }
                reserved = self.reserve_for_receive(&gate, receives_open, &pace), if receives_open < pace.receives => {
                    if let Some((permits, visibility)) = reserved {
                        let (queue, asked) = (Arc::clone(&self.queue), permits.len());
                        pace.coming += asked;
                        open.spawn(receive(queue, permits, asked, self.wait, visibility));
                    }
                }
            }
        }
        if !open.is_empty() {
            info!(receives = open.len(), "Waiting for the receive that is open");
        }
        while let Some(reply) = open.join_next().await {
            self.hand_back(reply.expect("a receive does not panic")).await;
        }
    }

    /// Waits for room and for demand from the workers. Returns `None` after [`HEARTBEAT_EVERY`],
    /// so that the loop can send its heartbeat.
    async fn reserve_for_receive(
        &self,
        gate: &Mutex<Gate>,
        receives_open: usize,
        pace: &ReceivePace,
    ) -> Option<(ReservedPermits, Duration)> {
        if let Some(instant) = pace.not_before {
            sleep_until(instant).await;
        }
        let wanted = async {
            loop {
                // Set each time: this future may be dropped while it waits.
                self.health.paused(self.controls.paused().is_some());
                self.controls.resumed().await;
                self.health.paused(false);
                self.allowed(gate, receives_open).await;
                let wanted = self.inflight.buffer_capacity(pace.coming).await;
                let mut permits = self.limiter.reserve().await;
                // The allowance may have changed during the wait, and a pause begun.
                if self.controls.paused().is_none()
                    && let Some(Allowance { messages, visibility }) =
                        self.allowance(gate, receives_open)
                {
                    permits.shrink_to(wanted.min(messages));
                    return (permits, visibility);
                }
            }
        };
        timeout(HEARTBEAT_EVERY, wanted).await.ok()
    }

    /// Waits until the gate allows a receive.
    async fn allowed(&self, gate: &Mutex<Gate>, receives_open: usize) {
        let mut changes = self.actions.changes();
        while self.allowance(gate, receives_open).is_none() {
            let changed = async {
                // An error means that the worker is ending.
                drop(changes.changed().await);
            };
            tokio::select! {
                () = changed => {}
                () = self.inflight.one_left() => {}
                // Covers changes without a notification: deletions and elapsed pauses.
                () = sleep(GATE_LOOK) => {}
            }
        }
    }

    fn allowance(&self, gate: &Mutex<Gate>, receives_open: usize) -> Option<Allowance> {
        let settled = [Disposition::Deleted, Disposition::DeadLettered];
        let held = self.inflight.held();
        let situation = Situation {
            extend_fails: self.actions.is_doubted(QueueAction::Extend),
            delete_fails: self.actions.is_failing(QueueAction::Delete),
            // Jobs on a timer occupy no worker: up to `concurrency` of them do not count.
            held: held - self.inflight.waiting_total().min(self.concurrency).min(held),
            parked: self.inflight.parked_total(),
            receives_open,
            settled: settled.into_iter().map(|how| self.account.left_total(how)).sum(),
            now: Instant::now(),
        };
        gate.lock().unwrap_or_else(PoisonError::into_inner).allows(situation)
    }

    async fn take_in(&self, reply: ReceiveReply, pace: &mut ReceivePace) {
        let ReceiveReply { permits, asked, answer, received } = reply;
        let messages = match answer {
            Ok(messages) => messages,
            Err(error) => return self.failed(&error, received.began_at, pace),
        };
        self.succeeded(messages.len(), asked, received.began_at, pace);
        let messages = self.with_permits(messages, permits);
        self.intake.take_in(messages, received).await;
    }

    async fn hand_back(&self, reply: ReceiveReply) {
        let ReceiveReply { permits, answer, received, .. } = reply;
        let messages = match answer {
            Ok(messages) => messages,
            Err(error) => {
                warn!(error = %error, "The last receive failed");
                return;
            }
        };
        for (message, permit) in self.with_permits(messages, permits) {
            self.intake.hand_back(message, permit, received).await;
        }
    }

    /// Counts the messages and gives each its permit. A message beyond the requested
    /// number gets none: it is ignored, and SQS delivers it again.
    fn with_permits(
        &self,
        messages: Vec<Message>,
        mut permits: ReservedPermits,
    ) -> Vec<(Message, Permit)> {
        self.metrics.received(messages.len());
        self.account.received(messages.len());
        let mut with_permits = Vec::with_capacity(messages.len());
        for message in messages {
            match permits.take(message.bytes()) {
                Some(permit) => with_permits.push((message, permit)),
                None => {
                    warn!(message_id = %message.id, "The queue gave more than was asked for");
                    self.account.left(Disposition::Unsettled, 1);
                }
            }
        }
        with_permits
    }

    fn succeeded(&self, messages: usize, asked: usize, began_at: Instant, pace: &mut ReceivePace) {
        if pace.failures > 0 {
            info!(failures = pace.failures, "Polling works again");
        }
        pace.failures = 0;
        self.health.polling(true);
        pace.receives = if messages == asked {
            RECEIVES_MAX.min(pace.receives + 1)
        } else {
            pace.receives.saturating_sub(1).max(1)
        };
        let next_at = began_at + EMPTY_PAUSE.bound(pace.empty);
        let at_once = messages == 0 && (self.wait.is_zero() || Instant::now() < next_at);
        pace.empty = if at_once { pace.empty.saturating_add(1) } else { 0 };
        pace.not_before = at_once.then_some(next_at);
    }

    fn failed(&self, error: &QueueError, began_at: Instant, pace: &mut ReceivePace) {
        self.metrics.poll_error(error.kind);
        self.intake.note_failed(began_at, error);
        pace.receives = 1;
        // Receives that were open at the same time fail together: they count as one failure.
        if pace.failed_at.is_some_and(|at| began_at < at) {
            return;
        }
        pace.failed_at = Some(Instant::now());
        let pause = ERROR_BACKOFF.delay(pace.failures, &mut fastrand::Rng::new());
        pace.not_before = Some(Instant::now() + pause.max(ERROR_PAUSE_MIN));
        pace.failures = pace.failures.saturating_add(1);
        if pace.failures == 1 {
            error!(error = %error, hint = hint(error.kind), "Polling fails, trying again until it works");
        }
        if pace.failures >= UNREADY_AFTER {
            self.health.polling(false);
        }
    }
}

fn note_received(gate: &Mutex<Gate>, reply: &ReceiveReply) {
    let ReceiveReply { answer, received: Received { visibility, received_at, .. }, .. } = reply;
    if answer.as_ref().is_ok_and(|messages| !messages.is_empty()) {
        let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.received(*visibility, *received_at);
    }
}

/// Returns advice for the operator.
fn hint(kind: QueueErrorKind) -> &'static str {
    match kind {
        QueueErrorKind::Throttled => {
            "SQS limits the calls, or too many messages are in flight; nothing is to be done unless it lasts"
        }
        QueueErrorKind::Denied => {
            "check the credentials; where SQS names a permission, allow it: deploy/iam/policy.json has them all"
        }
        QueueErrorKind::NoSuchQueue => "check SQS_QUEUE_URL and AWS_REGION",
        QueueErrorKind::Timeout | QueueErrorKind::Network => {
            "check the way to SQS: DNS, proxies, AWS_ENDPOINT_URL"
        }
        QueueErrorKind::Refused | QueueErrorKind::NoDeadLetterQueue | QueueErrorKind::Other => {
            "SQS's own words say what is wrong"
        }
    }
}
