//! Health check of a gRPC server for `check`, by the standard protocol (`grpc.health.v1`).
//!
//! Any answer of the server itself is enough, also that it does not know the protocol.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::grpc_only::{GrpcOnly, is_from_server};
use super::status as grpc_status;
use crate::client::ANSWER_BYTES_MAX;
use crate::client::classify::{Rpc, grpc_code};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// `HealthCheckResponse.ServingStatus.NOT_SERVING`.
const NOT_SERVING: i32 = 2;

/// `HealthCheckResponse`. The request is empty: it means the server as a whole.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn probe(channel: GrpcOnly, timeout: Duration) -> Result<String, String> {
    let hint = "see that INVENTORY_GRPC_ADDR is right and that the service is up and can be reached from here";
    let status = match tokio::time::timeout(timeout, health(channel)).await {
        Ok(Ok(HealthCheckResponse { status: NOT_SERVING })) => {
            return Err("answers, but says that it is not serving; see its own logs".into());
        }
        Ok(Ok(_)) => return Ok("answers, and says that it is serving".into()),
        Ok(Err(status)) => status,
        Err(_elapsed) => return Err(format!("{}; {hint}", grpc_status::timed_out(timeout))),
    };
    // The kind of call does not matter here.
    let error = grpc_status::read(&status, Rpc::Commit, timeout).err();
    let error = error.map_or_else(String::new, |error| error.to_string());
    if !is_from_server(&status) {
        return Err(format!("{error}; {hint}"));
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown => {
            Err(format!("something answers, but not well ({error}); {hint}"))
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            Err(format!("refuses this client ({error}); see what it asks for"))
        }
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => Ok(format!("a gRPC server answers ({})", grpc_code(status.code()))),
    }
}

async fn health(channel: GrpcOnly) -> Result<HealthCheckResponse, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    grpc.ready().await.map_err(Status::from_error)?;
    let codec = ProstCodec::<(), HealthCheckResponse>::default();
    let answer = grpc.unary(Request::new(()), PathAndQuery::from_static(CHECK), codec).await?;
    Ok(answer.into_inner())
}
