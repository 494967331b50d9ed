//! Stands between the generated client and its channel, and lets only gRPC through: what a proxy, or some other server, answers
//! over the same port is told apart by its content type, and a malformed status cannot do harm.
//!
//! Without it `tonic` reads an HTML page as a damaged message, whatever its HTTP status, and panics on a
//! `grpc-status-details-bin` that is not base64. What such answers mean is left to `classify`.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, StdError};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::retry_after;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// A channel whose answers are gRPC.
#[derive(Debug, Clone)]
pub(super) struct GrpcOnly(pub(super) Channel);

/// The error of [`GrpcOnly`] for an answer of another kind.
#[derive(Debug, Clone)]
pub(super) struct NotGrpc {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
}

impl fmt::Display for NotGrpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {} that is not gRPC", self.status.as_u16())
    }
}

impl std::error::Error for NotGrpc {}

impl Service<Request<Body>> for GrpcOnly {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move { Ok(check(answer.await?)?) })
    }
}

fn check(mut answer: Response<Body>) -> Result<Response<Body>, NotGrpc> {
    if !is_grpc(answer.headers()) {
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.as_bytes(), SystemTime::now()));
        return Err(NotGrpc { status: answer.status(), retry_after });
    }
    drop_bad_details(answer.headers_mut());
    Ok(answer.map(|body| {
        Body::new(body.map_frame(|frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                drop_bad_details(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(data) => data,
        }))
    }))
}

/// By the content type, `application/grpc` with or without `+proto` and parameters; or by a status of gRPC's own.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.contains_key(GRPC_STATUS)
        || headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Details only refine a status: those that cannot be read are left out.
fn drop_bad_details(headers: &mut HeaderMap) {
    let Some(value) = headers.get(GRPC_STATUS_DETAILS) else { return };
    let mut details = HeaderMap::with_capacity(1);
    details.insert(GRPC_STATUS_DETAILS, value.clone());
    let details = MetadataMap::from_headers(details);
    let readable =
        details.get_bin(GRPC_STATUS_DETAILS.as_str()).is_some_and(|value| value.to_bytes().is_ok());
    if !readable {
        headers.remove(GRPC_STATUS_DETAILS);
    }
}
