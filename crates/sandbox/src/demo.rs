//! `make demo`: the real worker as a process against stand-ins with occasional faults, then a
//! table, and an exit code for the check of the stand-ins' ledger.
//!
//! `workload` plans the messages, `run` sends them, `balance` checks the recorded facts (a pure
//! function), `report` prints.

pub mod balance;
pub mod envelope;
pub mod options;
pub mod problem;
pub mod report;
pub mod run;
pub mod workload;

mod mail;
mod world;

#[cfg(test)]
mod balance_tests;
