//! x
#![allow(missing_docs)]
pub mod client;
pub mod event;
pub mod excerpt;
