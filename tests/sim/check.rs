//! The questions asked when a process has left, and at the very end: is anything lost, or kept?

use super::plan::Kind;
use super::queue::{Msg, State};
use super::world::World;

impl World {
    /// Whether every message is where it can stay.
    pub(crate) fn all_settled(&self) -> bool {
        let live = |n: &usize| self.queue.msgs[*n].state == State::Live;
        (0..self.queue.msgs.len()).filter(live).all(|n| self.may_stay(n))
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

    /// A process that has left holds nothing, unless its calls to the queue failed.
    pub(crate) fn check_nothing_kept(&mut self) {
        let (now, life) = (self.now(), self.life);
        let kept = self.queue.msgs.iter().position(|msg| {
            let receipt = msg.latest.map(|n| &self.queue.receipts[n]);
            let ours =
                receipt.is_some_and(|r| r.life == life && r.delivered && r.clean && !r.settling);
            ours && msg.state == State::Live && msg.visible_at > now
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
}
