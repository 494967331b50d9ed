//! Everything that this process holds: one table, one owner, every move between states.
//!
//! ```text
//!                    admit                      start
//!   poller ───────────┬──────────────▶ READY ──────────▶ RUNNING ─── settle ──▶ gone
//!                     │                 ▲ ▲ ▲             │   │                 (deleted, released,
//!                     │     its turn    │ │ │ time is up  │   │ wait             dead-lettered)
//!                     └────▶ LANE ──────┘ │ └── WAITING ◀─┼───┘
//!                                         │ let go        │ park
//!                                         └── PARKED ◀────┘
//! ```
//!
//! - **Ready**: its key is in the bounded channel to the workers. The channel holds as many keys as
//!   messages may be held at all, so that making a job ready never waits and never fails.
//! - **Lane**: an earlier event of the same reservation, or of the same FIFO group, is not settled
//!   yet. A lane is in order of receipt, costs no worker, and moves on when its first job is settled.
//!   Where a job of a group goes back to the queue, the later ones that are held go too, unless it used up its last
//!   receive: it does not come again then.
//! - **Waiting**: for its backoff to end; a suspect then also for its turn, as few are tried at once. It stays first in its
//!   lane, so that order holds.
//! - **Parked**: the service that it needs next is away, wants to be left alone, or has as many calls as it is given
//!   ([`crate::outage`]).
//! - **Running**: the [`Job`] is out of the table, in the hands of exactly one worker (or of the
//!   shutdown), who must give it back: [`InFlight::wait`] or
//!   [`InFlight::park`], or settle it: [`InFlight::take`], [`InFlight::release`].
//!
//! A second copy of an event that is held joins it: its receipt is kept with the first one's and
//! shares its settlement. Leases are kept here too ([`lease`] renews them): each
//! receipt has a deadline of its own, and a job lives as long as one of its receipts does.
//!
//! The table is plain data behind a mutex that is never held across an await; time is handed in.
//! What is done with the messages (calls, deletes, extensions) is others' work.

mod admission;
mod aside;
mod job;
mod kept;
pub mod lease;
mod log;
mod patience;
pub mod probe;
pub mod redrive;
pub mod room;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use self::admission::{Admission, Admitted};
pub use self::job::{GroupTurn, Job, Key, Lease, Original, Receipt, ReceiptKey, Taken};
pub(crate) use self::log::log_job;
use self::redrive::{Limits, ReceivesMax};
pub use self::state::{
    DueRenewal, Forgotten, GroupFate, ParkedAs, Renewal, Renewals, Renewed, SuspectBounds,
    TakenBack,
};
use self::state::{Lane, Promoted, State};
use crate::queue::{BATCH_MAX, QueueLimits};

/// The table. Shared by the poller, the workers, the lease keeper and the shutdown.
#[derive(Debug)]
pub struct InFlight {
    state: Mutex<State>,
    ready: mpsc::Sender<Key>,
    /// A timer or a renewal is due earlier than its keeper thinks.
    timers_changed: Notify,
    renewals_changed: Notify,
    /// Fewer jobs are buffered than `buffer_max`.
    buffer_drained: Notify,
    buffer_max: AtomicUsize,
    /// What `buffer_max` is at most.
    buffer_full: usize,
    /// A job has left the table.
    left: Notify,
}

impl InFlight {
    /// A table, and the channel that its workers drain.
    ///
    /// `messages_max` bounds the channel (each message held is in it at most once); `buffer_max` is
    /// how many buffered jobs stop [`InFlight::buffer_room`]; `visibility` is how long each receipt
    /// or extension lasts.
    #[must_use]
    pub fn new(
        messages_max: usize,
        buffer_max: usize,
        suspects: SuspectBounds,
        visibility: Duration,
    ) -> (Self, mpsc::Receiver<Key>) {
        let (ready, keys) = mpsc::channel(messages_max);
        let table = Self {
            state: Mutex::new(State::new(messages_max, visibility, suspects)),
            ready,
            timers_changed: Notify::new(),
            renewals_changed: Notify::new(),
            buffer_drained: Notify::new(),
            buffer_max: AtomicUsize::new(buffer_max),
            buffer_full: buffer_max,
            left: Notify::new(),
        };
        (table, keys)
    }

    /// Opens the table for the messages of one reply.
    pub fn admission(self: &Arc<Self>) -> Admission<'_> {
        Admission {
            inflight: self,
            state: self.lock(),
            can_start: Vec::with_capacity(BATCH_MAX),
            is_earlier: false,
        }
    }

    /// Keeps a further receipt of a message that is held; gives it back where it is not held. For
    /// the shutdown, which opens no message: it looks at all that are held, which is slow. Says
    /// whether one of the message's two receipts was dropped for the other.
    ///
    /// # Errors
    /// The receipt of a message that is not held.
    pub fn rejoin(&self, receipt: Receipt) -> Result<bool, Receipt> {
        let (replaced, is_earlier) = self.lock().rejoin(receipt)?;
        if is_earlier {
            self.renewals_changed.notify_one();
        }
        Ok(replaced)
    }

    /// Hands out the job of a key from the channel. `None`: it is gone (handed back, or its lease
    /// was lost) since the key was sent.
    pub fn start(&self, key: Key) -> Option<Box<Job>> {
        let mut state = self.lock();
        // This key has just left the channel.
        self.send_spilled(&mut state);
        let job = state.start(key);
        let drained = self.has_room(&state);
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
        job
    }

    /// Waits until more jobs may be buffered, and says how many may come at once. Cancel-safe.
    ///
    /// Where a service is given fewer calls than there are workers, what may be buffered is never passed: `coming` jobs
    /// are on their way already. There must be room for a good part of a batch then, as receives would bring one each.
    pub async fn buffer_room(&self, coming: usize) -> usize {
        loop {
            let drained = self.buffer_drained.notified();
            let (buffered, max) = (self.lock().buffered(), self.buffer_max.load(Ordering::Relaxed));
            let free = max.saturating_sub(buffered);
            if max < self.buffer_full {
                let free = free.saturating_sub(coming);
                if free >= BATCH_MAX.min(max.div_ceil(2)) {
                    return free.min(BATCH_MAX);
                }
            } else if free > 0 {
                return BATCH_MAX;
            }
            drained.await;
        }
    }

    fn has_room(&self, state: &State) -> bool {
        state.buffered() < self.buffer_max.load(Ordering::Relaxed)
    }

    /// How many jobs may be buffered from now on.
    pub fn set_buffer_max(&self, jobs: usize) {
        if self.buffer_max.swap(jobs, Ordering::Relaxed) < jobs {
            self.buffer_drained.notify_one();
        }
    }

    /// A job in hand takes so many bytes more.
    pub fn grow(&self, job: &Job, bytes: usize) {
        self.lock().grow(job.key, bytes);
    }

    /// Takes a job out for good: to be deleted, or sent to the dead-letter queue. From here on its
    /// receipts are not extended any more, and the next event of its reservation goes on.
    pub fn take(self: &Arc<Self>, job: &Job) -> Taken {
        let mut state = self.lock();
        let (original, receipts, group, promoted) = state.take(job.key);
        self.promote(&mut state, promoted);
        drop(state);
        self.left.notify_one();
        let receives = receipts.iter().map(|receipt| receipt.receive_count).max();
        let receives = receives.unwrap_or_default().max(original.receive_count);
        let turn = group.map(|lane| {
            let inflight = Arc::clone(self);
            GroupTurn { inflight, lane, key: job.key, receives }
        });
        Taken { original, receipts, turn }
    }

    fn leave_group(&self, lane: &Lane, key: Key) {
        let mut state = self.lock();
        let promoted = state.leave_group(lane, key, false);
        self.promote(&mut state, promoted);
    }

    fn leave_group_unsettled(&self, lane: &Lane, key: Key, receives: u32) {
        let mut state = self.lock();
        let promoted = state.leave_group_unsettled(lane, key, receives);
        self.promote(&mut state, promoted);
        drop(state);
        // Later ones of its group may have been abandoned.
        self.renewals_changed.notify_one();
    }

    /// What is known of the queue's limits from here on.
    pub fn set_limits(&self, limits: QueueLimits) {
        let QueueLimits { receives_max, retention } = limits;
        let receives_max = receives_max.map_or(ReceivesMax::Unlimited, ReceivesMax::Limit);
        self.lock().set_limits(Limits { receives_max, retention });
        self.renewals_changed.notify_one();
    }

    /// For how long a message may be hidden, where `after` is wanted to space its receives: it must come back before SQS
    /// drops it.
    pub fn hidden(&self, receipt: &Receipt, after: Duration, now: Instant) -> Duration {
        self.lock().limits.hidden(receipt, after, now)
    }

    /// The same for the messages of a job in hand.
    pub fn hidden_job(&self, job: &Job, after: Duration, now: Instant) -> Duration {
        self.lock().hidden_job(job.key, after, now)
    }

    /// Whether SQS drops the messages of a job in hand soon, so that they are to be copied to the dead-letter queue.
    pub fn is_ending(&self, job: &Job, now: Instant) -> bool {
        self.lock().is_ending(job.key, now)
    }

    /// What is best for its group where a job in hand is to go back to the queue.
    pub fn group_fate(&self, job: &Job) -> GroupFate {
        self.lock().group_fate(job)
    }

    /// Jobs that are to be handed back at once, because an earlier one of their group was.
    pub fn take_abandoned(&self) -> Vec<Box<Job>> {
        self.lock().take_abandoned()
    }

    /// Takes a job out for good, to be made visible again after `after`. Gives the receipts for
    /// which that can be said to SQS now; those that are being extended at this moment follow from
    /// [`InFlight::renewed`], or the extension could overtake the release and hide the message.
    pub fn release(&self, job: &Job, after: Duration) -> Vec<Receipt> {
        let mut state = self.lock();
        let (receipts, promoted) = state.release(job.key, after);
        self.promote(&mut state, promoted);
        drop(state);
        self.left.notify_one();
        // Later ones of its group may have been abandoned.
        self.renewals_changed.notify_one();
        receipts
    }

    /// Forgets a job whose lease is lost, unless a newer receipt of it has come meanwhile: then it
    /// is made ready again, and `None` is given.
    pub fn forget_lost(&self, job: Box<Job>) -> Option<Forgotten> {
        let mut state = self.lock();
        let (lost, promoted) = state.forget_lost(job);
        self.promote(&mut state, promoted);
        drop(state);
        // Later ones of its group may have been abandoned.
        self.renewals_changed.notify_one();
        lost
    }

    /// Makes ready what has waited long enough. Gives when it wants to be called again.
    pub fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        for key in state.due(now) {
            self.make_ready(&mut state, key);
        }
        state.next_timer()
    }

    /// Waits for a timer that is earlier than those known before. Cancel-safe.
    pub async fn timers_changed(&self) {
        self.timers_changed.notified().await;
    }

    /// Makes nothing ready any more.
    pub fn stop(&self) {
        self.lock().stop();
    }

    /// Takes out every job that no worker has in hand, with the time that it still had to wait.
    /// The caller must settle each of them.
    pub fn take_idle(&self, now: Instant) -> Vec<(Box<Job>, Duration)> {
        self.lock().take_idle(now)
    }

    /// Takes out everything, in hand or not: only for when the workers are gone.
    pub fn take_all(&self) -> Vec<Receipt> {
        self.lock().take_all()
    }

    /// Up to ten receipts that are to be extended at `now` or so soon after it that they may as
    /// well share a call: they count as being extended until [`InFlight::renewed`]. And those that
    /// have been held for as long as may be.
    pub fn renewals_due(&self, now: Instant) -> Renewals {
        let mut state = self.lock();
        let mut renewals = state.renewals_due(now);
        for promoted in renewals.promoted.drain(..) {
            self.promote(&mut state, promoted);
        }
        renewals
    }

    /// When the next receipt is to be extended.
    pub fn next_renewal(&self) -> Option<Instant> {
        self.lock().next_renewal()
    }

    /// Waits for a renewal that is earlier than those known before. Cancel-safe.
    pub async fn renewals_changed(&self) {
        self.renewals_changed.notified().await;
    }

    /// Says that the lease keeper is gone, its open extensions perhaps cut off. Gives the receipts
    /// that were to be released after them: nothing waits for an extension from here on.
    pub fn end_extensions(&self) -> Vec<(Receipt, Duration)> {
        self.lock().end_extensions()
    }

    /// Books what became of an extension.
    pub fn renewed(&self, answers: Vec<(ReceiptKey, Renewal)>, now: Instant) -> Renewed {
        let mut state = self.lock();
        let (renewed, promoted) = state.renewed(answers, now);
        for promoted in promoted {
            self.promote(&mut state, promoted);
        }
        renewed
    }

    /// How many receipts are extended, of events that are held and of what is kept.
    pub fn extended(&self) -> usize {
        self.lock().extended()
    }

    /// How many events are held.
    pub fn held(&self) -> usize {
        self.lock().held()
    }

    fn promote(&self, state: &mut State, Promoted(next): Promoted) {
        for key in next.into_iter().flatten() {
            self.make_ready(state, key);
        }
    }

    fn make_ready(&self, state: &mut State, key: Key) {
        // While stopping, a job stays where the shutdown finds it.
        if state.set_ready(key) {
            state.spill(key);
            self.send_spilled(state);
        }
    }

    /// The channel holds as many keys as messages may be held; but the keys of jobs that left while
    /// they were ready stay in it until a worker finds them. What does not fit waits until then.
    fn send_spilled(&self, state: &mut State) {
        while let Some(key) = state.next_spilled() {
            // Closed only when the workers are gone, and then the shutdown takes the job.
            if self.ready.try_send(key).is_err() {
                return;
            }
            state.pop_spilled();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }
}
