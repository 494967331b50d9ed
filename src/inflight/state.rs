//! The table itself: plain data and its transitions, without tasks, channels or clocks.

mod admit;
mod backlog;
mod groups;
mod kept;
mod leases;
mod order;
mod suspects;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use ahash::{HashMap, HashMapExt};
use tokio::time::Instant;

pub use self::groups::GroupFate;
use self::kept::Kept;
pub use self::kept::TakenBack;
pub use self::leases::{DueRenewal, Renewal, Renewals, Renewed};
pub(super) use self::order::Lane;
use self::order::Lanes;
pub use self::suspects::SuspectBounds;
use self::suspects::Suspects;
pub use self::waiting::ParkedAs;
use self::waiting::Pool;
use super::job::{Job, Key, Lease, Original, Receipt, ReceiptKey};
use super::redrive::Limits;
use crate::event::{ContentHash, EventId};
use crate::metrics::{HeldState, Service};
use crate::outage::Dependency;
use crate::queue::MessageId;
use crate::sabotage::{Sabotage, on};

/// Where a message that came in went.
#[derive(Debug)]
pub(super) enum Placed {
    /// Into the table; whether nothing comes before it, and whether its receipt is now the first to
    /// be extended.
    New { key: Key, is_first: bool, is_earlier: bool },
    /// To the one that it is a copy of.
    Joined { job: Box<Job>, replaced: bool, is_earlier: bool },
    /// Nowhere: its reservation has its share of the room. It is to be handed back for so long.
    Deferred { job: Box<Job>, receipt: Receipt, after: Duration, is_first: bool },
    /// Nowhere: an event with the same id and another content, which has this hash, is held.
    IdReused(Box<Job>, Box<(Original, Receipt)>, ContentHash),
}

/// A job whose lease was lost, out of the table.
#[derive(Debug)]
pub struct Forgotten {
    /// The job.
    pub job: Box<Job>,
    /// Receipts that it had left: their deadlines passed before an extension was even answered.
    pub receipts_lost: usize,
}

/// The next jobs of the lanes that were left, and the next suspect: ready, where it is their turn in each lane of theirs.
#[derive(Debug, Default)]
pub(super) struct Promoted(pub(super) [Option<Key>; 3]);

/// Why a job is in the table and not in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    Ready,
    InLane,
    Waiting {
        until: Instant,
        /// For the next of the calls that its service takes.
        is_in_turn: bool,
    },
    /// Its time has come, and as many suspects as may are being tried.
    Suspect,
    /// For a service to be called again, or to have room for a call.
    Parked(Dependency, ParkedAs),
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
    lane: Lane,
    group: Option<Lane>,
    hash: ContentHash,
    lease: Lease,
    original: Original,
    receipts: Vec<HeldReceipt>,
    place: Place,
    /// Where it is one of the suspects that are being tried, if it is.
    tried_at: Option<Service>,
}

impl Entry {
    fn holds(&self, message_id: &MessageId) -> bool {
        self.receipts.iter().any(|held| held.receipt.message_id == *message_id)
    }

    /// Tells whoever has the job in hand how long its last receipt stands.
    fn set_lease(&self) {
        self.lease.set(self.receipts.iter().map(|held| held.receipt.deadline).max());
    }
}

#[derive(Debug)]
pub(super) struct State {
    visibility: Duration,
    /// How many messages there is room for.
    messages_max: usize,
    pub(super) limits: Limits,
    stopped: bool,
    /// Nobody is there to say what became of an extension.
    extensions_ended: bool,
    last_key: u64,
    entries: HashMap<Key, Entry>,
    /// The held event with that id. An id that is used twice has its first user here.
    by_event: HashMap<EventId, Key>,
    lanes: Lanes,
    timers: BTreeSet<(Instant, Key)>,
    /// How many of those who wait for a time wait for their turn.
    in_turn: usize,
    /// A service takes only so many calls a second.
    pub(super) is_rationed: bool,
    /// Those who wait for each service.
    parked: [Pool; Dependency::COUNT],
    suspects: Suspects,
    /// Jobs to be handed back, because an earlier one of their group was.
    abandoned: Vec<Box<Job>>,
    renewals: BTreeMap<(Instant, ReceiptKey), Key>,
    /// Whose receipt is being extended now.
    extending: HashMap<ReceiptKey, Key>,
    /// Receipts that no job has any more, and that are not settled yet.
    kept: Kept,
    /// Released while being extended.
    released: HashMap<ReceiptKey, (Receipt, Duration)>,
    ready: usize,
    /// Keys of ready jobs that the channel had no place for.
    spilled: VecDeque<Key>,
}

impl State {
    pub(super) fn new(messages_max: usize, visibility: Duration, suspects: SuspectBounds) -> Self {
        Self {
            visibility,
            messages_max,
            limits: Limits::default(),
            stopped: false,
            extensions_ended: false,
            last_key: 0,
            entries: HashMap::new(),
            by_event: HashMap::new(),
            lanes: Lanes::default(),
            timers: BTreeSet::new(),
            in_turn: 0,
            is_rationed: false,
            parked: Default::default(),
            suspects: Suspects::new(suspects),
            abandoned: Vec::new(),
            renewals: BTreeMap::new(),
            extending: HashMap::new(),
            kept: Kept::default(),
            released: HashMap::new(),
            ready: 0,
            spilled: VecDeque::new(),
        }
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

    /// Whatever becomes of the others, its first receipt's room is given back with the job.
    pub(super) fn grow(&mut self, key: Key, bytes: usize) {
        let entry = self.entries.get_mut(&key);
        if let Some(held) = entry.and_then(|entry| entry.receipts.first_mut()) {
            held.receipt.room.grow(bytes);
        }
    }

    fn is_first(&self, entry: &Entry, key: Key) -> bool {
        (self.lanes.is_first(&entry.lane, key) || on(Sabotage::ReservationLockDropped))
            && entry.group.as_ref().is_none_or(|group| self.lanes.is_first(group, key))
    }

    /// The turn in the group, if there is one, goes along: its lane moves on when that ends.
    pub(super) fn take(&mut self, key: Key) -> (Original, Vec<Receipt>, Option<Lane>, Promoted) {
        let (entry, promoted) = self.remove(key);
        let mut receipts = Vec::with_capacity(entry.receipts.len());
        for held in entry.receipts {
            self.stop_renewing(&held);
            receipts.push(held.receipt);
        }
        (entry.original, receipts, entry.group, promoted)
    }

    /// Takes a job out that is not settled here: what is later in its group goes too.
    fn take_unsettled(&mut self, key: Key) -> (Entry, Promoted) {
        let (entry, Promoted([next, _, suspect])) = self.remove(key);
        let Some(group) = &entry.group else { return (entry, Promoted([next, None, suspect])) };
        let comes_again = self.comes_again(&entry);
        let Promoted([next_in_group, ..]) = self.leave_group(group, key, comes_again);
        (entry, Promoted([next, next_in_group, suspect]))
    }

    pub(super) fn release(&mut self, key: Key, after: Duration) -> (Vec<Receipt>, Promoted) {
        let (entry, promoted) = self.take_unsettled(key);
        let mut now = Vec::with_capacity(entry.receipts.len());
        for held in entry.receipts {
            if held.renew_at.is_none() && !self.extensions_ended {
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
            return (None, Promoted([Some(key), None, None]));
        }
        let (entry, promoted) = self.take_unsettled(key);
        let receipts_lost = entry.receipts.len();
        entry.receipts.iter().for_each(|held| self.stop_renewing(held));
        (Some(Forgotten { job, receipts_lost }), promoted)
    }

    /// Marks a job as ready that waits for nothing but its turn, if it has come.
    pub(super) fn set_ready(&mut self, key: Key) -> bool {
        if self.stopped {
            return false;
        }
        let Some(entry) = self.entries.get(&key) else { return false };
        if !self.is_first(entry, key) {
            return false;
        }
        let Some(Entry { place: Place::Idle(_, was @ Idle::InLane), .. }) =
            self.entries.get_mut(&key)
        else {
            return false;
        };
        *was = Idle::Ready;
        self.ready += 1;
        true
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn take_idle(&mut self, now: Instant) -> Vec<(Box<Job>, Duration)> {
        let abandoned = self.take_abandoned();
        let mut jobs: Vec<_> = abandoned.into_iter().map(|job| (job, Duration::ZERO)).collect();
        for entry in self.entries.values_mut() {
            match mem::replace(&mut entry.place, Place::Running) {
                Place::Idle(job, idle) => {
                    let rest = match idle {
                        Idle::Waiting { until, .. } => until.saturating_duration_since(now),
                        Idle::Ready | Idle::InLane | Idle::Suspect | Idle::Parked(..) => {
                            Duration::ZERO
                        }
                    };
                    jobs.push((job, rest));
                }
                Place::Running => {}
            }
        }
        self.timers.clear();
        self.in_turn = 0;
        self.parked.iter_mut().for_each(Pool::clear);
        self.suspects.clear();
        self.ready = 0;
        // In order of receipt, so that a hand-back is orderly too.
        jobs.sort_by_key(|(job, _)| job.key);
        jobs
    }

    pub(super) fn take_all(&mut self) -> Vec<Receipt> {
        let mut keys: Vec<Key> = self.entries.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter().flat_map(|key| self.take(key).1).collect()
    }

    /// Takes an entry out of the table and of every index but its group and those of its receipts.
    fn remove(&mut self, key: Key) -> (Entry, Promoted) {
        let suspect = self.end_trial(key);
        self.suspects.remove(key);
        let entry = self.entries.remove(&key).expect("a job is settled once");
        if self.by_event.get(&entry.event_id) == Some(&key) {
            self.by_event.remove(&entry.event_id);
        }
        if let Place::Idle(_, idle) = &entry.place {
            self.stop_idling(key, *idle);
        }
        let next = self.lanes.leave(&entry.lane, key);
        (entry, Promoted([next, None, suspect]))
    }

    /// Jobs that could start if there were a worker, or room at their service.
    pub(super) fn buffered(&self) -> usize {
        let in_turn = if self.is_rationed { self.in_turn } else { 0 };
        self.ready + in_turn + self.parked.iter().map(Pool::buffered).sum::<usize>()
    }

    pub(super) fn held(&self) -> usize {
        self.entries.len()
    }

    /// Receipts of all jobs: each takes room for a message.
    fn receipts_held(&self) -> usize {
        self.renewals.len() + self.extending.len()
    }

    fn next_number(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}
