//! Checks the order of events, within one process's life: of one reservation, and of one FIFO group.
//!
//! A *stint* of an event goes from its receipt to its settlement. An event whose stint began later
//! must not be called for between the calls of one whose stint began earlier. Where a message came
//! in again while it was held, the engine may have forgotten the first receipt or not; then the
//! stint's place is anywhere between the two, and nothing is claimed in between.

use std::collections::{BTreeMap, BTreeSet};

/// Whose order is kept.
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
    /// The messages that are not settled; the stint ends with the last of them.
    messages: BTreeSet<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Order {
    clock: u64,
    lanes: BTreeMap<Lane, Vec<Stint>>,
}

impl Order {
    /// A message of this event came in.
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

    /// This message was settled, in whatever way.
    pub(crate) fn settled(&mut self, lane: Lane, event: &str, message: usize) {
        let stints = self.lanes.entry(lane).or_default();
        for stint in stints.iter_mut().filter(|stint| stint.event == event) {
            stint.messages.remove(&message);
        }
    }

    /// A call is made for this event: names the event that has overtaken it, if one has; and says
    /// whether it had to wait for an earlier one.
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
