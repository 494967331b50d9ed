//! The main loop: reserves room, then long-polls; decides how many receives are open at once.
//!
//! One receive is open while the queue is quiet. Each reply that is full opens one more, up to
//! [`RECEIVES_MAX`]; each that is not closes one. A receive is sent only when there is room for
//! what it may bring, and never while more jobs are ready than the workers take in a moment: what
//! this process does not hold, another can take.
//!
//! The loop ends only when it is told to. A receive that is open then is awaited, never dropped:
//! SQS would hide what it was about to give, for a whole visibility timeout.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::health::{Beat, Health};
use crate::inflight::InFlight;
use crate::inflight::room::{Reserved, Room, RoomPermit};
use crate::intake::Intake;
use crate::metrics::{Metrics, PollErrorKind};
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

/// Between empty replies where no long poll is asked for (`SQS_WAIT_TIME=0`).
const SHORT_POLL: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };

/// What a receive may take beyond its wait before it is given up: above the SDK's own deadline.
const RECEIVE_MARGIN: Duration = Duration::from_secs(8);

/// How often the loop shows that it is alive while it rightly waits for room.
pub const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long a turn of the loop may take at most, if it is well.
#[must_use]
pub fn turn_max(wait: Duration) -> Duration {
    wait + RECEIVE_MARGIN + ERROR_BACKOFF.cap + BEAT_EVERY
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
    /// The long-poll wait.
    pub wait: Duration,
    /// What counts.
    pub metrics: Arc<Metrics>,
    /// What accounts.
    pub ledger: Arc<Ledger>,
    /// Whether polling works.
    pub health: Arc<Health>,
    /// Shows that the loop turns.
    pub beat: Beat,
}

struct Reply {
    room: Reserved,
    asked: usize,
    answer: Result<Vec<Message>, QueueError>,
    began_at: Instant,
    received_at: Instant,
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
    /// Replies in a row that were empty.
    empty: u32,
}

impl Poller {
    /// Receives until told to stop; then awaits what is open and hands back what it brings.
    pub async fn run(self, stop: CancellationToken) {
        let mut pace =
            Pace { receives: 1, not_before: None, failures: 0, failed_at: None, empty: 0 };
        let mut open: JoinSet<Reply> = JoinSet::new();
        loop {
            self.beat.beat();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(reply) = open.join_next() => {
                    self.take_in(reply.expect("a receive does not panic"), &mut pace).await;
                }
                room = self.room_for_a_receive(pace.not_before), if open.len() < pace.receives => {
                    if let Some(room) = room {
                        open.spawn(receive(Arc::clone(&self.queue), room, self.wait));
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
    async fn room_for_a_receive(&self, not_before: Option<Instant>) -> Option<Reserved> {
        if let Some(instant) = not_before {
            sleep_until(instant).await;
        }
        let wanted = async {
            self.inflight.buffer_has_room().await;
            self.room.reserve().await
        };
        timeout(BEAT_EVERY, wanted).await.ok()
    }

    async fn take_in(&self, reply: Reply, pace: &mut Pace) {
        let Reply { room, asked, answer, began_at, received_at } = reply;
        let messages = match answer {
            Ok(messages) => messages,
            Err(error) => return self.failed(&error, began_at, pace),
        };
        self.succeeded(messages.len(), asked, pace);
        if on(Sabotage::DeleteBeforeHandling) && !messages.is_empty() {
            let handles: Vec<_> = messages.iter().map(|message| message.handle.clone()).collect();
            drop(self.queue.delete(&handles).await);
        }
        let messages = self.with_room(messages, room);
        self.intake.take_in(messages, began_at, received_at).await;
    }

    async fn hand_back(&self, reply: Reply) {
        let Reply { room, answer, received_at, .. } = reply;
        let messages = match answer {
            Ok(messages) => messages,
            Err(error) => {
                warn!(error = %error, "The last receive failed");
                return;
            }
        };
        for (message, permit) in self.with_room(messages, room) {
            self.intake.hand_back(message, permit, received_at).await;
        }
    }

    /// Counts what came in, and gives each message its room. More than was asked for has none: it
    /// is left alone, and SQS shows it again.
    fn with_room(&self, messages: Vec<Message>, mut room: Reserved) -> Vec<(Message, RoomPermit)> {
        self.metrics.received(messages.len());
        self.ledger.received(messages.len());
        let mut with_room = Vec::with_capacity(messages.len());
        for message in messages {
            match room.take(message.body.len()) {
                Some(permit) => with_room.push((message, permit)),
                None => {
                    warn!(message_id = %message.id, "The queue gave more than was asked for");
                    self.ledger.left(Left::Unsettled, 1);
                }
            }
        }
        with_room
    }

    fn succeeded(&self, messages: usize, asked: usize, pace: &mut Pace) {
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
        pace.empty = if messages == 0 { pace.empty.saturating_add(1) } else { 0 };
        let short_poll = messages == 0 && self.wait.is_zero();
        pace.not_before =
            short_poll.then(|| Instant::now() + SHORT_POLL.bound(pace.empty.saturating_sub(1)));
    }

    fn failed(&self, error: &QueueError, began_at: Instant, pace: &mut Pace) {
        self.metrics.poll_error(poll_error_kind(error.kind));
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

async fn receive(queue: Arc<dyn Queue>, room: Reserved, wait: Duration) -> Reply {
    let began_at = Instant::now();
    let asked = if on(Sabotage::RoomIgnored) { BATCH_MAX } else { room.len() };
    // The SDK has this deadline too; a queue that keeps neither must not stop the loop.
    let answer = match timeout(wait + RECEIVE_MARGIN, queue.receive(asked)).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let detail = "no answer to a receive".to_owned();
            Err(QueueError { kind: QueueErrorKind::Timeout, detail })
        }
    };
    Reply { room, asked, answer, began_at, received_at: Instant::now() }
}

fn poll_error_kind(kind: QueueErrorKind) -> PollErrorKind {
    match kind {
        QueueErrorKind::Throttled => PollErrorKind::Throttled,
        QueueErrorKind::Denied => PollErrorKind::Denied,
        QueueErrorKind::NoSuchQueue => PollErrorKind::NoSuchQueue,
        QueueErrorKind::Timeout => PollErrorKind::Timeout,
        QueueErrorKind::Network => PollErrorKind::Network,
        QueueErrorKind::Refused | QueueErrorKind::NoDeadLetterQueue | QueueErrorKind::Other => {
            PollErrorKind::Other
        }
    }
}

/// What the operator can do.
fn hint(kind: QueueErrorKind) -> &'static str {
    match kind {
        QueueErrorKind::Throttled => {
            "SQS limits the calls, or too many messages are in flight; nothing is to be done unless it lasts"
        }
        QueueErrorKind::Denied => {
            "check the credentials, and that they allow sqs:ReceiveMessage on this queue"
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
