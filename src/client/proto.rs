//! Code generated from `proto/` by `build.rs`, in modules named after the packages.
#![allow(missing_docs, unreachable_pub)]

/// Package `common`.
pub mod common {
    /// Package `common.v1`.
    pub mod v1 {
        tonic::include_proto!("common.v1");
    }
}

/// Package `reservation`.
pub mod reservation {
    /// Package `reservation.v1`.
    pub mod v1 {
        tonic::include_proto!("reservation.v1");
    }
}
