//! x
#![allow(missing_docs, dead_code)]
pub mod cli;
pub mod config;
pub mod event;
mod excerpt;
pub mod idempotency;
pub mod inflight;
pub mod metrics;
pub mod pb {
    tonic::include_proto!("common.v1");
}
pub mod queue;
pub mod telemetry;
