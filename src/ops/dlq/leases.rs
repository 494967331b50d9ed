//! The messages that a run holds: hidden from others, extended while the run lasts, and shown again
//! at its end.
//!
//! SQS cannot be asked what is in a queue; it can only be received from. So a message stays hidden
//! until all have been looked at, or it would come again. If the process is killed, SQS shows what
//! was held when its visibility timeout ends. That is kept short, and longer where more is held, so
//! that extensions stay cheap.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::letter::IdHash;
use super::repeat::can_pass;
use crate::clock;
use crate::queue::{
    BATCH_MAX, EntryError, OperatorQueue, QueueError, QueueErrorKind, ReceiptHandle,
};

/// Visibility timeouts by the number of messages held. Half of one passes before its extension: ten
/// thousand messages need 17 calls a second, a hundred thousand 67.
const HIDDEN_FOR: [(usize, Duration); 3] = [
    (1_000, Duration::from_secs(60)),
    (10_000, Duration::from_secs(120)),
    (usize::MAX, Duration::from_secs(300)),
];

/// Interval between looks for leases that must be extended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Calls at once for extensions and at the end.
const CALLS_MAX: usize = 8;

/// Maximum time to show the messages again. SQS does it by itself a little later.
const RELEASE_MAX: Duration = Duration::from_secs(20);

/// Pause before a failed call is repeated.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct HeldLetter {
    handle: ReceiptHandle,
    /// When SQS shows it again, by the clock of leases; a little earlier than SQS.
    until: Instant,
    /// Maximum remaining time at which it is extended.
    extend_at_left: Duration,
    /// SQS does not take the handle any more.
    is_lost: bool,
}

/// All messages that the run holds.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<IdHash, HeldLetter>>,
    /// Why visibility may not be changed, if that was denied.
    denied: watch::Sender<Option<QueueError>>,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<IdHash, HeldLetter>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows whether it was denied to change visibility.
    pub(super) fn denial(&self) -> watch::Receiver<Option<QueueError>> {
        self.denied.subscribe()
    }

    fn note_error(&self, why: QueueError) {
        if why.kind == QueueErrorKind::Denied {
            self.denied.send_replace(Some(why));
        }
    }

    /// Returns the visibility timeout for the next receive or extension.
    pub(super) fn visibility(&self) -> Duration {
        let held = self.len();
        let fits = HIDDEN_FOR.iter().find(|(most, _)| held < *most);
        fits.map_or(HIDDEN_FOR[0].1, |(_, visibility)| *visibility)
    }

    /// Adds a message that was asked for at `asked_at`, or the newer handle of a held one.
    pub(super) fn hold(
        &self,
        id: IdHash,
        handle: ReceiptHandle,
        asked_at: Instant,
        hidden: Duration,
    ) {
        let held = HeldLetter {
            handle,
            until: asked_at + hidden,
            extend_at_left: hidden / 2,
            is_lost: false,
        };
        self.lock().insert(id, held);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether the message stays hidden for `time` at least.
    pub(super) fn lasts_for(&self, id: IdHash, time: Duration) -> bool {
        let lasts = |held: &HeldLetter| !held.is_lost && clock::left(held.until) >= time;
        self.lock().get(&id).is_some_and(lasts)
    }

    pub(super) fn handle(&self, id: IdHash) -> Option<ReceiptHandle> {
        self.lock().get(&id).map(|held| held.handle.clone())
    }

    /// Forgets a message that was deleted.
    pub(super) fn remove(&self, id: IdHash) {
        self.lock().remove(&id);
    }

    fn due(&self) -> Vec<(IdHash, ReceiptHandle)> {
        let is_due =
            |held: &HeldLetter| !held.is_lost && clock::left(held.until) <= held.extend_at_left;
        let held = self.lock();
        held.iter()
            .filter(|(_, held)| is_due(held))
            .map(|(id, held)| (*id, held.handle.clone()))
            .collect()
    }

    fn extended(&self, id: IdHash, asked_at: Instant, hidden: Duration) {
        if let Some(held) = self.lock().get_mut(&id) {
            held.until = asked_at + hidden;
            held.extend_at_left = hidden / 2;
        }
    }

    fn lost(&self, id: IdHash, handle: &ReceiptHandle) {
        let mut all = self.lock();
        if let Some(held) = all.get_mut(&id).filter(|held| held.handle == *handle) {
            held.is_lost = true;
        }
    }

    /// Extends what is held until `done`. A call in progress is awaited then, so that nothing is
    /// hidden again after it was shown.
    pub(super) async fn keep(&self, queue: &dyn OperatorQueue, done: &CancellationToken) {
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let (due, hidden) = (self.due(), self.visibility());
            stream::iter(due.chunks(BATCH_MAX))
                .take_until(done.cancelled())
                .for_each_concurrent(CALLS_MAX, |batch| self.extend(queue, batch, hidden))
                .await;
        }
    }

    async fn extend(
        &self,
        queue: &dyn OperatorQueue,
        batch: &[(IdHash, ReceiptHandle)],
        hidden: Duration,
    ) {
        let entries: Vec<_> = batch.iter().map(|(_, handle)| (handle.clone(), hidden)).collect();
        let asked_at = clock::now();
        // A failed call is repeated at the next look: half of the visibility timeout is left.
        let answers = match queue.extend(&entries).await {
            Ok(answers) => answers,
            Err(why) => return self.note_error(why),
        };
        for ((id, handle), answer) in batch.iter().zip(answers) {
            match answer {
                Ok(()) => self.extended(*id, asked_at, hidden),
                Err(EntryError::Lost(_)) => self.lost(*id, handle),
                Err(EntryError::Retry(_)) => {}
            }
        }
    }

    /// Shows everything that is held. Returns the number of messages for which that failed; SQS
    /// shows them when their visibility timeout ends.
    pub(super) async fn release(&self, queue: &dyn OperatorQueue) -> usize {
        let held = std::mem::take(&mut *self.lock());
        let now = clock::now();
        let handles: Vec<_> = held
            .into_values()
            .filter(|held| !held.is_lost && held.until > now)
            .map(|held| (held.handle, Duration::ZERO))
            .collect();
        let give_up_at = Instant::now() + RELEASE_MAX;
        stream::iter(handles.chunks(BATCH_MAX))
            .map(|batch| self.show(queue, batch, give_up_at))
            .buffer_unordered(CALLS_MAX)
            .fold(0, |failed, left| async move { failed + left })
            .await
    }

    /// Shows a batch; repeats what failed until `give_up_at`. Returns the number that is still
    /// hidden.
    async fn show(
        &self,
        queue: &dyn OperatorQueue,
        batch: &[(ReceiptHandle, Duration)],
        give_up_at: Instant,
    ) -> usize {
        let mut left = batch.to_vec();
        while let Ok(answer) = timeout_at(give_up_at, queue.hand_back(&left)).await {
            match answer {
                Ok(answers) => {
                    let is_open: Vec<_> = answers
                        .iter()
                        .map(|one| matches!(one, Err(EntryError::Retry(_))))
                        .collect();
                    let mut is_open = is_open.into_iter();
                    left.retain(|_| is_open.next().unwrap_or(false));
                }
                Err(why) if can_pass(&why) => {}
                Err(why) => {
                    self.note_error(why);
                    break;
                }
            }
            if left.is_empty() || Instant::now() + PAUSE >= give_up_at {
                break;
            }
            sleep(PAUSE).await;
        }
        left.len()
    }
}
