//! Who comes before whom: lanes, each in order of receipt.
//!
//! An event stands in the lane of its reservation and, on a FIFO queue, in that of its message
//! group. It may start when it is the first in each. All lanes have the same order, so that the
//! event that was received first of all is always first in both of its own: nothing deadlocks.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;
use tokio::time::Instant;

use crate::event::ReservationId;
use crate::inflight::job::Key;

/// What events have in common that must be handled one after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inflight) enum Lane {
    Reservation(ReservationId),
    Group(Box<str>),
}

/// What an event is taken to take where its lane has hardly moved, in which nothing is known yet but how long it took to
/// begin. Too little spends another receive, too much leaves the lane idle.
const EVENT_TAKES: Duration = Duration::from_millis(100);

/// And the most: where a lane has stood still, its service was away, or is called rarely, and may be well by now.
const EVENT_TAKES_MAX: Duration = Duration::from_secs(30);

/// Who is in a lane, and how it moves.
#[derive(Debug)]
struct Line {
    keys: VecDeque<Key>,
    /// When the first came in.
    began_at: Instant,
    /// How many have left since, each as the first.
    left: u32,
    /// When it is the turn of the last that was handed back for want of room.
    turn_at: Option<Instant>,
}

/// Every lane that has somebody in it.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<Lane, Line>);

impl Lanes {
    pub(super) fn enter(&mut self, lane: &Lane, key: Key, now: Instant) {
        match self.0.get_mut(lane) {
            Some(line) => line.keys.push_back(key),
            None => {
                let keys = VecDeque::from([key]);
                let line = Line { keys, began_at: now, left: 0, turn_at: None };
                self.0.insert(lane.clone(), line);
            }
        }
    }

    pub(super) fn is_first(&self, lane: &Lane, key: Key) -> bool {
        self.first(lane) == Some(key)
    }

    pub(super) fn first(&self, lane: &Lane) -> Option<Key> {
        self.0.get(lane).and_then(|line| line.keys.front()).copied()
    }

    pub(super) fn len(&self, lane: &Lane) -> usize {
        self.0.get(lane).map_or(0, |line| line.keys.len())
    }

    /// How long it takes until the turn of one more comes, after those that are held and those that were told so before;
    /// and whether it is the first to ask. It is `most` at most, and short where it asks for the first time.
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
        let held = u32::try_from(line.keys.len()).unwrap_or(u32::MAX);
        let is_first = line.turn_at.is_none();
        let turn_at = (now + each.saturating_mul(held)).max(line.turn_at.unwrap_or(now) + each);
        let turn_at = turn_at.min(now + most);
        line.turn_at = Some(turn_at);
        Some((turn_at.saturating_duration_since(now), is_first))
    }

    /// Takes a key out; gives the next one where it was the first.
    pub(super) fn leave(&mut self, lane: &Lane, key: Key) -> Option<Key> {
        let line = self.0.get_mut(lane)?;
        if line.keys.front() != Some(&key) {
            line.keys.retain(|other| *other != key);
            return None;
        }
        line.keys.pop_front();
        line.left = line.left.saturating_add(1);
        let next = line.keys.front().copied();
        if next.is_none() {
            self.0.remove(lane);
        }
        next
    }

    /// Those that come after `key`.
    pub(super) fn after(&self, lane: &Lane, key: Key) -> Vec<Key> {
        let keys = self.0.get(lane).into_iter().flat_map(|line| &line.keys);
        keys.skip_while(|other| **other != key).skip(1).copied().collect()
    }
}
