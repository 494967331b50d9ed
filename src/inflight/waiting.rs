//! Table operations that put jobs aside and resume them; see `state/waiting`.

use tokio::time::Instant;

use super::InFlight;
use super::job::Job;
use super::state::{ParkedAs, Promoted};
use crate::metrics::SuspectGuard;
use crate::outage::{Dependency, Waiting};

impl InFlight {
    /// Puts a job aside until `until`. Its lease is kept and it uses no worker.
    /// A job that has not begun gives way to one of its reservation that was sent earlier.
    pub fn wait(&self, job: Box<Job>, until: Instant) {
        self.wait_for(job, until, false);
    }

    /// Puts aside a job that its service has refused for now.
    /// If the service has a call rate limit, the job waits for its turn and counts as buffered.
    pub fn wait_in_turn(&self, job: Box<Job>, until: Instant) {
        self.wait_for(job, until, true);
    }

    fn wait_for(&self, mut job: Box<Job>, until: Instant, is_in_turn: bool) {
        job.suspect = None;
        let key = job.key;
        let mut state = self.lock();
        let (is_earlier, next) = state.wait(job, until, is_in_turn);
        let earlier_sent = state.give_way(key);
        self.promote(&mut state, Promoted([next, earlier_sent, None]));
        drop(state);
        if is_earlier {
            self.timers_changed.notify_one();
        }
    }

    /// Puts a suspect aside until `until`.
    /// Returns the oldest suspect if there are too many. The caller must settle it.
    pub fn wait_as_suspect(
        &self,
        mut job: Box<Job>,
        guard: SuspectGuard,
        until: Instant,
    ) -> Option<Box<Job>> {
        job.suspect = Some(guard);
        let mut state = self.lock();
        let (is_earlier, next) = state.wait(job, until, false);
        let excess = state.take_suspect_in_excess();
        self.promote(&mut state, Promoted([next, None, None]));
        drop(state);
        if is_earlier {
            self.timers_changed.notify_one();
        }
        excess
    }

    /// Puts a job aside until its service is called again or has room for a call.
    /// Its lease is kept and it uses no worker. Returns the oldest suspect if there are too many.
    /// The caller must settle it.
    pub fn park(&self, job: Box<Job>, dependency: Dependency, how: ParkedAs) -> Option<Box<Job>> {
        let mut state = self.lock();
        let next = state.park(job, dependency, how);
        let excess = if how.is_suspect { state.take_suspect_in_excess() } else { None };
        self.promote(&mut state, Promoted([next, None, None]));
        excess
    }

    /// Makes ready up to `count` jobs that wait for a service, in order of receipt.
    /// Fresh jobs come first, but every fourth job is another one.
    pub fn unpark(&self, dependency: Dependency, count: usize) {
        let mut state = self.lock();
        for key in state.unpark(dependency, count) {
            self.make_ready(&mut state, key);
        }
    }

    /// Makes ready one of the jobs that wait for a service: a random one, fresh ones preferred.
    pub fn unpark_any(&self, dependency: Dependency) {
        let mut state = self.lock();
        if let Some(key) = state.unpark_any(dependency) {
            self.make_ready(&mut state, key);
        }
    }

    /// Counts the jobs that wait for a service.
    pub fn parked(&self, dependency: Dependency) -> Waiting {
        self.lock().parked(dependency)
    }

    /// Takes the oldest job that waits for a service, if the waiting jobs exceed their share.
    /// `parts` is the number of parts of the service that are down. The share of each is the
    /// suspects' share of the room, divided by `parts`. The caller must settle the job.
    pub fn take_parked_in_excess(&self, dependency: Dependency, parts: usize) -> Option<Box<Job>> {
        self.lock().take_parked_in_excess(dependency, parts)
    }

    /// Counts the jobs that wait for a time.
    pub fn waiting_total(&self) -> usize {
        self.lock().waiting_total()
    }

    /// Counts the jobs that wait for a service that is not called now.
    /// Jobs that wait for room at a service that is called are not included.
    pub fn parked_total(&self) -> usize {
        self.lock().parked_total()
    }

    /// Sets whether a service has a call rate limit: jobs that it refused then count as buffered.
    pub fn set_rationed(&self, is_rationed: bool) {
        let mut state = self.lock();
        state.is_rationed = is_rationed;
        let drained = self.has_capacity(&state);
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
    }

    /// Sets whether a service is away: jobs that wait for it then do not count as buffered.
    pub fn set_away(&self, dependency: Dependency, is_away: bool) {
        let mut state = self.lock();
        state.set_away(dependency, is_away);
        let drained = self.has_capacity(&state);
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
    }
}
