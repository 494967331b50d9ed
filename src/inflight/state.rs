//! The table itself: plain data and its transitions, without tasks, channels or clocks.

mod leases;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

pub use self::leases::{DueRenewal, Renewal, Renewed};
use super::job::{Job, Key, Lease, Original, Receipt, ReceiptKey, Taken};
use crate::event::{ContentHash, EventId, ReservationId};
use crate::metrics::HeldState;
use crate::sabotage::{Sabotage, on};

/// What became of a message that was taken in.
#[derive(Debug)]
pub enum Admitted {
    /// It can start.
    Ready(Key),
    /// An earlier event of its reservation comes first.
    InLane,
    /// It is a copy of one that is held, and shares its settlement.
    Joined {
        /// The copy; only its receipt was kept.
        job: Box<Job>,
        /// It is the same SQS message, received again: the older receipt was dropped.
        replaced: bool,
    },
    /// An event with the same id and another content is held.
    IdReused(Box<Job>, Box<Taken>),
}

/// A job whose lease was lost, out of the table.
#[derive(Debug)]
pub struct Forgotten {
    /// The job.
    pub job: Box<Job>,
    /// Receipts that it had left: their deadlines passed before an extension was even answered.
    pub receipts_lost: usize,
}

/// The lane's next job, which is to be made ready.
#[derive(Debug, Default)]
pub(super) struct Promoted(pub(super) Option<Key>);

/// Why a job is in the table and not in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Ready,
    InLane,
    Waiting(Instant),
}

#[derive(Debug)]
enum Place {
    Idle(Box<Job>, Idle),
    Running,
}

#[derive(Debug)]
struct HeldReceipt {
    receipt: Receipt,
    key: ReceiptKey,
    /// When it is to be extended; `None` while an extension is under way.
    renew_at: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    event_id: EventId,
    reservation_id: ReservationId,
    hash: ContentHash,
    lease: Lease,
    original: Original,
    receipts: Vec<HeldReceipt>,
    place: Place,
}

impl Entry {
    /// Tells whoever has the job in hand how long its last receipt stands.
    fn set_lease(&self) {
        self.lease.set(self.receipts.iter().map(|held| held.receipt.deadline).max());
    }
}

#[derive(Debug)]
pub(super) struct State {
    visibility: Duration,
    stopped: bool,
    last_key: u64,
    entries: HashMap<Key, Entry>,
    /// The held event with that id. An id that is used twice has its first user here.
    by_event: HashMap<EventId, Key>,
    /// Each reservation's events in order of receipt; the first is the one whose turn it is.
    lanes: HashMap<ReservationId, VecDeque<Key>>,
    timers: BTreeSet<(Instant, Key)>,
    renewals: BTreeMap<(Instant, ReceiptKey), Key>,
    /// Whose receipt is being extended now.
    extending: HashMap<ReceiptKey, Key>,
    /// Released while being extended.
    released: HashMap<ReceiptKey, (Receipt, Duration)>,
    ready: usize,
}

impl State {
    pub(super) fn new(visibility: Duration) -> Self {
        Self {
            visibility,
            stopped: false,
            last_key: 0,
            entries: HashMap::new(),
            by_event: HashMap::new(),
            lanes: HashMap::new(),
            timers: BTreeSet::new(),
            renewals: BTreeMap::new(),
            extending: HashMap::new(),
            released: HashMap::new(),
            ready: 0,
        }
    }

    /// Also says whether the receipt is now the first to be extended.
    pub(super) fn admit(
        &mut self,
        mut job: Box<Job>,
        original: Original,
        receipt: Receipt,
    ) -> (Admitted, bool) {
        if let Some(&key) = self.by_event.get(&job.event.id) {
            let entry = self.entries.get_mut(&key).expect("an indexed event is held");
            if entry.hash != job.hash {
                let taken = Taken { original, receipts: vec![receipt] };
                return (Admitted::IdReused(job, Box::new(taken)), false);
            }
            if on(Sabotage::JoinDropped) {
                return (Admitted::Joined { job, replaced: false }, false);
            }
            let (replaced, earlier) = self.join(key, receipt);
            return (Admitted::Joined { job, replaced }, earlier);
        }
        let key = Key(self.next_number());
        job.key = key;
        self.by_event.insert(job.event.id.clone(), key);
        let lane = self.lanes.entry(job.event.reservation_id.clone()).or_default();
        lane.push_back(key);
        let first = lane.len() == 1 || on(Sabotage::ReservationLockDropped);
        let entry = Entry {
            event_id: job.event.id.clone(),
            reservation_id: job.event.reservation_id.clone(),
            hash: job.hash,
            lease: job.lease.clone(),
            original,
            receipts: Vec::with_capacity(1),
            place: Place::Idle(job, Idle::InLane),
        };
        self.entries.insert(key, entry);
        let earlier = self.add_receipt(key, receipt);
        (if first { Admitted::Ready(key) } else { Admitted::InLane }, earlier)
    }

    fn join(&mut self, key: Key, receipt: Receipt) -> (bool, bool) {
        let entry = self.entries.get_mut(&key).expect("held");
        // A newer receipt of the same SQS message: the older handle would delete nothing. Its own
        // extension, if one is under way, finds nothing to book and is forgotten.
        let same = entry.receipts.iter().position(|h| h.receipt.message_id == receipt.message_id);
        if let Some(at) = same {
            let old = entry.receipts.swap_remove(at);
            self.stop_renewing(&old);
        }
        (same.is_some(), self.add_receipt(key, receipt))
    }

    pub(super) fn start(&mut self, key: Key) -> Option<Box<Job>> {
        let entry = self.entries.get_mut(&key)?;
        if !matches!(entry.place, Place::Idle(_, Idle::Ready)) {
            return None;
        }
        self.ready -= 1;
        match mem::replace(&mut entry.place, Place::Running) {
            Place::Idle(mut job, _) => {
                job.held.set(HeldState::Running);
                Some(job)
            }
            Place::Running => None,
        }
    }

    /// Whether the timer is now the first.
    pub(super) fn wait(&mut self, mut job: Box<Job>, until: Instant) -> bool {
        let key = job.key;
        job.held.set(HeldState::Waiting);
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        entry.place = Place::Idle(job, Idle::Waiting(until));
        let earlier = self.next_timer().is_none_or(|first| until < first);
        self.timers.insert((until, key));
        earlier
    }

    pub(super) fn take(&mut self, key: Key) -> (Taken, Promoted) {
        let (entry, promoted) = self.remove(key);
        let mut receipts = Vec::with_capacity(entry.receipts.len());
        for held in entry.receipts {
            self.stop_renewing(&held);
            receipts.push(held.receipt);
        }
        (Taken { original: entry.original, receipts }, promoted)
    }

    pub(super) fn release(&mut self, key: Key, after: Duration) -> (Vec<Receipt>, Promoted) {
        let (entry, promoted) = self.remove(key);
        let mut now = Vec::with_capacity(entry.receipts.len());
        for held in entry.receipts {
            if held.renew_at.is_none() {
                self.released.insert(held.key, (held.receipt, after));
            } else {
                self.stop_renewing(&held);
                now.push(held.receipt);
            }
        }
        (now, promoted)
    }

    pub(super) fn forget_lost(&mut self, mut job: Box<Job>) -> (Option<Forgotten>, Promoted) {
        let key = job.key;
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        if entry.lease.is_held() {
            job.held.set(HeldState::Buffered);
            entry.place = Place::Idle(job, Idle::InLane);
            return (None, Promoted(Some(key)));
        }
        let (taken, promoted) = self.take(key);
        (Some(Forgotten { job, receipts_lost: taken.receipts.len() }), promoted)
    }

    /// Marks the idle job as ready, unless everything is stopping.
    pub(super) fn set_idle(&mut self, key: Key, idle: Idle) -> bool {
        if self.stopped {
            return false;
        }
        let Some(Entry { place: Place::Idle(_, was), .. }) = self.entries.get_mut(&key) else {
            return false;
        };
        if *was == Idle::Ready {
            return false;
        }
        *was = idle;
        self.ready += 1;
        true
    }

    /// The waiting jobs whose time has come; they count as buffered from here on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
            && !self.stopped
        {
            self.timers.pop_first();
            let entry = self.entries.get_mut(&key).expect("a timer's job is in the table");
            if let Place::Idle(job, idle) = &mut entry.place {
                *idle = Idle::InLane;
                job.held.set(HeldState::Buffered);
            }
            due.push(key);
        }
        due
    }

    /// None while stopping: nothing is made ready any more.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().filter(|_| !self.stopped).map(|(at, _)| *at)
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn take_idle(&mut self, now: Instant) -> Vec<(Box<Job>, Duration)> {
        let mut jobs = Vec::new();
        for entry in self.entries.values_mut() {
            match mem::replace(&mut entry.place, Place::Running) {
                Place::Idle(job, idle) => {
                    let rest = match idle {
                        Idle::Waiting(until) => until.saturating_duration_since(now),
                        Idle::Ready | Idle::InLane => Duration::ZERO,
                    };
                    jobs.push((job, rest));
                }
                Place::Running => {}
            }
        }
        self.timers.clear();
        self.ready = 0;
        // In order of receipt, so that a hand-back is orderly too.
        jobs.sort_by_key(|(job, _)| job.key);
        jobs
    }

    pub(super) fn take_all(&mut self) -> Vec<Receipt> {
        let mut keys: Vec<Key> = self.entries.keys().copied().collect();
        // In order of receipt, as above.
        keys.sort_unstable();
        keys.into_iter().flat_map(|key| self.take(key).0.receipts).collect()
    }

    /// Takes an entry out of the table and of every index but those of its receipts.
    fn remove(&mut self, key: Key) -> (Entry, Promoted) {
        let entry = self.entries.remove(&key).expect("a job is settled once");
        if self.by_event.get(&entry.event_id) == Some(&key) {
            self.by_event.remove(&entry.event_id);
        }
        match &entry.place {
            Place::Idle(_, Idle::Waiting(until)) => {
                self.timers.remove(&(*until, key));
            }
            Place::Idle(_, Idle::Ready) => self.ready -= 1,
            Place::Idle(_, Idle::InLane) | Place::Running => {}
        }
        let promoted = self.leave_lane(&entry.reservation_id, key);
        (entry, promoted)
    }

    fn leave_lane(&mut self, reservation_id: &ReservationId, key: Key) -> Promoted {
        let lane = self.lanes.get_mut(reservation_id).expect("a held job has a lane");
        if lane.front() != Some(&key) {
            lane.retain(|other| *other != key);
            return Promoted(None);
        }
        lane.pop_front();
        let next = lane.front().copied();
        if next.is_none() {
            self.lanes.remove(reservation_id);
        }
        Promoted(next)
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready
    }

    pub(super) fn held(&self) -> usize {
        self.entries.len()
    }

    fn next_number(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}
