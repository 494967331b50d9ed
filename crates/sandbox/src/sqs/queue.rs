//! A queue: its messages and their states. The time is a parameter, so that nothing here waits;
//! receivers wait on `arrived`.
//!
//! A message is *delayed*, *ready* or *in flight*. Two ordered sets keep every step at O(log n):
//! `ready` by the time at which each message became visible, `timers` by the time at which it will.
//! `groups` selects the next message on a FIFO queue, `tenants` on a standard queue. `delivery`
//! delivers, deletes and hides messages.

mod delivery;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

pub(crate) use delivery::{Delivery, IN_FLIGHT_MAX};

use super::action::Action;
use super::fair::Tenants;
use super::faults::Plan;
use super::fifo::Groups;
use super::ledger::{Entry, Ledger, Outcome};
use super::message::Content;
use super::settings::Settings;

/// The number of messages by state. Delayed ones are neither visible nor in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that can be received now, or when their FIFO group is unlocked.
    pub visible: usize,
    /// Received messages that are neither deleted nor visible again.
    pub in_flight: usize,
    /// Messages whose delay has not ended.
    pub delayed: usize,
}

impl Counts {
    /// Returns the number of all messages.
    pub fn total(&self) -> usize {
        self.visible + self.in_flight + self.delayed
    }
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// Not visible until its delay has ended.
    Delayed,
    /// Can be received.
    Visible,
    /// Received, and hidden until its visibility timeout ends.
    InFlight,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) state: MessageState,
    /// When it became visible or will.
    pub(crate) at: Instant,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) content: Arc<Content>,
    pub(crate) id: Arc<str>,
    pub(crate) sent_at: Instant,
    pub(crate) placed: Placed,
    /// Receives in all its queues.
    pub(crate) receive_count: u32,
    receives_here: u32,
    pub(crate) first_receive_ms: Option<u64>,
    pub(crate) source_arn: Option<String>,
    received_at: Option<Instant>,
}

/// The time of a request: monotonic, since the start, and since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) since_start_ms: u64,
    pub(crate) epoch_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: String,
    /// Distinguishes the handles of this queue from those of an earlier queue of the same name.
    uid: u64,
    pub(crate) created_s: u64,
    pub(crate) modified_s: u64,
    pub(crate) purged_at: Option<Instant>,
    pub(crate) settings: Settings,
    pub(crate) messages: HashMap<u64, Message>,
    pub(crate) groups: Option<Groups>,
    tenants: Tenants,
    ready: BTreeSet<(Instant, u64)>,
    timers: BTreeSet<(Instant, u64)>,
    by_age: BTreeSet<(Instant, u64)>,
    in_flight: usize,
    delayed: usize,
    next_key: u64,
    pub(crate) arrived: Arc<Notify>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) faults: Plan,
    pub(crate) ledger: Ledger,
}

impl Queue {
    pub(crate) fn new(name: &str, settings: Settings, now: Now) -> Self {
        Self {
            name: name.to_owned(),
            uid: fastrand::u64(..),
            created_s: now.epoch_ms / 1000,
            modified_s: now.epoch_ms / 1000,
            purged_at: None,
            groups: settings.spec.fifo.then(Groups::default),
            settings,
            messages: HashMap::new(),
            tenants: Tenants::default(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            by_age: BTreeSet::new(),
            in_flight: 0,
            delayed: 0,
            next_key: 0,
            arrived: Arc::default(),
            changed: Arc::default(),
            faults: Plan::default(),
            ledger: Ledger::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            visible: self.messages.len() - self.in_flight - self.delayed,
            in_flight: self.in_flight,
            delayed: self.delayed,
        }
    }

    /// Returns when the next message becomes visible by itself.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Advances the time: delays and visibility timeouts end, expired messages are removed.
    pub(crate) fn advance(&mut self, now: Now) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > now.instant {
                break;
            }
            self.place(key, MessageState::Visible, at);
        }
        let retention = Duration::from_secs(u64::from(self.settings.spec.retention_s));
        while let Some(&(sent_at, key)) = self.by_age.first() {
            if sent_at + retention > now.instant {
                break;
            }
            self.remove(key);
            self.ledger.expired += 1;
        }
    }

    /// Adds a new message.
    pub(crate) fn push(&mut self, content: Content, delay: Duration, now: Now) {
        let state = if delay.is_zero() { MessageState::Visible } else { MessageState::Delayed };
        self.insert(Message {
            id: Arc::from(content.id.as_str()),
            content: Arc::new(content),
            sent_at: now.instant,
            placed: Placed { state, at: now.instant + delay },
            receive_count: 0,
            receives_here: 0,
            first_receive_ms: None,
            source_arn: None,
            received_at: None,
        });
    }

    /// Adds a message from another queue, with its id, age and count.
    pub(crate) fn adopt(&mut self, mut message: Message, source_arn: Option<String>, now: Now) {
        message.placed = Placed { state: MessageState::Visible, at: now.instant };
        message.receives_here = 0;
        message.received_at = None;
        message.source_arn = source_arn;
        self.insert(message);
    }

    fn insert(&mut self, message: Message) {
        let key = self.next_key;
        self.next_key += 1;
        self.by_age.insert((message.sent_at, key));
        let placed = message.placed;
        self.messages.insert(key, message);
        self.enter(key, placed);
    }

    /// Removes a message from the sets of its state.
    fn leave(&mut self, key: u64, placed: Placed, group: Option<&String>) {
        if self.groups.is_none() {
            self.tenants.leave(group, key, placed);
        }
        match placed.state {
            MessageState::Visible => {
                self.ready.remove(&(placed.at, key));
            }
            MessageState::InFlight => {
                self.in_flight -= 1;
                self.timers.remove(&(placed.at, key));
            }
            MessageState::Delayed => {
                self.delayed -= 1;
                self.timers.remove(&(placed.at, key));
            }
        }
    }

    fn enter(&mut self, key: u64, placed: Placed) {
        if self.groups.is_none()
            && let Some(message) = self.messages.get(&key)
        {
            self.tenants.enter(message.content.group.as_ref(), key, placed);
        }
        match placed.state {
            MessageState::Visible => {
                self.ready.insert((placed.at, key));
                self.arrived.notify_waiters();
            }
            MessageState::InFlight => {
                self.in_flight += 1;
                self.timers.insert((placed.at, key));
            }
            MessageState::Delayed => {
                self.delayed += 1;
                self.timers.insert((placed.at, key));
            }
        }
        if self.timers.first() == Some(&(placed.at, key)) {
            // A receive that waits for the next timer must notice the earlier one.
            self.arrived.notify_waiters();
        }
        self.regroup(key);
        self.changed.notify_waiters();
    }

    fn place(&mut self, key: u64, state: MessageState, at: Instant) {
        let Some(message) = self.messages.get_mut(&key) else {
            return;
        };
        let before = message.placed;
        let after = Placed { state, at };
        message.placed = after;
        let content = Arc::clone(&message.content);
        self.leave(key, before, content.group.as_ref());
        self.enter(key, after);
    }

    fn regroup(&mut self, key: u64) {
        let (Some(groups), Some(message)) = (&mut self.groups, self.messages.get(&key)) else {
            return;
        };
        let Some(group) = &message.content.group else {
            return;
        };
        if groups.moved(group, key, Some(message.placed.state)) {
            self.arrived.notify_waiters();
        }
    }

    fn remove(&mut self, key: u64) -> Option<Message> {
        let message = self.messages.remove(&key)?;
        self.leave(key, message.placed, message.content.group.as_ref());
        self.by_age.remove(&(message.sent_at, key));
        if let (Some(groups), Some(group)) = (&mut self.groups, &message.content.group)
            && groups.moved(group, key, None)
        {
            self.arrived.notify_waiters();
        }
        self.changed.notify_waiters();
        Some(message)
    }

    /// Removes all messages.
    pub(crate) fn clear(&mut self) {
        let keys: Vec<u64> = self.messages.keys().copied().collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// Removes all visible messages, oldest first, and returns them.
    pub(crate) fn drain_visible(&mut self) -> Vec<Message> {
        let keys: Vec<u64> = self.ready.iter().map(|(_, key)| *key).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn next_ready(&self) -> Option<u64> {
        match &self.groups {
            Some(groups) => groups.first_ready(),
            None => self.tenants.first_ready(self.in_flight),
        }
    }

    /// Adds an entry to the ledger.
    pub(crate) fn book(
        &mut self,
        now: Now,
        action: Action,
        message_id: Option<Arc<str>>,
        receipt_handle: Option<Arc<str>>,
        outcome: Outcome,
    ) {
        self.ledger.book(Entry {
            at_ms: now.since_start_ms,
            action,
            message_id,
            receipt_handle,
            outcome,
        });
        self.changed.notify_waiters();
    }
}
