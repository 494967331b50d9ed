//! State of the in-flight table: data and transitions, without tasks, channels or clocks.

mod admit;
mod backlog;
mod groups;
mod lanes;
mod leases;
mod overview;
mod retained;
mod suspects;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use ahash::{HashMap, HashMapExt};
use tokio::time::Instant;

pub use self::groups::GroupFate;
use self::lanes::Lanes;
pub use self::leases::{DueRenewal, HeldClaim, Renewal, Renewals, Renewed};
pub use self::overview::{EventState, HeldEvent, Overview, StateCount};
use self::retained::KeptReceipts;
pub use self::retained::TakenBack;
pub use self::suspects::SuspectBounds;
use self::suspects::Suspects;
pub use self::waiting::ParkedAs;
use self::waiting::Pool;
use super::job::{Job, JobKey, Lane, OriginalMessage, Receipt, ReceiptKey};
use super::lease::Lease;
use super::redrive::RedriveLimits;
use crate::event::{ContentHash, EventId};
use crate::metrics::{HeldState, Service};
use crate::outage::Dependency;
use crate::queue::MessageId;

/// Where an incoming message was placed.
#[derive(Debug)]
pub(super) enum Placement {
    /// A new job.
    /// `is_first`: no other job comes before it. `is_earlier`: its receipt is now the first to be
    /// extended.
    New { key: JobKey, is_first: bool, is_earlier: bool },
    /// Joined to the held event of which it is a copy.
    Joined { job: Box<Job>, replaced: bool, is_earlier: bool },
    /// Not held: its reservation has used its share of the room. It is handed back for `after`.
    Deferred { job: Box<Job>, receipt: Receipt, after: Duration, is_first: bool },
    /// Not held: an event with the same id but other content is held.
    /// The hash is that of the held one.
    IdReused(Box<Job>, Box<(OriginalMessage, Receipt)>, ContentHash),
}

/// A job that left the table because its lease was lost.
#[derive(Debug)]
pub struct LostJob {
    /// The job.
    pub job: Box<Job>,
    /// Number of receipts that it still had.
    /// Their deadlines passed before an extension was answered.
    pub receipts_lost: usize,
}

/// Jobs that may now start: the next ones of the lanes that were left, and the next suspect.
/// A job becomes ready only if it is the first in each of its lanes.
#[derive(Debug, Default)]
pub(super) struct Promoted(pub(super) [Option<JobKey>; 3]);

/// Why a job is idle in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitReason {
    Ready,
    InLane,
    Waiting {
        until: Instant,
        /// Whether it waits for one of the limited calls per second of its service.
        is_in_turn: bool,
    },
    /// Its wait is over, but the maximum number of suspects is already being tried.
    Suspect,
    /// It waits until its service is called again, or has room for a call.
    Parked(Dependency, ParkedAs),
}

#[derive(Debug)]
enum JobState {
    Idle(Box<Job>, WaitReason),
    Running,
}

#[derive(Debug)]
struct HeldReceipt {
    receipt: Receipt,
    key: ReceiptKey,
    /// When to extend it; `None` while an extension is in progress.
    renew_at: Option<Instant>,
}

#[derive(Debug)]
struct JobEntry {
    event_id: EventId,
    lane: Lane,
    group: Option<Lane>,
    hash: ContentHash,
    lease: Lease,
    original: OriginalMessage,
    receipts: Vec<HeldReceipt>,
    state: JobState,
    /// The service at which it is being tried as a suspect.
    tried_at: Option<Service>,
    /// Whether another process had its reservation when it was last put aside.
    waits_for_turn: bool,
}

impl JobEntry {
    fn holds(&self, message_id: &MessageId) -> bool {
        self.receipts.iter().any(|held| held.receipt.message_id == *message_id)
    }

    /// Updates the lease of the job with the latest deadline of its receipts.
    fn set_lease(&self) {
        self.lease.set(self.receipts.iter().map(|held| held.receipt.deadline).max());
    }
}

#[derive(Debug)]
pub(super) struct TableState {
    visibility: Duration,
    /// Maximum number of messages.
    messages_max: usize,
    pub(super) limits: RedriveLimits,
    stopped: bool,
    /// Whether the lease keeper has ended, so that no extension will be answered.
    extensions_ended: bool,
    last_key: u64,
    entries: HashMap<JobKey, JobEntry>,
    /// The held event with this id. If an id is used twice, the first event is stored.
    by_event: HashMap<EventId, JobKey>,
    lanes: Lanes,
    timers: BTreeSet<(Instant, JobKey)>,
    /// Number of waiting jobs that wait for their turn at a service with a call rate limit.
    in_turn: usize,
    /// Whether a service limits calls per second.
    pub(super) is_rationed: bool,
    /// Parked jobs, by service.
    parked: [Pool; Dependency::COUNT],
    suspects: Suspects,
    /// Jobs to hand back because an earlier one of their group went back.
    abandoned: Vec<Box<Job>>,
    renewals: BTreeMap<(Instant, ReceiptKey), JobKey>,
    /// Receipts that are being extended now, with their jobs.
    extending: HashMap<ReceiptKey, JobKey>,
    /// Unsettled receipts that belong to no job.
    kept: KeptReceipts,
    /// Receipts released while an extension was in progress.
    released: HashMap<ReceiptKey, (Receipt, Duration)>,
    ready: usize,
    /// Keys of ready jobs that did not fit into the channel.
    overflow: VecDeque<JobKey>,
}

impl TableState {
    pub(super) fn new(messages_max: usize, visibility: Duration, suspects: SuspectBounds) -> Self {
        Self {
            visibility,
            messages_max,
            limits: RedriveLimits::default(),
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
            kept: KeptReceipts::default(),
            released: HashMap::new(),
            ready: 0,
            overflow: VecDeque::new(),
        }
    }

    pub(super) fn start(&mut self, key: JobKey) -> Option<Box<Job>> {
        let entry = self.entries.get_mut(&key)?;
        if !matches!(entry.state, JobState::Idle(_, WaitReason::Ready)) {
            return None;
        }
        self.ready -= 1;
        match mem::replace(&mut entry.state, JobState::Running) {
            JobState::Idle(mut job, _) => {
                job.held.set(HeldState::Running);
                Some(job)
            }
            JobState::Running => None,
        }
    }

    /// Adds to the permit of the first receipt, which is freed when the job is settled.
    pub(super) fn grow(&mut self, key: JobKey, bytes: usize) {
        let entry = self.entries.get_mut(&key);
        if let Some(held) = entry.and_then(|entry| entry.receipts.first_mut()) {
            held.receipt.permit.grow(bytes);
        }
    }

    fn is_first_in_lane(&self, lane: &Lane, key: JobKey) -> bool {
        fail_point!("inflight::reservations-not-serialized", |_| true);
        self.lanes.is_first(lane, key)
    }

    fn is_first(&self, entry: &JobEntry, key: JobKey) -> bool {
        self.is_first_in_lane(&entry.lane, key)
            && entry.group.as_ref().is_none_or(|group| self.lanes.is_first(group, key))
    }

    /// Leaves the job's group lane unchanged: it moves on when the returned group turn ends.
    pub(super) fn take(
        &mut self,
        key: JobKey,
    ) -> (OriginalMessage, Vec<Receipt>, Option<Lane>, Promoted) {
        let (entry, promoted) = self.remove(key);
        let mut receipts = Vec::with_capacity(entry.receipts.len());
        for held in entry.receipts {
            self.stop_renewing(&held);
            receipts.push(held.receipt);
        }
        (entry.original, receipts, entry.group, promoted)
    }

    /// Removes a job that is not settled here.
    /// Later jobs of its group are abandoned too, if it comes again.
    fn take_unsettled(&mut self, key: JobKey) -> (JobEntry, Promoted) {
        let (entry, Promoted([next, _, suspect])) = self.remove(key);
        let Some(group) = &entry.group else { return (entry, Promoted([next, None, suspect])) };
        let comes_again = self.comes_again(&entry);
        let Promoted([next_in_group, ..]) = self.leave_group(group, key, comes_again);
        (entry, Promoted([next, next_in_group, suspect]))
    }

    pub(super) fn release(&mut self, key: JobKey, after: Duration) -> (Vec<Receipt>, Promoted) {
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

    pub(super) fn forget_lost(&mut self, mut job: Box<Job>) -> (Option<LostJob>, Promoted) {
        let key = job.key;
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        if entry.lease.is_held() {
            job.held.set(HeldState::Buffered);
            entry.state = JobState::Idle(job, WaitReason::InLane);
            return (None, Promoted([Some(key), None, None]));
        }
        let (entry, promoted) = self.take_unsettled(key);
        let receipts_lost = entry.receipts.len();
        entry.receipts.iter().for_each(|held| self.stop_renewing(held));
        (Some(LostJob { job, receipts_lost }), promoted)
    }

    /// Marks a job as ready if it waits only for its turn and is the first in its lanes.
    pub(super) fn set_ready(&mut self, key: JobKey) -> bool {
        if self.stopped {
            return false;
        }
        let Some(entry) = self.entries.get(&key) else { return false };
        if !self.is_first(entry, key) {
            return false;
        }
        let Some(JobEntry { state: JobState::Idle(_, was @ WaitReason::InLane), .. }) =
            self.entries.get_mut(&key)
        else {
            return false;
        };
        *was = WaitReason::Ready;
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
            match mem::replace(&mut entry.state, JobState::Running) {
                JobState::Idle(job, idle) => {
                    let rest = match idle {
                        WaitReason::Waiting { until, .. } => until.saturating_duration_since(now),
                        WaitReason::Ready
                        | WaitReason::InLane
                        | WaitReason::Suspect
                        | WaitReason::Parked(..) => Duration::ZERO,
                    };
                    jobs.push((job, rest));
                }
                JobState::Running => {}
            }
        }
        self.timers.clear();
        self.in_turn = 0;
        self.parked.iter_mut().for_each(Pool::clear);
        self.suspects.clear();
        self.ready = 0;
        // In order of receipt, so that jobs are also handed back in that order.
        jobs.sort_by_key(|(job, _)| job.key);
        jobs
    }

    pub(super) fn take_all(&mut self) -> Vec<Receipt> {
        let mut keys: Vec<JobKey> = self.entries.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter().flat_map(|key| self.take(key).1).collect()
    }

    /// Removes an entry from the table and its indexes, except its group lane and its receipts.
    fn remove(&mut self, key: JobKey) -> (JobEntry, Promoted) {
        let suspect = self.end_trial(key);
        self.suspects.remove(key);
        let entry = self.entries.remove(&key).expect("a job is settled once");
        if self.by_event.get(&entry.event_id) == Some(&key) {
            self.by_event.remove(&entry.event_id);
        }
        if let JobState::Idle(_, idle) = &entry.state {
            self.stop_idling(key, *idle);
        }
        let next = self.lanes.leave(&entry.lane, key);
        (entry, Promoted([next, None, suspect]))
    }

    /// Counts the jobs that could start with a free worker, or with room at their service.
    pub(super) fn buffered(&self) -> usize {
        let in_turn = if self.is_rationed { self.in_turn } else { 0 };
        self.ready + in_turn + self.parked.iter().map(Pool::buffered).sum::<usize>()
    }

    pub(super) fn held(&self) -> usize {
        self.entries.len()
    }

    /// Counts the receipts of all jobs. Each one takes the room of a message.
    fn receipts_held(&self) -> usize {
        self.renewals.len() + self.extending.len()
    }

    fn next_number(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}
