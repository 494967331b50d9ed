//! Jobs that wait for a time or for a service, and how they are made to go on.

use tokio::time::Instant;

use super::{Idle, Place, State};
use crate::inflight::job::{Job, Key};
use crate::metrics::HeldState;
use crate::outage::Dependency;

impl State {
    /// Takes a job that stops being idle out of what its idleness put it into.
    pub(super) fn stop_idling(&mut self, key: Key, idle: Idle) {
        match idle {
            Idle::Ready => self.ready -= 1,
            Idle::InLane => {}
            Idle::Waiting(until) => {
                self.timers.remove(&(until, key));
            }
            Idle::Parked(dependency, order) => {
                self.parked[dependency.index()].remove(&(order, key));
            }
        }
    }

    pub(in crate::inflight) fn park(&mut self, mut job: Box<Job>, dependency: Dependency) {
        let key = job.key;
        job.held.set(HeldState::Parked);
        let order = self.next_number();
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        entry.place = Place::Idle(job, Idle::Parked(dependency, order));
        self.parked[dependency.index()].insert((order, key));
    }

    /// Up to `count` jobs that wait for the service, the longest-parked first.
    pub(in crate::inflight) fn unpark(&mut self, dependency: Dependency, count: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        while keys.len() < count
            && !self.stopped
            && let Some((_, key)) = self.parked[dependency.index()].pop_first()
        {
            let entry = self.entries.get_mut(&key).expect("a parked job is in the table");
            if let Place::Idle(job, idle) = &mut entry.place {
                *idle = Idle::InLane;
                job.held.set(HeldState::Buffered);
                job.span.add_event("resumed", [("service", dependency.service().as_str().into())]);
            }
            keys.push(key);
        }
        keys
    }

    pub(in crate::inflight) fn parked_count(&self, dependency: Dependency) -> usize {
        self.parked[dependency.index()].len()
    }

    /// Whether the timer is now the first.
    pub(in crate::inflight) fn wait(&mut self, mut job: Box<Job>, until: Instant) -> bool {
        let key = job.key;
        job.held.set(HeldState::Waiting);
        let entry = self.entries.get_mut(&key).expect("a job in hand is in the table");
        entry.place = Place::Idle(job, Idle::Waiting(until));
        let earlier = self.next_timer().is_none_or(|first| until < first);
        self.timers.insert((until, key));
        earlier
    }

    /// The waiting jobs whose time has come; they count as buffered from here on.
    pub(in crate::inflight) fn due(&mut self, now: Instant) -> Vec<Key> {
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
    pub(in crate::inflight) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().filter(|_| !self.stopped).map(|(at, _)| *at)
    }

    pub(in crate::inflight) fn spill(&mut self, key: Key) {
        self.spilled.push_back(key);
    }

    pub(in crate::inflight) fn next_spilled(&self) -> Option<Key> {
        self.spilled.front().copied()
    }

    pub(in crate::inflight) fn pop_spilled(&mut self) {
        self.spilled.pop_front();
    }
}
