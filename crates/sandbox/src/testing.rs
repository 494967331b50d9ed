//! Shared parts of the worker's tests: a queue with both services, the program as a process, and
//! the schema of its log.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

pub mod log_schema;
pub mod program;
pub mod world;
