//! x
#![allow(missing_docs)]
pub mod event;
pub mod excerpt;
pub mod pb {
    tonic::include_proto!("common.v1");
}
pub mod metrics;
pub mod telemetry;
