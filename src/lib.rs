//! x
#![allow(missing_docs, dead_code)]
pub mod queue;
