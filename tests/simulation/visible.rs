//! Effects of a hand-back, and the check that it has a reason.

use std::time::Duration;

use reservation_worker::queue::BATCH_MAX;

use super::guard::Excuses;
use super::plan::Kind;
use super::queue::{HOLD_MAX, Msg};
use super::world::World;

/// The time for which a suspect event is hidden if it takes up too much of the in-flight limit.
const GIVEN_UP_FOR_OTHERS: Duration = Duration::from_secs(15 * 60);

/// How long a message is hidden that was received for the `receives`th time while the process
/// leaves.
fn came_back_for(receives: u32) -> Duration {
    receives.checked_sub(2).map_or(Duration::ZERO, |times| Duration::from_secs(1 << times.min(4)))
}

impl World {
    /// Applies a change of visibility.
    pub(crate) fn visible_after(&mut self, n: usize, after: Duration) {
        // SQS counts whole seconds; the client rounds up.
        let whole = Duration::from_secs(after.as_secs() + u64::from(after.subsec_nanos() > 0));
        self.queue.msgs[n].visible_at = self.now() + whole;
        self.log(|| format!("m-{n} visible in {after:?}"));
    }

    /// Records a hand-back and checks that it has a reason.
    pub(crate) fn handed_back(&mut self, n: usize, after: Duration) {
        let (now, life, draining) = (self.now(), self.life, self.draining);
        self.settled(n);
        let held_for = self.queue.msgs[n].latest.map(|r| now - self.queue.receipts[r].at);
        let too_long = held_for.is_some_and(|time| time > HOLD_MAX - Duration::from_secs(1_800));
        // `again`: a repetition after a lost response, or a copy that shares its settlement came
        // first.
        let kind = self.queue.msgs[n].kind;
        let is_released = |msg: &Msg| msg.kind == kind && msg.released_in == Some(life);
        let again = self.queue.msgs.iter().any(is_released);
        self.queue.msgs[n].released_in = Some(life);
        let Kind::Event(spec) = kind else {
            self.cover.met("poison left to redrive");
            return;
        };
        let id = self.services.place(&self.plan.events[spec].id);
        // A new delivery starts again.
        self.services.pace_until.retain(|(_, of), _| *of != id);
        let Excuses { failed: failed_store, waited, doubt } = self.take_excuses(id);
        let progress = &mut self.services.ids[id];
        let told = progress.told_permanent || progress.told_forbidden || progress.told_money;
        let store_only = !told && !again && (failed_store > 0 || doubt);
        let is_down = progress.failed_down > 0 || store_only;
        let only_down = is_down && progress.failed_other == 0 && progress.specs.len() == 1;
        // The lease of an earlier message of its group may have been lost.
        let follows = self.queue.msgs[n].group.is_some() && after.is_zero();
        let specs = progress.specs.clone();
        // A reused id is decided without a call.
        let called = progress.called_in == life || specs.len() > 1 || waited;
        (progress.failed_down, progress.failed_other) = (0, 0);
        // A lease may be lost during a call. The claim is then released after the call.
        let reservation = self.plan.events[specs[0]].reservation;
        let in_call = self.services.open.iter().any(|open| open.reservation == reservation);
        if !in_call && !self.holds_any(&specs) {
            self.check_let_go(id);
        }
        // An event that was called in an earlier delivery is handed back right after its receive.
        let is_new = !called || held_for.is_some_and(|time| time.as_secs() == 0);
        let for_room = is_new && !after.is_zero() && self.was_in_backlog(n);
        let came_back = draining && after == came_back_for(self.queue.msgs[n].receives);
        let why = || format!("m-{n} hidden for {after:?} though it was never begun");
        self.check(called || after.is_zero() || for_room || came_back, why);
        if came_back && !called && !after.is_zero() {
            self.cover.met("handed back once more while leaving");
        }
        let msg = &mut self.queue.msgs[n];
        let why = if for_room {
            "handed back for room"
        } else if after == GIVEN_UP_FOR_OTHERS && !draining {
            "handed back so that others go on"
        } else if too_long {
            "handed back before 12 h"
        } else if draining {
            "handed back"
        } else if only_down && !follows {
            msg.outage_releases += 1;
            self.cover.met("released in an outage");
            return self.violation(|| format!("m-{n} released because of an outage"));
        } else {
            "released"
        };
        msg.excuses += 1;
        self.cover.met(why);
    }

    fn was_in_backlog(&self, n: usize) -> bool {
        let latest = self.queue.msgs[n].latest.map(|receipt| &self.queue.receipts[receipt]);
        latest.is_some_and(|receipt| receipt.in_backlog)
    }

    /// Whether a message may be handed back to free in-flight capacity: many others of its
    /// reservation are held, and it has a receive to spare.
    pub(crate) fn is_in_backlog(&self, n: usize) -> bool {
        let Kind::Event(spec) = self.queue.msgs[n].kind else { return false };
        let reservation = self.plan.events[spec].reservation;
        let (now, life) = (self.now(), self.life);
        let held = |(other, msg): &(usize, &Msg)| {
            let is_of_it = matches!(msg.kind, Kind::Event(spec) if self.plan.events[spec].reservation == reservation);
            let ours = msg.latest.is_some_and(|r| self.queue.receipts[r].life == life);
            *other != n && is_of_it && ours && msg.visible_at > now && msg.released_in != Some(life)
        };
        let has_spare =
            !self.plan.has_dlq || self.queue.msgs[n].receives + 1 < self.plan.max_receives;
        let held = self.queue.msgs.iter().enumerate().filter(held).count();
        !self.plan.fifo && has_spare && held >= BATCH_MAX
    }
}
