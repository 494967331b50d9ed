//! Filter between the generated client and its channel that passes only gRPC answers.
//!
//! It recognizes answers of a proxy or another server, makes malformed statuses harmless, and marks
//! statuses that the server sent.
//!
//! Without it, `tonic` reads an HTML page as a damaged message, whatever its HTTP status. It panics
//! on a `grpc-status-details-bin` that is not base64. It gives a damaged answer a status that a
//! service might have sent as well (`OUT_OF_RANGE` for one that is too long). `classify` decides
//! what an answer means.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, StdError};
use tonic::metadata::MetadataMap;

use super::channel::BalancedChannel;
use crate::client::retry_after;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Header that marks a status that the server sent.
const FROM_SERVER: HeaderName = HeaderName::from_static("reservation-worker-status-from-server");

/// Whether the server sent this status. Otherwise the client made it, of an unreadable answer.
pub(super) fn is_from_server(status: &Status) -> bool {
    status.metadata().contains_key(FROM_SERVER.as_str())
}

/// A channel whose answers are gRPC.
#[derive(Debug, Clone)]
pub(super) struct GrpcOnly {
    pub(super) channel: BalancedChannel,
    /// Sent with each request.
    pub(super) authorization: Option<Arc<HeaderValue>>,
}

/// Error of [`GrpcOnly`] for an answer that is not gRPC.
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

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The call itself waits for a connection.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::clone(value));
        }
        let channel = self.channel.clone();
        Box::pin(async move { Ok(check(channel.send(request).await?)?) })
    }
}

fn check(mut answer: Response<Body>) -> Result<Response<Body>, NotGrpc> {
    if !is_grpc(&answer) {
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.as_bytes(), SystemTime::now()));
        return Err(NotGrpc { status: answer.status(), retry_after });
    }
    tidy(answer.headers_mut());
    Ok(answer.map(|body| {
        Body::new(body.map_frame(|frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                tidy(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(data) => data,
        }))
    }))
}

/// Whether an answer is gRPC.
///
/// It has a gRPC status; or, if the status follows in the trailers, HTTP status 200 and the content
/// type `application/grpc`, with or without `+proto` and parameters.
fn is_grpc<B>(answer: &Response<B>) -> bool {
    let headers = answer.headers();
    headers.contains_key(GRPC_STATUS)
        || answer.status() == StatusCode::OK
            && headers
                .get(CONTENT_TYPE)
                .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Marks headers or trailers that have a status, and removes unreadable status details.
///
/// The details only refine the status.
fn tidy(headers: &mut HeaderMap) {
    headers.remove(FROM_SERVER);
    if headers.contains_key(GRPC_STATUS) {
        headers.insert(FROM_SERVER, HeaderValue::from_static("1"));
    }
    if let Some(value) = headers.get(GRPC_STATUS_DETAILS)
        && !is_base64(value)
    {
        headers.remove(GRPC_STATUS_DETAILS);
    }
}

/// Whether `tonic` can decode the value. Its decoder is reachable only through metadata.
fn is_base64(value: &HeaderValue) -> bool {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(GRPC_STATUS_DETAILS, value.clone());
    let metadata = MetadataMap::from_headers(headers);
    metadata.get_bin(GRPC_STATUS_DETAILS.as_str()).is_some_and(|value| value.to_bytes().is_ok())
}
