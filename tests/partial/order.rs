//! What became of the order of a reservation's events: which calls were made for which event, who
//! waited for whom, and whether that was right. It is judged by the plan and by what services and
//! queue saw, not by what the store's lanes say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reservation_worker::idempotency::ClaimToken;

use super::lanes::{Entered, TICKET};
use super::plan::{Action, Fate, Plan, Side, StorePlan, millis};
use super::queue::State;
use super::run::Outcome;
use super::store::{lane_shard_of, shard_of};
use super::world::World;

/// How much later than the queue a process may know that its lease is lost, and the other way
/// round.
const SLACK: Duration = millis(100);

/// How long it takes at most to delete a message whose event is done.
const DELETED_WITHIN: Duration = millis(1_000);

/// One call to a service.
#[derive(Clone, Copy, Debug)]
struct Call {
    event: usize,
    side: Side,
    process: usize,
    from: Duration,
    to: Duration,
    is_served: bool,
}

/// The calls of one event that nothing came between.
#[derive(Clone, Copy, Debug)]
struct Handling {
    event: usize,
    process: usize,
    from: Duration,
    to: Duration,
}

/// Who claims an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) event: usize,
    pub(crate) process: usize,
    pub(crate) token: ClaimToken,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    asked: Asked,
    /// When it asked last while another event had its turn.
    held_at: Option<Duration>,
}

/// What is known of the order.
#[derive(Debug, Default)]
pub(crate) struct OrderLog {
    calls: Vec<Call>,
    /// An event that was given up, or whose message came back.
    interruptions: Vec<(usize, Duration)>,
    /// By reservation.
    waiters: BTreeMap<u32, Vec<Waiter>>,
    /// By reservation: since when somebody has the lane.
    turns: BTreeMap<u32, Duration>,
    grants: usize,
    /// Grants that others waited for meanwhile.
    contended: usize,
    out_of_order: Vec<String>,
    /// By event: which process received it last, and when.
    received: BTreeMap<usize, (usize, Duration)>,
    /// Events that had their turn.
    begun: BTreeSet<usize>,
    /// Grants before one that was sent earlier, waited too, and did not ask during the turn before.
    overtakes: usize,
}

impl OrderLog {
    pub(crate) fn ends(&mut self, call: usize, now: Duration) {
        self.calls[call].to = now;
    }

    pub(crate) fn served(&mut self, call: usize) {
        self.calls[call].is_served = true;
    }

    pub(crate) fn received(&mut self, event: usize, process: usize, now: Duration) {
        self.received.insert(event, (process, now));
    }

    pub(crate) fn interrupted(&mut self, event: usize, now: Duration) {
        self.interruptions.push((event, now));
    }

    /// A delivery waits no more.
    pub(crate) fn leaves(&mut self, event: usize, token: ClaimToken) {
        for waiters in self.waiters.values_mut() {
            waiters.retain(|other| other.asked.event != event || other.asked.token != token);
        }
    }

    /// Whether the event was given up, or its message came back, in that time.
    fn is_interrupted(&self, event: usize, from: Duration, to: Duration) -> bool {
        self.interruptions.iter().any(|(other, at)| *other == event && from <= *at && *at <= to)
    }
}

impl World {
    /// Notes a call, where the order is shared.
    pub(crate) fn order_begins(
        &mut self,
        event: usize,
        side: Side,
        process: usize,
    ) -> Option<usize> {
        if !self.plan.is_ordered {
            return None;
        }
        let from = self.now();
        let call = Call { event, side, process, from, to: from, is_served: false };
        self.order.calls.push(call);
        Some(self.order.calls.len() - 1)
    }

    /// Notes that a process gave an event up.
    pub(crate) fn given_up(&mut self, event: usize) {
        let now = self.now();
        self.log(|| format!("e{event} is given up"));
        self.order.interrupted(event, now);
    }

    /// Notes what a claim found in the lane.
    pub(crate) fn entered(&mut self, asked: Asked, found: Entered) {
        let now = self.now();
        let Asked { event, process, token } = asked;
        self.log(|| format!("p{process} claims e{event}: {found:?}"));
        let reservation = self.plan.events[event].reservation;
        match found {
            Entered::Again => {}
            Entered::Now => self.granted(asked, reservation, now),
            Entered::Held(_) | Entered::Promised(_) => {
                let held_at = matches!(found, Entered::Held(_)).then_some(now);
                let waiters = self.order.waiters.entry(reservation).or_default();
                match waiters.iter_mut().find(|other| other.asked.token == token) {
                    Some(waiter) => waiter.held_at = waiter.held_at.max(held_at),
                    None => waiters.push(Waiter { asked, held_at }),
                }
            }
        }
    }

    fn granted(&mut self, asked: Asked, reservation: u32, now: Duration) {
        let plan = self.plan.clone();
        let began = self.order.turns.insert(reservation, now).unwrap_or_default();
        self.order.leaves(asked.event, asked.token);
        self.order.grants += 1;
        let sent = |event: usize| plan.events[event].at;
        let waiters = self.order.waiters.get(&reservation).cloned().unwrap_or_default();
        let still = |waiter: &&Waiter| {
            let Waiter { asked: other, held_at } = waiter;
            let since = held_at.unwrap_or(began);
            other.process != asked.process
                && other.event != asked.event
                && !self.order.is_interrupted(other.event, since, now)
                && !plan.is_hit(other.process, (since, now))
        };
        let waiters: Vec<_> = waiters.iter().filter(still).collect();
        self.order.contended += usize::from(!waiters.is_empty());
        let is_calm = (0..plan.starts.len())
            .all(|process| !plan.is_hit(process, (began.saturating_sub(TICKET), now)))
            && !plan.is_store_away((began, now))
            && !plan.is_unextended((began, now));
        for waiter in waiters.iter().filter(|other| sent(other.asked.event) < sent(asked.event)) {
            if waiter.held_at.is_some_and(|at| at >= began) && is_calm {
                self.order.out_of_order.push(format!(
                    "e{} before e{} at {now:?}, which asked at {:?}",
                    asked.event, waiter.asked.event, waiter.held_at
                ));
            } else {
                self.order.overtakes += 1;
            }
        }
        self.check_own(asked, reservation, now);
        self.order.begun.insert(asked.event);
    }

    /// Checks that no event of the same process waited that was sent earlier.
    fn check_own(&mut self, asked: Asked, reservation: u32, now: Duration) {
        let (plan, order) = (self.plan.clone(), &self.order);
        let waits = |(event, (process, at)): &(&usize, &(usize, Duration))| {
            let times = (at.saturating_sub(TICKET), now);
            plan.events[**event].reservation == reservation
                && *process == asked.process
                && plan.events[**event].at < plan.events[asked.event].at
                && *at + SLACK <= now
                && !order.begun.contains(event)
                && !order.is_interrupted(**event, *at, now)
                && (0..plan.starts.len()).all(|process| !plan.is_hit(process, times))
                && !plan.is_store_away(times)
                && !plan.is_unextended(times)
        };
        if order.begun.contains(&asked.event) {
            return;
        }
        let passed: Vec<_> = order.received.iter().filter(waits).map(|(event, _)| *event).collect();
        for event in passed {
            self.order
                .out_of_order
                .push(format!("e{} before e{event} of the same process at {now:?}", asked.event));
        }
    }
}

impl Plan {
    /// Whether something is done to that process in that time.
    fn is_hit(&self, process: usize, (from, to): (Duration, Duration)) -> bool {
        self.fates.iter().any(|fault| {
            let lasts_to = if fault.fate == Fate::Frozen { fault.to } else { fault.from };
            fault.process == process && fault.from <= to && from <= lasts_to + SLACK
        })
    }

    /// Whether leases may end in that time because they are not extended. A waiting event is
    /// dropped then.
    fn is_unextended(&self, (from, to): (Duration, Duration)) -> bool {
        self.sqs.iter().any(|fault| {
            let over = fault.to + self.settings.visibility;
            fault.action == Action::Extend && fault.from <= to && from <= over
        })
    }

    /// Whether that process was frozen until then: what it does was decided before.
    fn is_late(&self, process: usize, at: Duration) -> bool {
        self.fates.iter().any(|fault| {
            fault.fate == Fate::Frozen
                && fault.process == process
                && fault.to <= at
                && at <= fault.to + millis(2)
        })
    }

    fn is_store_away(&self, (from, to): (Duration, Duration)) -> bool {
        match self.store {
            StorePlan::Memory => false,
            StorePlan::Shards { from: away, to: back, .. } => {
                away < back && away <= to && from <= back
            }
        }
    }

    /// Whether the shard of the event's record, or of its lane, is away in that time.
    fn is_away(&self, event: usize, times: (Duration, Duration)) -> bool {
        let lane = lane_shard_of(self.events[event].reservation);
        let needs = |away: u16| [shard_of(event), lane].contains(&away);
        matches!(self.store, StorePlan::Shards { away, .. } if needs(away))
            && self.is_store_away(times)
    }
}

/// What was found of the order.
pub(crate) struct Findings {
    /// Calls for two events of one reservation, or for one event in two processes, at the same
    /// time.
    pub(crate) overlaps: Vec<String>,
    /// Events that went before others.
    pub(crate) out_of_order: Vec<String>,
    /// Steps that were done again although nothing came between, and messages that are left.
    pub(crate) not_once: Vec<String>,
    /// Messages that were received again although nothing happened to a process.
    pub(crate) received_again: usize,
    /// The longest time in which a reservation's next event was held and no call was made.
    pub(crate) idle: (Duration, usize),
    pub(crate) detail: String,
}

pub(crate) fn findings(outcome: &Outcome) -> Findings {
    let order = &outcome.world.order;
    let mut by_reservation: BTreeMap<u32, Vec<Call>> = BTreeMap::new();
    for call in &order.calls {
        let reservation = outcome.world.plan.events[call.event].reservation;
        by_reservation.entry(reservation).or_default().push(*call);
    }
    let overlaps = by_reservation.values().flat_map(|calls| overlaps(outcome, calls)).collect();
    let msgs = &outcome.world.queue.msgs;
    Findings {
        overlaps,
        out_of_order: order.out_of_order.clone(),
        not_once: not_once(outcome),
        received_again: msgs.iter().filter(|msg| msg.receives > 1).count(),
        idle: by_reservation.values().map(|calls| idle(outcome, calls)).max().unwrap_or_default(),
        detail: format!(
            "{} grants, {} while others waited, {} overtakes, {} interruptions",
            order.grants,
            order.contended,
            order.overtakes,
            order.interruptions.len()
        ),
    }
}

/// What a reservation's calls are made of, in order of their beginnings.
fn handlings(outcome: &Outcome, calls: &[Call]) -> Vec<Handling> {
    let (plan, order) = (&outcome.world.plan, &outcome.world.order);
    let mut all: Vec<Handling> = Vec::new();
    for call in calls {
        let Call { event, process, from, to, .. } = *call;
        let before = all.iter_mut().rev().find(|it| it.event == event && it.process == process);
        match before {
            Some(before)
                if !order.is_interrupted(event, before.from, from)
                    && !plan.is_hit(process, (before.from, from))
                    && !plan.is_away(event, (before.from, from)) =>
            {
                before.to = before.to.max(to);
            }
            Some(_) | None => all.push(Handling { event, process, from, to }),
        }
    }
    all
}

fn overlaps(outcome: &Outcome, calls: &[Call]) -> Vec<String> {
    let all = handlings(outcome, calls);
    let mut found = Vec::new();
    for (n, first) in all.iter().enumerate() {
        for second in &all[n + 1..] {
            let is_one = first.event == second.event && first.process == second.process;
            if !is_one && second.from < first.to && !is_explained(outcome, first, second) {
                found.push(format!("{first:?} and {second:?}"));
            }
        }
    }
    found
}

/// Whether the first may have lost its turn before the second began, or the second was sent before
/// it was frozen.
fn is_explained(outcome: &Outcome, first: &Handling, second: &Handling) -> bool {
    let (plan, order) = (&outcome.world.plan, &outcome.world.order);
    let times = (first.from, second.from + SLACK);
    // Without an extension the lease ends. The call that is open then goes on.
    let longest = plan.services.iter().map(|service| service.latency.1).max().unwrap_or_default();
    let is_open_call =
        first.to <= second.from + longest + SLACK && plan.is_unextended((first.from, second.from));
    is_open_call
        || plan.is_late(second.process, second.from)
        || plan.is_hit(first.process, times)
        || plan.is_away(first.event, times)
        || order.is_interrupted(first.event, times.0, times.1)
}

fn not_once(outcome: &Outcome) -> Vec<String> {
    let (plan, order) = (&outcome.world.plan, &outcome.world.order);
    let mut served: BTreeMap<(usize, usize), Vec<Call>> = BTreeMap::new();
    for call in order.calls.iter().filter(|call| call.is_served) {
        served.entry((call.event, call.side.index())).or_default().push(*call);
    }
    let again = served.values().flat_map(|calls| calls.windows(2)).filter(|pair| {
        let times = (pair[0].from, pair[1].from + SLACK);
        !order.is_interrupted(pair[0].event, times.0, times.1)
            && !plan.is_hit(pair[0].process, times)
            && !plan.is_late(pair[1].process, pair[1].from)
            && !plan.is_away(pair[0].event, times)
    });
    let again = again.map(|pair| format!("{:?} again: {:?}", pair[0], pair[1]));
    let msgs = outcome.world.queue.msgs.iter().enumerate();
    let is_new = |n: usize| {
        outcome.world.events[n].done_at.is_some_and(|at| at + DELETED_WITHIN > outcome.ended)
    };
    let left =
        msgs.filter(|(n, msg)| (msg.state != State::Deleted && !is_new(*n)) || msg.copies > 0);
    again.chain(left.map(|(n, msg)| format!("e{n} is {:?}", msg.state))).collect()
}

/// The longest time in which nobody called although the next event was held, and which event that
/// was.
fn idle(outcome: &Outcome, calls: &[Call]) -> (Duration, usize) {
    let mut worst = (Duration::ZERO, 0);
    let mut free_at = Duration::ZERO;
    for call in calls {
        let received = outcome.world.events[call.event].received_at.unwrap_or_default();
        worst = worst.max((call.from.saturating_sub(free_at.max(received)), call.event));
        free_at = free_at.max(call.to);
    }
    worst
}
