//! x
#![allow(missing_docs, dead_code)]
pub mod admin;
pub mod event;
mod excerpt;
pub mod health;
pub mod metrics;
pub mod pb {
    tonic::include_proto!("common.v1");
}
pub mod queue;
pub mod telemetry;
