//! Tests of the check: a correct run balances, and each kind of deviation is found.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::balance::{Balance, Facts, balance};
use super::problem::Problem;
use super::workload::{Expected, Kind, POISON_BODY, Planned, Step, Workload};
use crate::inventory::HoldState;
use crate::ledger::{Answer, Call, Effect, Request, Service};
use crate::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
use crate::reservation_api::ReservationStatus;

/// The facts of a correct run, which tests modify.
struct Run {
    events: Vec<Planned>,
    sent_at: Vec<Option<Instant>>,
    calls: Vec<Call>,
    statuses: HashMap<String, ReservationStatus>,
    holds: HashMap<String, HoldState>,
    dead_letters: Vec<String>,
    queue_left: usize,
}

impl Run {
    fn right() -> Self {
        let events = Workload::new(200, 3).events;
        let start = Instant::now();
        let mut run = Self {
            sent_at: vec![Some(start); events.len()],
            events,
            calls: Vec::new(),
            statuses: HashMap::new(),
            holds: HashMap::new(),
            dead_letters: vec![POISON_BODY.to_owned()],
            queue_left: 0,
        };
        for event in run.events.clone() {
            match &event.expected {
                Expected::Effects(effects) => {
                    for (step, effect) in effects {
                        run.applied(&event, *step, *effect);
                    }
                }
                Expected::Superseded => run.call(&event, Step::Status, None, Answer::Http(409)),
            }
        }
        run
    }

    fn applied(&mut self, event: &Planned, step: Step, effect: Effect) {
        let id = event.reservation_id.clone();
        let answer = match effect {
            Effect::Status(status) => {
                self.statuses.insert(id, status);
                Answer::Http(200)
            }
            Effect::SeatsReleased => {
                self.holds.insert(id, HoldState::Released);
                Answer::GrpcStatus(1)
            }
            Effect::SeatsCommitted => {
                self.holds.insert(id, HoldState::Committed);
                Answer::GrpcStatus(1)
            }
        };
        self.call(event, step, Some(effect), answer);
    }

    fn call(&mut self, event: &Planned, step: Step, effect: Option<Effect>, answer: Answer) {
        let sequence = u64::try_from(self.calls.len()).unwrap();
        let at = self.sent_at[0].unwrap() + Duration::from_millis(sequence + 1);
        let (service, request) = match step {
            Step::Status => {
                (Service::ReservationApi, Request::PatchReservation(serde_json::Value::Null))
            }
            Step::Release => {
                (Service::Inventory, Request::ReleaseHold(ReleaseHoldRequest::default()))
            }
            Step::Commit => (
                Service::Inventory,
                Request::CommitReservation(CommitReservationRequest::default()),
            ),
        };
        let key = step.key(&event.id);
        let repeated_key = self.calls.iter().any(|call| call.key.as_ref() == Some(&key));
        self.calls.push(Call {
            sequence,
            at,
            service,
            reservation_id: event.reservation_id.clone(),
            raw_path: String::new(),
            key: Some(key),
            traceparent: None,
            tracestate: None,
            baggage: None,
            xray: None,
            request,
            repeated_key,
            effect: effect.map(|effect| (effect, at)),
            answer,
            answered_at: Some(at),
            fault: false,
            abandoned: false,
        });
    }

    fn judge(&self) -> Balance {
        balance(&Facts {
            events: &self.events,
            sent_at: &self.sent_at,
            calls: &self.calls,
            statuses: &self.statuses,
            holds: &self.holds,
            dead_letters: &self.dead_letters,
            queue_left: self.queue_left,
        })
    }

    /// Returns the index of the first event with this effect on its seats.
    fn with_seats(&self, wanted: Effect) -> usize {
        let expects = |event: &Planned| match &event.expected {
            Expected::Effects(effects) => effects.len() == 2 && effects[1].1 == wanted,
            Expected::Superseded => false,
        };
        self.events.iter().position(expects).unwrap()
    }

    fn superseded(&self) -> Planned {
        self.events.iter().find(|event| event.expected == Expected::Superseded).unwrap().clone()
    }

    fn call_of(&mut self, event: &Planned, step: Step) -> &mut Call {
        let key = step.key(&event.id);
        self.calls.iter_mut().find(|call| call.key.as_ref() == Some(&key)).unwrap()
    }
}

#[test]
fn a_correct_run_balances_with_correct_counts() {
    let run = Run::right();
    let balance = run.judge();
    assert_eq!(balance.problems, []);
    assert!(balance.holds());
    assert_eq!((balance.lost, balance.dead_lettered, balance.retried), (0, 1, 0));
    let copies: usize = run.events.iter().map(|event| event.sends.len() - 1).sum();
    assert!(copies > 0);
    assert_eq!(balance.dropped_duplicates, copies);
    let superseded =
        run.events.iter().filter(|event| event.expected == Expected::Superseded).count();
    assert_eq!(balance.dropped_superseded, superseded);
    let expired = run.calls.iter().filter(|call| {
        call.effect.is_some_and(|(effect, _)| effect == Effect::Status(ReservationStatus::Expired))
    });
    assert_eq!(balance.effects[&(Kind::Expired, "status EXPIRED")], expired.count());
    assert_eq!(balance.latencies.len(), run.events.len() - superseded);
    assert!(balance.percentile(50) < balance.percentile(99));
}

#[test]
fn percentiles_are_measured_values_by_rank() {
    let latencies = (1..=200).map(Duration::from_millis).collect();
    let balance = Balance { latencies, ..Balance::default() };
    assert_eq!(balance.percentile(50), Some(Duration::from_millis(100)));
    assert_eq!(balance.percentile(99), Some(Duration::from_millis(198)));
    assert_eq!(balance.percentile(100), Some(Duration::from_millis(200)));
    assert_eq!(Balance::default().percentile(50), None);
}

#[test]
fn a_missing_effect_counts_as_lost() {
    let mut run = Run::right();
    let event = run.events[run.with_seats(Effect::SeatsReleased)].clone();
    run.calls.retain(|call| call.key.as_ref() != Some(&Step::Release.key(&event.id)));
    run.holds.remove(&event.reservation_id);
    let balance = run.judge();
    assert_eq!(balance.lost, 1);
    let missing = Problem::Missing(event.id, "seats released");
    let seats = Problem::WrongSeats(event.reservation_id, "None, not Some(Released)".to_owned());
    assert_eq!(balance.problems, [missing, seats]);
}

#[test]
fn a_repeated_effect_is_a_problem() {
    let mut run = Run::right();
    let event = run.events[run.with_seats(Effect::SeatsCommitted)].clone();
    run.call_of(&event, Step::Commit).fault = true;
    run.applied(&event, Step::Commit, Effect::SeatsCommitted);
    assert_eq!(run.judge().problems, [Problem::Repeated(event.id, "seats sold", 2)]);
}

#[test]
fn a_call_after_success_is_a_problem_unless_the_response_may_be_lost() {
    let mut run = Run::right();
    let event = run.events[run.with_seats(Effect::SeatsCommitted)].clone();
    run.call(&event, Step::Commit, None, Answer::GrpcStatus(1));
    assert_eq!(run.judge().problems, [Problem::Needless(event.id.clone(), "inventory-commit")]);
    run.call_of(&event, Step::Commit).abandoned = true;
    let balance = run.judge();
    assert_eq!((balance.problems.as_slice(), balance.retried), ([].as_slice(), 1));
}

#[test]
fn a_superseded_event_that_releases_seats_is_a_problem() {
    let mut run = Run::right();
    let event = run.superseded();
    run.applied(&event, Step::Release, Effect::SeatsReleased);
    let problems = run.judge().problems;
    assert!(problems.contains(&Problem::Unexpected(event.id, "seats released")), "{problems:?}");
    let seats =
        Problem::WrongSeats(event.reservation_id, "Some(Released), not Some(Committed)".to_owned());
    assert!(problems.contains(&seats), "{problems:?}");
}

#[test]
fn a_superseded_event_without_a_call_counts_as_lost() {
    let mut run = Run::right();
    let event = run.superseded();
    run.calls.retain(|call| call.key.as_ref() != Some(&Step::Status.key(&event.id)));
    let balance = run.judge();
    assert_eq!((balance.lost, balance.problems), (1, vec![Problem::DroppedUnseen(event.id)]));
}

#[test]
fn a_truncated_refusal_counts_as_refusal() {
    let mut run = Run::right();
    let event = run.superseded();
    run.call_of(&event, Step::Status).answer = Answer::CutShort(409);
    assert!(run.judge().holds());
    run.call_of(&event, Step::Status).answer = Answer::Http(503);
    assert_eq!(run.judge().problems, [Problem::DroppedUnseen(event.id)]);
}

#[test]
fn an_effect_with_an_unknown_idempotency_key_is_a_problem() {
    let mut run = Run::right();
    let event = run.events[0].clone();
    run.call(&event, Step::Release, Some(Effect::SeatsReleased), Answer::GrpcStatus(1));
    run.calls.last_mut().unwrap().key = Some("made-up".to_owned());
    assert_eq!(run.judge().problems, [Problem::Stranger("made-up".to_owned(), "seats released")]);
}

#[test]
fn a_wrong_effect_is_a_problem() {
    let mut run = Run::right();
    let event = run.events[run.with_seats(Effect::SeatsCommitted)].clone();
    let at = run.call_of(&event, Step::Status).at;
    run.call_of(&event, Step::Status).effect =
        Some((Effect::Status(ReservationStatus::Cancelled), at));
    run.statuses.insert(event.reservation_id.clone(), ReservationStatus::Cancelled);
    assert_eq!(
        run.judge().problems,
        [
            Problem::Missing(event.id.clone(), "status CONFIRMED"),
            Problem::Unexpected(event.id, "status CANCELLED"),
            Problem::WrongStatus(
                event.reservation_id,
                "Some(Cancelled), not Some(Confirmed)".to_owned()
            ),
        ]
    );
}

#[test]
fn an_event_that_was_never_sent_counts_as_lost() {
    let mut run = Run::right();
    let event = run.superseded();
    let index = run.events.iter().position(|other| other.id == event.id).unwrap();
    run.sent_at[index] = None;
    let balance = run.judge();
    assert_eq!((balance.lost, balance.problems), (1, vec![Problem::NotSent(event.id)]));
}

#[test]
fn the_queues_must_hold_only_one_poison_message() {
    let mut run = Run::right();
    run.dead_letters.clear();
    assert_eq!(run.judge().problems, [Problem::PoisonCopies(0)]);
    run.dead_letters = vec![POISON_BODY.to_owned(); 2];
    assert_eq!(run.judge().problems, [Problem::PoisonCopies(2)]);
    run.dead_letters = vec![POISON_BODY.trim_end().replace('\n', " ")];
    assert_eq!(run.judge().problems, [Problem::PoisonCopies(0), Problem::StrangeDeadLetters(1)]);
    let good = run.events[5].clone();
    run.dead_letters = vec![POISON_BODY.to_owned(), good.body];
    assert_eq!(run.judge().problems, [Problem::DeadLettered(good.id)]);
    run.dead_letters = vec![POISON_BODY.to_owned()];
    run.queue_left = 1;
    assert_eq!(run.judge().problems, [Problem::QueueNotEmpty(1)]);
}
