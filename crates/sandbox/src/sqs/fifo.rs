//! The parts of a FIFO queue: groups with ordered messages and one receive at a time, and the five
//! minutes in which a repeated send is not enqueued. Source: SQS developer guide, "FIFO delivery
//! logic" and "Exactly-once processing".

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::time::{Duration, Instant};

use super::queue::MessageState;

/// The deduplication interval. Source: "Exactly-once processing".
const DEDUPLICATION: Duration = Duration::from_secs(300);

/// About the first sequence number of SQS, so that numbers have a realistic size.
const SEQUENCE_BASE: u64 = 18_000_000_000_000_000_000;

#[derive(Debug, Default)]
struct Group {
    /// Messages that are not in flight, in order of sending, and whether each is visible.
    waiting: BTreeMap<u64, bool>,
    /// Messages in flight.
    held: BTreeSet<u64>,
    /// The entry in `ready` if the group can be received from.
    listed: Option<u64>,
}

/// The groups of a queue and its recent sends.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: HashMap<String, Group>,
    /// Groups that can be received from, ordered by their first message.
    ready: BTreeSet<(u64, String)>,
    receiving: Option<Receiving>,
    recent: HashMap<String, Recent>,
    recent_by_age: VecDeque<(Instant, String)>,
    sequence: u64,
}

/// The receive in progress. It may take further messages from the groups that it has taken from.
#[derive(Debug, Default)]
struct Receiving {
    taken: BTreeSet<String>,
    /// The next message of the last group: SQS returns as many messages of one group as possible.
    preferred: Option<u64>,
}

/// A message that was sent within the deduplication interval.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) message_id: String,
    pub(crate) sequence_number: String,
}

impl Groups {
    /// Returns the next message.
    pub(crate) fn first_ready(&self) -> Option<u64> {
        let preferred = self.receiving.as_ref().and_then(|r| r.preferred);
        preferred.or_else(|| self.ready.first().map(|(key, _)| *key))
    }

    /// Begins a receive. Groups stay available to it until `end_receive`.
    pub(crate) fn begin_receive(&mut self) {
        self.receiving = Some(Receiving::default());
    }

    /// Locks the groups that messages were taken from.
    pub(crate) fn end_receive(&mut self) {
        for name in self.receiving.take().unwrap_or_default().taken {
            self.relist(&name);
        }
    }

    /// Updates the state of a message; `None` means removed. Returns true if its group can be
    /// received from.
    pub(crate) fn moved(&mut self, name: &str, key: u64, state: Option<MessageState>) -> bool {
        let group = self.groups.entry(name.to_owned()).or_default();
        group.held.remove(&key);
        group.waiting.remove(&key);
        match state {
            Some(MessageState::InFlight) => {
                group.held.insert(key);
                if let Some(receiving) = &mut self.receiving {
                    receiving.taken.insert(name.to_owned());
                }
            }
            Some(MessageState::Visible) => {
                group.waiting.insert(key, true);
            }
            Some(MessageState::Delayed) => {
                group.waiting.insert(key, false);
            }
            None => {}
        }
        self.relist(name)
    }

    /// Updates the group's entry in `ready`. A group can be received from if its first message is
    /// visible and none is in flight, except those of the receive in progress.
    fn relist(&mut self, name: &str) -> bool {
        let Some(group) = self.groups.get_mut(name) else {
            return false;
        };
        if let Some(key) = group.listed.take() {
            self.ready.remove(&(key, name.to_owned()));
        }
        let is_open = group.held.is_empty() || self.receiving.is_some();
        let next = group.waiting.first_key_value().filter(|(_, visible)| **visible && is_open);
        group.listed = next.map(|(key, _)| *key);
        if let Some(receiving) = &mut self.receiving {
            receiving.preferred = group.listed;
        }
        match group.listed {
            Some(key) => {
                self.ready.insert((key, name.to_owned()));
                true
            }
            None => {
                if group.waiting.is_empty() && group.held.is_empty() {
                    self.groups.remove(name);
                }
                false
            }
        }
    }

    /// Returns the earlier message with this deduplication key, if there is one.
    pub(crate) fn repeated(&mut self, key: &str, now: Instant) -> Option<Recent> {
        while let Some((at, _)) = self.recent_by_age.front() {
            if *at + DEDUPLICATION > now {
                break;
            }
            if let Some((_, key)) = self.recent_by_age.pop_front() {
                self.recent.remove(&key);
            }
        }
        self.recent.get(key).cloned()
    }

    /// Returns an increasing number of twenty digits.
    pub(crate) fn next_sequence_number(&mut self) -> String {
        self.sequence += 1;
        format!("{:020}", SEQUENCE_BASE + self.sequence)
    }

    /// Stores a send for the deduplication interval.
    pub(crate) fn remember(&mut self, key: String, recent: Recent, now: Instant) {
        self.recent_by_age.push_back((now, key.clone()));
        self.recent.insert(key, recent);
    }
}
