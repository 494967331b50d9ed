//! The state of the simulated queue, by the rules of Amazon SQS: which messages are visible and
//! when, what a receipt handle is still good for, when a message is redriven to the dead-letter
//! queue. Also checks for changes that are never allowed. How calls travel is in `sqs`.
//!
//! One property that the engine relies on always holds: a response arrives within a tenth of the
//! visibility timeout.

use std::time::Duration;

use super::expect;
use super::order::Lane;
use super::plan::{Kind, Plan};
use super::world::World;

/// The longest time for which SQS lets a message be held (AWS: "Amazon SQS visibility timeout").
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Live,
    Deleted,
    /// Received too often: SQS redrove it to the dead-letter queue.
    Redriven,
}

#[derive(Debug)]
pub(crate) struct Msg {
    pub(crate) kind: Kind,
    pub(crate) group: Option<u32>,
    pub(crate) state: State,
    pub(crate) visible_at: Duration,
    pub(crate) receives: u32,
    pub(crate) latest: Option<usize>,
    /// The receipt that arrived last. Responses may cross.
    last_in: Option<usize>,
    /// Copies that the engine sent to the dead-letter queue.
    pub(crate) copies: u32,
    /// Receives explained by a crash, a failing service or SQS itself.
    pub(crate) excuses: u32,
    /// Receives that expired while a process held them, without an attempt to hand them back.
    slips: u32,
    /// Releases for which an outage was the only cause.
    pub(crate) outage_releases: u32,
    /// Whether it was deleted and reappeared. Happens at most once.
    reappeared: bool,
    /// The life that released it, until it is received again.
    pub(crate) released_in: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) msg: usize,
    pub(crate) life: u32,
    pub(crate) at: Duration,
    /// The time at which it expires, as far as its holder can know.
    pub(crate) until: Duration,
    /// Whether the engine has received it.
    pub(crate) delivered: bool,
    /// Whether no call about it failed. The engine's view then matches the true state.
    pub(crate) clean: bool,
    /// Whether the engine asked to delete or release it.
    pub(crate) settling: bool,
    /// Whether the engine asked to release it. No extension may follow.
    pub(crate) released: bool,
    /// Whether many messages of its reservation were held at the first such request.
    pub(crate) in_backlog: bool,
    /// Whether a call that deletes it is open. After a failed delete, the lease may be extended
    /// until the next one.
    pub(crate) deleting: bool,
    /// Whether a receipt that is still on its way settled its message or made it visible earlier.
    /// The holder cannot know.
    pub(crate) crossed: bool,
}

/// What SQS did for one life, by the answers that the engine received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) received: u64,
    pub(crate) deleted: u64,
    pub(crate) released: u64,
    pub(crate) lost: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Sqs {
    pub(crate) msgs: Vec<Msg>,
    pub(crate) receipts: Vec<Receipt>,
    /// The number of messages that the open receives of this life have asked for.
    pub(crate) asked: usize,
    pub(crate) totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Delete,
    Extend(Duration),
    HandBack(Duration),
}

impl Msg {
    /// Whether the engine must treat the latest receipt as the newest.
    pub(crate) fn knows_newest(&self) -> bool {
        expect::NEWEST || self.last_in == self.latest
    }
}

impl Sqs {
    pub(crate) fn new(plan: &Plan) -> Self {
        let msgs = plan.messages.iter().map(|spec| Msg {
            kind: spec.kind,
            group: spec.group,
            state: State::Live,
            visible_at: spec.at,
            receives: 0,
            latest: None,
            last_in: None,
            copies: 0,
            excuses: 0,
            slips: 0,
            outage_releases: 0,
            reappeared: false,
            released_in: None,
        });
        Self { msgs: msgs.collect(), ..Self::default() }
    }

    pub(crate) fn begin_life(&mut self) {
        self.asked = 0;
        self.totals = Totals::default();
        // The last process lost everything that it held.
        for msg in self.msgs.iter_mut().filter(|msg| msg.state == State::Live) {
            msg.excuses += u32::from(msg.latest.is_some());
        }
    }

    /// The first time after `now` at which a message may become visible.
    pub(crate) fn next_visible(&self, now: Duration) -> Option<Duration> {
        let live = self.msgs.iter().filter(|msg| msg.state == State::Live);
        live.map(|msg| msg.visible_at).filter(|at| *at > now).min()
    }

    /// The messages that a receive can return at `now`, in the order that FIFO requires.
    pub(crate) fn visible(&self, now: Duration, fifo: bool) -> Vec<usize> {
        let live = |n: &usize| self.msgs[*n].state == State::Live;
        let visible = |n: &usize| self.msgs[*n].visible_at <= now;
        let all = (0..self.msgs.len()).filter(live);
        if !fifo {
            return all.filter(visible).collect();
        }
        let in_flight = |msg: &Msg| msg.receives > 0 && msg.visible_at > now;
        let locked = |group: Option<u32>| {
            let of_group = self.msgs.iter().filter(|m| m.group == group && m.state == State::Live);
            of_group.into_iter().any(in_flight)
        };
        all.filter(visible).filter(|n| !locked(self.msgs[*n].group)).collect()
    }

    /// The time until which messages of earlier lives are hidden. A process that cannot extend its
    /// leases requests longer ones.
    pub(crate) fn hidden_until(&self, life: u32) -> Duration {
        let live = self.msgs.iter().filter(|msg| msg.state == State::Live);
        let earlier = |msg: &&Msg| msg.latest.is_some_and(|r| self.receipts[r].life != life);
        live.filter(earlier).map(|msg| msg.visible_at).max().unwrap_or_default()
    }

    pub(crate) fn groups_of(&self, plan: &Plan, event: &str) -> Vec<u32> {
        let mut groups: Vec<u32> = self
            .msgs
            .iter()
            .filter(|msg| matches!(msg.kind, Kind::Event(n) if plan.events[n].id == event))
            .filter_map(|msg| msg.group)
            .collect();
        groups.dedup();
        groups
    }

    /// Whether this message, or another with the same event, was copied to the dead-letter queue.
    pub(crate) fn is_dead_lettered(&self, kind: Kind, n: usize) -> bool {
        let joined = |m: &Msg| matches!(kind, Kind::Event(_)) && m.kind == kind;
        self.msgs.iter().enumerate().any(|(other, m)| m.copies > 0 && (other == n || joined(m)))
    }

    /// The last receipt of the message that this life has received.
    pub(crate) fn in_hand(&self, msg: usize, life: u32) -> Option<&Receipt> {
        let of_msg = self.receipts.iter().rev().filter(|r| r.msg == msg && r.life == life);
        of_msg.into_iter().find(|receipt| receipt.delivered)
    }
}

impl World {
    /// Whether this life has a valid lease on a message of one of these events.
    pub(crate) fn holds_any(&self, specs: &[usize]) -> bool {
        let now = self.now();
        self.queue.msgs.iter().enumerate().any(|(n, msg)| {
            matches!(msg.kind, Kind::Event(spec) if specs.contains(&spec))
                && self.queue.receipts.iter().any(|receipt| {
                    let ours = receipt.msg == n && receipt.life == self.life && receipt.delivered;
                    let stands = msg.state == State::Live && msg.visible_at > now;
                    ours && !receipt.settling && receipt.until > now && (stands || receipt.crossed)
                })
        })
    }

    /// Hands out a message and returns its new receipt. Redrives a message that was received too
    /// often and returns `None`.
    pub(crate) fn hand_out(&mut self, n: usize, visibility: Duration) -> Option<usize> {
        let (now, life) = (self.now(), self.life);
        if self.plan.has_dlq && self.queue.msgs[n].receives >= self.plan.max_receives {
            self.redrive(n);
            return None;
        }
        let msg = &mut self.queue.msgs[n];
        if msg.latest.is_some() && msg.visible_at <= now && msg.released_in.is_none() {
            // Its visibility timeout expired while a process held it.
            msg.excuses += 1;
            msg.slips += u32::from(msg.latest.is_none_or(|r| !self.queue.receipts[r].released));
            self.cover.met("visibility ran out");
            let slipped = self.queue.in_hand(n, life).is_some_and(|r| r.clean && !r.settling);
            let msg = &self.queue.msgs[n];
            let knows = msg.knows_newest();
            let latest = msg.latest.map(|r| &self.queue.receipts[r]);
            let slipped = slipped && knows && latest.is_some_and(|r| r.delivered && r.life == life);
            self.check(!slipped, || format!("m-{n} slipped away though nothing went wrong"));
        }
        self.forget_pace(n);
        let msg = &mut self.queue.msgs[n];
        msg.receives += 1;
        msg.visible_at = now + visibility;
        msg.released_in = None;
        let number = self.queue.receipts.len();
        msg.latest = Some(number);
        let (delivered, clean, settling, until) = (false, true, false, now + visibility);
        self.queue.receipts.push(Receipt {
            msg: n,
            life,
            at: now,
            until,
            delivered,
            clean,
            settling,
            released: false,
            in_backlog: false,
            deleting: false,
            crossed: false,
        });
        self.log(|| format!("m-{n} handed out as r{number}"));
        Some(number)
    }

    /// Forgets retry times and answers of an earlier delivery: after a lost lease, a new delivery
    /// starts again.
    pub(crate) fn forget_pace(&mut self, n: usize) {
        let Kind::Event(spec) = self.queue.msgs[n].kind else { return };
        let id = self.services.place(&self.plan.events[spec].id);
        self.services.pace_until.retain(|(_, of), _| *of != id);
        // The Reservation API may be asked again too.
        self.services.ids[id].asked = false;
    }

    fn redrive(&mut self, n: usize) {
        let msg = &mut self.queue.msgs[n];
        msg.state = State::Redriven;
        let (excuses, outage, good) =
            (msg.excuses, msg.outage_releases, matches!(msg.kind, Kind::Event(_)));
        self.cover.met("redriven");
        self.log(|| format!("m-{n} redriven, excuses {excuses}, outage {outage}"));
        // The last receive expired too, unless the message was to be handed back.
        let msg = &self.queue.msgs[n];
        let is_released = msg.latest.is_some_and(|r| self.queue.receipts[r].released);
        let slips = msg.slips + u32::from(!is_released);
        let slipped = self.plan.half_well.is_some() && slips >= self.plan.max_receives;
        self.check(!good || !slipped, || {
            format!("m-{n} was redriven because an action of the queue failed")
        });
        let excused = outage == 0 && excuses > 0;
        self.check(!good || excused, || {
            format!("m-{n}: a good event in the dead-letter queue; releases for an outage: {outage}, other causes: {excuses}")
        });
    }

    /// Takes note of receipts that have reached the engine.
    pub(crate) fn delivered(&mut self, receipts: &[usize]) {
        if !receipts.is_empty() {
            self.log(|| format!("received {receipts:?}"));
        }
        for receipt in receipts {
            self.queue.totals.received += 1;
            let number = self.queue.receipts[*receipt].msg;
            let crossed = self.queue.msgs[number].state != State::Live;
            let receipt_now = &mut self.queue.receipts[*receipt];
            (receipt_now.delivered, receipt_now.crossed) = (true, crossed);
            // The previous receipt may have been given up while this one was on its way.
            self.forget_pace(number);
            self.queue.msgs[number].last_in = Some(*receipt);
            let msg = &self.queue.msgs[number];
            if let Kind::Event(spec) = msg.kind {
                let group = msg.group.map(Lane::Group);
                let others = self.queue.msgs.iter().enumerate().filter(|(_, m)| m.kind == msg.kind);
                let life = self.life;
                let held = |n| self.queue.in_hand(n, life).is_some_and(|r| !r.settling);
                let now = self.started.elapsed();
                let held = others
                    .filter(|(n, m)| m.state == State::Live && m.visible_at > now && held(*n))
                    .count();
                if held > 1 {
                    self.cover.met("a copy joins an event that is held");
                }
                let spec = &self.plan.events[spec];
                self.order.received(Lane::Reservation(spec.reservation), &spec.id, number);
                if let Some(lane) = group {
                    self.order.received(lane, &spec.id, number);
                }
            }
        }
    }

    /// Ends the message's part in the order of events.
    pub(crate) fn settled(&mut self, n: usize) {
        let msg = &self.queue.msgs[n];
        if let Kind::Event(spec) = msg.kind {
            let group = msg.group.map(Lane::Group);
            let spec = &self.plan.events[spec];
            self.order.settled(Lane::Reservation(spec.reservation), &spec.id, n);
            if let Some(lane) = group {
                self.order.settled(lane, &spec.id, n);
            }
        }
    }

    /// Applies one entry of a batch. Returns `false` if the receipt is stale.
    pub(crate) fn change(&mut self, receipt: usize, change: Change) -> bool {
        let now = self.now();
        let Receipt { msg: n, at, .. } = self.queue.receipts[receipt];
        let msg = &self.queue.msgs[n];
        if msg.latest != Some(receipt) || msg.state != State::Live {
            self.cover.met("a handle that is stale");
            // A delete with an old handle is answered with success and deletes nothing.
            return change == Change::Delete && self.chance(70);
        }
        let in_flight = msg.visible_at > now;
        match change {
            Change::Delete if in_flight || !self.plan.fifo => {
                self.delete(n);
                true
            }
            Change::Extend(after) | Change::HandBack(after)
                if in_flight && now + after <= at + HOLD_MAX =>
            {
                self.visible_after(n, after);
                self.queue.receipts[receipt].until = now + after;
                if change == Change::HandBack(after) {
                    self.handed_back(n, after);
                } else {
                    self.cover.met("extended");
                }
                true
            }
            Change::Delete | Change::Extend(_) | Change::HandBack(_) => {
                self.cover.met("a change that comes too late");
                false
            }
        }
    }

    fn delete(&mut self, n: usize) {
        let msg = &self.queue.msgs[n];
        // Copies of one event share their settlement: one copy in the dead-letter queue is enough.
        let is_copied = self.queue.is_dead_lettered(msg.kind, n);
        let kind = msg.kind;
        let fine = is_copied
            || match kind {
                Kind::Poison(_) => false,
                Kind::Event(spec) => {
                    let spec = &self.plan.events[spec];
                    let superseded = self.services.progress(&spec.id).superseded;
                    superseded || self.services.complete(spec)
                }
            };
        self.check(fine, || format!("m-{n} deleted before its effects"));
        if let (Kind::Event(spec), false) = (kind, is_copied) {
            self.check_handled(self.services.place(&self.plan.events[spec].id), n);
        }
        self.log(|| format!("m-{n} deleted"));
        self.settled(n);
        let back = !self.plan.fifo && !self.calm() && self.chance(2);
        let again = self.draw_ms(1, 90_000);
        let now = self.now();
        let msg = &mut self.queue.msgs[n];
        msg.state = State::Deleted;
        // One SQS server missed the deletion (AWS: "Amazon SQS at-least-once delivery").
        if back && !msg.reappeared && msg.receives < 3 {
            msg.reappeared = true;
            msg.state = State::Live;
            msg.excuses += 1;
            msg.visible_at = now + again;
            msg.released_in = Some(0);
            self.cover.met("a deleted message comes back");
        }
    }
}
