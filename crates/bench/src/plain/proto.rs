//! Messages and clients generated from `proto/`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code; the .proto files document it"
)]

/// `common.v1`.
pub mod common {
    /// Shared messages.
    pub mod v1 {
        tonic::include_proto!("common.v1");
    }
}

/// `reservation.v1`.
pub mod reservation {
    /// The Inventory service.
    pub mod v1 {
        tonic::include_proto!("reservation.v1");
    }
}
