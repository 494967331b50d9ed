//! Checks on each call as it begins: an event requires it, its step is next, and the service may be
//! called now.

use reservation_worker::client::ReleaseReason;
use reservation_worker::event::EventType;
use tokio::time::Instant;

use super::expect;
use super::order::Lane;
use super::services::{Ask, Open, What, target_of};
use super::world::World;

impl World {
    /// Checks a call and opens it. Returns the index of its event's id and the number of the call,
    /// or `None` after a call that belongs to no event.
    pub(crate) fn begin_call(&mut self, ask: &Ask) -> Option<(usize, u64)> {
        let Some(&(id, step)) = self.services.keys.get(&ask.key) else {
            self.violation(|| format!("an effect without an event: {ask:?}"));
            return None;
        };
        let name = self.services.ids[id].id.clone();
        self.log(|| format!("{name}: {:?} rsv_{}", ask.what, ask.reservation));
        self.check_fits(id, ask);
        self.check_turn(id, step, ask);
        self.check_guarded(id, step, ask);
        self.check_order(&name, ask);
        let pace = self.services.pace_until.get(&(ask.service() as usize, id));
        let paced = pace.is_some_and(|until| Instant::now() < *until);
        self.check(!paced, || {
            format!("{name}: called a service before the time that it named to it")
        });
        let progress = &mut self.services.ids[id];
        progress.called_in = self.life;
        if progress.failed_down + progress.failed_other > 0 {
            self.cover.met("tried again");
        }
        self.services.last_number += 1;
        let number = self.services.last_number;
        if self.services.streaks[ask.service() as usize].is_outage() {
            self.cover.met("a call to see whether a service is back");
        }
        self.services.open.push(Open { number, reservation: ask.reservation });
        let (open, most) = (self.services.open.len(), self.plan.settings.concurrency);
        self.check(open <= most, || format!("{open} calls at once, {most} allowed"));
        Some((id, number))
    }

    /// Checks that the call has the contents of its event.
    fn check_fits(&mut self, id: usize, ask: &Ask) {
        let fits = self.services.ids[id].specs.iter().any(|n| {
            let spec = &self.plan.events[*n];
            let quantity = i32::try_from(spec.seats).expect("the number is small");
            spec.reservation == ask.reservation
                && match (ask.what, spec.event_type) {
                    (What::Get, _) => true,
                    (What::Patch(target), event_type) => target == target_of(event_type),
                    (What::Commit(qty), EventType::PaymentApproved) => qty == quantity,
                    (What::Release(qty, why), EventType::ReservationExpired) => {
                        qty == quantity && why == ReleaseReason::Expired
                    }
                    (What::Release(qty, why), EventType::PaymentFailed) => {
                        qty == quantity && why == ReleaseReason::FailedPayment
                    }
                    (What::Release(..) | What::Commit(_), _) => false,
                }
        });
        self.check(fits, || format!("a call that no event asks for: {ask:?}"));
    }

    /// Checks that the step is next: the message is held, the step is not done, the event is not
    /// superseded, and the previous step is done.
    fn check_turn(&mut self, id: usize, step: usize, ask: &Ask) {
        let life = self.life;
        let progress = &self.services.ids[id];
        let name = progress.id.clone();
        let states = self.states(id, ask.reservation);
        let first_done = step == 0 || states.clone().any(|states| states[0].applied);
        drop(states);
        let may_repeat = self.may_repeat(id);
        let known = self.was_known(id, step, ask) && !may_repeat;
        let superseded = progress.superseded_in == Some(life) && !may_repeat;
        let specs = progress.specs.clone();
        let held = self.holds_any(&specs) || (self.draining && !expect::REJOINS);
        let other = self.services.open.iter().any(|open| open.reservation == ask.reservation);
        let what = ask.what;
        self.check(!known, || format!("{name}: {what:?} repeated needlessly"));
        self.check(first_done, || format!("{name}: {what:?} before the first step"));
        self.check(!superseded, || format!("{name}: {what:?} though it is superseded"));
        self.check(held, || format!("{name}: {what:?} while no message of it is held"));
        self.check(!other, || format!("{name}: {what:?} while its reservation has another call"));
    }

    fn check_order(&mut self, name: &str, ask: &Ask) {
        if self.services.progress(name).specs.len() > 1 {
            return;
        }
        let groups = self.queue.groups_of(&self.plan, name);
        let lanes = groups.into_iter().map(Lane::Group);
        for lane in lanes.chain([Lane::Reservation(ask.reservation)]) {
            match self.order.called(lane, name) {
                Ok(waited) => {
                    if waited {
                        self.cover.met(match lane {
                            Lane::Reservation(_) => "waited for its reservation",
                            Lane::Group(_) => "waited for its group",
                        });
                    }
                }
                Err(by) => self.violation(|| format!("{name}: overtaken by {by} in {lane:?}")),
            }
        }
        self.check_groups(name);
    }
}
