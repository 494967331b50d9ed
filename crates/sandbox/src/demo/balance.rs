//! The check of a run: a pure function from recorded facts to a balance.
//!
//! The facts are the plan and the records of SQS and the stand-ins. Nothing is taken from the
//! worker itself.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::problem::Problem;
use super::workload::{Expected, Kind, POISON_BODY, Planned, Step};
use crate::inventory::HoldState;
use crate::ledger::{Answer, Call, Effect, Request};
use crate::proto::reservation::v1::{CommitStatus, ReleaseStatus};
use crate::reservation_api::ReservationStatus;

/// A response within this time certainly reached its caller: a quarter of the worker's timeout in
/// the demo.
const PROMPT: Duration = Duration::from_millis(250);

/// The input of the check.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Planned and sent events.
    pub events: &'a [Planned],
    /// When each event was first sent, in the order of `events`.
    ///
    /// `None` if an event before it was never handled.
    pub sent_at: &'a [Option<Instant>],
    /// All calls that both services received.
    pub calls: &'a [Call],
    /// The final status of each reservation.
    pub statuses: &'a HashMap<String, ReservationStatus>,
    /// The final state of each reservation's seats, if they were named.
    pub holds: &'a HashMap<String, HoldState>,
    /// The bodies in the dead-letter queue.
    pub dead_letters: &'a [String],
    /// Messages left in the queue in any state.
    pub queue_left: usize,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// Effects by event type.
    pub effects: BTreeMap<(Kind, &'static str), usize>,
    /// Repeated calls: calls with a known idempotency key.
    pub retried: usize,
    /// Duplicate messages without an effect of their own.
    pub dropped_duplicates: usize,
    /// Events that the Reservation API refused because the seats are sold, without effect.
    pub dropped_superseded: usize,
    /// Messages in the dead-letter queue.
    pub dead_lettered: usize,
    /// Events with a missing effect.
    pub lost: usize,
    /// Times from the first sending of an event to its last effect, ascending.
    pub latencies: Vec<Duration>,
    /// The deviations, sorted.
    pub problems: Vec<Problem>,
}

impl Balance {
    /// Returns whether there is no deviation.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns the latency that this percentage of events does not exceed; `None` without events.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies.get(rank - 1).copied()
    }
}

/// Checks a run.
#[must_use]
pub fn balance(facts: &Facts<'_>) -> Balance {
    let keys = Keys::of(facts.events);
    let mut balance = Balance { dead_lettered: facts.dead_letters.len(), ..Balance::default() };
    let seen = attribute(facts, &keys, &mut balance);
    for (index, event) in facts.events.iter().enumerate() {
        judge_event(event, facts.sent_at.get(index).copied().flatten(), &seen[index], &mut balance);
    }
    judge_reservations(facts, &mut balance.problems);
    judge_queues(facts, &mut balance.problems);
    balance.latencies.sort();
    balance.problems.sort();
    balance
}

/// Returns an effect's name for tables and problems.
#[must_use]
pub fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Status(ReservationStatus::Pending) => "status PENDING",
        Effect::Status(ReservationStatus::Confirmed) => "status CONFIRMED",
        Effect::Status(ReservationStatus::Expired) => "status EXPIRED",
        Effect::Status(ReservationStatus::Cancelled) => "status CANCELLED",
        Effect::SeatsReleased => "seats released",
        Effect::SeatsCommitted => "seats sold",
    }
}

/// The event and step of each idempotency key.
struct Keys(HashMap<String, (usize, Step)>);

impl Keys {
    fn of(events: &[Planned]) -> Self {
        let steps = [Step::Status, Step::Release, Step::Commit];
        let keys = events.iter().enumerate();
        Self(
            keys.flat_map(|(index, event)| steps.map(|step| (step.key(&event.id), (index, step))))
                .collect(),
        )
    }
}

/// What the services saw of one event.
#[derive(Clone, Debug, Default)]
struct Seen {
    effects: Vec<(Step, Effect, Instant)>,
    /// Whether the Reservation API refused the status change.
    refused: bool,
    /// When a step first succeeded with a response that certainly reached the caller.
    succeeded: Vec<(Step, Instant)>,
    /// Steps that were called again after that.
    needless: Vec<Step>,
}

impl Seen {
    fn add(&mut self, step: Step, call: &Call) {
        if self.succeeded.iter().any(|(done, at)| *done == step && *at < call.at) {
            self.needless.push(step);
        }
        let patch = matches!(call.request, Request::PatchReservation(_));
        self.refused |= patch && matches!(call.answer, Answer::Http(409) | Answer::CutShort(409));
        self.effects.extend(call.effect.map(|(effect, at)| (step, effect, at)));
        self.succeeded.extend(heard_success(call).map(|at| (step, at)));
    }
}

/// Returns when a call succeeded, unless its response may not have reached the caller: the caller
/// disconnected, or the response came near the timeout.
fn heard_success(call: &Call) -> Option<Instant> {
    let success = match &call.request {
        Request::PatchReservation(_) => call.answer == Answer::Http(200),
        Request::ReleaseHold(_) => {
            [ReleaseStatus::Success, ReleaseStatus::AlreadyReleased, ReleaseStatus::NotFound]
                .into_iter()
                .any(|status| call.answer == Answer::GrpcStatus(status.into()))
        }
        Request::CommitReservation(_) => {
            call.answer == Answer::GrpcStatus(CommitStatus::Success.into())
        }
        Request::GetReservation | Request::Unknown(_) => false,
    };
    let at = call.answered_at?;
    (success && !call.fault && !call.abandoned && at - call.at < PROMPT).then_some(at)
}

/// Assigns each call to the event with its idempotency key.
fn attribute(facts: &Facts<'_>, keys: &Keys, balance: &mut Balance) -> Vec<Seen> {
    let mut seen = vec![Seen::default(); facts.events.len()];
    for call in facts.calls {
        balance.retried += usize::from(call.repeated_key);
        let owner = call.key.as_ref().and_then(|key| keys.0.get(key));
        match (owner, call.effect) {
            (Some((index, step)), _) => seen[*index].add(*step, call),
            (None, Some((effect, _))) => {
                let key = call.key.clone().unwrap_or_else(|| "none".to_owned());
                balance.problems.push(Problem::Stranger(key, effect_name(effect)));
            }
            (None, None) => {}
        }
    }
    seen
}

fn judge_event(event: &Planned, sent_at: Option<Instant>, seen: &Seen, balance: &mut Balance) {
    let id = || event.id.clone();
    let before = balance.problems.len();
    let wanted: &[(Step, Effect)] = match &event.expected {
        Expected::Effects(wanted) => wanted,
        Expected::Superseded => &[],
    };
    for (step, effect, _) in &seen.effects {
        *balance.effects.entry((event.kind, effect_name(*effect))).or_default() += 1;
        if !wanted.contains(&(*step, *effect)) {
            balance.problems.push(Problem::Unexpected(id(), effect_name(*effect)));
        }
    }
    let needless = seen.needless.iter().map(|step| Problem::Needless(id(), step.as_str()));
    balance.problems.extend(needless);
    let mut lost = sent_at.is_none();
    for (step, effect) in wanted {
        let times = seen.effects.iter().filter(|(s, e, _)| (s, e) == (step, effect)).count();
        match times {
            0 if sent_at.is_some() => {
                lost = true;
                balance.problems.push(Problem::Missing(id(), effect_name(*effect)));
            }
            0 | 1 => {}
            _ => balance.problems.push(Problem::Repeated(id(), effect_name(*effect), times)),
        }
    }
    if sent_at.is_none() {
        balance.problems.push(Problem::NotSent(id()));
    } else if event.expected == Expected::Superseded && !seen.refused {
        lost = true;
        balance.problems.push(Problem::DroppedUnseen(id()));
    }
    balance.lost += usize::from(lost);
    if balance.problems.len() > before {
        return;
    }
    balance.dropped_duplicates += event.sends.len() - 1;
    balance.dropped_superseded += usize::from(event.expected == Expected::Superseded);
    let last = seen.effects.iter().map(|(_, _, at)| *at).max();
    if let (Some(sent), Some(last)) = (sent_at, last) {
        balance.latencies.push(last - sent);
    }
}

/// Compares the final states with those that the events of each reservation should cause.
fn judge_reservations(facts: &Facts<'_>, problems: &mut Vec<Problem>) {
    let mut expected: BTreeMap<&str, (Option<ReservationStatus>, Option<HoldState>)> =
        BTreeMap::new();
    for event in facts.events {
        let (status, hold) = expected.entry(&event.reservation_id).or_default();
        let Expected::Effects(effects) = &event.expected else {
            continue;
        };
        for (_, effect) in effects {
            match effect {
                Effect::Status(to) => *status = Some(*to),
                Effect::SeatsReleased => *hold = Some(HoldState::Released),
                Effect::SeatsCommitted => *hold = Some(HoldState::Committed),
            }
        }
    }
    for (reservation, (status, hold)) in expected {
        let found = facts.statuses.get(reservation).copied();
        if found != status {
            problems.push(Problem::WrongStatus(
                reservation.to_owned(),
                format!("{found:?}, not {status:?}"),
            ));
        }
        let found = facts.holds.get(reservation).copied();
        if found != hold {
            problems.push(Problem::WrongSeats(
                reservation.to_owned(),
                format!("{found:?}, not {hold:?}"),
            ));
        }
    }
}

fn judge_queues(facts: &Facts<'_>, problems: &mut Vec<Problem>) {
    let bodies: HashMap<&str, &str> =
        facts.events.iter().map(|event| (event.body.as_str(), event.id.as_str())).collect();
    let mut poison = 0;
    let mut strange = 0;
    for body in facts.dead_letters {
        match bodies.get(body.as_str()) {
            Some(id) => problems.push(Problem::DeadLettered((*id).to_owned())),
            None if body == POISON_BODY => poison += 1,
            None => strange += 1,
        }
    }
    if poison != 1 {
        problems.push(Problem::PoisonCopies(poison));
    }
    if strange > 0 {
        problems.push(Problem::StrangeDeadLetters(strange));
    }
    if facts.queue_left > 0 {
        problems.push(Problem::QueueNotEmpty(facts.queue_left));
    }
}
