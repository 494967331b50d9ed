//! The list of cases, in the order of the report.

mod answers;
mod collector;
mod duplicates;
mod kill;
mod machine;
mod memory;
mod moment;
mod order;
mod outage;
mod output;
mod pacing;
mod queue;
mod redis;
mod term;

use crate::case::Case;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        kill::CASES,
        term::CASES,
        duplicates::CASES,
        order::CASES,
        output::CASES,
        machine::CASES,
        memory::CASES,
        outage::CASES,
        redis::CASES,
        collector::CASES,
        queue::CASES,
        pacing::CASES,
        answers::CASES,
    ]
    .concat()
}
