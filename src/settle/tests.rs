//! The settler and its batches, on a queue and a store that fail as they are told.
#![allow(clippy::unwrap_used)]

mod copies;
mod described;
pub(crate) mod engine;
mod given_up;
mod leases;
mod limits;
mod probes;
mod released;
mod store_watch;
pub(crate) mod told;
mod verdicts;
