//! A sequential model of lanes, and the deliveries and answers that the tests of lanes use.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use reservation_worker::event::{EventId, ReservationId};
use reservation_worker::idempotency::{ClaimRequest, ClaimToken, RecordKey};

use crate::bench::HASH;

/// One delivery of one event of the reservation.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) id: EventId,
    pub(crate) token: ClaimToken,
    pub(crate) sent_ms: u64,
}

impl Delivery {
    pub(crate) fn new(id: EventId, sent_ms: u64) -> Self {
        Self { id, token: ClaimToken::unique(), sent_ms }
    }

    pub(crate) fn key<'a>(&'a self, reservation: &'a ReservationId) -> RecordKey<'a> {
        RecordKey { id: &self.id, lane: Some(reservation) }
    }

    pub(crate) fn request(&self, lasts: Duration) -> ClaimRequest {
        let sent_at = SystemTime::UNIX_EPOCH + Duration::from_millis(self.sent_ms);
        ClaimRequest { hash: HASH, token: self.token, lasts, sent_at }
    }

    fn order(&self) -> (u64, [u8; 8]) {
        (self.sent_ms, self.token.to_bytes())
    }
}

/// An answer, without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ours,
    Handled,
    Elsewhere,
    Behind,
    Done,
    NotOwner,
    LaneLost,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Claim,
    Renew,
    Record,
    Complete,
    Release,
    /// The lane's key is gone, as after a failover.
    Forget,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Free,
    InProgress(ClaimToken),
    GivenUp(ClaimToken),
    Handled(ClaimToken),
}

/// The model. No time passes in it.
pub(crate) struct Model {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) records: HashMap<EventId, Phase>,
    pub(crate) holder: Option<usize>,
    pub(crate) next: Option<usize>,
    /// Whether record and lane have a script each, which run at the same time.
    pub(crate) is_apart: bool,
}

impl Model {
    fn record(&mut self, n: usize) -> &mut Phase {
        self.records.entry(self.deliveries[n].id.clone()).or_default()
    }

    /// Returns whether the lane is ours.
    fn enter(&mut self, n: usize) -> bool {
        if self.holder != Some(n) {
            let order = |n: usize| self.deliveries[n].order();
            let is_first = self.next.is_none_or(|next| next == n || order(n) < order(next));
            if self.holder.is_some() || !is_first {
                if is_first {
                    self.next = Some(n);
                }
                return false;
            }
        }
        self.hold(n);
        true
    }

    fn hold(&mut self, n: usize) {
        self.holder = Some(n);
        if self.next == Some(n) {
            self.next = None;
        }
    }

    fn leave(&mut self, n: usize) {
        if self.holder == Some(n) {
            self.holder = None;
        } else if self.next == Some(n) {
            self.next = None;
        }
    }

    fn claim(&mut self, n: usize) -> Answer {
        let token = self.deliveries[n].token;
        let refused = match *self.record(n) {
            Phase::Handled(_) => Some(Answer::Handled),
            Phase::InProgress(other) if other != token => Some(Answer::Elsewhere),
            Phase::Free | Phase::InProgress(_) | Phase::GivenUp(_) => None,
        };
        if let Some(refused) = refused {
            if self.is_apart {
                self.enter(n);
                self.leave(n);
            }
            return refused;
        }
        if self.enter(n) {
            *self.record(n) = Phase::InProgress(token);
            return Answer::Ours;
        }
        if self.is_apart {
            *self.record(n) = Phase::GivenUp(token);
        }
        Answer::Behind
    }

    fn go_on(&mut self, n: usize, is_renewed: bool) -> Answer {
        let token = self.deliveries[n].token;
        if *self.record(n) != Phase::InProgress(token) {
            return Answer::NotOwner;
        }
        if self.holder.is_some_and(|holder| holder != n) {
            return Answer::LaneLost;
        }
        if is_renewed {
            self.hold(n);
        }
        Answer::Done
    }

    fn end(&mut self, n: usize, ended: fn(ClaimToken) -> Phase) -> Answer {
        let token = self.deliveries[n].token;
        let phase = *self.record(n);
        let is_again = phase == ended(token);
        let is_ours = phase == Phase::InProgress(token);
        if is_ours {
            *self.record(n) = ended(token);
        }
        self.leave(n);
        if is_ours || is_again { Answer::Done } else { Answer::NotOwner }
    }

    pub(crate) fn expected(&mut self, n: usize, operation: Operation) -> Answer {
        match operation {
            Operation::Claim => self.claim(n),
            Operation::Renew => self.go_on(n, true),
            Operation::Record => self.go_on(n, false),
            Operation::Complete => self.end(n, Phase::Handled),
            Operation::Release => self.end(n, Phase::GivenUp),
            Operation::Forget => {
                (self.holder, self.next) = (None, None);
                Answer::Done
            }
        }
    }
}
