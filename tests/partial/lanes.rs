//! The lanes of the shared store, in virtual time: who works on a reservation's events, and who is
//! next.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use reservation_worker::idempotency::ClaimToken;

use super::plan::millis;

/// How long a ticket lives after its owner asked.
pub(crate) const TICKET: Duration = millis(1_250);

/// What orders those that wait: the one sent first is first.
type Order = (SystemTime, [u8; 8]);

#[derive(Clone, Copy, Debug)]
struct Turn {
    token: ClaimToken,
    until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    token: ClaimToken,
    order: Order,
    until: Duration,
}

#[derive(Debug, Default)]
struct Lane {
    turn: Option<Turn>,
    next: Option<Ticket>,
}

/// The lanes by their reservations.
#[derive(Debug, Default)]
pub(crate) struct Lanes(BTreeMap<String, Lane>);

/// What a claim found in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The lane was this token's before.
    Again,
    /// It is this token's now.
    Now,
    /// Another event has it. Its turn ends after this time.
    Held(Duration),
    /// Nobody has it, and another event is next. Its ticket ends after this time.
    Promised(Duration),
}

impl Lane {
    fn at(&mut self, now: Duration) -> &mut Self {
        self.turn = self.turn.filter(|turn| turn.until > now);
        self.next = self.next.filter(|next| next.until > now);
        self
    }

    fn hold(&mut self, token: ClaimToken, until: Duration) {
        let before = self.turn.filter(|turn| turn.token == token);
        let until = before.map_or(until, |turn| turn.until.max(until));
        self.turn = Some(Turn { token, until });
        self.next = self.next.filter(|next| next.token != token);
    }
}

impl Lanes {
    /// Enters a lane, or takes its ticket.
    pub(crate) fn enter(
        &mut self,
        lane: &str,
        token: ClaimToken,
        sent_at: SystemTime,
        (now, until): (Duration, Duration),
    ) -> Entered {
        let lane = self.lane(lane, now);
        if lane.turn.is_some_and(|turn| turn.token == token) {
            lane.hold(token, until);
            return Entered::Again;
        }
        let order = (sent_at, token.to_bytes());
        let other = lane.next.filter(|next| next.token != token);
        let is_first = other.is_none_or(|next| order < next.order);
        let found = match (lane.turn, other) {
            (Some(turn), _) => Entered::Held(turn.until - now),
            (None, Some(next)) if !is_first => Entered::Promised(next.until - now),
            (None, _) => {
                lane.hold(token, until);
                return Entered::Now;
            }
        };
        if is_first {
            lane.next = Some(Ticket { token, order, until: now + TICKET });
        }
        found
    }

    /// Returns whether no other token has the lane.
    pub(crate) fn check(&mut self, lane: &str, token: ClaimToken, now: Duration) -> bool {
        self.lane(lane, now).turn.is_none_or(|turn| turn.token == token)
    }

    /// Goes on in a lane. Returns whether no other token has it.
    pub(crate) fn stay(
        &mut self,
        lane: &str,
        token: ClaimToken,
        (now, until): (Duration, Duration),
    ) -> bool {
        let is_ours = self.check(lane, token, now);
        if is_ours {
            self.lane(lane, now).hold(token, until);
        }
        is_ours
    }

    /// Leaves a lane: the turn ends, or the ticket.
    pub(crate) fn leave(&mut self, lane: &str, token: ClaimToken, now: Duration) {
        let lane = self.lane(lane, now);
        if lane.turn.is_some_and(|turn| turn.token == token) {
            lane.turn = None;
        } else if lane.next.is_some_and(|next| next.token == token) {
            lane.next = None;
        }
    }

    /// Ends whatever turn there is.
    pub(crate) fn free(&mut self, lane: &str) {
        if let Some(lane) = self.0.get_mut(lane) {
            lane.turn = None;
        }
    }

    fn lane(&mut self, lane: &str, now: Duration) -> &mut Lane {
        self.0.entry(lane.to_owned()).or_default().at(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::secs;

    const LONG: Duration = secs(30);

    struct Asking {
        lanes: Lanes,
        tokens: [ClaimToken; 3],
    }

    impl Asking {
        fn new() -> Self {
            Self { lanes: Lanes::default(), tokens: [(); 3].map(|()| ClaimToken::unique()) }
        }

        fn enter(&mut self, n: u64, now: Duration) -> Entered {
            let sent_at = SystemTime::UNIX_EPOCH + secs(n);
            let token = self.tokens[usize::try_from(n).expect("few")];
            self.lanes.enter("rsv", token, sent_at, (now, now + LONG))
        }
    }

    #[test]
    fn the_one_sent_first_is_next() {
        let mut asking = Asking::new();
        assert_eq!(asking.enter(0, secs(0)), Entered::Now);
        assert_eq!(asking.enter(2, secs(0)), Entered::Held(LONG));
        assert_eq!(asking.enter(1, secs(0)), Entered::Held(LONG));
        asking.lanes.leave("rsv", asking.tokens[0], secs(0));
        assert_eq!(asking.enter(2, secs(0)), Entered::Promised(TICKET));
        assert_eq!(asking.enter(1, secs(1)), Entered::Now);
        assert_eq!(asking.enter(1, secs(2)), Entered::Again);
    }

    #[test]
    fn turns_and_tickets_end() {
        let mut asking = Asking::new();
        asking.enter(0, secs(0));
        asking.enter(1, LONG - millis(1));
        assert_eq!(asking.enter(2, LONG), Entered::Promised(TICKET - millis(1)));
        assert_eq!(asking.enter(2, LONG + TICKET), Entered::Now);
        let now = LONG + TICKET;
        assert!(!asking.lanes.stay("rsv", asking.tokens[0], (now, now + LONG)));
        asking.lanes.leave("rsv", asking.tokens[0], now);
        assert!(!asking.lanes.check("rsv", asking.tokens[0], now), "it is another's");
        assert!(asking.lanes.check("rsv", asking.tokens[0], now + LONG), "it is forgotten");
    }
}
