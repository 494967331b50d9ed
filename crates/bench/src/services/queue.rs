//! The queue: messages that are made as they are asked for, and what is known of each until it is deleted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::account::Account;

/// Where messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// So many are visible at all times: one that is received is replaced at once.
    Refilled {
        /// How many.
        visible: usize,
    },
    /// So many appear in each second, evenly spaced.
    Rate {
        /// How many.
        per_s: u32,
    },
    /// None.
    Idle,
}

/// A message that was received and not deleted yet.
#[derive(Clone, Copy, Debug)]
struct Held {
    visible_at: Instant,
    received_at: Instant,
    /// What the services took for it so far.
    service: Duration,
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

/// What all servers share.
#[derive(Debug)]
pub(super) struct World {
    state: Mutex<State>,
    arrived: Notify,
    /// Tells this run's events from another's.
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
        if let Source::Refilled { visible } = source {
            (0..visible).for_each(|_| state.add());
        }
        Self { state: Mutex::new(state), arrived: Notify::new(), run: std::process::id() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }

    /// Up to `max` messages, after waiting for the first for as long as `wait`.
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
            // One permit is kept for whoever waits or will: there may be several who do.
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
            let held = Held { visible_at, received_at, service: Duration::ZERO };
            self.held.insert(number, held);
            taken.push(number);
        }
        if matches!(self.source, Source::Refilled { .. }) {
            taken.iter().for_each(|_| self.add());
        }
        taken
    }

    /// A message is deleted.
    pub(super) fn delete(&mut self, number: u64) {
        if self.held.remove(&number).is_some() {
            self.account.deleted();
        }
    }

    /// A service did its part, which took so long; the `last` part is the effect.
    pub(super) fn served(&mut self, number: u64, took: Duration, last: bool) {
        // A call for a message that was deleted is an error that shows in the count of effects.
        let Some(held) = self.held.get_mut(&number) else { return };
        held.service += took;
        if last {
            let (since_visible, since_received) =
                (held.visible_at.elapsed(), held.received_at.elapsed());
            let service = held.service;
            self.account.effect(
                since_visible.saturating_sub(service),
                since_received.saturating_sub(service),
            );
        }
    }

    /// Messages that were received and not deleted.
    pub(super) fn unsettled(&self) -> usize {
        self.held.len()
    }
}

/// Adds so many messages a second.
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
    async fn a_refilled_queue_has_as_many_visible_whatever_is_taken() {
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
    async fn a_receive_waits_for_the_first_message_and_no_longer_than_asked() {
        let world = Arc::new(World::new(Source::Rate { per_s: 50 }));
        assert!(world.receive(10, Duration::from_secs(2)).await.is_empty());
        let fills = Arc::clone(&world);
        let filling = tokio::spawn(fill(fills, 50));
        assert_eq!(world.receive(10, Duration::from_secs(20)).await, [0]);
        assert_eq!(world.receive(10, Duration::from_secs(20)).await, [1]);
        filling.abort();
    }
}
