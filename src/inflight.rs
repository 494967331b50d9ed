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
//!   Where a job of a group goes back to the queue, the later ones that are held go too.
//! - **Waiting**: for its backoff to end. It stays first in its lane, so that order holds.
//! - **Parked**: the service that it needs next is away, or wants to be left alone ([`crate::outage`]).
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
mod job;
pub mod lease;
pub mod room;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use self::admission::{Admission, Admitted};
pub use self::job::{Blame, GroupTurn, Job, Key, Lease, Original, Receipt, ReceiptKey, Taken};
pub use self::state::{DueRenewal, Forgotten, Renewal, Renewals, Renewed};
use self::state::{Lane, Promoted, State};
use crate::event::EventId;
use crate::outage::Dependency;
use crate::queue::BATCH_MAX;

/// The table. Shared by the poller, the workers, the lease keeper and the shutdown.
#[derive(Debug)]
pub struct InFlight {
    state: Mutex<State>,
    ready: mpsc::Sender<Key>,
    /// A timer or a renewal is due earlier than its keeper thinks.
    timers_changed: Notify,
    renewals_changed: Notify,
    /// Fewer jobs are ready than `buffer_max`.
    buffer_drained: Notify,
    buffer_max: usize,
}

impl InFlight {
    /// A table, and the channel that its workers drain.
    ///
    /// `messages_max` bounds the channel (each message held is in it at most once); `buffer_max` is
    /// how many ready jobs stop [`InFlight::buffer_has_room`]; `visibility` is how long each receipt
    /// or extension lasts.
    #[must_use]
    pub fn new(
        messages_max: usize,
        buffer_max: usize,
        visibility: Duration,
    ) -> (Self, mpsc::Receiver<Key>) {
        let (ready, keys) = mpsc::channel(messages_max);
        let table = Self {
            state: Mutex::new(State::new(visibility)),
            ready,
            timers_changed: Notify::new(),
            renewals_changed: Notify::new(),
            buffer_drained: Notify::new(),
            buffer_max,
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
        let drained = state.ready_count() < self.buffer_max;
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
        job
    }

    /// Waits until fewer jobs are ready than the buffer holds. Cancel-safe.
    pub async fn buffer_has_room(&self) {
        loop {
            let drained = self.buffer_drained.notified();
            if self.lock().ready_count() < self.buffer_max {
                return;
            }
            drained.await;
        }
    }

    /// Puts a job aside until `until`; its lease is kept, and no worker is held.
    pub fn wait(&self, job: Box<Job>, until: Instant) {
        if self.lock().wait(job, until) {
            self.timers_changed.notify_one();
        }
    }

    /// Takes a job out for good: to be deleted, or sent to the dead-letter queue. From here on its
    /// receipts are not extended any more, and the next event of its reservation goes on.
    pub fn take(self: &Arc<Self>, job: &Job) -> Taken {
        let mut state = self.lock();
        let (original, receipts, group, promoted) = state.take(job.key);
        self.promote(&mut state, promoted);
        drop(state);
        let turn = group.map(|lane| GroupTurn { inflight: Arc::clone(self), lane, key: job.key });
        Taken { original, receipts, turn }
    }

    fn leave_group(&self, lane: &Lane, key: Key, abandon: bool) {
        let mut state = self.lock();
        let promoted = state.leave_group(lane, key, abandon);
        self.promote(&mut state, promoted);
        drop(state);
        if abandon {
            self.renewals_changed.notify_one();
        }
    }

    /// Jobs that are to be handed back at once, because an earlier one of their group was.
    pub fn take_abandoned(&self) -> Vec<Box<Job>> {
        self.lock().take_abandoned()
    }

    /// Puts a job aside until its service is called again; its lease is kept, and no worker is held.
    pub fn park(&self, job: Box<Job>, dependency: Dependency) {
        self.lock().park(job, dependency);
    }

    /// Makes ready up to `count` of those who wait for a service, the longest-parked first.
    pub fn unpark(&self, dependency: Dependency, count: usize) {
        let mut state = self.lock();
        for key in state.unpark(dependency, count) {
            self.make_ready(&mut state, key);
        }
    }

    /// How many wait for a service.
    pub fn parked_count(&self, dependency: Dependency) -> usize {
        self.lock().parked_count(dependency)
    }

    /// Takes a job out for good, to be made visible again after `after`. Gives the receipts for
    /// which that can be said to SQS now; those that are being extended at this moment follow from
    /// [`InFlight::renewed`], or the extension could overtake the release and hide the message.
    pub fn release(&self, job: &Job, after: Duration) -> Vec<Receipt> {
        let mut state = self.lock();
        let (receipts, promoted) = state.release(job.key, after);
        self.promote(&mut state, promoted);
        drop(state);
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

    /// Takes out everything, in hand or not: only for when the workers are gone. With each event what
    /// it may be claimed with.
    pub fn take_all(&self) -> Vec<(EventId, Lease, Vec<Receipt>)> {
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
