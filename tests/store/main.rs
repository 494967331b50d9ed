//! The idempotency store's contract: the same cases for the store in memory and for a real Redis,
//! standalone and as a cluster, with real expiry. Also faults that only a server can have.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// The worker's own allocator, so that the measured sizes are the worker's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod access;
mod access_tls;
mod bench;
mod cases;
mod cluster;
mod contract;
mod faults;
mod fencing;
mod inspect;
mod lane_model;
mod lanes;
mod notice;
mod records;
mod sharded;
mod size;
mod stale;
