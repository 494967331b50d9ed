//! The list of cases, in the order of the report.

mod duplicates;
mod kill;
mod moment;
mod order;
mod term;

use crate::case::Case;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [kill::CASES, term::CASES, duplicates::CASES, order::CASES].concat()
}
