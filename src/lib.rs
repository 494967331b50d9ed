//! x
#![allow(missing_docs, dead_code)]
pub mod event;
mod excerpt;
pub mod idempotency;
pub mod inflight;
pub mod queue;
pub mod telemetry { 
#[derive(Debug)] pub struct EventSpan; }
