//! Jobs that wait for a time or for a service, and how they resume.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{JobState, TableState, WaitReason};
use crate::inflight::job::{Job, JobKey};
use crate::metrics::HeldState;
use crate::outage::{Dependency, Waiting};

/// One of this many resumed jobs is the oldest of those that have failed.
/// It is chosen even if fresh jobs wait, because there may always be fresh ones.
const OTHERS_EVERY: u32 = 4;

/// How a job waits for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedAs {
    /// Whether its reservation has not failed at the service.
    pub is_fresh: bool,
    /// Whether the service is called but has no free call.
    /// The job then counts as buffered, unless it is a suspect.
    pub is_full: bool,
    /// Whether its reservation fails at the service while others succeed.
    /// Set only for a job that waits for room.
    pub is_suspect: bool,
}

/// The jobs that wait for one service, in order of receipt.
#[derive(Debug, Default)]
pub(super) struct Pool {
    fresh: BTreeSet<JobKey>,
    tried: BTreeSet<JobKey>,
    /// Suspects that wait for room at a service that is called.
    suspects: BTreeSet<JobKey>,
    /// Number of other jobs that wait for room at a service that is called.
    full: usize,
    /// Number of resumed jobs, modulo [`OTHERS_EVERY`].
    turn: u32,
    /// Whether the service is not called, so that no job waits for room there.
    is_away: bool,
}

impl Pool {
    fn add(&mut self, key: JobKey, how: ParkedAs) {
        self.set(how).insert(key);
        self.full += usize::from(how.is_full && !how.is_suspect);
    }

    fn remove(&mut self, key: JobKey, how: ParkedAs) {
        self.set(how).remove(&key);
        self.full -= usize::from(how.is_full && !how.is_suspect);
    }

    fn set(&mut self, how: ParkedAs) -> &mut BTreeSet<JobKey> {
        match how {
            ParkedAs { is_suspect: true, .. } => &mut self.suspects,
            ParkedAs { is_fresh: true, .. } => &mut self.fresh,
            ParkedAs { is_fresh: false, .. } => &mut self.tried,
        }
    }

    /// Returns the next job to resume, in order of receipt.
    /// A fresh one, if there is one and it is not the turn of the others.
    fn next(&mut self) -> Option<JobKey> {
        self.turn = (self.turn + 1) % OTHERS_EVERY;
        let (fresh, tried, suspect) =
            (self.fresh.first(), self.tried.first(), self.suspects.first());
        let next = if self.turn == 0 {
            tried.into_iter().chain(suspect).min().or(fresh)
        } else {
            fresh.or(tried).or(suspect)
        };
        next.copied()
    }

    /// Returns a random job, fresh ones preferred; failing jobs gather at the head.
    /// In half of the calls it is the newest job, which came after those that showed the service
    /// down.
    fn any(&self) -> Option<JobKey> {
        fail_point!("probes::oldest-first", |_| self.oldest());
        let set =
            [&self.fresh, &self.tried, &self.suspects].into_iter().find(|set| !set.is_empty())?;
        let (first, last) = (set.first()?, set.last()?);
        let from = if fastrand::bool() { *last } else { JobKey(fastrand::u64(first.0..=last.0)) };
        set.range(from..).next().copied()
    }

    /// Returns the job that was received first.
    fn oldest(&self) -> Option<JobKey> {
        let firsts = [self.fresh.first(), self.tried.first(), self.suspects.first()];
        firsts.into_iter().flatten().min().copied()
    }

    fn waiting(&self) -> Waiting {
        Waiting { fresh: self.fresh.len(), tried: self.tried.len(), suspects: self.suspects.len() }
    }

    /// Counts the jobs that count as buffered.
    pub(super) fn buffered(&self) -> usize {
        fail_point!("waiting::full-not-buffered", self.full > 0, |_| 0);
        if self.is_away { 0 } else { self.full }
    }

    /// Counts the jobs that wait while the service is not called.
    fn parked(&self) -> usize {
        if self.is_away { self.waiting().total() } else { 0 }
    }

    /// Returns whether a job that waits in this way waits for the service, and not for room.
    pub(super) fn is_parked(&self, how: ParkedAs) -> bool {
        self.is_away || !how.is_full
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl TableState {
    /// Removes a job that is no longer idle from the index of its idle state.
    pub(super) fn stop_idling(&mut self, key: JobKey, idle: WaitReason) {
        match idle {
            WaitReason::Ready => self.ready -= 1,
            // Its place in the queue of due suspects is skipped later.
            WaitReason::InLane | WaitReason::Suspect => {}
            WaitReason::Waiting { until, is_in_turn } => {
                self.timers.remove(&(until, key));
                self.in_turn -= usize::from(is_in_turn);
            }
            WaitReason::Parked(dependency, how) => self.parked[dependency.index()].remove(key, how),
        }
    }

    /// Parks a job. Returns the next suspect to try, to be made ready.
    pub(in crate::inflight) fn park(
        &mut self,
        mut job: Box<Job>,
        dependency: Dependency,
        how: ParkedAs,
    ) -> Option<JobKey> {
        let key = job.key;
        // A suspect that finds no room stays a suspect and blocks no others: another is tried
        // meanwhile.
        job.held.set(match (how.is_full, how.is_suspect) {
            (true, true) => HeldState::Waiting,
            (true, false) => HeldState::Buffered,
            (false, true | false) => HeldState::Parked,
        });
        if how.is_suspect {
            self.suspects.add(key);
        } else {
            self.suspects.remove(key);
        }
        let next = self.end_trial(key);
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        entry.waits_for_turn = job.turn.is_some();
        entry.state = JobState::Idle(job, WaitReason::Parked(dependency, how));
        self.parked[dependency.index()].add(key, how);
        next
    }

    /// Resumes up to `count` jobs that wait for the service, in order of receipt.
    /// Fresh ones come first, but every fourth job is another one.
    pub(in crate::inflight) fn unpark(
        &mut self,
        dependency: Dependency,
        count: usize,
    ) -> Vec<JobKey> {
        let mut keys = Vec::new();
        while keys.len() < count
            && !self.stopped
            && let Some(key) = self.parked[dependency.index()].next()
        {
            self.let_go(key, dependency);
            keys.push(key);
        }
        keys
    }

    /// Resumes a random job that waits for the service, fresh ones preferred.
    pub(in crate::inflight) fn unpark_any(&mut self, dependency: Dependency) -> Option<JobKey> {
        let key = self.parked[dependency.index()].any().filter(|_| !self.stopped)?;
        self.let_go(key, dependency);
        Some(key)
    }

    fn let_go(&mut self, key: JobKey, dependency: Dependency) {
        let entry = self.entries.get_mut(&key).expect("a parked job is in the table");
        let JobState::Idle(job, idle @ WaitReason::Parked(..)) = &mut entry.state else {
            unreachable!("a parked job is idle");
        };
        let was = std::mem::replace(idle, WaitReason::InLane);
        job.held.set(HeldState::Buffered);
        if let WaitReason::Parked(_, ParkedAs { is_full: false, .. }) = was {
            job.span.add_event("resumed", [("service", dependency.service().as_str().into())]);
        }
        self.stop_idling(key, was);
        if let WaitReason::Parked(_, ParkedAs { is_suspect: true, .. }) = was {
            self.count_trial(key, dependency.service());
        }
    }

    pub(in crate::inflight) fn parked(&self, dependency: Dependency) -> Waiting {
        self.parked[dependency.index()].waiting()
    }

    pub(in crate::inflight) fn waiting_total(&self) -> usize {
        self.timers.len()
    }

    pub(in crate::inflight) fn parked_total(&self) -> usize {
        self.parked.iter().map(Pool::parked).sum()
    }

    pub(in crate::inflight) fn take_parked_in_excess(
        &mut self,
        dependency: Dependency,
        parts: usize,
    ) -> Option<Box<Job>> {
        let pool = &self.parked[dependency.index()];
        if pool.waiting().total() <= self.suspects.held_max() / parts.max(1) {
            return None;
        }
        let oldest = pool.oldest()?;
        self.take_in_hand(oldest)
    }

    /// Sets whether the service is away, which determines what counts as buffered.
    pub(in crate::inflight) fn set_away(&mut self, dependency: Dependency, is_away: bool) {
        self.parked[dependency.index()].is_away = is_away;
    }

    /// Makes a job wait until `until`.
    /// Returns whether its timer is now the first, and the next suspect to try, to be made ready.
    pub(in crate::inflight) fn wait(
        &mut self,
        mut job: Box<Job>,
        until: Instant,
        is_in_turn: bool,
    ) -> (bool, Option<JobKey>) {
        let key = job.key;
        job.held.set(HeldState::Waiting);
        if job.suspect.is_some() {
            self.suspects.add(key);
        } else {
            self.suspects.remove(key);
        }
        self.in_turn += usize::from(is_in_turn);
        let next = self.end_trial(key);
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        entry.waits_for_turn = job.turn.is_some();
        entry.state = JobState::Idle(job, WaitReason::Waiting { until, is_in_turn });
        let earlier = self.next_timer().is_none_or(|first| until < first);
        self.timers.insert((until, key));
        (earlier, next)
    }

    /// Takes the jobs whose wait is over. They count as buffered from then on.
    pub(in crate::inflight) fn due(&mut self, now: Instant) -> Vec<JobKey> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
            && !self.stopped
        {
            self.timers.pop_first();
            let suspect_at = self.suspect_at(key);
            let may_go = suspect_at.is_none_or(|service| self.begin_trial(key, service));
            let entry = self.entries.get_mut(&key).expect("a timer's job is in the table");
            if let JobState::Idle(job, idle) = &mut entry.state {
                let is_in_turn = matches!(idle, WaitReason::Waiting { is_in_turn: true, .. });
                self.in_turn -= usize::from(is_in_turn);
                *idle = if may_go { WaitReason::InLane } else { WaitReason::Suspect };
                if may_go {
                    job.held.set(HeldState::Buffered);
                }
            }
            if may_go {
                due.push(key);
            }
        }
        due
    }

    /// Returns `None` during a stop, because nothing is made ready then.
    pub(in crate::inflight) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().filter(|_| !self.stopped).map(|(at, _)| *at)
    }

    pub(in crate::inflight) fn spill(&mut self, key: JobKey) {
        self.overflow.push_back(key);
    }

    pub(in crate::inflight) fn next_spilled(&self) -> Option<JobKey> {
        self.overflow.front().copied()
    }

    pub(in crate::inflight) fn pop_spilled(&mut self) {
        self.overflow.pop_front();
    }
}
