//! The idempotency store's contract, held against both stores: the same cases for the one in memory and for a real Redis, alone
//! and as a cluster, with real expiry. And what only the shared one can meet: a server that is away, full, frozen, forgetful.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "it/store/bench.rs"]
mod bench;
#[path = "it/store/cases.rs"]
mod cases;
#[path = "it/store/cluster.rs"]
mod cluster;
#[path = "it/store/contract.rs"]
mod contract;
#[path = "it/store/faults.rs"]
mod faults;
#[path = "it/store/fencing.rs"]
mod fencing;
#[path = "it/store/records.rs"]
mod records;
#[path = "it/store/size.rs"]
mod size;
#[path = "it/store/stale.rs"]
mod stale;
