//! The account of a world. Every message must lead to its effects exactly once, and every repeated
//! call must be explained by an injected fault.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use sandbox::ledger::{Answer, Call, Request};
use sandbox::sqs::StoredMessage;
use tokio::time::Instant;

use crate::events::Event;
use crate::failed::{Failed, ensure};
use crate::world::World;

/// Time after a response in which the shared store may not yet have the step.
const RECORD_WINDOW: Duration = Duration::from_millis(400);

/// Time that bytes take from one process to another, on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Values of `ReleaseStatus` and `CommitStatus` that complete a step: SUCCESS, and for a release
/// also ALREADY_RELEASED and NOT_FOUND.
const GRPC_DONE: std::ops::RangeInclusive<i32> = 1..=3;

/// The required outcome of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All effects of its event, each once.
    Applied,
    /// A copy in the dead-letter queue and no effect.
    DeadLettered,
    /// The case itself checks the outcome.
    Judged,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its event; none if it is not an event.
    pub event: Option<Event>,
    /// The message id from SQS.
    pub message_id: String,
    /// When it was sent.
    pub at: Instant,
    /// The required outcome.
    pub expected: Expected,
}

impl Sent {
    pub(crate) fn event(event: Event, message_id: String) -> Self {
        Self { event: Some(event), message_id, at: Instant::now(), expected: Expected::Applied }
    }

    pub(crate) fn poison(message_id: String) -> Self {
        Self { event: None, message_id, at: Instant::now(), expected: Expected::DeadLettered }
    }
}

/// The injected faults with their times. Only these explain a repeated call.
#[derive(Debug, Default)]
pub struct Harm {
    kills: Vec<Instant>,
    disturbed: Vec<(Instant, Option<Instant>)>,
    /// When a process, or the store, was killed, frozen or woken: turns may end then.
    strikes: Vec<Instant>,
}

impl Harm {
    /// Records that a worker is killed now.
    pub fn killed(&mut self) {
        self.kills.push(Instant::now());
    }

    /// Records that something is about to happen that may end the turn of an event.
    pub fn strike(&mut self) {
        self.strike_at(Instant::now());
    }

    pub(crate) fn strike_at(&mut self, at: Instant) {
        self.strikes.push(at);
    }

    /// Returns when that happened first between these times. Bytes of a call that arrives at `from`
    /// may have been sent before.
    #[must_use]
    pub(crate) fn struck(&self, from: Instant, to: Instant) -> Option<Instant> {
        let is_between = |at: &Instant| from <= *at + ON_ITS_WAY && *at <= to;
        self.strikes.iter().copied().find(is_between)
    }

    /// Returns whether that happened between these times.
    #[must_use]
    pub(crate) fn has_struck(&self, from: Instant, to: Instant) -> bool {
        self.struck(from, to).is_some()
    }

    /// Starts a period in which calls and responses may be lost.
    pub fn begin(&mut self) {
        self.disturbed.push((Instant::now(), None));
    }

    /// Ends that period.
    pub fn end(&mut self) {
        if let Some((_, end)) = self.disturbed.last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Returns the number of kills so far.
    #[must_use]
    pub fn kills(&self) -> usize {
        self.kills.len()
    }

    /// Returns why the call `next` repeats this call.
    fn why(&self, earlier: &Call, next: &Call, has_store: bool) -> Option<Why> {
        let answered_at = earlier.answered_at.unwrap_or(next.at);
        // A shared store tells the next process which steps are done. Without one, the process
        // starts over.
        let known_at = if has_store { answered_at + RECORD_WINDOW } else { next.at };
        let is_killed = |kill: &Instant| earlier.at <= *kill + ON_ITS_WAY && *kill <= known_at;
        let is_disturbed = |(from, to): &(Instant, Option<Instant>)| {
            *from <= answered_at + ON_ITS_WAY && to.is_none_or(|to| earlier.at <= to + ON_ITS_WAY)
        };
        if !has_succeeded(earlier) {
            Some(Why::NoGoodAnswer)
        } else if self.kills.iter().any(is_killed) {
            Some(Why::Killed)
        } else if earlier.abandoned || self.disturbed.iter().any(is_disturbed) {
            Some(Why::AnswerLost)
        } else {
            None
        }
    }
}

/// The cause of a repeated call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The response was an error, or there was none.
    NoGoodAnswer,
    /// The response was lost because its connection was harmed or given up.
    AnswerLost,
    /// The process ended before it could record the step.
    Killed,
}

/// Returns whether the service applied the request, now or before, and confirmed it.
///
/// A scripted response to a call without effect confirms nothing.
#[must_use]
pub fn has_succeeded(call: &Call) -> bool {
    let is_made_up = call.fault && !call.applied();
    !is_made_up && is_success(&call.answer)
}

fn is_success(answer: &Answer) -> bool {
    match answer {
        Answer::Http(status) => (200..300).contains(status),
        Answer::GrpcStatus(status) => GRPC_DONE.contains(status),
        Answer::Pending | Answer::Grpc(_) | Answer::CutShort(_) | Answer::Lost => false,
    }
}

/// The counts of an account without faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Messages sent.
    pub sent: usize,
    /// Events applied, each once.
    pub applied: usize,
    /// Events whose outcome the case itself checked.
    pub judged: usize,
    /// Messages in the dead-letter queue.
    pub dead_lettered: usize,
    /// Deliveries.
    pub deliveries: u64,
    /// Calls to both services.
    pub calls: usize,
    /// Calls repeated after an error or without a response.
    pub after_errors: usize,
    /// Calls repeated because their response was lost.
    pub after_lost_answers: usize,
    /// Calls repeated because the process was killed in between.
    pub after_kills: usize,
}

impl std::ops::AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.applied += other.applied;
        self.judged += other.judged;
        self.dead_lettered += other.dead_lettered;
        self.deliveries += other.deliveries;
        self.calls += other.calls;
        self.after_errors += other.after_errors;
        self.after_lost_answers += other.after_lost_answers;
        self.after_kills += other.after_kills;
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, applied, judged, dead_lettered, deliveries, calls, .. } = self;
        write!(out, "{sent} in: {applied} applied once")?;
        if *judged > 0 {
            write!(out, ", {judged} whose reservation came to one end")?;
        }
        if *dead_lettered > 0 {
            write!(out, ", {dead_lettered} set aside")?;
        }
        write!(out, ", lost 0; {deliveries} deliveries, {calls} calls")?;
        let again = [
            (self.after_kills, "after a kill"),
            (self.after_errors, "after an error"),
            (self.after_lost_answers, "after a lost answer"),
        ];
        for (count, why) in again.into_iter().filter(|(count, _)| *count > 0) {
            write!(out, ", {count} again {why}")?;
        }
        write!(out, ", unexplained 0")
    }
}

impl Account {
    /// Waits until the queue is empty, then checks the account.
    ///
    /// # Errors
    /// The first deviation.
    pub async fn settled(world: &World, limit: Duration) -> Result<Self, Failed> {
        let empty = world.sqs.wait_until(&world.queue, |counts| counts.total() == 0, limit).await;
        ensure(empty, || {
            let counts = world.sqs.counts(&world.queue);
            format!("after {} s the queue is not empty: {counts:?}", limit.as_secs())
        })?;
        Self::judge(world)
    }

    /// Checks the account so far.
    ///
    /// # Errors
    /// The first deviation.
    pub fn judge(world: &World) -> Result<Self, Failed> {
        let mut account = Self { sent: world.sent.len(), ..Self::default() };
        account.effects(world)?;
        account.dead_letters(world)?;
        account.calls(world)?;
        account.deliveries = world.sqs.ledger(&world.queue).delivered;
        Ok(account)
    }

    fn effects(&mut self, world: &World) -> Result<(), Failed> {
        for sent in &world.sent {
            let Some(event) = &sent.event else { continue };
            match sent.expected {
                Expected::Applied => {
                    let found = world.ledger.effects_for(&event.reservation);
                    ensure(found == event.kind.effects(), || {
                        format!("{} ({:?}) had these effects: {found:?}", event.id, event.kind)
                    })?;
                    self.applied += 1;
                }
                Expected::DeadLettered => {
                    let found = world.ledger.effects_for(&event.reservation);
                    ensure(found.is_empty(), || {
                        format!("{}: set aside after {found:?}", event.id)
                    })?;
                }
                Expected::Judged => self.judged += 1,
            }
        }
        Ok(())
    }

    fn dead_letters(&mut self, world: &World) -> Result<(), Failed> {
        let found = world.sqs.peek_all(&world.dlq);
        let ids: BTreeSet<&str> = found.iter().map(original_id).collect();
        let expected = world.sent.iter().filter(|sent| sent.expected == Expected::DeadLettered);
        let expected: BTreeSet<&str> = expected.map(|sent| sent.message_id.as_str()).collect();
        let judged = world.sent.iter().filter(|sent| sent.expected == Expected::Judged);
        let judged: BTreeSet<&str> = judged.map(|sent| sent.message_id.as_str()).collect();
        let ids: BTreeSet<&str> = ids.difference(&judged).copied().collect();
        ensure(ids == expected, || {
            format!("in the dead-letter queue are {ids:?}, and should be {expected:?}")
        })?;
        self.dead_lettered = found.len();
        Ok(())
    }

    fn calls(&mut self, world: &World) -> Result<(), Failed> {
        let events = world.sent.iter().filter_map(|sent| sent.event.as_ref());
        let keys: BTreeMap<String, &Event> =
            events.flat_map(|event| event.keys().map(|key| (key, event))).collect();
        let calls = world.ledger.calls();
        let mut by_key: HashMap<&str, &Call> = HashMap::new();
        for call in calls.iter().filter(|call| call.request != Request::GetReservation) {
            let key = call.key.as_deref().unwrap_or_default();
            let owner = keys.get(key).map(|event| event.reservation.as_str());
            ensure(owner == Some(call.reservation_id.as_str()), || {
                format!("a call with a key that is not its event's: {call:?}")
            })?;
            let Some(earlier) = by_key.insert(key, call) else { continue };
            match world.harm.why(earlier, call, world.store.is_some()) {
                Some(Why::NoGoodAnswer) => self.after_errors += 1,
                Some(Why::AnswerLost) => self.after_lost_answers += 1,
                Some(Why::Killed) => self.after_kills += 1,
                None => {
                    return Err(Failed(format!(
                        "nothing explains why this was called again: {earlier:?}, {call:?}"
                    )));
                }
            }
        }
        self.calls = calls.len();
        Ok(())
    }
}

/// Returns the id of the message that a dead letter is a copy of. If SQS moved the message, the id
/// is its own.
#[must_use]
pub fn original_id(message: &StoredMessage) -> &str {
    message.attributes.get("dlq_message_id").and_then(text).unwrap_or(&message.id)
}

fn text(value: &sandbox::sqs::AttributeValue) -> Option<&str> {
    value.string_value.as_deref()
}
