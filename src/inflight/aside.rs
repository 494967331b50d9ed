//! The table's putting aside of jobs, for a time or for a service, and their going on: see `state/waiting`.

use tokio::time::Instant;

use super::InFlight;
use super::job::Job;
use super::state::{ParkedAs, Promoted};
use crate::metrics::SuspectGuard;
use crate::outage::{Dependency, Waiting};

impl InFlight {
    /// Puts a job aside until `until`; its lease is kept, and no worker is held.
    pub fn wait(&self, job: Box<Job>, until: Instant) {
        self.wait_for(job, until, false);
    }

    /// The same where a service has refused it for now. Where it takes only so many calls a second, the job waits for its
    /// turn, and is buffered.
    pub fn wait_in_turn(&self, job: Box<Job>, until: Instant) {
        self.wait_for(job, until, true);
    }

    fn wait_for(&self, mut job: Box<Job>, until: Instant, is_in_turn: bool) {
        job.suspect = None;
        let mut state = self.lock();
        let (is_earlier, next) = state.wait(job, until, is_in_turn);
        self.promote(&mut state, Promoted([next, None, None]));
        drop(state);
        if is_earlier {
            self.timers_changed.notify_one();
        }
    }

    /// The same for a suspect. Gives the oldest suspect where there are too many of them: the caller must settle it.
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

    /// Puts a job aside until its service is called again, or has room for a call; its lease is kept, and no worker is
    /// held. Gives the oldest suspect where there are too many of them: the caller must settle it.
    pub fn park(&self, job: Box<Job>, dependency: Dependency, how: ParkedAs) -> Option<Box<Job>> {
        let mut state = self.lock();
        let next = state.park(job, dependency, how);
        let excess = if how.is_suspect { state.take_suspect_in_excess() } else { None };
        self.promote(&mut state, Promoted([next, None, None]));
        excess
    }

    /// Makes ready up to `count` of those who wait for a service, in order of receipt: fresh ones first, but each fourth is
    /// another.
    pub fn unpark(&self, dependency: Dependency, count: usize) {
        let mut state = self.lock();
        for key in state.unpark(dependency, count) {
            self.make_ready(&mut state, key);
        }
    }

    /// Makes ready one of those who wait for a service, any of them, a fresh one if there is one.
    pub fn unpark_any(&self, dependency: Dependency) {
        let mut state = self.lock();
        if let Some(key) = state.unpark_any(dependency) {
            self.make_ready(&mut state, key);
        }
    }

    /// How many wait for a service.
    pub fn parked(&self, dependency: Dependency) -> Waiting {
        self.lock().parked(dependency)
    }

    /// The job that has waited longest for one of `parts` parts of a service that are away, where those who wait take
    /// more than the suspects' share of the room. The caller must settle it.
    pub fn take_parked_in_excess(&self, dependency: Dependency, parts: usize) -> Option<Box<Job>> {
        self.lock().take_parked_in_excess(dependency, parts)
    }

    /// How many wait for a time.
    pub fn waiting_total(&self) -> usize {
        self.lock().waiting_total()
    }

    /// How many wait for a service that nobody calls now. Who waits for room at one that is called is not among them.
    pub fn parked_total(&self) -> usize {
        self.lock().parked_total()
    }

    /// Says whether a service takes only so many calls a second: what it refused waits for its turn there, and is buffered.
    pub fn set_rationed(&self, is_rationed: bool) {
        let mut state = self.lock();
        state.is_rationed = is_rationed;
        let drained = self.has_room(&state);
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
    }

    /// Says whether a service is called: who waits for one that is not is not buffered.
    pub fn set_away(&self, dependency: Dependency, is_away: bool) {
        let mut state = self.lock();
        state.set_away(dependency, is_away);
        let drained = self.has_room(&state);
        drop(state);
        if drained {
            self.buffer_drained.notify_one();
        }
    }
}
