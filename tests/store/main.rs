//! The idempotency store's contract, held against both stores: the same cases for the one in memory and for a real Redis, alone
//! and as a cluster, with real expiry. And what only the shared one can meet: a server that is away, full, frozen, forgetful.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// The worker's own, so that the sizes that are measured are the worker's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod bench;
mod cases;
mod cluster;
mod contract;
mod faults;
mod fencing;
mod records;
mod size;
mod stale;
