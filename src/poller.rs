//! The main loop: reserves room, then long-polls; decides how many receives are open at once.
//!
//! One receive is open while the queue is quiet. Each reply that is full opens one more, up to
//! [`RECEIVES_MAX`]; each that is not closes one. A receive is sent only when there is room for
//! what it may bring, and never while more jobs are ready than the workers take in a moment: what
//! this process does not hold, another can take. Where SQS lets nobody delete, or extend a lease,
//! less is received, or nothing ([`gate`]).
//!
//! The loop ends only when it is told to. A receive that is open then is awaited, never dropped:
//! SQS would hide what it was about to give, for a whole visibility timeout.

mod gate;
mod receive;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::gate::{Allowance, Gate, Situation};
use self::receive::{Reply, receive};
use crate::health::{Beat, Health};
use crate::inflight::InFlight;
use crate::inflight::room::{Reserved, Room, RoomPermit};
use crate::intake::{Intake, Received};
use crate::metrics::{Metrics, QueueAction};
use crate::queue::actions::Actions;
use crate::queue::{BATCH_MAX, Message, Queue, QueueError, QueueErrorKind};
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, on};
use crate::settle::ledger::{Ledger, Left};

/// Receives that are open at once, at most. Eight replies of ten every ten milliseconds are 8,000
/// messages a second, more than one pod handles.
const RECEIVES_MAX: usize = 8;

/// Between receives that fail.
const ERROR_BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(10) };

/// The shortest wait after a failed receive: full jitter may draw next to nothing.
const ERROR_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Receives in a row that fail before the worker calls itself not ready: one throttled call is
/// everyday life.
const UNREADY_AFTER: u32 = 3;

/// Between the beginnings of receives that come back empty: where no long poll is asked for (`SQS_WAIT_TIME=0`), and where
/// whoever answers does not wait as he was asked to. A long poll that lasts longer is followed by the next at once.
const EMPTY_PAUSE: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };

/// How often it is looked whether something may be received again, beside when that is told.
const GATE_LOOK: Duration = Duration::from_secs(1);

/// How often the loop shows that it is alive while it rightly waits for room.
pub const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long a turn of the loop may take at most, if it is well.
#[must_use]
pub fn turn_max(wait: Duration) -> Duration {
    wait + receive::MARGIN + ERROR_BACKOFF.cap + BEAT_EVERY
}

/// The task that receives.
pub struct Poller {
    /// Whom it asks.
    pub queue: Arc<dyn Queue>,
    /// What there is room for.
    pub room: Room,
    /// Where it looks whether the workers keep up.
    pub inflight: Arc<InFlight>,
    /// Who takes the messages in.
    pub intake: Intake,
    /// Which of the queue's actions fail.
    pub actions: Arc<Actions>,
    /// The long-poll wait.
    pub wait: Duration,
    /// How long each receipt lasts.
    pub visibility: Duration,
    /// Events handled at once.
    pub concurrency: usize,
    /// What counts.
    pub metrics: Arc<Metrics>,
    /// What accounts.
    pub ledger: Arc<Ledger>,
    /// Whether polling works.
    pub health: Arc<Health>,
    /// Shows that the loop turns.
    pub beat: Beat,
}

/// How the loop goes on.
struct Pace {
    /// Receives that may be open.
    receives: usize,
    /// No receive before then.
    not_before: Option<Instant>,
    /// Receives in a row that failed, and when the last of them did.
    failures: u32,
    failed_at: Option<Instant>,
    /// Replies in a row that were empty at once.
    empty: u32,
    /// Messages that the open receives may bring.
    coming: usize,
}

impl Poller {
    /// Receives until told to stop; then awaits what is open and hands back what it brings.
    pub async fn run(self, stop: CancellationToken) {
        let mut pace = Pace {
            receives: 1,
            not_before: None,
            failures: 0,
            failed_at: None,
            empty: 0,
            coming: 0,
        };
        let mut open: JoinSet<Reply> = JoinSet::new();
        let gate = Mutex::new(Gate::new(self.concurrency, self.visibility));
        loop {
            self.beat.beat();
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
                room = self.room_for_a_receive(&gate, receives_open, &pace), if receives_open < pace.receives => {
                    if let Some((room, visibility)) = room {
                        pace.coming += asked(&room);
                        let (queue, asked) = (Arc::clone(&self.queue), asked(&room));
                        open.spawn(receive(queue, room, asked, self.wait, visibility));
                    }
                }
            }
        }
        if on(Sabotage::ReceiveAborted) {
            open.abort_all();
            return;
        }
        if !open.is_empty() {
            info!(receives = open.len(), "Waiting for the receive that is open");
        }
        while let Some(reply) = open.join_next().await {
            self.hand_back(reply.expect("a receive does not panic")).await;
        }
    }

    /// Room for a receive, once there is some and the workers want more; `None` every few seconds
    /// while there is not, so that the loop turns.
    async fn room_for_a_receive(
        &self,
        gate: &Mutex<Gate>,
        receives_open: usize,
        pace: &Pace,
    ) -> Option<(Reserved, Duration)> {
        if let Some(instant) = pace.not_before {
            sleep_until(instant).await;
        }
        let wanted = async {
            loop {
                self.allowed(gate, receives_open).await;
                let wanted = self.inflight.buffer_room(pace.coming).await;
                let mut room = self.room.reserve().await;
                // It may have changed meanwhile.
                if let Some(Allowance { messages, visibility }) =
                    self.allowance(gate, receives_open)
                {
                    room.shrink_to(wanted.min(messages));
                    return (room, visibility);
                }
            }
        };
        timeout(BEAT_EVERY, wanted).await.ok()
    }

    /// Waits until something may be received.
    async fn allowed(&self, gate: &Mutex<Gate>, receives_open: usize) {
        let mut changes = self.actions.changes();
        while self.allowance(gate, receives_open).is_none() {
            let changed = async {
                // It ends only with the worker.
                drop(changes.changed().await);
            };
            tokio::select! {
                () = changed => {}
                () = self.inflight.one_left() => {}
                // What was deleted since, or a pause that is over.
                () = sleep(GATE_LOOK) => {}
            }
        }
    }

    fn allowance(&self, gate: &Mutex<Gate>, receives_open: usize) -> Option<Allowance> {
        let settled = [Left::Deleted, Left::DeadLettered];
        let held = self.inflight.held();
        let situation = Situation {
            extend_fails: self.actions.is_doubted(QueueAction::Extend),
            delete_fails: self.actions.is_failing(QueueAction::Delete),
            // What waits for a time of its own takes no worker: a few of it hold up nobody.
            held: held - self.inflight.waiting_total().min(self.concurrency).min(held),
            parked: self.inflight.parked_total(),
            receives_open,
            settled: settled.into_iter().map(|how| self.ledger.left_total(how)).sum(),
            now: Instant::now(),
        };
        gate.lock().unwrap_or_else(PoisonError::into_inner).allows(situation)
    }

    async fn take_in(&self, reply: Reply, pace: &mut Pace) {
        let Reply { room, asked, answer, received } = reply;
        let messages = match answer {
            Ok(messages) => messages,
            Err(error) => return self.failed(&error, received.began_at, pace),
        };
        self.succeeded(messages.len(), asked, received.began_at, pace);
        if on(Sabotage::DeleteBeforeHandling) && !messages.is_empty() {
            let handles: Vec<_> = messages.iter().map(|message| message.handle.clone()).collect();
            drop(self.queue.delete(&handles).await);
        }
        let messages = self.with_room(messages, room);
        self.intake.take_in(messages, received).await;
    }

    async fn hand_back(&self, reply: Reply) {
        let Reply { room, answer, received, .. } = reply;
        let messages = match answer {
            Ok(messages) => messages,
            Err(error) => {
                warn!(error = %error, "The last receive failed");
                return;
            }
        };
        for (message, permit) in self.with_room(messages, room) {
            self.intake.hand_back(message, permit, received).await;
        }
    }

    /// Counts what came in, and gives each message its room. More than was asked for has none: it
    /// is left alone, and SQS shows it again.
    fn with_room(&self, messages: Vec<Message>, mut room: Reserved) -> Vec<(Message, RoomPermit)> {
        self.metrics.received(messages.len());
        self.ledger.received(messages.len());
        let mut with_room = Vec::with_capacity(messages.len());
        for message in messages {
            match room.take(message.bytes()) {
                Some(permit) => with_room.push((message, permit)),
                None => {
                    warn!(message_id = %message.id, "The queue gave more than was asked for");
                    self.ledger.left(Left::Unsettled, 1);
                }
            }
        }
        with_room
    }

    fn succeeded(&self, messages: usize, asked: usize, began_at: Instant, pace: &mut Pace) {
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

    fn failed(&self, error: &QueueError, began_at: Instant, pace: &mut Pace) {
        self.metrics.poll_error(error.kind);
        self.intake.note_failed(began_at, error);
        pace.receives = 1;
        // Those that were open together fail together: that is one failure, not one after another.
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

/// How many messages to ask for.
fn asked(room: &Reserved) -> usize {
    if on(Sabotage::RoomIgnored) { BATCH_MAX } else { room.len() }
}

fn note_received(gate: &Mutex<Gate>, reply: &Reply) {
    let Reply { answer, received: Received { visibility, received_at, .. }, .. } = reply;
    if answer.as_ref().is_ok_and(|messages| !messages.is_empty()) {
        let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.received(*visibility, *received_at);
    }
}

/// What the operator can do.
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
