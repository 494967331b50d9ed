//! The soak test's queue and its account of millions of events. Messages are generated on receive;
//! held messages are kept in full, settled ones as bits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::bits::Bits;
use crate::events::{Event, Kind};

/// Number of visible messages at any time.
const VISIBLE: usize = 2_000;

/// One message of this many is not an event.
const POISON_EVERY: u64 = 1_000;

/// After one delivery of this many, the message stays visible and is delivered again.
const TWICE_EVERY: u64 = 100;

/// Messages before the second delivery: it goes to another receive while the first is still in
/// progress.
const AGAIN_BEHIND: usize = 15;

/// Returns the event with this number; none for poison.
pub(super) fn event(number: u64) -> Option<Event> {
    if number % POISON_EVERY == POISON_EVERY - 1 {
        return None;
    }
    let kind = if number.is_multiple_of(2) { Kind::Expired } else { Kind::Approved };
    Some(Event::new(&format!("soak_{number}"), kind))
}

/// Returns the number in a reservation id.
pub(super) fn number_of(reservation: &str) -> Option<u64> {
    reservation.strip_prefix("rsv_soak_")?.parse().ok()
}

/// The two calls of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Status,
    Seats,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    is_ended: bool,
    visible: VecDeque<u64>,
    held: HashMap<u64, Instant>,
    timers: BTreeSet<(Instant, u64)>,
    deleted: Bits,
    status: Bits,
    seats: Bits,
    dead_letters: Bits,
    sums: Sums,
}

/// Counts of messages and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Messages that were delivered at least once or wait for delivery.
    pub sent: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Messages that became visible again, after their visibility timeout or by request.
    pub returned: u64,
    /// Deleted messages.
    pub deleted: u64,
    /// Calls to both services.
    pub calls: u64,
    /// Effects: calls with a new idempotency key.
    pub effects: u64,
    /// Calls with a known idempotency key.
    pub repeats: u64,
    /// Copies sent to the dead-letter queue.
    pub dead_letters: u64,
    /// Wrong calls: without an event, or with a key of another event.
    pub wrong: u64,
}

/// The queue and its account.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }

    /// Returns up to `max` messages and hides them for `visibility`. Waits up to `wait` for the
    /// first.
    pub(super) async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Vec<u64> {
        let some = async {
            loop {
                let changed = self.changed.notified();
                let (taken, next_timer) = self.lock().take(max, visibility);
                if !taken.is_empty() {
                    return taken;
                }
                match next_timer {
                    Some(at) => {
                        tokio::select! { () = changed => {}, () = sleep_until(at.into()) => {} }
                    }
                    None => changed.await,
                }
            }
        };
        timeout(wait, some).await.unwrap_or_default()
    }

    pub(super) fn delete(&self, number: u64) {
        let mut state = self.lock();
        state.held.remove(&number);
        if state.deleted.set(number) {
            state.sums.deleted += 1;
        }
    }

    pub(super) fn hide(&self, number: u64, visibility: Duration) {
        let mut state = self.lock();
        // A message that is visible again is no longer held by the caller.
        if state.held.contains_key(&number) {
            state.hold(number, visibility);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Records a call of a service for this event and key.
    pub(super) fn called(&self, reservation: &str, part: Part, has_key: impl Fn(&str) -> bool) {
        let number = number_of(reservation);
        let mut state = self.lock();
        state.sums.calls += 1;
        let known = number.filter(|number| *number < state.next);
        let event = known.and_then(event);
        let (Some(number), Some(event)) = (number, event) else {
            state.sums.wrong += 1;
            return;
        };
        let [status, seats] = event.keys();
        let (key, bits) = match part {
            Part::Status => (status, &mut state.status),
            Part::Seats => (seats, &mut state.seats),
        };
        if !has_key(&key) {
            state.sums.wrong += 1;
        } else if bits.set(number) {
            state.sums.effects += 1;
        } else {
            state.sums.repeats += 1;
        }
    }

    pub(super) fn dead_letter(&self, number: u64) {
        let mut state = self.lock();
        state.dead_letters.set(number);
        state.sums.dead_letters += 1;
    }

    /// Stops generating messages.
    pub(super) fn end(&self) {
        self.lock().is_ended = true;
    }

    pub(super) fn sums(&self) -> Sums {
        let state = self.lock();
        Sums { sent: state.next, ..state.sums }
    }

    /// Returns the number of messages that are not deleted.
    pub(super) fn left(&self) -> u64 {
        let state = self.lock();
        state.next - state.sums.deleted
    }

    /// Checks the account of all messages that were sent.
    ///
    /// # Errors
    /// The first deviation.
    pub(super) fn judge(&self) -> Result<(), String> {
        let state = self.lock();
        if state.sums.wrong > 0 {
            return Err(format!("{} calls were of no event, or had a wrong key", state.sums.wrong));
        }
        for number in 0..state.next {
            let is_event = event(number).is_some();
            let found = [&state.status, &state.seats, &state.dead_letters, &state.deleted]
                .map(|bits| bits.get(number));
            if found != [is_event, is_event, !is_event, true] {
                return Err(format!(
                    "message {number} (an event: {is_event}): status, seats, dead letter, deleted: {found:?}"
                ));
            }
        }
        Ok(())
    }
}

impl State {
    fn take(&mut self, max: usize, visibility: Duration) -> (Vec<u64>, Option<Instant>) {
        let now = Instant::now();
        while let Some((at, number)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, number));
            // The timer is outdated if the message was hidden again.
            if self.held.get(&number) == Some(&at) {
                self.held.remove(&number);
                self.visible.push_back(number);
                self.sums.returned += 1;
            }
        }
        while !self.is_ended && self.visible.len() < VISIBLE {
            self.visible.push_back(self.next);
            self.next += 1;
        }
        let mut taken = Vec::with_capacity(max);
        while taken.len() < max {
            let Some(number) = self.visible.pop_front() else { break };
            if self.deleted.get(number) || taken.contains(&number) {
                continue;
            }
            self.sums.delivered += 1;
            if self.sums.delivered.is_multiple_of(TWICE_EVERY) {
                let soon = AGAIN_BEHIND.min(self.visible.len());
                self.visible.insert(soon, number);
            }
            self.hold(number, visibility);
            taken.push(number);
        }
        (taken, self.timers.first().map(|(at, _)| *at))
    }

    fn hold(&mut self, number: u64, visibility: Duration) {
        let until = Instant::now() + visibility;
        if let Some(before) = self.held.insert(number, until) {
            self.timers.remove(&(before, number));
        }
        self.timers.insert((until, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn only_undeleted_messages_are_delivered_again() {
        let queue = Queue::default();
        let first = queue.receive(10, SOON, SOON).await;
        assert_eq!(first.len(), 10);
        first[1..].iter().for_each(|number| queue.delete(*number));
        queue.end();
        tokio::time::sleep(SOON * 2).await;
        let mut again = 0;
        loop {
            let taken = queue.receive(10, SOON, Duration::from_secs(60)).await;
            if taken.is_empty() {
                break;
            }
            again += taken.iter().filter(|number| first.contains(number)).count();
            taken.iter().for_each(|number| queue.delete(*number));
        }
        assert_eq!((again, queue.left(), queue.sums().returned), (1, 0, 1));
    }

    #[tokio::test]
    async fn missing_calls_and_wrong_keys_are_reported() {
        let queue = Queue::default();
        let taken = queue.receive(1, SOON, SOON).await;
        assert_eq!(taken, [0]);
        let event = event(0).expect("an event");
        let call = |part, key: &str| queue.called(&event.reservation, part, |it| it == key);
        call(Part::Status, &event.keys()[0]);
        call(Part::Status, &event.keys()[0]);
        queue.delete(0);
        let Sums { effects, repeats, wrong, .. } = queue.sums();
        assert_eq!((effects, repeats, wrong), (1, 1, 0));
        assert!(queue.judge().expect_err("the seats call is missing").starts_with("message 0"));
        call(Part::Seats, "another's");
        assert!(queue.judge().expect_err("the key is wrong").contains("wrong key"));
    }
}
