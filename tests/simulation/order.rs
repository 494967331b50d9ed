//! Checks the order of events within one life of the process: per reservation, and per FIFO group.
//!
//! A *stint* of an event lasts from its receipt to its settlement. An event whose stint began later
//! must not be called between the calls of an event whose stint began earlier. If a message is
//! received again while it is held, the engine may or may not have dropped the first receipt. The
//! stint's place is then anywhere between the two receipts, and no order is checked within that
//! range.

use std::collections::{BTreeMap, BTreeSet};

/// The scope of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Reservation(usize),
    Group(u32),
}

#[derive(Clone, Debug)]
struct Stint {
    event: String,
    first_receipt: u64,
    last_receipt: u64,
    first_call: Option<u64>,
    /// The messages that are not settled. The stint ends with the last of them.
    messages: BTreeSet<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Order {
    clock: u64,
    lanes: BTreeMap<Lane, Vec<Stint>>,
}

impl Order {
    /// Records the receipt of a message.
    pub(crate) fn received(&mut self, lane: Lane, event: &str, message: usize) {
        self.clock += 1;
        let now = self.clock;
        let stints = self.lanes.entry(lane).or_default();
        let open = |stint: &&mut Stint| stint.event == event && !stint.messages.is_empty();
        if let Some(stint) = stints.iter_mut().find(open) {
            stint.last_receipt = now;
            stint.messages.insert(message);
        } else {
            stints.push(Stint {
                event: event.to_owned(),
                first_receipt: now,
                last_receipt: now,
                first_call: None,
                messages: BTreeSet::from([message]),
            });
        }
    }

    /// Records the settlement of a message, in any way.
    pub(crate) fn settled(&mut self, lane: Lane, event: &str, message: usize) {
        let stints = self.lanes.entry(lane).or_default();
        for stint in stints.iter_mut().filter(|stint| stint.event == event) {
            stint.messages.remove(&message);
        }
    }

    /// Records a call for an event. Returns whether the event waited for an earlier one, or as an
    /// error the event that overtook it.
    pub(crate) fn called(&mut self, lane: Lane, event: &str) -> Result<bool, String> {
        self.clock += 1;
        let now = self.clock;
        let stints = self.lanes.entry(lane).or_default();
        let Some(at) = stints.iter().rposition(|stint| stint.event == event) else {
            return Ok(false);
        };
        let last_receipt = stints[at].last_receipt;
        let overtaken_by =
            stints.iter().find(|s| s.first_call.is_some() && s.first_receipt > last_receipt);
        if let Some(by) = overtaken_by {
            return Err(by.event.clone());
        }
        let first_receipt = stints[at].first_receipt;
        let waited = stints.iter().any(|earlier| {
            earlier.event != event
                && earlier.last_receipt < first_receipt
                && earlier.first_call.is_some_and(|call| call > first_receipt)
        });
        stints[at].first_call.get_or_insert(now);
        Ok(waited)
    }
}
