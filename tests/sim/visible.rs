//! What it means that a message is made visible: its lease is extended, or it is handed back; and
//! whether there is a reason to hand it back.

use std::time::Duration;

use super::guard::Excuses;
use super::plan::Kind;
use super::queue::{HOLD_MAX, Msg};
use super::world::World;

impl World {
    /// Carries out a change of visibility, and judges it.
    pub(crate) fn make_visible(&mut self, n: usize, after: Duration) {
        let (now, life, draining) = (self.now(), self.life, self.draining);
        // SQS counts whole seconds; the client rounds up.
        let whole = Duration::from_secs(after.as_secs() + u64::from(after.subsec_nanos() > 0));
        self.queue.msgs[n].visible_at = now + whole;
        self.log(|| format!("m-{n} visible in {after:?}"));
        if after == self.plan.visibility() {
            self.cover.met("extended");
            // Or handed back for as long as its backoff still lasts: that looks the same.
            self.queue.alike += u64::from(self.draining);
            return;
        }
        self.settled(n);
        let held_for = self.queue.msgs[n].latest.map(|r| now - self.queue.receipts[r].at);
        let too_long = held_for.is_some_and(|time| time > HOLD_MAX - Duration::from_secs(1_800));
        // The answer was lost, and it is said again; or a copy that shares its settlement came first.
        let kind = self.queue.msgs[n].kind;
        let is_released = |msg: &Msg| msg.kind == kind && msg.released_in == Some(life);
        let again = self.queue.msgs.iter().any(is_released);
        self.queue.msgs[n].released_in = Some(life);
        let Kind::Event(spec) = kind else {
            self.cover.met("poison left to redrive");
            return;
        };
        let id = self.services.place(&self.plan.events[spec].id);
        let Excuses { failed: failed_store, waited, doubt } = self.take_excuses(id);
        let progress = &mut self.services.ids[id];
        let told = progress.told_permanent || progress.told_forbidden || progress.told_money;
        let store_only = !told && !again && (failed_store > 0 || doubt);
        let only_down = (progress.failed_down > 0 || store_only)
            && progress.failed_other == 0
            && progress.specs.len() == 1;
        // Or because an earlier one of its group slipped away.
        let follows = self.queue.msgs[n].group.is_some() && after.is_zero();
        // An id that was used twice is judged without a call.
        let called = progress.called_in == life || progress.specs.len() > 1 || waited;
        (progress.failed_down, progress.failed_other) = (0, 0);
        let specs = progress.specs.clone();
        if !self.holds_any(&specs) {
            self.check_let_go(id);
        }
        self.check(called || after.is_zero(), || {
            format!("m-{n} hidden for {after:?} though it was never begun")
        });
        let msg = &mut self.queue.msgs[n];
        if too_long {
            msg.excuses += 1;
            self.cover.met("handed back before 12 h");
        } else if draining {
            msg.excuses += 1;
            self.cover.met("handed back");
        } else if only_down && !follows {
            msg.outage_releases += 1;
            self.cover.met("released in an outage");
            self.violation(|| format!("m-{n} released because of an outage"));
        } else {
            msg.excuses += 1;
            self.cover.met("released");
        }
    }
}
