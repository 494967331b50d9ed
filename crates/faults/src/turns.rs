//! Turns at a reservation: whether its events were worked on one at a time, and whether of those
//! that waited the one sent first went next. Judged by the services' and the queues' ledgers.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use sandbox::sqs::Outcome;
use tokio::time::Instant;

use crate::account::Sent;
use crate::events::Event;
use crate::failed::{Failed, ensure};
use crate::world::World;

/// Time from the delivery of a message to the first claim of its event, on a busy machine. Its
/// ticket is known then.
const ASKS_WITHIN: Duration = Duration::from_millis(250);

/// One turn in so many may go to one that was sent later: a busy process may ask too late to keep
/// its ticket.
const OVERTAKEN_PART: usize = 20;

/// Events sent closer together than this have no order: the queue's clock has milliseconds.
const SENT_APART: Duration = Duration::from_millis(5);

/// What is known of one event.
#[derive(Clone, Debug)]
struct Told {
    sent_at: Instant,
    /// The deliveries of its message, in order.
    delivered: Vec<Instant>,
    /// When its message was deleted.
    deleted: Option<Instant>,
    /// The number of its queue. Each process has its own.
    queue: usize,
}

impl Told {
    /// Returns whether its message was delivered again: an earlier turn may have ended before.
    fn is_delivered_between(&self, from: Instant, to: Instant) -> bool {
        self.delivered.iter().any(|at| from < *at && *at <= to)
    }
}

/// Calls of one event with nothing between them that may have ended its turn.
#[derive(Clone, Copy, Debug)]
struct Handling {
    event: usize,
    from: Instant,
    to: Instant,
}

/// The counts of a judgement without faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Reservations with calls of more than one event.
    pub shared: usize,
    /// Turns that began while another event waited.
    pub waited_for: usize,
    /// Those of them that went to an event sent later than the one that waited.
    pub overtaken: usize,
    /// Overlaps that a kill, a freeze or a failover explains.
    pub explained: usize,
}

impl std::ops::AddAssign for Turns {
    fn add_assign(&mut self, other: Self) {
        self.shared += other.shared;
        self.waited_for += other.waited_for;
        self.overtaken += other.overtaken;
        self.explained += other.explained;
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, waited_for, overtaken, explained } = self;
        write!(out, "{shared} reservations with several events: at once 0, explained {explained}")?;
        if *waited_for > 0 {
            write!(
                out,
                "; others waited for {waited_for} turns, the one sent first got all but {overtaken}"
            )?;
        }
        Ok(())
    }
}

/// The ledgers of a world, by reservation.
struct Ledgers<'a> {
    world: &'a World,
    events: Vec<(&'a Event, Told)>,
}

impl Turns {
    /// Checks all reservations of a world whose events came from these queues.
    ///
    /// # Errors
    /// The first two events that met; or the first that went before its turn, if too many did.
    pub fn judge(world: &World, queues: &[&str]) -> Result<Self, Failed> {
        let ledgers = Ledgers::new(world, queues);
        let (mut turns, mut overtaken) = (Self::default(), Vec::new());
        for (reservation, handlings) in ledgers.handlings() {
            let mut all = handlings.iter();
            let first = all.next().map(|handling| handling.event);
            turns.shared += usize::from(all.any(|other| Some(other.event) != first));
            turns.explained += ledgers.overlaps(&reservation, &handlings)?;
            let (waited_for, passed) = ledgers.order(&reservation, &handlings);
            turns.waited_for += waited_for;
            turns.overtaken += passed.len();
            overtaken.extend(passed);
        }
        ensure(turns.overtaken * OVERTAKEN_PART <= turns.waited_for, || {
            format!("{} of {}: {}", turns.overtaken, turns.waited_for, overtaken[0])
        })?;
        Ok(turns)
    }
}

impl<'a> Ledgers<'a> {
    fn new(world: &'a World, queues: &[&str]) -> Self {
        let mut received = HashMap::new();
        for (queue, url) in queues.iter().enumerate() {
            for entry in world.sqs.ledger(url).entries {
                let Some(id) = entry.message_id else { continue };
                let (_, delivered, deleted) =
                    received.entry(id.to_string()).or_insert_with(|| (queue, Vec::new(), None));
                let at = world.began + Duration::from_millis(entry.at_ms);
                if matches!(entry.outcome, Outcome::Delivered { .. }) {
                    delivered.push(at);
                } else if entry.outcome == Outcome::Deleted {
                    *deleted = deleted.or(Some(at));
                }
            }
        }
        let told = |sent: &'a Sent| {
            let (queue, delivered, deleted) = received.get(&sent.message_id)?.clone();
            Some((sent.event.as_ref()?, Told { sent_at: sent.at, delivered, deleted, queue }))
        };
        Self { world, events: world.sent.iter().filter_map(told).collect() }
    }

    /// Returns the handlings of each reservation, in order of their beginnings.
    fn handlings(&self) -> BTreeMap<String, Vec<Handling>> {
        let mut owners = HashMap::new();
        for (number, (event, _)) in self.events.iter().enumerate() {
            owners.extend(event.keys().map(|key| (key, number)));
        }
        let mut all: BTreeMap<String, Vec<Handling>> = BTreeMap::new();
        for call in self.world.ledger.calls() {
            // A read has no key.
            let Some(&event) = call.key.as_deref().and_then(|key| owners.get(key)) else {
                continue;
            };
            let handlings = all.entry(call.reservation_id.clone()).or_default();
            self.add(handlings, event, call.at, call.answered_at.unwrap_or(call.at));
        }
        all
    }

    /// Adds a call to the turn of its event, or to a new one after a kill or another delivery. The
    /// turn before lasted until that happened: the event was not done. A call that arrives after
    /// the message was deleted was on the wire when its process stopped.
    fn add(&self, handlings: &mut Vec<Handling>, event: usize, from: Instant, to: Instant) {
        let told = &self.events[event].1;
        let before = handlings.iter_mut().rev().find(|other| other.event == event);
        let Some(before) = before else {
            return handlings.push(Handling { event, from, to });
        };
        if told.deleted.is_some_and(|deleted| before.to <= deleted && deleted < from) {
            return handlings.push(Handling { event, from, to });
        }
        let struck = self.world.harm.struck(before.from, from);
        if let Some(at) = struck.filter(|at| !told.is_delivered_between(before.from, *at)) {
            before.to = before.to.max(at);
        }
        if struck.is_none() && !told.is_delivered_between(before.from, from) {
            before.to = before.to.max(to);
        } else {
            handlings.push(Handling { event, from, to });
        }
    }

    /// Returns how many overlaps the injected faults explain.
    fn overlaps(&self, reservation: &str, all: &[Handling]) -> Result<usize, Failed> {
        let mut explained = 0;
        for (n, first) in all.iter().enumerate() {
            let meets = |second: &&Handling| second.event != first.event && second.from < first.to;
            for second in all[n + 1..].iter().filter(meets) {
                ensure(self.world.harm.has_struck(first.from, second.from), || {
                    let ids = [first, second].map(|it| &self.events[it.event].0.id);
                    format!("{reservation}: {ids:?} were worked on at once: {first:?}, {second:?}")
                })?;
                explained += 1;
            }
        }
        Ok(explained)
    }

    /// Returns how many turns began while another event waited, and which of them went to one sent
    /// later.
    ///
    /// An event waits once it was received, for as long as nothing strikes. One that is behind an
    /// event of its own process has no ticket: that another one went before it is not judged.
    fn order(&self, reservation: &str, all: &[Handling]) -> (usize, Vec<String>) {
        let (mut count, mut overtaken) = (0, Vec::new());
        for pair in all.windows(2) {
            let [holder, next] = pair else { continue };
            let (next_event, told) = &self.events[next.event];
            let has_waited = |(number, (event, other)): &(usize, &(&Event, Told))| {
                let has_begun = all.iter().any(|it| it.event == *number && it.from <= next.from);
                event.reservation == next_event.reservation
                    && !has_begun
                    && other.delivered.first().is_some_and(|at| {
                        *at + ASKS_WITHIN <= holder.to
                            && !self.world.harm.has_struck(*at, next.from)
                            && !other.is_delivered_between(*at, next.from)
                    })
            };
            for (_, (event, other)) in self.events.iter().enumerate().filter(has_waited) {
                let is_earlier = other.sent_at + SENT_APART <= told.sent_at;
                if is_earlier && other.queue == self.events[holder.event].1.queue {
                    continue;
                }
                count += 1;
                if is_earlier {
                    let ids = (&next_event.id, &event.id);
                    overtaken.push(format!(
                        "{reservation}: {} went before {}, which was sent earlier and waited",
                        ids.0, ids.1
                    ));
                }
            }
        }
        (count, overtaken)
    }
}

#[cfg(test)]
mod tests;
