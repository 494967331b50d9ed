//! Tracks which answers the engine has received. Also holds a second, independent version of the
//! rule for what a status means after 409 or 412.

use reservation_worker::client::{Class, ReservationStatus};
use reservation_worker::event::EventType;
use tokio::time::Instant;

use super::services::{Answer, Ask};
use super::world::World;

/// The meaning of a found status for an event.
pub(crate) enum Verdict {
    Done,
    Superseded,
    Money,
    Unclear,
}

/// Consecutive answers of the outage class from one service.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    failures: u32,
    first: Option<usize>,
    /// Several reservations were affected.
    shared: bool,
}

impl Streak {
    /// Higher than the engine's own threshold.
    const NOTICED: u32 = 8;

    pub(crate) fn is_outage(&self) -> bool {
        self.shared && self.failures >= Self::NOTICED
    }

    pub(crate) fn answered(&mut self, reservation: usize, outage: bool) {
        if !outage {
            *self = Self::default();
            return;
        }
        self.failures += 1;
        self.shared |= *self.first.get_or_insert(reservation) != reservation;
    }
}

impl World {
    /// Takes note of an answer that the engine has received.
    pub(crate) fn answered(&mut self, id: usize, ask: &Ask, answer: &Answer, down: bool) {
        let (life, step) = (self.life, self.services.keys[&ask.key].1);
        let fails = answer.as_ref().err().is_some_and(|error| {
            matches!(error.class, Class::Outage | Class::Transient | Class::Paced)
        });
        let outage = answer.as_ref().err().is_some_and(|error| error.class == Class::Outage);
        self.services.streaks[ask.service() as usize].answered(ask.reservation, outage);
        let progress = &mut self.services.ids[id];
        if !fails && std::mem::take(&mut progress.failed_down) > 0 {
            // From here on, the outage does not explain a failure.
            progress.failed_other += 1;
            self.cover.met("went on after an outage");
        }
        match answer {
            Ok(None) => self.learn(id, ask.reservation, step, Some(life)),
            Ok(Some(found)) => {
                let event_type = self.plan.events[progress.specs[0]].event_type;
                self.judged(id, event_type, ask.reservation, found);
            }
            Err(error) => {
                match error.class {
                    // A dead-lettered event is not handled, so a copy of it starts from the first
                    // step.
                    Class::Permanent => (progress.told_permanent, progress.asked) = (true, false),
                    Class::Forbidden => progress.told_forbidden = true,
                    Class::MoneyWithoutSeat => progress.told_money = true,
                    Class::Paced => {
                        if let Some(after) = error.retry_after {
                            let until = Instant::now() + after;
                            self.services.pace_until.insert((ask.service() as usize, id), until);
                        }
                    }
                    Class::Outage | Class::Transient | Class::Conflict => {}
                }
                if down {
                    progress.failed_down += 1;
                } else if error.class != Class::Conflict {
                    progress.failed_other += 1;
                }
                let name = progress.id.clone();
                self.log(|| format!("{name}: answered {}", error.code));
            }
        }
    }

    fn judged(
        &mut self,
        id: usize,
        event_type: EventType,
        reservation: usize,
        found: &ReservationStatus,
    ) {
        let life = self.life;
        let (cell, verdict) = verdict(event_type, found);
        let progress = &mut self.services.ids[id];
        match verdict {
            Verdict::Done => {
                if progress.asks && !progress.asked {
                    progress.asked = true;
                    self.cover.met("learned what an expiry leaves out");
                }
                self.learn(id, reservation, 0, Some(life));
            }
            Verdict::Superseded => {
                progress.superseded = true;
                progress.superseded_in = Some(life);
            }
            Verdict::Money => progress.told_money = true,
            Verdict::Unclear => progress.failed_other += 1,
        }
        self.cover.met(cell);
        let name = self.services.ids[id].id.clone();
        self.log(|| format!("{name}: {cell}"));
    }
}

/// The meaning of a status found after 409 or 412: the name of the case and the verdict.
pub(crate) fn verdict(event_type: EventType, found: &ReservationStatus) -> (&'static str, Verdict) {
    use EventType::{PaymentApproved as Approved, PaymentFailed as Failed};
    match (event_type, found) {
        (EventType::ReservationExpired, ReservationStatus::Expired) => {
            ("expired finds EXPIRED", Verdict::Done)
        }
        (EventType::ReservationExpired, ReservationStatus::Cancelled) => {
            ("expired finds CANCELLED", Verdict::Done)
        }
        (EventType::ReservationExpired, ReservationStatus::Confirmed) => {
            ("expired finds CONFIRMED", Verdict::Superseded)
        }
        (EventType::ReservationExpired, ReservationStatus::Other(_)) => {
            ("expired finds another", Verdict::Unclear)
        }
        (Failed, ReservationStatus::Cancelled) => ("failed finds CANCELLED", Verdict::Done),
        (Failed, ReservationStatus::Expired) => ("failed finds EXPIRED", Verdict::Done),
        (Failed, ReservationStatus::Confirmed) => ("failed finds CONFIRMED", Verdict::Superseded),
        (Failed, ReservationStatus::Other(_)) => ("failed finds another", Verdict::Unclear),
        (Approved, ReservationStatus::Confirmed) => ("approved finds CONFIRMED", Verdict::Done),
        (Approved, ReservationStatus::Expired) => ("approved finds EXPIRED", Verdict::Money),
        (Approved, ReservationStatus::Cancelled) => ("approved finds CANCELLED", Verdict::Money),
        (Approved, ReservationStatus::Other(_)) => ("approved finds another", Verdict::Unclear),
    }
}
