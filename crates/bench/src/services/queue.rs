//! The queue: generates messages on receive and tracks each one until it is deleted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::account::Account;

/// The source of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A constant number of visible messages: a received message is replaced at once.
    Refilled {
        /// The number of visible messages.
        visible: usize,
    },
    /// New messages at a constant rate, evenly spaced.
    Rate {
        /// Messages per second.
        per_s: u32,
    },
    /// This number of messages, all visible from the start.
    Burst {
        /// The number of messages.
        messages: usize,
    },
    /// No messages.
    Idle,
}

/// A message that was received and is not yet deleted.
#[derive(Clone, Copy, Debug)]
struct Held {
    visible_at: Instant,
    received_at: Instant,
    /// Duration of its service calls so far.
    service: Duration,
    /// Whether its last service call succeeded.
    is_done: bool,
}

/// The queue's messages by number, and the account.
#[derive(Debug)]
pub(super) struct State {
    source: Source,
    next: u64,
    visible: VecDeque<(u64, Instant)>,
    held: HashMap<u64, Held>,
    pub(super) account: Account,
}

/// State that all servers share.
#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    arrived: Notify,
    /// Distinguishes the events of this run from those of other runs.
    pub(super) run: u32,
}

impl World {
    pub(super) fn new(source: Source) -> Self {
        let mut state = State {
            source,
            next: 0,
            visible: VecDeque::new(),
            held: HashMap::new(),
            account: Account::default(),
        };
        if let Source::Refilled { visible: messages } | Source::Burst { messages } = source {
            (0..messages).for_each(|_| state.add());
        }
        Self { state: Mutex::new(state), arrived: Notify::new(), run: std::process::id() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }

    /// Returns up to `max` messages; waits up to `wait` for the first.
    pub(super) async fn receive(&self, max: usize, wait: Duration) -> Vec<u64> {
        let some = async {
            loop {
                let arrived = self.arrived.notified();
                let taken = self.lock().take(max);
                if !taken.is_empty() {
                    return taken;
                }
                arrived.await;
            }
        };
        let taken = timeout(wait, some).await.unwrap_or_default();
        let mut state = self.lock();
        state.account.received(taken.len());
        let is_more = !state.visible.is_empty();
        drop(state);
        if is_more {
            // `Notify` stores one permit, and several receives may wait.
            self.arrived.notify_one();
        }
        taken
    }
}

impl State {
    fn add(&mut self) {
        self.visible.push_back((self.next, Instant::now()));
        self.next += 1;
    }

    fn take(&mut self, max: usize) -> Vec<u64> {
        let received_at = Instant::now();
        let count = max.min(self.visible.len());
        let mut taken = Vec::with_capacity(count);
        for (number, visible_at) in self.visible.drain(..count) {
            let held = Held { visible_at, received_at, service: Duration::ZERO, is_done: false };
            self.held.insert(number, held);
            taken.push(number);
        }
        if matches!(self.source, Source::Refilled { .. }) {
            taken.iter().for_each(|_| self.add());
        }
        taken
    }

    /// Deletes a message.
    pub(super) fn delete(&mut self, number: u64) {
        if let Some(held) = self.held.remove(&number) {
            self.account.deleted(held.is_done);
        }
    }

    /// Records a service call and its duration; the `last` call is the effect.
    pub(super) fn served(&mut self, number: u64, took: Duration, last: bool) {
        // A call for a deleted message is an error; it shows in the count of effects.
        let Some(held) = self.held.get_mut(&number) else { return };
        held.service += took;
        if last && held.is_done {
            self.account.done_again();
        } else if last {
            held.is_done = true;
            let (since_visible, since_received) =
                (held.visible_at.elapsed(), held.received_at.elapsed());
            let service = held.service;
            self.account.effect(
                since_visible.saturating_sub(service),
                since_received.saturating_sub(service),
            );
        }
    }

    /// Returns the number of received and undeleted messages.
    pub(super) fn unsettled(&self) -> usize {
        self.held.len()
    }
}

/// Adds `per_s` messages per second.
pub(super) async fn fill(world: Arc<World>, per_s: u32) {
    let mut ticks = interval(Duration::from_secs(1) / per_s);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        world.lock().add();
        world.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refilled_queue_keeps_a_constant_number_of_visible_messages() {
        let world = World::new(Source::Refilled { visible: 25 });
        for turn in 0..10 {
            let taken = world.receive(10, Duration::ZERO).await;
            assert_eq!(taken, (turn * 10..turn * 10 + 10).collect::<Vec<u64>>());
            assert_eq!(world.lock().visible.len(), 25);
        }
        assert_eq!(world.lock().unsettled(), 100);
        for number in 0..100 {
            world.lock().delete(number);
            world.lock().delete(number);
        }
        let state = world.lock();
        let figures = state.account.figures(state.unsettled());
        assert_eq!((figures.deleted, figures.unsettled), (100, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_receive_waits_for_the_first_message_up_to_its_wait_time() {
        let world = Arc::new(World::new(Source::Rate { per_s: 50 }));
        assert!(world.receive(10, Duration::from_secs(2)).await.is_empty());
        let fills = Arc::clone(&world);
        let filling = tokio::spawn(fill(fills, 50));
        assert_eq!(world.receive(10, Duration::from_secs(20)).await, [0]);
        assert_eq!(world.receive(10, Duration::from_secs(20)).await, [1]);
        filling.abort();
    }
}
