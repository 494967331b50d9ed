//! The list of cases, in the order of the report.

mod kill;
mod moment;

use crate::case::Case;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [kill::CASES].concat()
}
