//! Suspects: jobs that fail while others do well. They wait on timers of their own; a few of them are tried at once, so
//! that they hold up nobody; and they take a part of the room at most.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use super::{Idle, Place, State};
use crate::inflight::job::{Job, Key};
use crate::metrics::{HeldState, Service, SuspectGuard};
use crate::sabotage::{Sabotage, on};

/// How many suspects there may be.
#[derive(Clone, Copy, Debug)]
pub struct SuspectBounds {
    /// Held at most; beyond that the oldest is given up.
    pub held_max: usize,
    /// Being tried at once at most, at each service: in the channel to the workers, or in their hands.
    pub tried_max: usize,
}

#[derive(Debug)]
pub(super) struct Suspects {
    bounds: SuspectBounds,
    /// In order of receipt.
    held: BTreeSet<Key>,
    /// Those of each service whose time has come; some may have left since.
    due: [VecDeque<Key>; Service::ALL.len()],
    /// How many of each service are being tried. Where one is slow, suspects of the other are tried all the same.
    tried: [usize; Service::ALL.len()],
}

impl Suspects {
    pub(super) fn new(bounds: SuspectBounds) -> Self {
        Self { bounds, held: BTreeSet::new(), due: Default::default(), tried: Default::default() }
    }

    pub(super) fn add(&mut self, key: Key) {
        self.held.insert(key);
    }

    pub(super) fn remove(&mut self, key: Key) {
        if !self.held.is_empty() {
            self.held.remove(&key);
        }
    }

    pub(super) fn held_max(&self) -> usize {
        self.bounds.held_max
    }

    pub(super) fn clear(&mut self) {
        self.due.iter_mut().for_each(VecDeque::clear);
    }
}

impl State {
    /// A suspect's time has come: whether it may be tried now. Else it is when another has been.
    pub(super) fn begin_trial(&mut self, key: Key, service: Service) -> bool {
        let is_full = self.suspects.tried[service.index()] >= self.suspects.bounds.tried_max;
        if is_full && !on(Sabotage::SuspectsUnbounded) {
            self.suspects.due[service.index()].push_back(key);
            return false;
        }
        self.count_trial(key, service);
        true
    }

    /// A suspect is tried, whether or not others are.
    pub(super) fn count_trial(&mut self, key: Key, service: Service) {
        self.suspects.tried[service.index()] += 1;
        self.entries.get_mut(&key).expect("a suspect is in the table").tried_at = Some(service);
    }

    /// The service at which a job that waits for its time is a suspect, if it is one.
    pub(super) fn suspect_at(&self, key: Key) -> Option<Service> {
        match &self.entries.get(&key)?.place {
            Place::Idle(job, _) => job.suspect.as_ref().map(SuspectGuard::service),
            Place::Running => None,
        }
    }

    /// A job was tried, if it is a suspect. Gives the one that is tried next, to be made ready.
    pub(super) fn end_trial(&mut self, key: Key) -> Option<Key> {
        let entry = self.entries.get_mut(&key)?;
        let service = entry.tried_at.take()?;
        self.suspects.tried[service.index()] -= 1;
        while let Some(next) = self.suspects.due[service.index()].pop_front() {
            let Some(entry) = self.entries.get_mut(&next) else { continue };
            if let Place::Idle(job, idle @ Idle::Suspect) = &mut entry.place {
                *idle = Idle::InLane;
                job.held.set(HeldState::Buffered);
                self.count_trial(next, service);
                return Some(next);
            }
        }
        None
    }

    /// The oldest suspect that nobody has in hand, where there are too many. The caller must settle it.
    pub(in crate::inflight) fn take_suspect_in_excess(&mut self) -> Option<Box<Job>> {
        if self.suspects.held.len() <= self.suspects.bounds.held_max {
            return None;
        }
        // One that was never tried is not given up: it is a suspect for its reservation's sake alone.
        let waits = |key: &&Key| match self.entries.get(key).map(|entry| &entry.place) {
            Some(Place::Idle(job, Idle::Waiting { .. } | Idle::Suspect | Idle::Parked(..))) => {
                job.failures > 0
            }
            Some(Place::Idle(..) | Place::Running) | None => false,
        };
        let oldest = *self.suspects.held.iter().find(waits)?;
        self.take_in_hand(oldest)
    }

    /// Takes an idle job out of its place, as a worker would.
    pub(super) fn take_in_hand(&mut self, key: Key) -> Option<Box<Job>> {
        let entry = self.entries.get_mut(&key)?;
        match mem::replace(&mut entry.place, Place::Running) {
            Place::Idle(mut job, idle) => {
                self.stop_idling(key, idle);
                job.held.set(HeldState::Running);
                Some(job)
            }
            Place::Running => None,
        }
    }
}
