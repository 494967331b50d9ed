//! The table itself: plain data and its transitions, without tasks, channels or clocks.

mod leases;
mod order;
mod waiting;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use ahash::{HashMap, HashMapExt};
use tokio::time::Instant;

pub use self::leases::{DueRenewal, Renewal, Renewals, Renewed};
pub(super) use self::order::Lane;
use self::order::Lanes;
use super::job::{Job, Key, Lease, Original, Receipt, ReceiptKey};
use crate::event::{ContentHash, EventId};
use crate::metrics::HeldState;
use crate::outage::Dependency;
use crate::sabotage::{Sabotage, on};

/// Where a message that came in went.
#[derive(Debug)]
pub(super) enum Placed {
    /// Into the table; whether nothing comes before it, and whether its receipt is now the first to
    /// be extended.
    New { key: Key, is_first: bool, is_earlier: bool },
    /// To the one that it is a copy of.
    Joined { job: Box<Job>, replaced: bool, is_earlier: bool },
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

/// The next jobs of the lanes that were left: ready, where it is their turn in each lane of theirs.
#[derive(Debug, Default)]
pub(super) struct Promoted(pub(super) [Option<Key>; 2]);

/// Why a job is in the table and not in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    Ready,
    InLane,
    Waiting(Instant),
    /// For a service to come back; the number is its place among those who do.
    Parked(Dependency, u64),
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
    /// Nobody is there to say what became of an extension.
    extensions_ended: bool,
    last_key: u64,
    entries: HashMap<Key, Entry>,
    /// The held event with that id. An id that is used twice has its first user here.
    by_event: HashMap<EventId, Key>,
    lanes: Lanes,
    timers: BTreeSet<(Instant, Key)>,
    /// Those who wait for each service, in the order in which they were parked.
    parked: [BTreeSet<(u64, Key)>; Dependency::ALL.len()],
    /// Jobs to be handed back, because an earlier one of their group was.
    abandoned: Vec<Box<Job>>,
    renewals: BTreeMap<(Instant, ReceiptKey), Key>,
    /// Whose receipt is being extended now.
    extending: HashMap<ReceiptKey, Key>,
    /// Released while being extended.
    released: HashMap<ReceiptKey, (Receipt, Duration)>,
    ready: usize,
    /// Keys of ready jobs that the channel had no place for.
    spilled: VecDeque<Key>,
}

impl State {
    pub(super) fn new(visibility: Duration) -> Self {
        Self {
            visibility,
            stopped: false,
            extensions_ended: false,
            last_key: 0,
            entries: HashMap::new(),
            by_event: HashMap::new(),
            lanes: Lanes::default(),
            timers: BTreeSet::new(),
            parked: Default::default(),
            abandoned: Vec::new(),
            renewals: BTreeMap::new(),
            extending: HashMap::new(),
            released: HashMap::new(),
            ready: 0,
            spilled: VecDeque::new(),
        }
    }

    pub(super) fn admit(
        &mut self,
        mut job: Box<Job>,
        original: Original,
        receipt: Receipt,
    ) -> Placed {
        if let Some(&key) = self.by_event.get(&job.event.id) {
            let entry = self.entries.get_mut(&key).expect("an indexed event is held");
            if entry.hash != job.hash {
                return Placed::IdReused(job, Box::new((original, receipt)), entry.hash);
            }
            if on(Sabotage::JoinDropped) {
                return Placed::Joined { job, replaced: false, is_earlier: false };
            }
            let (replaced, is_earlier) = self.join(key, receipt);
            return Placed::Joined { job, replaced, is_earlier };
        }
        let key = Key(self.next_number());
        job.key = key;
        self.by_event.insert(job.event.id.clone(), key);
        let lane = Lane::Reservation(job.event.reservation_id.clone());
        let group = original.group_id.clone().map(Lane::Group);
        self.lanes.enter(&lane, key);
        if let Some(group) = &group {
            self.lanes.enter(group, key);
        }
        let entry = Entry {
            event_id: job.event.id.clone(),
            lane,
            group,
            hash: job.hash,
            lease: job.lease.clone(),
            original,
            receipts: Vec::with_capacity(1),
            place: Place::Idle(job, Idle::InLane),
        };
        let is_first = self.is_first(&entry, key);
        self.entries.insert(key, entry);
        let is_earlier = self.add_receipt(key, receipt);
        Placed::New { key, is_first, is_earlier }
    }

    /// Whether one of two receipts of the same message was dropped for the other, and whether the
    /// extension is now the first.
    fn join(&mut self, key: Key, receipt: Receipt) -> (bool, bool) {
        let entry = self.entries.get_mut(&key).expect("held");
        let same = entry.receipts.iter().position(|h| h.receipt.message_id == receipt.message_id);
        let Some(at) = same else { return (false, self.add_receipt(key, receipt)) };
        // Replies may overtake each other: the newest receipt is not always the last to come, and an
        // older handle would delete nothing. Where the counts do not tell, both are kept.
        match receipt.receive_count.cmp(&entry.receipts[at].receipt.receive_count) {
            Ordering::Less => return (true, false),
            Ordering::Equal => return (false, self.add_receipt(key, receipt)),
            Ordering::Greater => {}
        }
        // The older one's extension, if one is under way, finds nothing to book and is forgotten.
        let old = entry.receipts.swap_remove(at);
        self.stop_renewing(&old);
        (true, self.add_receipt(key, receipt))
    }

    /// Joins a further receipt of a message that is held, whatever its event. Gives it back where
    /// the message is not held. Otherwise as [`State::join`].
    pub(super) fn rejoin(&mut self, receipt: Receipt) -> Result<(bool, bool), Receipt> {
        let holds = |entry: &Entry| {
            entry.receipts.iter().any(|held| held.receipt.message_id == receipt.message_id)
        };
        match self.entries.iter().find(|(_, entry)| holds(entry)).map(|(key, _)| *key) {
            Some(key) => Ok(self.join(key, receipt)),
            None => Err(receipt),
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

    fn is_first(&self, entry: &Entry, key: Key) -> bool {
        (self.lanes.is_first(&entry.lane, key) || on(Sabotage::ReservationLockDropped))
            && entry.group.as_ref().is_none_or(|group| self.lanes.is_first(group, key))
    }

    /// A place in a group's lane for a message that is no event: later ones wait for it too.
    pub(super) fn enter_group(&mut self, group_id: &str) -> (Lane, Key) {
        let (lane, key) = (Lane::Group(group_id.into()), Key(self.next_number()));
        self.lanes.enter(&lane, key);
        (lane, key)
    }

    /// The turn of a message in its group is over, well or not.
    pub(super) fn leave_group(&mut self, lane: &Lane, key: Key, abandon: bool) -> Promoted {
        if abandon {
            self.abandon_after(lane, key);
        }
        Promoted([self.lanes.leave(lane, key), None])
    }

    /// What comes later in the group is not to be handled before what is handed back now.
    fn abandon_after(&mut self, lane: &Lane, key: Key) {
        for later in self.lanes.after(lane, key) {
            // A later message that is no event has no entry, and settles by itself.
            let Some(entry) = self.entries.get_mut(&later) else { continue };
            if let Place::Idle(job, idle) = mem::replace(&mut entry.place, Place::Running) {
                self.stop_idling(later, idle);
                self.abandoned.push(job);
            }
        }
    }

    /// Jobs to be handed back at once.
    pub(super) fn take_abandoned(&mut self) -> Vec<Box<Job>> {
        mem::take(&mut self.abandoned)
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
        let (entry, Promoted([next, _])) = self.remove(key);
        let Some(group) = &entry.group else { return (entry, Promoted([next, None])) };
        let Promoted([next_in_group, _]) = self.leave_group(group, key, true);
        (entry, Promoted([next, next_in_group]))
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
            return (None, Promoted([Some(key), None]));
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
                        Idle::Waiting(until) => until.saturating_duration_since(now),
                        Idle::Ready | Idle::InLane | Idle::Parked(..) => Duration::ZERO,
                    };
                    jobs.push((job, rest));
                }
                Place::Running => {}
            }
        }
        self.timers.clear();
        self.parked.iter_mut().for_each(BTreeSet::clear);
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
        let entry = self.entries.remove(&key).expect("a job is settled once");
        if self.by_event.get(&entry.event_id) == Some(&key) {
            self.by_event.remove(&entry.event_id);
        }
        if let Place::Idle(_, idle) = &entry.place {
            self.stop_idling(key, *idle);
        }
        let next = self.lanes.leave(&entry.lane, key);
        (entry, Promoted([next, None]))
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
