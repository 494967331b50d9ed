//! `make demo`: the real worker, as a process of its own, against stand-ins that fail now and then; then a table,
//! and an exit code that says whether the stand-ins' own ledger balances.
//!
//! `workload` plans what is sent, `run` does it, `balance` judges (a pure function over recorded facts), `report` prints.

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
