//! x
#![allow(missing_docs)]
pub mod pb { tonic::include_proto!("common.v1"); }
