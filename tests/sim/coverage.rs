//! What a run has met: named counts. A simulation that injects nothing proves nothing, so the least
//! of each is stated, over the thousand seeds of `make test`.

use std::collections::BTreeMap;

use super::rows;

/// Counts by name. Ordered, so that it prints the same way each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn met(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, n)| format!("{n:>9}  {what}"))
    }

    /// What was met less often than it must be.
    pub(crate) fn missing(&self) -> Vec<String> {
        let rows = rows::all().map(|row| (row.name, ROW_MIN));
        rows.chain(MINIMUM)
            .filter(|(what, least)| self.count(what) < *least)
            .map(|(what, least)| format!("{what}: {} of {least}", self.count(what)))
            .collect()
    }
}

/// Each row of the answer tables.
const ROW_MIN: u64 = 20;

/// Everything else, in the order of a message's life. About a third of what is seen.
const MINIMUM: [(&str, u64); 78] = [
    // Of the queue.
    ("a held message is delivered again", 1000),
    ("a deleted message comes back", 100),
    ("a handle that is stale", 300),
    ("a change that comes too late", 2),
    ("visibility ran out", 700),
    ("extended", 5000),
    ("redriven", 100),
    ("queue throttles", 1000),
    ("queue denies", 700),
    ("queue fails", 700),
    ("queue hangs", 700),
    ("queue times out", 1000),
    ("queue unreachable", 700),
    ("queue's answer lost", 1000),
    ("batch fails partly", 300),
    // Of the services.
    ("no answer in time", 1000),
    ("answer lost", 200),
    ("an effect that comes late", 100),
    ("slow call", 700),
    ("call to a service that is down", 7000),
    ("a step repeated with its key", 700),
    ("inv released", 800),
    ("inv already released", 1000),
    ("inv release not found", 500),
    ("inv committed", 600),
    // What a refused change of status finds.
    ("api 409", 50),
    ("api 412", 50),
    ("expired finds EXPIRED", 50),
    ("expired finds CONFIRMED", 50),
    ("expired finds CANCELLED", 50),
    ("expired finds another", 50),
    ("failed finds EXPIRED", 50),
    ("failed finds CONFIRMED", 50),
    ("failed finds CANCELLED", 50),
    ("failed finds another", 50),
    ("approved finds EXPIRED", 50),
    ("approved finds CONFIRMED", 50),
    ("approved finds CANCELLED", 50),
    ("approved finds another", 50),
    // A message's states.
    ("took effect", 4000),
    ("half done", 200),
    ("redriven half done", 30),
    ("waited for its reservation", 2000),
    ("tried again", 9000),
    ("a copy joins an event that is held", 200),
    ("as many in flight as may be", 9000),
    ("released", 1000),
    ("handed back", 200),
    ("poison left to redrive", 100),
    ("dead letter: poison", 500),
    ("dead letter: id_reused", 100),
    ("dead letter: rejected", 600),
    ("dead letter: forbidden", 200),
    ("dead letter: money_without_seat", 1000),
    ("left: deleted", 600),
    ("left: dead-lettered", 400),
    ("left: handed back", 300),
    ("left: lease lost", 100),
    ("left: replaced", 90),
    ("left: unsettled", 80),
    ("left in time", 500),
    ("left at the last moment", 6),
    // Interrupts.
    ("crash after a dead letter", 4),
    ("crash after a visibility change", 10),
    ("crash after an effect", 10),
    ("crash after delete", 10),
    ("crash after receive", 30),
    ("crash at a timer", 80),
    ("crash before a call", 20),
    ("crash before a dead letter", 10),
    ("crash before a visibility change", 6),
    ("crash before delete", 10),
    ("crash before receive", 30),
    ("crash while leaving", 10),
    ("term at a timer", 50),
    ("term in a call", 40),
    ("term in a receive", 70),
    ("term while settling", 40),
];
