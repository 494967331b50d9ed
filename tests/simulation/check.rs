//! Checks on the state of the queue: while the process runs, after it has stopped, and at the end
//! of the run. Not too many messages are held, none is kept, and none is lost.

use reservation_worker::queue::DeadLetter;

use super::plan::Kind;
use super::queue::{Msg, State};
use super::world::World;

impl World {
    /// Whether every message has reached a state in which it may stay.
    pub(crate) fn all_settled(&self) -> bool {
        let live = |n: &usize| self.queue.msgs[*n].state == State::Live;
        // After a refusal of all calls, a permanently refused message may be tried once more.
        let now = self.now();
        let is_tried = |n: usize| {
            let held = self.queue.in_hand(n, self.life).is_some_and(|receipt| !receipt.settling);
            held && self.queue.msgs[n].visible_at > now
        };
        (0..self.queue.msgs.len()).filter(live).all(|n| self.may_stay(n) && !is_tried(n))
    }

    /// Whether the message may stay live. Without a dead-letter queue, a message that can never
    /// succeed stays in the queue with growing delays, and so do the messages behind it in its
    /// group.
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

    /// Checks that a released message of a FIFO group comes before those that follow it.
    pub(crate) fn check_groups(&mut self, event: &str) {
        let is_it = |kind| matches!(kind, Kind::Event(n) if self.plan.events[n].id == event);
        let life = Some(self.life);
        let of_event = self.queue.msgs.iter().enumerate().filter(|(_, m)| is_it(m.kind));
        let passed = of_event.into_iter().find_map(|(n, msg)| {
            msg.group?;
            // Several copies in one group: the last copy determines the turn of the event.
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

    /// Checks that the in-flight limit is kept.
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

    /// Checks that a process that has stopped holds no message, unless its calls to the queue
    /// failed.
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

    /// Checks that nothing is lost: each event took effect, was superseded, or is in the
    /// dead-letter queue.
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

    /// Checks that a copy in the dead-letter queue has a reason.
    pub(crate) fn check_dead_letter(&mut self, n: usize, dead_letter: &DeadLetter) {
        let reason = dead_letter.reason;
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
        let whole = dead_letter.body == self.plan.messages[n].body;
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
