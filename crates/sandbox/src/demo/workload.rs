//! The messages of the demo: reservations in typical stories, with events of every type and
//! envelope and their expected effects. Generated from a seed, so that a run can be repeated. `run`
//! sends them.

use uuid::Uuid;

use super::envelope::{self, Envelope};
use crate::ledger::Effect;
use crate::reservation_api::ReservationStatus;

/// A message that always fails: it is truncated. The line break and the `é` show that its copy is
/// exact.
pub const POISON_BODY: &str =
    "{\"id\":\"evt_poison\",\"type\":\"payment.approved\",\n \"reservation_id\":\"rsv_é";
/// Percentage of events that are sent twice.
const DUPLICATES_PERCENT: u8 = 8;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `reservation.expired`, sometimes under its other name `reservation.hold.expired`.
    Expired,
    /// `payment.approved`.
    Approved,
    /// `payment.failed`.
    Failed,
}

impl Kind {
    /// All types.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Approved, Self::Failed];

    /// Returns the value of the event's `type` field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "reservation.expired",
            Self::Approved => "payment.approved",
            Self::Failed => "payment.failed",
        }
    }
}

/// A step of an event, with the name in its idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The Reservation API's `PATCH`.
    Status,
    /// `ReleaseHold`.
    Release,
    /// `CommitReservation`.
    Commit,
}

impl Step {
    /// Returns the name in the key.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "reservation-status",
            Self::Release => "inventory-release",
            Self::Commit => "inventory-commit",
        }
    }

    /// Returns the idempotency key of this step. The worker's published rule is implemented a
    /// second time here, so that effects are assigned without the worker.
    #[must_use]
    pub fn key(self, event_id: &str) -> String {
        let name = format!("urn:reservation-worker:{event_id}/{}", self.as_str());
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
    }
}

/// The expected effects of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Each of these once and nothing else.
    Effects(Vec<(Step, Effect)>),
    /// No effect: the seats are already sold, so they are not released.
    Superseded,
}

/// When a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With the burst.
    AtOnce,
    /// When the event's reservation has this status.
    OnceStatusIs(ReservationStatus),
    /// When all effects of the event have happened.
    OnceDone,
}

/// One event.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The event id.
    pub id: String,
    /// The reservation id.
    pub reservation_id: String,
    /// The event type.
    pub kind: Kind,
    /// The envelope.
    pub envelope: Envelope,
    /// The message body.
    pub body: String,
    /// The expected effects.
    pub expected: Expected,
    /// The sending times: once, or twice for a duplicate.
    pub sends: Vec<When>,
}

/// The complete plan. The poison message is additional.
#[derive(Clone, Debug)]
pub struct Workload {
    /// All events.
    pub events: Vec<Planned>,
    /// The burst: indexes into `events` in the order of sending; `None` is the poison message.
    pub burst: Vec<Option<usize>>,
    /// Messages that are sent later, each with its condition.
    pub later: Vec<(usize, When)>,
}

/// The events of one reservation.
#[derive(Clone, Copy, Debug)]
enum Story {
    HoldRanOut,
    Sold,
    PaidWithoutSeatsNamed,
    PaymentFailed,
    PaymentFailedWithoutSeatsNamed,
    /// The hold expires after the sale: superseded.
    SoldThenExpired,
    /// The payment failed without naming seats; the expiry of the hold releases them.
    FailedThenExpired,
}

/// The percentage of each story.
const STORIES: [(Story, u8); 7] = [
    (Story::HoldRanOut, 28),
    (Story::Sold, 28),
    (Story::PaidWithoutSeatsNamed, 8),
    (Story::PaymentFailed, 16),
    (Story::PaymentFailedWithoutSeatsNamed, 6),
    (Story::SoldThenExpired, 9),
    (Story::FailedThenExpired, 5),
];

impl Workload {
    /// Plans `count` events (at least 1) from `seed`.
    #[must_use]
    pub fn new(count: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut events = Vec::with_capacity(count + 1);
        let mut reservation = 0_usize;
        while events.len() < count {
            reservation += 1;
            let story = pick(&mut random);
            tell(story, &format!("rsv_{reservation:06}"), &mut events, &mut random);
        }
        events.truncate(count);
        let mut burst = Vec::new();
        let mut later = Vec::new();
        for (index, event) in events.iter().enumerate() {
            for when in &event.sends {
                match when {
                    When::AtOnce => burst.push(Some(index)),
                    When::OnceStatusIs(_) | When::OnceDone => later.push((index, *when)),
                }
            }
        }
        burst.push(None);
        random.shuffle(&mut burst);
        Self { events, burst, later }
    }

    /// Returns the number of messages, including duplicates and poison.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.burst.len() + self.later.len()
    }
}

fn pick(random: &mut fastrand::Rng) -> Story {
    let mut left = random.u8(..100);
    for (story, share) in STORIES {
        if left < share {
            return story;
        }
        left -= share;
    }
    unreachable!("the shares add up to 100")
}

fn tell(story: Story, reservation_id: &str, events: &mut Vec<Planned>, random: &mut fastrand::Rng) {
    use Effect::{SeatsCommitted, SeatsReleased, Status};
    use ReservationStatus::{Cancelled, Confirmed, Expired};
    let mut add = |kind, seats, expected: Expected, first| {
        let id = format!("evt_{:06}", events.len() + 1);
        events.push(plan(id, reservation_id, kind, seats, expected, first, random));
    };
    let expired =
        || Expected::Effects(vec![(Step::Status, Status(Expired)), (Step::Release, SeatsReleased)]);
    let sold = || {
        Expected::Effects(vec![(Step::Status, Status(Confirmed)), (Step::Commit, SeatsCommitted)])
    };
    let failed = || {
        Expected::Effects(vec![(Step::Status, Status(Cancelled)), (Step::Release, SeatsReleased)])
    };
    let only = |status| Expected::Effects(vec![(Step::Status, Status(status))]);
    match story {
        Story::HoldRanOut => add(Kind::Expired, true, expired(), When::AtOnce),
        Story::Sold => add(Kind::Approved, true, sold(), When::AtOnce),
        Story::PaidWithoutSeatsNamed => add(Kind::Approved, false, only(Confirmed), When::AtOnce),
        Story::PaymentFailed => add(Kind::Failed, true, failed(), When::AtOnce),
        Story::PaymentFailedWithoutSeatsNamed => {
            add(Kind::Failed, false, only(Cancelled), When::AtOnce)
        }
        Story::SoldThenExpired => {
            add(Kind::Approved, true, sold(), When::AtOnce);
            add(Kind::Expired, true, Expected::Superseded, When::OnceStatusIs(Confirmed));
        }
        Story::FailedThenExpired => {
            add(Kind::Failed, false, only(Cancelled), When::AtOnce);
            let released = Expected::Effects(vec![(Step::Release, SeatsReleased)]);
            add(Kind::Expired, true, released, When::OnceStatusIs(Cancelled));
        }
    }
}

fn plan(
    id: String,
    reservation_id: &str,
    kind: Kind,
    with_seats: bool,
    expected: Expected,
    first: When,
    random: &mut fastrand::Rng,
) -> Planned {
    let envelope = random.choice(Envelope::ALL).expect("the list is not empty");
    let body = envelope::body(&id, reservation_id, kind, with_seats, envelope, random);
    let mut sends = vec![first];
    if random.u8(..100) < DUPLICATES_PERCENT {
        // A copy directly after its original may find it in flight; a late copy finds it done.
        let late = matches!(expected, Expected::Effects(_)) && random.bool();
        sends.push(if late { When::OnceDone } else { first });
    }
    Planned { id, reservation_id: reservation_id.to_owned(), kind, envelope, body, expected, sends }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn idempotency_keys_have_the_documented_values() {
        assert_eq!(Step::Status.key("evt_123456"), "17f16bd2-d941-53dc-8b73-fff0816074c2");
        assert_eq!(Step::Release.key("evt_123456"), "43e622ac-f4c7-5c4b-8456-802403703e17");
        assert_eq!(Step::Commit.key("evt_123456"), "f03cccc4-9f0d-5e82-b2b1-1a604e6e4d8c");
    }

    #[test]
    fn story_percentages_add_up_to_100() {
        assert_eq!(STORIES.iter().map(|(_, share)| share).sum::<u8>(), 100);
    }

    #[test]
    fn a_plan_is_determined_by_its_seed() {
        let bodies = |seed| {
            Workload::new(50, seed).events.into_iter().map(|event| event.body).collect::<Vec<_>>()
        };
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn four_hundred_events_cover_all_types_envelopes_and_duplicates() {
        for seed in 0..20 {
            let load = Workload::new(400, seed);
            assert_eq!(load.events.len(), 400);
            let pairs: HashSet<_> =
                load.events.iter().map(|event| (event.kind, event.envelope)).collect();
            assert_eq!(pairs.len(), Kind::ALL.len() * Envelope::ALL.len());
            assert!(
                load.events.iter().filter(|event| event.expected == Expected::Superseded).count()
                    > 5
            );
            let ids: HashSet<_> = load.events.iter().map(|event| &event.id).collect();
            assert_eq!(ids.len(), 400);
            assert!(
                load.events.iter().any(|event| event.body.contains("reservation.hold.expired"))
            );
            for when in [When::AtOnce, When::OnceDone] {
                assert!(
                    load.events
                        .iter()
                        .any(|event| event.sends.len() == 2 && event.sends[1] == when)
                );
            }
            assert_eq!(load.burst.iter().filter(|index| index.is_none()).count(), 1);
            let sends: usize = load.events.iter().map(|event| event.sends.len()).sum();
            assert_eq!(load.messages(), sends + 1);
        }
    }
}
