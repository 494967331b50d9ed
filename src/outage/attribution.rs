//! Attribution of a failure to the service or to the event. No other module decides it.
//!
//! | the answer | called, event no suspect | called, event a suspect | service not called |
//! | --- | --- | --- | --- |
//! | done, or a conflict | final | final | final |
//! | outage class | waits, uncharged | waits as suspect, uncharged | waits for the service |
//! | 500 and similar | waits, charged | waits as suspect, charged | waits for the service |
//! | permanent | final | final | waits for the service |
//! | paced | its time, uncharged | its time, as suspect, charged | its time, uncharged |
//!
//! *Its time*: a paced event waits for the time that the service asked for. While others are paced
//! too, a paced suspect is handled as no suspect: uncharged.
//!
//! A *suspect* is an event of a reservation that failed at this service before, while others have
//! succeeded since in calls that began later. *Charged* means that the wait uses up one of the
//! event's retries. Retries charged before a service is found to be down are refunded: see
//! [`Charges`].

use super::{BreakerSnapshot, CallOutcome};

/// What is done with an event after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAttribution {
    /// The answer is final.
    Final,
    /// The event is held until the service is back. No retry is used up.
    Service,
    /// The event waits on its own timer.
    Event {
        /// The wait uses up a retry.
        is_charged: bool,
        /// The event fails while others succeed.
        is_suspect: bool,
    },
}

/// Returns the cell of the table for this outcome and this state of the service.
#[must_use]
pub fn attribute(outcome: CallOutcome, snapshot: BreakerSnapshot) -> FailureAttribution {
    let BreakerSnapshot { is_called, is_suspect, are_others_paced, .. } = snapshot;
    let event = |is_charged, is_suspect| FailureAttribution::Event { is_charged, is_suspect };
    match (outcome, is_called) {
        (CallOutcome::Done | CallOutcome::Conflict, true | false)
        | (CallOutcome::Refused, true) => FailureAttribution::Final,
        (CallOutcome::Outage | CallOutcome::Failing | CallOutcome::Refused, false) => {
            fail_point!("attribution::outage-spends-retries", |_| event(true, false));
            fail_point!(
                "attribution::refusal-always-final",
                outcome == CallOutcome::Refused,
                |_| { FailureAttribution::Final }
            );
            FailureAttribution::Service
        }
        (CallOutcome::Outage, true) => event(false, is_suspect),
        (CallOutcome::Failing, true) => event(true, is_suspect),
        (CallOutcome::Paced(_), true) => {
            let is_alone = is_suspect && !are_others_paced;
            event(is_alone, is_alone)
        }
        (CallOutcome::Paced(_), false) => event(false, false),
    }
}

/// Charges of an event per service, by [`Dependency::index`](super::Dependency::index).
pub type ServiceCharges = [Charges; 3];

/// Retries charged for failures of one service, while an outage may yet prove to be the cause.
#[derive(Clone, Copy, Debug, Default)]
pub struct Charges {
    /// Retries charged with no success of any call between them.
    retries: u32,
    /// Calls begun when the last retry was charged.
    begun: u64,
    /// Outages of the service up to then.
    outages: u64,
}

impl Charges {
    /// Charges a retry.
    pub fn add(&mut self, snapshot: BreakerSnapshot) {
        if snapshot.succeeded > self.begun {
            self.retries = 0;
        }
        self.retries += 1;
        self.begun = snapshot.begun;
        self.outages = snapshot.outages;
    }

    /// Returns the number of refunded retries: those charged at the start of an outage.
    #[must_use]
    pub fn refund(&mut self, outages: u64) -> u32 {
        if outages == self.outages {
            return 0;
        }
        std::mem::take(&mut self.retries)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OUTCOMES: [CallOutcome; 6] = [
        CallOutcome::Done,
        CallOutcome::Outage,
        CallOutcome::Failing,
        CallOutcome::Refused,
        CallOutcome::Paced(None),
        CallOutcome::Paced(Some(Duration::from_secs(300))),
    ];

    fn snapshots() -> impl Iterator<Item = BreakerSnapshot> {
        (0..8).map(|bits| BreakerSnapshot {
            is_called: bits & 1 != 0,
            is_suspect: bits & 2 != 0,
            are_others_paced: bits & 4 != 0,
            ..BreakerSnapshot::default()
        })
    }

    #[test]
    fn every_combination_follows_the_rules() {
        for snapshot in snapshots() {
            for outcome in OUTCOMES {
                let attribution = attribute(outcome, snapshot);
                let cell = format!("{outcome:?} {snapshot:?}");
                let (charged, suspect) = match attribution {
                    FailureAttribution::Event { is_charged, is_suspect } => {
                        (is_charged, is_suspect)
                    }
                    FailureAttribution::Final | FailureAttribution::Service => (false, false),
                };
                // An outage uses up no retries.
                assert!(!(charged && outcome == CallOutcome::Outage), "{cell}");
                assert!(!charged || snapshot.is_called, "{cell}");
                // Only an event that fails while others succeed is a suspect.
                assert!(!suspect || snapshot.is_suspect, "{cell}");
                // A permanent error is final only from a service that serves others.
                let is_final = attribution == FailureAttribution::Final;
                let may_be_final = outcome == CallOutcome::Done
                    || (outcome == CallOutcome::Refused && snapshot.is_called);
                assert_eq!(is_final, may_be_final, "{cell}");
                // 500 and similar must end: they are charged whenever the service is called.
                let ends = outcome == CallOutcome::Failing && snapshot.is_called;
                assert!(!ends || charged, "{cell}");
                // A paced event waits for its own time in any state of the service.
                let is_paced = matches!(outcome, CallOutcome::Paced(_));
                assert!(
                    !is_paced || matches!(attribution, FailureAttribution::Event { .. }),
                    "{cell}"
                );
                // While others are paced too, no retry is charged.
                assert!(!(is_paced && snapshot.are_others_paced && charged), "{cell}");
            }
        }
    }

    #[test]
    fn retries_charged_at_the_start_of_an_outage_are_refunded() {
        let at = |begun, succeeded, outages| BreakerSnapshot {
            begun,
            succeeded,
            outages,
            ..BreakerSnapshot::default()
        };
        let mut charges = Charges::default();
        charges.add(at(10, 3, 0));
        charges.add(at(12, 3, 0));
        assert_eq!(charges.refund(0), 0, "a refund without an outage");
        assert_eq!(charges.refund(1), 2);
        assert_eq!(charges.refund(1), 0, "a second refund");
        charges.add(at(20, 15, 1));
        assert_eq!(charges.refund(1), 0, "it was over by then");
        charges.add(at(30, 25, 1));
        assert_eq!(charges.refund(2), 1, "only the failure after the last success is refunded");
    }
}
