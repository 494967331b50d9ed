//! What operators see of the table: how many events are in each state, and the oldest ones.

use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use super::{JobEntry, JobState, TableState, WaitReason};
use crate::event::{EventId, ReservationId};
use crate::inflight::job::{JobKey, Lane};
use crate::outage::Dependency;

/// The held events at one moment.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Number and highest age of the events in each state; states without events are left out.
    pub states: Vec<StateCount>,
    /// The events held longest, the oldest first.
    pub oldest: Vec<HeldEvent>,
}

/// The events in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCount {
    /// The state.
    pub state: EventState,
    /// Number of events.
    pub events: usize,
    /// Time since the oldest of them was received.
    pub oldest: Duration,
}

/// One held event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldEvent {
    /// The event's id.
    pub event_id: EventId,
    /// Its reservation.
    pub reservation_id: Option<ReservationId>,
    /// What it does or waits for.
    pub state: EventState,
    /// Time since it was received.
    pub age: Duration,
}

/// What a held event does, or what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventState {
    /// A worker has it.
    Running,
    /// A free worker.
    Buffered,
    /// An earlier event of its reservation or message group, held by this process.
    InLane,
    /// The turn of another process on its reservation.
    Turn,
    /// The time of its next attempt.
    Backoff,
    /// A free place among the events that fail while others succeed.
    Suspect,
    /// Room for a call at a service.
    Full(Dependency),
    /// A service that is away.
    Away(Dependency),
}

impl TableState {
    /// Looks at every held event once; keeps the `oldest_max` oldest.
    pub(in crate::inflight) fn overview(&self, oldest_max: usize, now: Instant) -> Overview {
        let mut states: Vec<StateCount> = Vec::new();
        let mut oldest: BinaryHeap<JobKey> = BinaryHeap::with_capacity(oldest_max + 1);
        for (key, entry) in &self.entries {
            let (state, age) = (self.state_of(entry), age(entry, now));
            match states.iter_mut().find(|count| count.state == state) {
                Some(count) => {
                    count.events += 1;
                    count.oldest = count.oldest.max(age);
                }
                None => states.push(StateCount { state, events: 1, oldest: age }),
            }
            // Keys are given in order of receipt: the lowest are the oldest.
            oldest.push(*key);
            if oldest.len() > oldest_max {
                oldest.pop();
            }
        }
        states.sort_unstable_by_key(|count| count.state);
        let oldest = oldest.into_sorted_vec();
        let oldest = oldest.iter().filter_map(|key| self.entries.get(key));
        let oldest = oldest.map(|entry| self.held_event(entry, now)).collect();
        Overview { states, oldest }
    }

    /// Returns the held event with this id.
    pub(in crate::inflight) fn held_event_of(
        &self,
        id: &EventId,
        now: Instant,
    ) -> Option<HeldEvent> {
        let key = self.by_event.get(id)?;
        self.entries.get(key).map(|entry| self.held_event(entry, now))
    }

    fn held_event(&self, entry: &JobEntry, now: Instant) -> HeldEvent {
        HeldEvent {
            event_id: entry.event_id.clone(),
            reservation_id: match &entry.lane {
                Lane::Reservation(id) => Some(id.clone()),
                Lane::Group(_) => None,
            },
            state: self.state_of(entry),
            age: age(entry, now),
        }
    }

    fn state_of(&self, entry: &JobEntry) -> EventState {
        match &entry.state {
            JobState::Running => EventState::Running,
            JobState::Idle(job, idle) => match idle {
                WaitReason::Ready => EventState::Buffered,
                WaitReason::InLane => EventState::InLane,
                WaitReason::Waiting { .. } if job.turn.is_some() => EventState::Turn,
                WaitReason::Waiting { .. } => EventState::Backoff,
                WaitReason::Suspect => EventState::Suspect,
                WaitReason::Parked(dependency, how) => {
                    if self.parked[dependency.index()].is_parked(*how) {
                        EventState::Away(*dependency)
                    } else {
                        EventState::Full(*dependency)
                    }
                }
            },
        }
    }
}

/// Returns the time since the first receipt that the event still has.
fn age(entry: &JobEntry, now: Instant) -> Duration {
    let first = entry.receipts.iter().map(|held| held.receipt.leased_at).min();
    first.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
}
