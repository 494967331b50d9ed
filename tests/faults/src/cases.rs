//! The list of cases, in the order of the report.

mod answers;
mod clock;
mod collector;
mod credentials;
mod duplicates;
mod grpc;
mod kill;
mod machine;
mod memory;
mod moment;
mod names;
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
        grpc::CASES,
        names::CASES,
        credentials::CASES,
        clock::CASES,
    ]
    .concat()
}
