//! The Reservation API and the Inventory service: every call succeeds after the clock's length.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};

use super::Answer;
use super::queue::World;
use crate::clock::Clock;

/// The Reservation API.
#[derive(Clone, Debug)]
pub(super) struct Reservations {
    pub(super) world: Arc<World>,
    pub(super) clock: Arc<Clock>,
}

impl Reservations {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let began_at = Instant::now();
        let number = last_number(request.uri().path().as_bytes());
        // Read to the end so that the connection can be reused.
        let _ = request.into_body().collect().await;
        self.clock.wait().await;
        let took = began_at.elapsed();
        let mut state = self.world.lock();
        state.account.rest(took);
        if let Some(number) = number {
            state.served(number, took, false);
        }
        drop(state);
        let mut answer = Response::new(Full::new(Bytes::from_static(br#"{"status":"OK"}"#)));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

/// The Inventory service.
#[derive(Clone, Debug)]
pub(super) struct Inventory {
    pub(super) world: Arc<World>,
    pub(super) clock: Arc<Clock>,
}

/// `ReleaseHoldResponse { status: SUCCESS }`, in a gRPC frame.
const RELEASED: &[u8] = &[0, 0, 0, 0, 2, 0x10, 1];
/// `CommitReservationResponse { order_id: "ord_1", status: SUCCESS }`.
const COMMITTED: &[u8] = &[0, 0, 0, 0, 9, 0x0a, 5, b'o', b'r', b'd', b'_', b'1', 0x18, 1];
/// `ExportTraceServiceResponse {}`.
const EXPORTED: &[u8] = &[0, 0, 0, 0, 0];

impl Inventory {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let began_at = Instant::now();
        let message = match request.uri().path() {
            "/reservation.v1.InventoryService/ReleaseHold" => RELEASED,
            "/reservation.v1.InventoryService/CommitReservation" => COMMITTED,
            // An export of traces.
            _ => EXPORTED,
        };
        let sent = request.into_body().collect().await.map(|whole| whole.to_bytes());
        if message != EXPORTED {
            self.clock.wait().await;
            let took = began_at.elapsed();
            let number = sent.ok().as_deref().and_then(first_field).and_then(last_number);
            let mut state = self.world.lock();
            state.account.rpc(took);
            if let Some(number) = number {
                state.served(number, took, true);
            }
        }
        let mut answer = Response::new(Reply { message: Some(message), is_ended: false });
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        answer
    }
}

/// A gRPC response with one message and status 0.
#[derive(Debug)]
pub(super) struct Reply {
    message: Option<&'static [u8]>,
    is_ended: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(message)))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        self.is_ended = true;
        let mut end = HeaderMap::with_capacity(1);
        end.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(end))))
    }
}

/// Returns the first field of a gRPC message if it is a short text: the reservation id.
fn first_field(frame: &[u8]) -> Option<&[u8]> {
    let message = frame.get(5..)?;
    let [0x0a, length, rest @ ..] = message else { return None };
    rest.get(..usize::from(*length))
}

/// Returns the number after the last underscore of an id.
fn last_number(id: &[u8]) -> Option<u64> {
    let at = id.iter().rposition(|byte| *byte == b'_')?;
    std::str::from_utf8(id.get(at + 1..)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_number_is_read_from_the_reservation_id() {
        assert_eq!(last_number(b"/internal/reservations/rsv_77_1234"), Some(1234));
        for bad in [&b"rsv"[..], b"rsv_", b"rsv_1x", b""] {
            assert_eq!(last_number(bad), None);
        }
        let frame = [0, 0, 0, 0, 9, 0x0a, 5, b'r', b'_', b'0', b'4', b'2', 0x12, 0];
        assert_eq!(first_field(&frame).and_then(last_number), Some(42));
        assert_eq!(first_field(&frame[..9]), None);
        assert_eq!(first_field(&[0; 5]), None);
    }
}
