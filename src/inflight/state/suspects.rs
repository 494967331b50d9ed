//! Suspects: jobs that fail while others succeed.
//!
//! They wait on their own timers. Few of them are tried at once, so that they do not block others,
//! and they take only a part of the room.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use super::{JobState, TableState, WaitReason};
use crate::inflight::job::{Job, JobKey};
use crate::metrics::{HeldState, Service, SuspectGuard};

/// Limits of the number of suspects.
#[derive(Clone, Copy, Debug)]
pub struct SuspectBounds {
    /// Maximum number held. Beyond it, the oldest suspect is given up.
    pub held_max: usize,
    /// Maximum number tried at once, per service: in the channel to the workers, or running.
    pub tried_max: usize,
}

#[derive(Debug)]
pub(super) struct Suspects {
    bounds: SuspectBounds,
    /// In order of receipt.
    held: BTreeSet<JobKey>,
    /// Suspects whose wait is over, by service. Some may have left the table since.
    due: [VecDeque<JobKey>; Service::ALL.len()],
    /// Number being tried, by service. A slow service does not delay the suspects of another.
    tried: [usize; Service::ALL.len()],
}

impl Suspects {
    pub(super) fn new(bounds: SuspectBounds) -> Self {
        Self { bounds, held: BTreeSet::new(), due: Default::default(), tried: Default::default() }
    }

    pub(super) fn add(&mut self, key: JobKey) {
        self.held.insert(key);
    }

    pub(super) fn remove(&mut self, key: JobKey) {
        if !self.held.is_empty() {
            self.held.remove(&key);
        }
    }

    pub(super) fn held_max(&self) -> usize {
        self.bounds.held_max
    }

    /// Returns whether as many are tried at the service as may be.
    fn is_full(&self, service: Service) -> bool {
        fail_point!("suspects::unbounded", |_| false);
        self.tried[service.index()] >= self.bounds.tried_max
    }

    pub(super) fn clear(&mut self) {
        self.due.iter_mut().for_each(VecDeque::clear);
    }
}

impl TableState {
    /// Starts the trial of a suspect whose wait is over, and returns whether it may start now.
    /// Otherwise it starts when another trial has ended.
    pub(super) fn begin_trial(&mut self, key: JobKey, service: Service) -> bool {
        if self.suspects.is_full(service) {
            self.suspects.due[service.index()].push_back(key);
            return false;
        }
        self.count_trial(key, service);
        true
    }

    /// Counts the trial of a suspect, also beyond the limit.
    pub(super) fn count_trial(&mut self, key: JobKey, service: Service) {
        self.suspects.tried[service.index()] += 1;
        self.entries.get_mut(&key).expect("a suspect is in the table").tried_at = Some(service);
    }

    /// Returns the service at which an idle job is a suspect, if any.
    pub(super) fn suspect_at(&self, key: JobKey) -> Option<Service> {
        match &self.entries.get(&key)?.state {
            JobState::Idle(job, _) => job.suspect.as_ref().map(SuspectGuard::service),
            JobState::Running => None,
        }
    }

    /// Ends the trial of a job, if it is a suspect. Returns the next one to try, to be made ready.
    pub(super) fn end_trial(&mut self, key: JobKey) -> Option<JobKey> {
        let entry = self.entries.get_mut(&key)?;
        let service = entry.tried_at.take()?;
        self.suspects.tried[service.index()] -= 1;
        while let Some(next) = self.suspects.due[service.index()].pop_front() {
            let Some(entry) = self.entries.get_mut(&next) else { continue };
            if let JobState::Idle(job, idle @ WaitReason::Suspect) = &mut entry.state {
                *idle = WaitReason::InLane;
                job.held.set(HeldState::Buffered);
                self.count_trial(next, service);
                return Some(next);
            }
        }
        None
    }

    /// Takes the oldest idle suspect if there are too many. The caller must settle it.
    pub(in crate::inflight) fn take_suspect_in_excess(&mut self) -> Option<Box<Job>> {
        if self.suspects.held.len() <= self.suspects.bounds.held_max {
            return None;
        }
        // A job without failures is not given up: it is a suspect only because of its reservation.
        let waits = |key: &&JobKey| match self.entries.get(key).map(|entry| &entry.state) {
            Some(JobState::Idle(
                job,
                WaitReason::Waiting { .. } | WaitReason::Suspect | WaitReason::Parked(..),
            )) => job.failures > 0,
            Some(JobState::Idle(..) | JobState::Running) | None => false,
        };
        let oldest = *self.suspects.held.iter().find(waits)?;
        self.take_in_hand(oldest)
    }

    /// Takes an idle job out of its place, as a worker does.
    pub(super) fn take_in_hand(&mut self, key: JobKey) -> Option<Box<Job>> {
        let entry = self.entries.get_mut(&key)?;
        match mem::replace(&mut entry.state, JobState::Running) {
            JobState::Idle(mut job, idle) => {
                self.stop_idling(key, idle);
                job.held.set(HeldState::Running);
                Some(job)
            }
            JobState::Running => None,
        }
    }
}
