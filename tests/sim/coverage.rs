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
const MINIMUM: [(&str, u64); 0] = [];
