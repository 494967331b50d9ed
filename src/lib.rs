//! x
#![allow(missing_docs, dead_code)]
pub mod client;
pub mod event;
pub mod excerpt;
pub mod queue;
