//! Coverage of a run: named counts. Each has a minimum over the seeds that CI tries, so that a
//! simulation that stops injecting faults fails.

use std::collections::BTreeMap;

use super::rows;

/// Counts by name, sorted so that the output is always in the same order.
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

    /// The counts that are below their minimum, after this many of all seeds. With fewer seeds it
    /// is half of their share: what is rare need not occur in a few seeds.
    pub(crate) fn missing(&self, seeds: u64, all: u64) -> Vec<String> {
        let rows = rows::all().map(|row| (row.name, ROW_MIN));
        rows.chain(MINIMUM)
            .chain(STORE_MINIMUM)
            .map(|(what, least)| (what, if seeds < all { least * seeds / all / 2 } else { least }))
            .filter(|(what, least)| self.count(what) < *least)
            .map(|(what, least)| format!("{what}: {} of {least}", self.count(what)))
            .collect()
    }
}

/// The minimum of each row of the answer tables.
const ROW_MIN: u64 = 20;

/// The minimum of everything else, in the order of a message's life. About a third of the usual
/// count.
const MINIMUM: [(&str, u64); 87] = [
    // The queue.
    ("a held message is delivered again", 1000),
    ("a deleted message comes back", 90),
    ("a handle that is stale", 300),
    ("a change that comes too late", 4),
    ("visibility ran out", 1000),
    ("extended", 70000),
    ("redriven", 70),
    ("queue throttles", 1000),
    ("queue denies", 700),
    ("queue fails", 700),
    ("queue hangs", 700),
    ("queue times out", 1000),
    ("queue unreachable", 700),
    ("queue's answer lost", 1000),
    ("batch fails partly", 300),
    // The services.
    ("no answer in time", 1000),
    ("answer lost", 300),
    ("an effect that comes late", 100),
    ("slow call", 900),
    ("call to a service that is down", 30000),
    ("a step repeated with its key", 600),
    ("inv released", 800),
    ("inv already released", 1000),
    ("inv release not found", 500),
    ("inv committed", 700),
    ("learned what an expiry leaves out", 300),
    // The status found after a refused status change.
    ("api 409", 2000),
    ("api 412", 2000),
    ("expired finds EXPIRED", 100),
    ("expired finds CONFIRMED", 400),
    ("expired finds CANCELLED", 400),
    ("expired finds another", 300),
    ("failed finds EXPIRED", 400),
    ("failed finds CONFIRMED", 400),
    ("failed finds CANCELLED", 100),
    ("failed finds another", 300),
    ("approved finds EXPIRED", 600),
    ("approved finds CONFIRMED", 100),
    ("approved finds CANCELLED", 600),
    ("approved finds another", 300),
    // The states of a message.
    ("took effect", 4000),
    ("half done", 200),
    ("redriven half done", 5),
    ("waited for its reservation", 3000),
    ("tried again", 30000),
    ("a copy joins an event that is held", 400),
    ("as many in flight as may be", 5000),
    ("released", 900),
    ("handed back", 300),
    ("handed back once more while leaving", 5),
    ("poison left to redrive", 100),
    ("dead letter: poison", 400),
    ("dead letter: id_reused", 100),
    ("dead letter: rejected", 500),
    ("dead letter: forbidden", 90),
    ("dead letter: money_without_seat", 1000),
    ("handed back for room", 40),
    ("left: deleted", 600),
    ("left: dead-lettered", 400),
    ("left: handed back", 200),
    ("left: lease lost", 100),
    ("left: replaced", 100),
    ("left: unsettled", 5),
    ("left in time", 500),
    ("left at the last moment", 2),
    // Outages, groups, long runs.
    ("went on after an outage", 200),
    ("a call to see whether a service is back", 2000),
    ("waited for its group", 1000),
    ("crash in an outage", 30),
    ("term in an outage", 20),
    ("handed back before 12 h", 3),
    // Interrupts.
    ("crash after a dead letter", 6),
    ("crash after a visibility change", 10),
    ("crash after an effect", 10),
    ("crash after delete", 10),
    ("crash after receive", 20),
    ("crash at a timer", 70),
    ("crash before a call", 20),
    ("crash before a dead letter", 10),
    ("crash before a visibility change", 7),
    ("crash before delete", 10),
    ("crash before receive", 30),
    ("crash while leaving", 10),
    ("term at a timer", 60),
    ("term in a call", 40),
    ("term in a receive", 70),
    ("term while settling", 50),
];

/// The minimums for the half of the seeds in which the pods share a store.
const STORE_MINIMUM: [(&str, u64); 51] = [
    // The shared store.
    ("store refuses", 700),
    ("store's answer lost", 400),
    ("store does not answer", 200),
    ("store does not answer, and does it", 200),
    ("store does it too late", 200),
    ("store down: refused", 500),
    ("store down: silent", 100),
    ("store slow", 400),
    ("store slower than its client's patience", 100),
    ("a write that a failover lost", 90),
    // Its answers.
    ("claim: ours, the first", 3000),
    ("claim: ours already", 300),
    ("claim: ours, given up", 400),
    ("claim: ours, given up half-way", 90),
    ("claim: ours, run out", 100),
    ("claim: ours, run out half-way", 50),
    ("claim: elsewhere", 900),
    ("claim: handled", 500),
    ("claim: id reused", 100),
    ("store: renewed", 6000),
    ("store: renewed by a stranger", 20),
    ("store: recorded", 1000),
    ("store: recorded by a stranger", 10),
    ("store: completed", 2000),
    ("store: completed again", 100),
    ("store: completed by a stranger", 2),
    ("store: given up", 1000),
    ("store: given up by a stranger", 3),
    // Consequences.
    ("a call for an event whose record was lost", 100),
    ("repeated: nobody knew", 300),
    ("repeated: the one who knew could not say", 10),
    ("repeated: the other pod knew", 20),
    ("handed back with its claim given up", 1000),
    // Another pod.
    ("the other takes a step", 200),
    ("the other completes", 30),
    ("the other gives up", 20),
    ("the other fails, and gives up", 100),
    ("the other vanishes at once", 50),
    ("the other vanishes before the record", 20),
    ("the other vanishes half-way", 10),
    ("the other finds it handled", 100),
    ("the other finds it superseded", 10),
    ("the other finds another content", 8),
    ("the other waits in vain", 10),
    ("the other has lost its claim", 1),
    ("the other is too late", 1),
    // Interrupts around the store.
    ("crash before a store operation", 5),
    ("crash after a store operation", 8),
    ("crash while the store is down", 9),
    ("term in a store operation", 20),
    ("term while the store is down", 9),
];
