//! The list of cases, in the order of the report.

mod answers;
mod apples;
mod attributes;
mod capacity;
mod clock;
mod collector;
mod comeback;
mod credentials;
mod dlq;
mod duplicates;
mod frozen;
mod groups;
mod grpc;
mod half_well;
mod kill;
mod leases;
mod machine;
mod memory;
mod moment;
mod names;
mod order;
mod order_pods;
mod outage;
mod output;
mod pacing;
mod queue;
mod redis;
mod refusing;
mod sick;
mod term;
mod throttled;

use crate::case::Case;

/// Returns all cases.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        kill::CASES,
        term::CASES,
        duplicates::CASES,
        frozen::CASES,
        order::CASES,
        order_pods::CASES,
        groups::CASES,
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
        sick::CASES,
        apples::CASES,
        throttled::CASES,
        refusing::CASES,
        capacity::CASES,
        comeback::CASES,
        half_well::CASES,
        leases::CASES,
        attributes::CASES,
        dlq::CASES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_enough_cases_are_short() {
        let all = super::all();
        let names: BTreeSet<&str> = all.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().filter(|case| case.is_short).count() >= 5);
    }
}
