//! The state of the simulated queue that all processes share, by the rules of Amazon SQS. How calls
//! travel is in `sqs`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use super::plan::{NEVER, Plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not sent yet.
    Coming,
    /// Sent, and not visible yet.
    Late,
    Visible,
    InFlight,
    Deleted,
    /// Received too often: SQS redrove it to the dead-letter queue.
    Redriven,
}

#[derive(Clone, Debug)]
pub(crate) struct Msg {
    pub(crate) state: State,
    pub(crate) receives: u32,
    /// The time at which it becomes, or became, visible again.
    visible_at: Duration,
    group: Option<u32>,
    at: Duration,
    late: Duration,
    /// Copies that the engine sent to the dead-letter queue.
    pub(crate) copies: u32,
}

/// The time since which a message is visible, and its number. A message that returns goes to the
/// end of the queue. A FIFO queue keeps the order of sending.
type Place = (Duration, usize);

/// The messages, one per event and with its number.
pub(crate) struct QueueState {
    pub(crate) msgs: Vec<Msg>,
    /// The first message that has not been sent.
    next: usize,
    /// In the order in which they will be received.
    visible: BTreeSet<Place>,
    hidden: BinaryHeap<Reverse<(Duration, usize)>>,
    /// The number of messages in flight per group.
    groups: HashMap<u32, usize>,
    /// The time of the next check for visible messages.
    pub(crate) looks_at: Duration,
    max_receives: u32,
    /// The messages redriven since they were last taken from this list.
    pub(crate) redriven: Vec<usize>,
    /// What came back since somebody asked, and when.
    pub(crate) returned: Vec<(usize, Duration)>,
}

impl Msg {
    fn place(&self, n: usize) -> Place {
        (if self.group.is_some() { Duration::ZERO } else { self.visible_at }, n)
    }
}

impl QueueState {
    pub(crate) fn new(plan: &Plan) -> Self {
        let msgs = plan.events.iter().map(|event| Msg {
            state: State::Coming,
            receives: 0,
            visible_at: NEVER,
            group: event.group,
            at: event.at,
            late: event.late,
            copies: 0,
        });
        Self {
            msgs: msgs.collect(),
            next: 0,
            visible: BTreeSet::new(),
            hidden: BinaryHeap::new(),
            groups: HashMap::new(),
            looks_at: Duration::ZERO,
            max_receives: plan.max_receives,
            redriven: Vec::new(),
            returned: Vec::new(),
        }
    }

    /// Makes all messages visible that are due by `now`.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some(msg) = self.msgs.get_mut(self.next)
            && msg.at <= now
        {
            msg.visible_at = msg.at + msg.late;
            if msg.late.is_zero() {
                msg.state = State::Visible;
                self.visible.insert(msg.place(self.next));
            } else {
                msg.state = State::Late;
                self.hidden.push(Reverse((msg.visible_at, self.next)));
            }
            self.next += 1;
        }
        while let Some(Reverse((at, n))) = self.hidden.peek().copied()
            && at <= now
        {
            self.hidden.pop();
            let msg = &mut self.msgs[n];
            if msg.state == State::Late {
                msg.state = State::Visible;
                let place = msg.place(n);
                self.visible.insert(place);
            } else if msg.state == State::InFlight && msg.visible_at == at {
                self.landed(n, State::Visible);
                self.returned.push((n, at));
                self.visible.insert(self.msgs[n].place(n));
            }
        }
    }

    /// The time at which the next message becomes visible.
    pub(crate) fn next_at(&self) -> Duration {
        let arrives = self.msgs.get(self.next).map_or(NEVER, |msg| msg.at);
        self.hidden.peek().map_or(NEVER, |Reverse((at, _))| *at).min(arrives)
    }

    pub(crate) fn has_visible(&self) -> bool {
        !self.visible.is_empty()
    }

    /// Hands out up to `max` messages.
    pub(crate) fn take(&mut self, max: usize, now: Duration, visibility: Duration) -> Vec<usize> {
        let mut taken = Vec::new();
        let mut own = HashSet::new();
        let mut from = (Duration::ZERO, 0);
        while taken.len() < max
            && let Some((since, n)) = self.visible.range(from..).next().copied()
        {
            from = (since, n + 1);
            if let Some(group) = self.msgs[n].group {
                // A group waits for its messages in flight, except for those of the same receive.
                if !own.contains(&group) && self.groups.contains_key(&group) {
                    continue;
                }
                own.insert(group);
            }
            self.visible.remove(&(since, n));
            let msg = &mut self.msgs[n];
            if msg.receives >= self.max_receives {
                msg.state = State::Redriven;
                self.redriven.push(n);
                continue;
            }
            msg.receives += 1;
            msg.state = State::InFlight;
            if let Some(group) = msg.group {
                *self.groups.entry(group).or_default() += 1;
            }
            self.hide(n, now + visibility);
            taken.push(n);
        }
        taken
    }

    fn hide(&mut self, n: usize, until: Duration) {
        self.msgs[n].visible_at = until;
        self.hidden.push(Reverse((until, n)));
    }

    /// Ends the message's time in flight.
    fn landed(&mut self, n: usize, state: State) {
        let msg = &mut self.msgs[n];
        msg.state = state;
        if let Some(group) = msg.group {
            let count = self.groups.get_mut(&group).expect("the group has a message in flight");
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// Whether the receipt is valid.
    fn stands(&self, (n, receive): (usize, u32)) -> bool {
        self.msgs[n].state == State::InFlight && self.msgs[n].receives == receive
    }

    pub(crate) fn change(&mut self, receipt: (usize, u32), until: Duration) -> bool {
        let stands = self.stands(receipt);
        if stands {
            self.hide(receipt.0, until);
        }
        stands
    }

    /// Deletes a message. A message that is visible again can be deleted until it is received
    /// again.
    pub(crate) fn delete(&mut self, (n, receive): (usize, u32)) -> bool {
        if self.stands((n, receive)) {
            self.landed(n, State::Deleted);
            return true;
        }
        let msg = &mut self.msgs[n];
        if msg.state == State::Visible && msg.receives == receive {
            msg.state = State::Deleted;
            self.visible.remove(&msg.place(n));
            return true;
        }
        msg.state == State::Deleted
    }
}
