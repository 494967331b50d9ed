//! Who comes before whom: lanes, each in order of receipt.
//!
//! An event stands in the lane of its reservation and, on a FIFO queue, in that of its message
//! group. It may start when it is the first in each. All lanes have the same order, so that the
//! event that was received first of all is always first in both of its own: nothing deadlocks.

use std::collections::VecDeque;

use ahash::HashMap;

use crate::event::ReservationId;
use crate::inflight::job::Key;

/// What events have in common that must be handled one after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::inflight) enum Lane {
    Reservation(ReservationId),
    Group(Box<str>),
}

/// Every lane that has somebody in it.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<Lane, VecDeque<Key>>);

impl Lanes {
    pub(super) fn enter(&mut self, lane: &Lane, key: Key) {
        match self.0.get_mut(lane) {
            Some(keys) => keys.push_back(key),
            None => {
                self.0.insert(lane.clone(), VecDeque::from([key]));
            }
        }
    }

    pub(super) fn is_first(&self, lane: &Lane, key: Key) -> bool {
        self.0.get(lane).and_then(VecDeque::front) == Some(&key)
    }

    /// Takes a key out; gives the next one where it was the first.
    pub(super) fn leave(&mut self, lane: &Lane, key: Key) -> Option<Key> {
        let keys = self.0.get_mut(lane)?;
        if keys.front() != Some(&key) {
            keys.retain(|other| *other != key);
            return None;
        }
        keys.pop_front();
        let next = keys.front().copied();
        if next.is_none() {
            self.0.remove(lane);
        }
        next
    }

    /// Those that come after `key`.
    pub(super) fn after(&self, lane: &Lane, key: Key) -> Vec<Key> {
        let keys = self.0.get(lane).into_iter().flatten();
        keys.skip_while(|other| **other != key).skip(1).copied().collect()
    }
}
