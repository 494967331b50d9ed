//! The questions asked of the queue's state: while the process works, when it has left, and at the
//! very end. Is more held than may be, is anything kept, is anything lost?

use reservation_worker::queue::DeadLetter;

use super::plan::Kind;
use super::queue::{Msg, State};
use super::world::World;

impl World {
    /// Whether every message is where it can stay.
    pub(crate) fn all_settled(&self) -> bool {
        let live = |n: &usize| self.queue.msgs[*n].state == State::Live;
        // What was refused for good may be tried once more, where everybody was refused.
        let now = self.now();
        let is_tried = |n: usize| {
            let held = self.queue.in_hand(n, self.life).is_some_and(|receipt| !receipt.settling);
            held && self.queue.msgs[n].visible_at > now
        };
        (0..self.queue.msgs.len()).filter(live).all(|n| self.may_stay(n) && !is_tried(n))
    }

    /// Without a dead-letter queue, what can never succeed stays, spaced out; and so does what is
    /// behind it in its group.
    fn may_stay(&self, n: usize) -> bool {
        let group = self.queue.msgs[n].group;
        let earlier = self.queue.msgs[..n].iter();
        let mut ahead = earlier.filter(|m| group.is_some() && m.group == group);
        self.is_hopeless(&self.queue.msgs[n])
            || ahead.any(|m| m.state == State::Live && self.is_hopeless(m))
    }

    fn is_hopeless(&self, msg: &Msg) -> bool {
        !self.plan.has_dlq
            && match msg.kind {
                Kind::Poison(_) => true,
                Kind::Event(spec) => {
                    let progress = self.services.progress(&self.plan.events[spec].id);
                    progress.specs.len() > 1
                        || progress.told_permanent
                        || progress.told_forbidden
                        || progress.told_money
                }
            }
    }

    /// In a FIFO group, what was released comes before what follows it.
    pub(crate) fn check_groups(&mut self, event: &str) {
        let is_it = |kind| matches!(kind, Kind::Event(n) if self.plan.events[n].id == event);
        let life = Some(self.life);
        let of_event = self.queue.msgs.iter().enumerate().filter(|(_, m)| is_it(m.kind));
        let passed = of_event.into_iter().find_map(|(n, msg)| {
            msg.group?;
            // Several copies in one group: the last one says when it is its turn.
            let last = self.queue.msgs.iter().rposition(|m| is_it(m.kind) && m.group == msg.group);
            if last != Some(n) {
                return None;
            }
            let first =
                self.queue.msgs.iter().position(|m| is_it(m.kind) && m.group == msg.group)?;
            self.queue.msgs[..first].iter().position(|earlier| {
                earlier.group == msg.group
                    && earlier.state == State::Live
                    && earlier.released_in == life
            })
        });
        if let Some(passed) = passed {
            self.violation(|| format!("{event} began though m-{passed} of its group was released"));
        }
    }

    /// No more is in flight than may be.
    pub(crate) fn check_room(&mut self, max: usize) {
        self.check((1..=10).contains(&max), || format!("a receive for {max}"));
        let now = self.now();
        let held = self.queue.msgs.iter().filter(|msg| {
            let receipt = msg.latest.map(|n| &self.queue.receipts[n]);
            let ours = receipt.is_some_and(|r| r.life == self.life && r.delivered && r.clean);
            let ours = ours && msg.knows_newest();
            ours && msg.state == State::Live && msg.visible_at > now && msg.released_in.is_none()
        });
        let (held, asked) = (held.count(), self.queue.asked);
        let most = self.plan.settings.in_flight_max;
        if held + asked + max == most {
            self.cover.met("as many in flight as may be");
        }
        self.check(held + asked + max <= most, || {
            format!("{held} held, {asked} asked for, {max} more: {most} allowed")
        });
    }

    /// A process that has left holds nothing, unless its calls to the queue failed.
    pub(crate) fn check_nothing_kept(&mut self) {
        let (now, life) = (self.now(), self.life);
        let kept = self.queue.msgs.iter().position(|msg| {
            let receipt = msg.latest.map(|n| &self.queue.receipts[n]);
            let ours =
                receipt.is_some_and(|r| r.life == life && r.delivered && r.clean && !r.settling);
            ours && msg.knows_newest() && msg.state == State::Live && msg.visible_at > now
        });
        if let Some(n) = kept {
            self.violation(|| format!("m-{n} was not handed back by a process that left"));
        }
    }

    /// Nothing is lost: each event took effect, gave way, or lies where somebody finds it.
    pub(crate) fn check_end(&mut self) {
        for n in 0..self.queue.msgs.len() {
            let msg = &self.queue.msgs[n];
            let (state, copied) = (msg.state, self.queue.is_dead_lettered(msg.kind, n));
            let stays = self.may_stay(n);
            let fine = match (msg.kind, state) {
                (_, State::Live) => stays,
                (_, State::Redriven) => self.plan.has_dlq,
                (Kind::Poison(_), State::Deleted) => copied,
                (Kind::Event(spec), State::Deleted) => {
                    let spec = &self.plan.events[spec];
                    copied
                        || self.services.complete(spec)
                        || self.services.progress(&spec.id).superseded
                }
            };
            self.check(fine, || format!("m-{n} is lost: {state:?}, copied: {copied}"));
            if let Kind::Event(spec) = self.queue.msgs[n].kind {
                let spec = &self.plan.events[spec];
                let name = match (state, self.services.complete(spec), self.services.begun(spec)) {
                    (State::Redriven, false, true) => "redriven half done",
                    (State::Redriven, ..) => "redriven undone",
                    (_, true, _) => "took effect",
                    (_, false, true) => "half done",
                    (_, false, false) => "no effect",
                };
                self.cover.met(name);
            }
        }
    }

    /// Whether a copy in the dead-letter queue is deserved.
    pub(crate) fn check_letter(&mut self, n: usize, letter: &DeadLetter) {
        let reason = letter.reason;
        let fine = match self.queue.msgs[n].kind {
            Kind::Poison(why) => why == reason,
            Kind::Event(spec) => {
                let progress = self.services.progress(&self.plan.events[spec].id);
                match reason {
                    "id_reused" => progress.specs.len() > 1,
                    "rejected" => progress.told_permanent,
                    "forbidden" => progress.told_forbidden,
                    "money_without_seat" => progress.told_money,
                    "retries_used_up" => self.plan.fifo && self.plan.has_dlq,
                    _ => false,
                }
            }
        };
        self.check(fine, || format!("m-{n} dead-lettered as {reason}, which it does not deserve"));
        let whole = letter.body == self.plan.messages[n].body;
        self.check(whole, || format!("m-{n} dead-lettered with another body"));
        self.cover.met(match reason {
            "id_reused" => "dead letter: id_reused",
            "rejected" => "dead letter: rejected",
            "forbidden" => "dead letter: forbidden",
            "money_without_seat" => "dead letter: money_without_seat",
            "retries_used_up" => "dead letter: retries_used_up",
            _ => "dead letter: poison",
        });
    }
}
