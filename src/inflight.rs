//! The in-flight table: all messages that this process holds, and every state transition.
//!
//! ```text
//!                    admit                      start
//!   poller ───────────┬──────────────▶ READY ──────────▶ RUNNING ─── settle ──▶ gone
//!                     │                 ▲ ▲ ▲             │   │                (deleted, released,
//!                     │     its turn    │ │ │ time is up  │   │ wait            dead-lettered)
//!                     └────▶ LANE ──────┘ │ └── WAITING ◀─┼───┘
//!                                         │ unpark        │ park
//!                                         └── PARKED ◀────┘
//! ```
//!
//! - **Ready**: the job's key is in the bounded channel to the workers. The channel's capacity is
//!   the maximum number of held messages, so making a job ready never waits and never fails.
//! - **Lane**: an earlier event of the same reservation, or of the same FIFO group, is not settled
//!   yet. A lane keeps the order of receipt and uses no worker. The next job starts when the first
//!   one is settled. If a job of a group goes back to the queue, the later held jobs of the group
//!   go back too. They do not if that job used up its last receive, because SQS does not deliver it
//!   again.
//! - **Waiting**: the job waits for the end of its backoff. A suspect then also waits for a free
//!   trial, because few suspects are tried at once. The job stays first in its lane, which keeps
//!   the order. Where processes share the order, a job that has not begun waits for its turn after
//!   another process; it gives way to a job of its reservation that was sent earlier.
//! - **Parked**: the service for its next step is down, is paused, or has no free call
//!   ([`crate::outage`]).
//! - **Running**: the [`Job`] is out of the table, owned by exactly one worker or by the shutdown.
//!   The owner gives it back with [`InFlight::wait`] or [`InFlight::park`], or settles it with
//!   [`InFlight::take`] or [`InFlight::release`].
//!
//! A second copy of a held event joins the first: its receipt is stored with the first one and is
//! settled together with it. The table also stores the leases, and [`lease_keeper`] renews them.
//! Each receipt has its own deadline; a job is valid while at least one of its receipts is valid.
//!
//! The table is plain data behind a mutex that is never held across an await. The caller passes the
//! time in. Other modules make the calls, deletes and extensions.

mod admission;
pub mod capacity;
mod job;
mod lease;
pub mod lease_keeper;
mod log;
mod overview;
pub mod probe;
pub mod redrive;
mod retained;
mod state;
#[cfg(test)]
mod tests;
mod timeout_estimator;
mod waiting;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use self::admission::{Admission, Admitted};
use self::job::Lane;
pub use self::job::{
    GroupTurn, Job, JobKey, OriginalMessage, Receipt, ReceiptKey, RemovedJob, TurnWait,
};
pub use self::lease::Lease;
pub(crate) use self::log::log_job;
use self::redrive::{ReceivesMax, RedriveLimits};
pub use self::state::{
    DueRenewal, EventState, GroupFate, HeldClaim, HeldEvent, LostJob, Overview, ParkedAs, Renewal,
    Renewals, Renewed, StateCount, SuspectBounds, TakenBack,
};
use self::state::{Promoted, TableState};
use crate::queue::{BATCH_MAX, QueueLimits};

/// The in-flight table, shared by the poller, the workers, the lease keeper and the shutdown.
#[derive(Debug)]
pub struct InFlight {
    state: Mutex<TableState>,
    ready: mpsc::Sender<JobKey>,
    /// Signals that a timer is due earlier than its task expects.
    /// `renewals_changed` signals the same for lease renewals.
    timers_changed: Notify,
    renewals_changed: Notify,
    /// Signals that fewer jobs are buffered than `buffer_max`.
    buffer_drained: Notify,
    buffer_max: AtomicUsize,
    /// Upper limit of `buffer_max`.
    buffer_full: usize,
    /// Signals that a job has left the table.
    left: Notify,
}

impl InFlight {
    /// Creates a table and the channel that its workers read.
    ///
    /// `messages_max` is the capacity of the channel. Each held message is in it once, or twice if
    /// it gave way to an earlier one; keys that do not fit wait.
    /// `buffer_max` is the number of buffered jobs at which [`InFlight::buffer_capacity`] waits.
    /// `visibility` is the visibility timeout of each receipt and extension.
    #[must_use]
    pub fn new(
        messages_max: usize,
        buffer_max: usize,
        suspects: SuspectBounds,
        visibility: Duration,
    ) -> (Self, mpsc::Receiver<JobKey>) {
        let (ready, keys) = mpsc::channel(messages_max);
        let table = Self {
            state: Mutex::new(TableState::new(messages_max, visibility, suspects)),
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

    /// Locks the table to admit the messages of one receive response.
    pub fn admission(self: &Arc<Self>) -> Admission<'_> {
        Admission {
            inflight: self,
            state: self.lock(),
            can_start: Vec::with_capacity(BATCH_MAX),
            is_earlier: false,
        }
    }

    /// Adds another receipt to a message that is already held. Used by the shutdown.
    /// Scans all held messages, which is slow. Returns whether one of two receipts of the same
    /// message was dropped.
    ///
    /// # Errors
    /// Returns the receipt if its message is not held.
    pub fn rejoin(&self, receipt: Receipt) -> Result<bool, Receipt> {
        let (replaced, is_earlier) = self.lock().rejoin(receipt)?;
        if is_earlier {
            self.renewals_changed.notify_one();
        }
        Ok(replaced)
    }

    /// Hands out the job of a key from the channel.
    /// Returns `None` if the job left the table (handed back, or lease lost), or gave way to an
    /// earlier one, after the key was sent.
    pub fn start(&self, key: JobKey) -> Option<Box<Job>> {
        let mut state = self.lock();
        self.send_spilled(&mut state);
        let job = state.start(key);
        let drained = self.has_capacity(&state);
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
        job
    }

    /// Waits until more jobs may be buffered and returns how many may arrive at once. Cancel-safe.
    ///
    /// `coming` jobs are already on their way. If a service gets fewer calls than there are
    /// workers, the limit is strict, and this waits for room for a large part of a batch. With less
    /// room, each receive would bring only one message.
    pub async fn buffer_capacity(&self, coming: usize) -> usize {
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

    fn has_capacity(&self, state: &TableState) -> bool {
        state.buffered() < self.buffer_max.load(Ordering::Relaxed)
    }

    /// Sets how many jobs may be buffered.
    pub fn set_buffer_max(&self, jobs: usize) {
        if self.buffer_max.swap(jobs, Ordering::Relaxed) < jobs {
            self.buffer_drained.notify_one();
        }
    }

    /// Adds `bytes` to the memory that a running job uses.
    pub fn grow(&self, job: &Job, bytes: usize) {
        self.lock().grow(job.key, bytes);
    }

    /// Removes a job that is to be deleted or sent to the dead-letter queue.
    /// Its receipts are no longer extended, and the next event of its reservation can start.
    pub fn take(self: &Arc<Self>, job: &Job) -> RemovedJob {
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
        RemovedJob { original, receipts, turn }
    }

    fn leave_group(&self, lane: &Lane, key: JobKey) {
        let mut state = self.lock();
        let promoted = state.leave_group(lane, key, false);
        self.promote(&mut state, promoted);
    }

    fn leave_group_unsettled(&self, lane: &Lane, key: JobKey, receives: u32) {
        let mut state = self.lock();
        let promoted = state.leave_group_unsettled(lane, key, receives);
        self.promote(&mut state, promoted);
        drop(state);
        // Later jobs of its group may have been abandoned.
        self.renewals_changed.notify_one();
    }

    /// Sets the limits of the queue.
    pub fn set_limits(&self, limits: QueueLimits) {
        let QueueLimits { receives_max, retention } = limits;
        let receives_max = receives_max.map_or(ReceivesMax::Unlimited, ReceivesMax::Limit);
        self.lock().set_limits(RedriveLimits { receives_max, retention });
        self.renewals_changed.notify_one();
    }

    /// Limits `after`, the time that a message stays hidden.
    /// The message must be delivered again before SQS drops it.
    pub fn hidden(&self, receipt: &Receipt, after: Duration, now: Instant) -> Duration {
        self.lock().limits.hidden(receipt, after, now)
    }

    /// Limits `after` for all messages of a running job; see [`InFlight::hidden`].
    pub fn hidden_job(&self, job: &Job, after: Duration, now: Instant) -> Duration {
        self.lock().hidden_job(job.key, after, now)
    }

    /// Returns whether SQS soon drops the messages of a running job.
    /// They must then be copied to the dead-letter queue.
    pub fn is_ending(&self, job: &Job, now: Instant) -> bool {
        self.lock().is_ending(job.key, now)
    }

    /// Returns what its FIFO group requires when a running job has to go back to the queue.
    pub fn group_fate(&self, job: &Job) -> GroupFate {
        self.lock().group_fate(job)
    }

    /// Takes the jobs to hand back at once because an earlier one of their group went back.
    pub fn take_abandoned(&self) -> Vec<Box<Job>> {
        self.lock().take_abandoned()
    }

    /// Removes a job that becomes visible again after `after`.
    /// Returns the receipts to release now. Receipts whose extension is in progress follow from
    /// [`InFlight::renewed`]: otherwise the extension could overtake the release and hide the
    /// message.
    pub fn release(&self, job: &Job, after: Duration) -> Vec<Receipt> {
        let mut state = self.lock();
        let (receipts, promoted) = state.release(job.key, after);
        self.promote(&mut state, promoted);
        drop(state);
        self.left.notify_one();
        // Later jobs of its group may have been abandoned.
        self.renewals_changed.notify_one();
        receipts
    }

    /// Removes a job whose lease is lost.
    /// Returns `None` if a newer receipt arrived meanwhile: the job is then made ready again.
    pub fn forget_lost(&self, job: Box<Job>) -> Option<LostJob> {
        let mut state = self.lock();
        let (lost, promoted) = state.forget_lost(job);
        self.promote(&mut state, promoted);
        drop(state);
        // Later jobs of its group may have been abandoned.
        self.renewals_changed.notify_one();
        lost
    }

    /// Makes the jobs ready whose wait is over. Returns the time of the next call.
    pub fn wake_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        for key in state.due(now) {
            self.make_ready(&mut state, key);
        }
        state.next_timer()
    }

    /// Waits for an earlier timer. Cancel-safe.
    pub async fn timers_changed(&self) {
        self.timers_changed.notified().await;
    }

    /// Stops making jobs ready.
    pub fn stop(&self) {
        self.lock().stop();
    }

    /// Takes all jobs that are not running, each with its remaining wait.
    /// The caller must settle each of them.
    pub fn take_idle(&self, now: Instant) -> Vec<(Box<Job>, Duration)> {
        self.lock().take_idle(now)
    }

    /// Takes the receipts of all jobs, running or not. Use it only after all workers have ended.
    pub fn take_all(&self) -> Vec<Receipt> {
        self.lock().take_all()
    }

    /// Returns up to ten receipts to extend, and the receipts held for the maximum time.
    /// Includes receipts due so soon after `now` that they can share the call. They count as being
    /// extended until [`InFlight::renewed`].
    pub fn renewals_due(&self, now: Instant) -> Renewals {
        let mut state = self.lock();
        let mut renewals = state.renewals_due(now);
        for promoted in renewals.promoted.drain(..) {
            self.promote(&mut state, promoted);
        }
        renewals
    }

    /// Returns when the next receipt must be extended.
    pub fn next_renewal(&self) -> Option<Instant> {
        self.lock().next_renewal()
    }

    /// Waits for a renewal earlier than all known ones. Cancel-safe.
    pub async fn renewals_changed(&self) {
        self.renewals_changed.notified().await;
    }

    /// Records that the lease keeper has ended, possibly with extensions cut off.
    /// Returns the receipts to release that waited for an extension. Later releases do not wait.
    pub fn end_extensions(&self) -> Vec<(Receipt, Duration)> {
        self.lock().end_extensions()
    }

    /// Records the results of an extension call.
    pub fn renewed(&self, answers: Vec<(ReceiptKey, Renewal)>, now: Instant) -> Renewed {
        let mut state = self.lock();
        let (renewed, promoted) = state.renewed(answers, now);
        for promoted in promoted {
            self.promote(&mut state, promoted);
        }
        renewed
    }

    /// Counts the receipts under extension: those of held events and the kept ones.
    pub fn extended(&self) -> usize {
        self.lock().extended()
    }

    /// Counts the held events.
    pub fn held(&self) -> usize {
        self.lock().held()
    }

    fn promote(&self, state: &mut TableState, Promoted(next): Promoted) {
        for key in next.into_iter().flatten() {
            self.make_ready(state, key);
        }
    }

    fn make_ready(&self, state: &mut TableState, key: JobKey) {
        // During a stop, a job stays where the shutdown finds it.
        if state.set_ready(key) {
            state.spill(key);
            self.send_spilled(state);
        }
    }

    /// Sends overflow keys while the channel has room.
    /// The channel has room for all held messages, but keys of jobs that left the table while ready
    /// stay in it until a worker reads them. The keys that do not fit wait in `overflow`.
    fn send_spilled(&self, state: &mut TableState) {
        while let Some(key) = state.next_spilled() {
            // It is closed only after the workers have ended; then the shutdown takes the job.
            if self.ready.try_send(key).is_err() {
                return;
            }
            state.pop_spilled();
        }
    }

    fn lock(&self) -> MutexGuard<'_, TableState> {
        self.state.lock().expect("no panic happens under this lock")
    }
}
