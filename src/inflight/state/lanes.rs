//! Ordering lanes, each in order of receipt, or of sending where processes share the order.
//!
//! An event is in the lane of its reservation and, on a FIFO queue, in the lane of its message
//! group. It may start when it is first in each. Where there are groups, all lanes
//! are in order of receipt, so the event received first of all is always first in both of its
//! lanes: no deadlock is possible.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use ahash::HashMap;
use tokio::time::Instant;

use crate::inflight::job::{JobKey, Lane};

/// Estimated handling time of an event while its lane has hardly moved.
/// Only the time until its first event started is known then. A value too low spends another
/// receive; a value too high leaves the lane idle.
const EVENT_TAKES: Duration = Duration::from_millis(100);

/// Maximum estimated handling time of an event.
/// If a lane has stood still, its service was down or is called rarely, and may have recovered by
/// now.
const EVENT_TAKES_MAX: Duration = Duration::from_secs(30);

/// A job in a lane.
#[derive(Clone, Copy, Debug)]
struct QueuedJob {
    key: JobKey,
    /// Sorts it among the jobs behind the first; `None`: it is behind all.
    order: Option<SystemTime>,
}

/// The contents of a lane, and its progress.
#[derive(Debug)]
struct LaneQueue {
    jobs: VecDeque<QueuedJob>,
    /// When the first job entered.
    began_at: Instant,
    /// How many jobs have left since then, each while it was first.
    left: u32,
    /// Estimated turn of the last message that was handed back for lack of room.
    turn_at: Option<Instant>,
}

impl LaneQueue {
    /// Inserts a job by its order, not before position `from`.
    fn insert(&mut self, job: QueuedJob, from: usize) {
        let later = |other: &QueuedJob| job.order.is_some() && other.order > job.order;
        let at = self.jobs.iter().skip(from).position(later);
        self.jobs.insert(at.map_or(self.jobs.len(), |at| from + at), job);
    }
}

/// All lanes that are not empty.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<Lane, LaneQueue>);

impl Lanes {
    /// Adds a job: behind all, or by its order. `before_first`: the first may be displaced.
    pub(super) fn enter(
        &mut self,
        lane: &Lane,
        key: JobKey,
        now: Instant,
        order: Option<SystemTime>,
        before_first: bool,
    ) {
        let job = QueuedJob { key, order };
        match self.0.get_mut(lane) {
            Some(line) => line.insert(job, usize::from(!before_first)),
            None => {
                let jobs = VecDeque::from([job]);
                let line = LaneQueue { jobs, began_at: now, left: 0, turn_at: None };
                self.0.insert(lane.clone(), line);
            }
        }
    }

    /// Moves the first job behind those with an earlier order. Returns the new first job, if it is
    /// another one.
    pub(super) fn give_way(&mut self, lane: &Lane) -> Option<JobKey> {
        let line = self.0.get_mut(lane)?;
        let (first, second) = (*line.jobs.front()?, *line.jobs.get(1)?);
        if first.order.is_none() || second.order.is_none() || first.order <= second.order {
            return None;
        }
        line.jobs.pop_front();
        line.insert(first, 0);
        Some(second.key)
    }

    pub(super) fn is_first(&self, lane: &Lane, key: JobKey) -> bool {
        self.first(lane) == Some(key)
    }

    pub(super) fn first(&self, lane: &Lane) -> Option<JobKey> {
        self.0.get(lane).and_then(|line| line.jobs.front()).map(|job| job.key)
    }

    pub(super) fn len(&self, lane: &Lane) -> usize {
        self.0.get(lane).map_or(0, |line| line.jobs.len())
    }

    /// Returns the estimated time until the turn of one more message, at most `most`.
    /// The message comes after the held ones and those that got an estimate before. The estimate is
    /// short if the message is new. Also returns whether it is the first estimate for the lane.
    pub(super) fn turn(
        &mut self,
        lane: &Lane,
        now: Instant,
        most: Duration,
        is_new: bool,
    ) -> Option<(Duration, bool)> {
        let line = self.0.get_mut(lane)?;
        let so_far = now.saturating_duration_since(line.began_at) + EVENT_TAKES;
        let each = (so_far / line.left.saturating_add(1)).min(EVENT_TAKES_MAX);
        let each = if is_new { each.min(EVENT_TAKES) } else { each };
        let held = u32::try_from(line.jobs.len()).unwrap_or(u32::MAX);
        let is_first = line.turn_at.is_none();
        let turn_at = (now + each.saturating_mul(held)).max(line.turn_at.unwrap_or(now) + each);
        let turn_at = turn_at.min(now + most);
        line.turn_at = Some(turn_at);
        Some((turn_at.saturating_duration_since(now), is_first))
    }

    /// Removes a key. Returns the next one if the removed key was first.
    pub(super) fn leave(&mut self, lane: &Lane, key: JobKey) -> Option<JobKey> {
        let line = self.0.get_mut(lane)?;
        if line.jobs.front().map(|job| job.key) != Some(key) {
            line.jobs.retain(|other| other.key != key);
            return None;
        }
        line.jobs.pop_front();
        line.left = line.left.saturating_add(1);
        let next = line.jobs.front().map(|job| job.key);
        if next.is_none() {
            self.0.remove(lane);
        }
        next
    }

    /// Returns the keys after `key`.
    pub(super) fn after(&self, lane: &Lane, key: JobKey) -> Vec<JobKey> {
        let jobs = self.0.get(lane).into_iter().flat_map(|line| &line.jobs);
        jobs.map(|job| job.key).skip_while(|other| *other != key).skip(1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(name: &str) -> Lane {
        Lane::Group(name.into())
    }

    /// A worker that runs for months meets millions of reservations.
    #[test]
    fn an_empty_lane_takes_no_memory_and_begins_anew() {
        let (mut lanes, lane, now) = (Lanes::default(), lane("g"), Instant::now());
        for key in [1, 2].map(JobKey) {
            lanes.enter(&lane, key, now, None, false);
        }
        assert_eq!(lanes.turn(&lane, now, 60 * SECOND, false).map(|turn| turn.1), Some(true));
        assert_eq!(lanes.leave(&lane, JobKey(1)), Some(JobKey(2)));
        assert_eq!(lanes.leave(&lane, JobKey(2)), None);
        assert!(lanes.0.is_empty());
        lanes.enter(&lane, JobKey(3), now, None, false);
        assert_eq!(lanes.turn(&lane, now, 60 * SECOND, false).map(|turn| turn.1), Some(true));
    }

    #[test]
    fn a_job_that_leaves_from_the_middle_is_not_the_next() {
        let (mut lanes, lane, now) = (Lanes::default(), lane("g"), Instant::now());
        for key in [1, 2, 3].map(JobKey) {
            lanes.enter(&lane, key, now, None, false);
        }
        assert_eq!(lanes.leave(&lane, JobKey(2)), None, "it was not its turn");
        assert_eq!((lanes.first(&lane), lanes.len(&lane)), (Some(JobKey(1)), 2));
        assert_eq!(lanes.leave(&lane, JobKey(1)), Some(JobKey(3)));
    }

    #[test]
    fn the_estimate_follows_the_pace_of_the_lane_except_for_a_new_message() {
        let (mut lanes, lane, now) = (Lanes::default(), lane("g"), Instant::now());
        for key in (1..=9).map(JobKey) {
            lanes.enter(&lane, key, now, None, false);
        }
        for key in (1..=4).map(JobKey) {
            lanes.leave(&lane, key);
        }
        // Four have left in 9.9 s, and the fifth is on its way: two seconds each, five times.
        let later = now + SECOND * 99 / 10;
        let new = lanes.turn(&lane, later, 60 * SECOND, true);
        assert_eq!(new, Some((SECOND / 2, true)));
        let turn = lanes.turn(&lane, later, 60 * SECOND, false);
        assert_eq!(turn, Some((10 * SECOND, false)));
        assert_eq!(lanes.turn(&lane, later, 11 * SECOND, false), Some((11 * SECOND, false)));
    }
}
