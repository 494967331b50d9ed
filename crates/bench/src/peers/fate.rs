//! What became of the events of a run, by the ledgers of the services and of the queues. How a
//! program makes its idempotency keys does not count: each reservation has one event.

use std::collections::HashSet;

use faults::account::{has_succeeded, original_id};
use faults::world::World;
use sandbox::ledger::{Call, Effect, Request, Service};

/// Counts of events and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Events without all their effects, neither in the queue nor in the dead-letter queue.
    pub lost: u64,
    /// Events with an effect that happened more than once.
    pub done_twice: u64,
    /// Calls that were repeated after they had succeeded.
    pub called_again: u64,
    /// Messages in the dead-letter queue.
    pub dead_lettered: u64,
    /// Events that are not done and still in the queue.
    pub left: u64,
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    DoneTwice,
    DeadLettered,
    Left,
    Lost,
}

impl Fate {
    fn of(wanted: &[Effect], found: &[Effect], is_dead: bool, is_queued: bool) -> Self {
        let times = |effect: &Effect| found.iter().filter(|other| *other == effect).count();
        if found.iter().any(|effect| times(effect) > 1) {
            Self::DoneTwice
        } else if wanted.iter().all(|effect| times(effect) == 1) {
            Self::Done
        } else if is_dead {
            Self::DeadLettered
        } else if is_queued {
            Self::Left
        } else {
            Self::Lost
        }
    }
}

impl Fates {
    pub(super) fn of(world: &World) -> Self {
        let letters = world.sqs.peek_all(&world.dlq);
        let dead: HashSet<&str> = letters.iter().map(original_id).collect();
        let messages = world.sqs.peek_all(&world.queue);
        let queued: HashSet<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        let mut fates = Self {
            called_again: called_again(&world.ledger.calls()),
            dead_lettered: u64::try_from(letters.len()).expect("usize fits into u64"),
            ..Self::default()
        };
        for sent in &world.sent {
            let Some(event) = &sent.event else { continue };
            let found = world.ledger.effects_for(&event.reservation);
            let id = sent.message_id.as_str();
            let (is_dead, is_queued) = (dead.contains(id), queued.contains(id));
            match Fate::of(&event.kind.effects(), &found, is_dead, is_queued) {
                Fate::Done | Fate::DeadLettered => {}
                Fate::DoneTwice => fates.done_twice += 1,
                Fate::Left => fates.left += 1,
                Fate::Lost => fates.lost += 1,
            }
        }
        fates
    }
}

/// Counts the calls of a reservation's step after one that succeeded.
fn called_again(calls: &[Call]) -> u64 {
    let mut done: HashSet<(Service, &str)> = HashSet::new();
    let mut again = 0;
    for call in calls.iter().filter(|call| call.request != Request::GetReservation) {
        let step = (call.service, call.reservation_id.as_str());
        again += u64::from(done.contains(&step));
        if has_succeeded(call) {
            done.insert(step);
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use sandbox::reservation_api::ReservationStatus;

    use super::*;

    const STATUS: Effect = Effect::Status(ReservationStatus::Expired);
    const SEATS: Effect = Effect::SeatsReleased;

    #[test]
    fn an_event_without_all_its_effects_is_lost_unless_a_queue_has_its_message() {
        for (found, is_dead, is_queued, fate) in [
            (&[STATUS, SEATS][..], false, false, Fate::Done),
            (&[STATUS, SEATS], true, true, Fate::Done),
            (&[STATUS, SEATS, SEATS], false, false, Fate::DoneTwice),
            (&[STATUS], true, false, Fate::DeadLettered),
            (&[], false, true, Fate::Left),
            (&[STATUS], false, false, Fate::Lost),
            (&[], false, false, Fate::Lost),
        ] {
            let seen = Fate::of(&[STATUS, SEATS], found, is_dead, is_queued);
            assert_eq!(seen, fate, "{found:?} {is_dead} {is_queued}");
        }
    }
}
