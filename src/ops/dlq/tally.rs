//! What a run has seen and done, in numbers; shared by all its parts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::letter::Letter;

/// Shown for a message without a reason of the worker.
const NO_REASON: &str = "(moved by SQS)";

/// Rows of the table at most. A sender may forge reasons and types without end; what has none of
/// its own counts in the last row.
const ROWS_MAX: usize = 200;
const OTHERS: &str = "(others)";

/// The numbers of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Messages that were looked at.
    pub(super) seen: u64,
    /// Those that the command is about, by reason and type.
    pub(super) matching: BTreeMap<(String, String), u64>,
    /// All of those.
    matches: u64,
    /// Redriven, discarded or exported.
    pub(super) done: u64,
    /// Those that were not, because something failed.
    pub(super) failed: u64,
    /// Sent to the queue, and their dead letters are still there.
    pub(super) not_deleted: u64,
    /// `money_without_seat`, left alone.
    pub(super) money: u64,
    /// Those of other queues, left alone.
    pub(super) others: u64,
    /// Sent to the dead-letter queue after the run began.
    pub(super) newer: u64,
    /// Messages still hidden at the end, for a few minutes.
    pub(super) hidden: u64,
    /// Messages that others held from the start to the end, about: they could not be looked at.
    pub(super) held_by_others: u64,
    /// Why not everything was looked at.
    pub(super) unseen: Option<String>,
}

impl Numbers {
    pub(super) fn matches(&self) -> u64 {
        self.matches
    }

    /// Whether all was looked at, and all that is left is shown again.
    pub(super) fn is_complete(&self) -> bool {
        self.hidden == 0 && self.held_by_others == 0 && self.unseen.is_none()
    }

    /// Returns the numbers by reason and type as a table.
    pub(super) fn table(&self) -> String {
        let mut rows: Vec<_> = self.matching.iter().collect();
        rows.sort_by_key(|(names, count)| (std::cmp::Reverse(**count), (*names).clone()));
        let widths = |of: fn(&(String, String)) -> &String, least: usize| {
            rows.iter().map(|(names, _)| of(names).chars().count()).max().unwrap_or(0).max(least)
        };
        let (first, second) = (widths(|(reason, _)| reason, 6), widths(|(_, kind)| kind, 4));
        let mut text = format!("{:<first$}  {:<second$}  {:>7}\n", "REASON", "TYPE", "COUNT");
        for ((reason, kind), count) in rows {
            text.push_str(&format!("{reason:<first$}  {kind:<second$}  {count:>7}\n"));
        }
        text
    }

    /// Returns the last object of `--json`.
    pub(super) fn json(&self, command: &str, verb: &str, error: Option<&str>) -> Value {
        let by = |((reason, kind), count): (&(String, String), &u64)| {
            let reason = Some(reason).filter(|reason| *reason != NO_REASON);
            json!({"reason": reason, "event_type": kind, "count": count})
        };
        let by: Vec<Value> = self.matching.iter().map(by).collect();
        let mut summary = json!({
            "command": command,
            "seen": self.seen,
            "matching": self.matches(),
            "by": by,
            "failed": self.failed,
            "sent_but_not_deleted": self.not_deleted,
            "left_money_without_seat": self.money,
            "left_of_other_queues": self.others,
            "left_newer_than_run": self.newer,
            "still_hidden": self.hidden,
            "held_by_others": self.held_by_others,
            "not_looked_at": self.unseen,
            "error": error,
        });
        if !verb.is_empty() {
            summary[verb] = json!(self.done);
        }
        json!({ "summary": summary })
    }
}

/// The numbers while they change.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Numbers>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.lock());
    }

    pub(super) fn now(&self) -> Numbers {
        self.lock().clone()
    }

    pub(super) fn matches(&self) -> u64 {
        self.lock().matches
    }

    /// Counts a letter that the command is about.
    pub(super) fn matching(&self, letter: &Letter) {
        let reason = letter.reason().map_or(NO_REASON.to_owned(), super::text::printable);
        let mut row = (reason, super::text::printable(&letter.event_type));
        let mut numbers = self.lock();
        if numbers.matching.len() >= ROWS_MAX && !numbers.matching.contains_key(&row) {
            row = (OTHERS.to_owned(), OTHERS.to_owned());
        }
        *numbers.matching.entry(row).or_default() += 1;
        numbers.matches += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dlq::tests::{body, message, text};

    #[test]
    fn forged_reasons_have_a_row_together() {
        let tally = Tally::default();
        let count = 3 * ROWS_MAX;
        for n in 0..count {
            let reason = text("dlq_reason", &format!("forged-{n}"));
            tally.matching(&Letter::new(message("m", &body("evt", "rsv"), vec![reason])));
        }
        let numbers = tally.now();
        assert_eq!(numbers.matches(), u64::try_from(count).expect("it fits"));
        assert_eq!(numbers.matching.values().sum::<u64>(), numbers.matches());
        assert_eq!(numbers.matching.len(), ROWS_MAX + 1);
    }
}
