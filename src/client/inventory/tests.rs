//! Tests of the Inventory service's client against a server on port 0.
#![allow(clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::client::error::{Class, PACE_MAX};
use crate::client::proto::reservation::v1::{CommitReservationResponse, ReleaseHoldResponse};
use crate::client::test_server::{Asked, End, TestBody, TestServer};

mod addresses;
mod broken;
mod connections;
mod keepalive;
mod late;
mod network;
mod probe;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Timeout for answers that arrive: far longer than they take.
const LONG: Duration = Duration::from_secs(10);
/// Timeout for answers that do not arrive.
const SHORT: Duration = Duration::from_millis(150);

fn call() -> CallContext<'static> {
    CallContext {
        idempotency_key: uuid::uuid!("43e622ac-f4c7-5c4b-8456-802403703e17"),
        traceparent: Some(TRACE),
        tracestate: None,
        baggage: None,
        xray: None,
        answered: None,
    }
}

fn client(server: &TestServer, timeout: Duration) -> GrpcInventory {
    GrpcInventory::new(GrpcSettings {
        uri: format!("http://{}", server.address),
        credentials: Credentials::default(),
        timeout,
    })
    .unwrap()
}

async fn release(api: &GrpcInventory) -> Result<(), CallError> {
    let release = ReleaseHold {
        reservation_id: &ReservationId::new("rsv_abc123").unwrap(),
        show_id: &ShowId::new("evt_2025_1001").unwrap(),
        seats: &Seats { seat_ids: ["A-12", "A-13"].into_iter().collect(), quantity: 2 },
        reason: ReleaseReason::Expired,
    };
    api.release_hold(&call(), release).await
}

async fn commit(api: &GrpcInventory) -> Result<(), CallError> {
    let commit = Commit {
        reservation_id: &ReservationId::new("rsv_abc123").unwrap(),
        show_id: &ShowId::new("evt_2025_1001").unwrap(),
        seats: &Seats { seat_ids: [].into_iter().collect(), quantity: 3 },
        payment_intent_id: Some("pay_xyz789"),
        user_id: None,
    };
    api.commit(&CallContext { tracestate: Some("vendor=1"), ..call() }, commit).await
}

/// Returns a message in gRPC's framing: 1 byte compression flag, 4 bytes length, message.
fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

fn trailers(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(code),
    )])
}

fn with_body(body: TestBody) -> Response<TestBody> {
    Response::builder().header("content-type", "application/grpc+proto").body(body).unwrap()
}

fn success(message: &impl Message) -> Response<TestBody> {
    with_body(TestBody::new(framed(message), End::Clean).with_trailers(trailers("0")))
}

fn released(status: i32) -> Response<TestBody> {
    success(&ReleaseHoldResponse { status, error: None })
}

fn committed(status: i32) -> Response<TestBody> {
    let error = Some(Error { code: 7, message: "\u{1b}taken".into(), trace_id: "t".into() });
    success(&CommitReservationResponse { order_id: "o".into(), status, error })
}

/// Returns a status alone in the headers, or after an empty answer in the trailers.
fn refusal(status: Status, in_trailers: bool) -> Response<TestBody> {
    let (head, ()) = status.into_http::<()>().into_parts();
    if in_trailers {
        return with_body(TestBody::empty().with_trailers(head.headers));
    }
    Response::from_parts(head, TestBody::empty())
}

async fn always(answer: impl Fn() -> Response<TestBody> + Send + Sync + 'static) -> TestServer {
    TestServer::start(true, move |_| answer()).await
}

/// Returns the message of a request, without gRPC's five bytes.
fn message<M: Message + Default>(asked: &Asked) -> M {
    M::decode(asked.body.slice(5..)).unwrap()
}

#[tokio::test]
async fn a_release_request_follows_the_contract() {
    let server = always(|| released(1)).await;
    let api = client(&server, LONG);
    release(&api).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].head.uri.path(), "/reservation.v1.InventoryService/ReleaseHold");
    assert_eq!(asked[0].header("traceparent"), Some(TRACE));
    assert_eq!(asked[0].header("tracestate"), None);
    // The worker's name, then the library's.
    let agent = asked[0].header("user-agent").unwrap();
    assert!(agent.starts_with(crate::client::USER_AGENT), "{agent}");
    assert_eq!(asked[0].header("grpc-timeout"), Some("10000000u"), "no deadline of the attempt");
    assert_eq!(
        message::<ReleaseHoldRequest>(&asked[0]),
        ReleaseHoldRequest {
            reservation_id: "rsv_abc123".into(),
            event_id: "evt_2025_1001".into(),
            seat_ids: vec!["A-12".into(), "A-13".into()],
            quantity: 2,
            reason: "EXPIRED".into(),
            idempotency_key: "43e622ac-f4c7-5c4b-8456-802403703e17".into(),
        }
    );
    assert_eq!(ReleaseReason::FailedPayment.as_str(), "FAILED_PAYMENT");
}

#[tokio::test]
async fn a_commit_request_follows_the_contract() {
    let server = always(|| committed(1)).await;
    commit(&client(&server, LONG)).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].head.uri.path(), "/reservation.v1.InventoryService/CommitReservation");
    assert_eq!(asked[0].header("tracestate"), Some("vendor=1"));
    assert_eq!(
        message::<CommitReservationRequest>(&asked[0]),
        CommitReservationRequest {
            reservation_id: "rsv_abc123".into(),
            event_id: "evt_2025_1001".into(),
            seat_ids: vec![],
            quantity: 3,
            payment_intent_id: "pay_xyz789".into(),
            user_id: String::new(),
            idempotency_key: "43e622ac-f4c7-5c4b-8456-802403703e17".into(),
        }
    );
}

#[tokio::test]
async fn calls_share_one_connection() {
    let server = always(|| released(1)).await;
    let api = client(&server, LONG);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let api = api.clone();
        calls.spawn(async move { release(&api).await });
    }
    while let Some(done) = calls.join_next().await {
        assert_eq!(done.unwrap(), Ok(()));
    }
    assert_eq!((server.asked().len(), server.connections()), (50, 1));
}

#[tokio::test]
async fn an_invalid_trace_context_is_not_sent() {
    let server = always(|| released(1)).await;
    let api = client(&server, LONG);
    let call = CallContext { traceparent: Some("00-x\r\ny"), tracestate: Some("\u{7f}"), ..call() };
    let request = api.request(&call, ());
    assert!(request.metadata().get("traceparent").is_none());
    assert!(request.metadata().get("tracestate").is_none());
}

#[tokio::test]
async fn the_status_in_an_answer_is_classified_by_the_table() {
    for status in [0, 1, 2, 3, 4, 5, -1] {
        let server = always(move || released(status)).await;
        let got = release(&client(&server, LONG)).await;
        let want = classify_release_status(status).map_err(|failure| failure.code);
        assert_eq!(got.map_err(|error| error.code), want, "{status}");

        let server = always(move || committed(status)).await;
        let got = commit(&client(&server, LONG)).await;
        let want = classify_commit_status(status).map_err(|failure| (failure.class, failure.code));
        assert_eq!(got.map_err(|error| (error.class, error.code)), want, "{status}");
    }
    let server = always(|| committed(4)).await;
    let error = commit(&client(&server, LONG)).await.unwrap_err();
    assert_eq!(error.class, Class::MoneyWithoutSeat);
    assert_eq!(
        error.detail,
        r#"CommitStatus 4, code 7, trace_id "t", message "\\u{1b}taken""#.replace("\\\\", "\\")
    );
}

#[tokio::test]
async fn a_grpc_status_is_classified_by_the_table() {
    for in_trailers in [false, true] {
        for number in 1..=16 {
            let code = Code::from_i32(number);
            let server = always(move || refusal(Status::new(code, "said\nso"), in_trailers)).await;
            let api = client(&server, LONG);
            for (rpc, got) in
                [(Rpc::ReleaseHold, release(&api).await), (Rpc::Commit, commit(&api).await)]
            {
                let want = super::super::classify::classify_grpc(code, None, rpc);
                let detail = got.as_ref().err().map(|error| error.detail.clone());
                assert_eq!(
                    got.map_err(|error| (error.class, error.code)),
                    want.map_err(|failure| (failure.class, failure.code)),
                    "{code:?} {rpc:?}"
                );
                assert!(
                    detail
                        .is_none_or(|detail| detail == format!("{code:?}, message \"said\\nso\""))
                );
            }
            assert_eq!(server.asked().len(), 2, "each call must be one attempt");
        }
    }
}

#[tokio::test]
async fn retry_info_sets_the_retry_time() {
    let table = [
        (Code::Unavailable, 7, Class::Paced, Some(Duration::from_secs(7))),
        (Code::ResourceExhausted, 7, Class::Paced, Some(Duration::from_secs(7))),
        (Code::Aborted, 86_400, Class::Paced, Some(PACE_MAX)),
        (Code::Internal, 0, Class::Paced, Some(Duration::ZERO)),
        (Code::Unimplemented, 7, Class::Paced, Some(Duration::from_secs(7))),
        (Code::InvalidArgument, 7, Class::Permanent, None),
        (Code::PermissionDenied, 7, Class::Forbidden, None),
    ];
    for in_trailers in [false, true] {
        for (code, seconds, class, time) in table {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
            let server = always(move || {
                refusal(Status::with_error_details(code, "later", details.clone()), in_trailers)
            })
            .await;
            let error = release(&client(&server, LONG)).await.unwrap_err();
            assert_eq!((error.class, error.retry_after), (class, time), "{code:?}");
        }
    }
}

/// Proxies that answer for a gRPC service send HTTP's `Retry-After`.
#[tokio::test]
async fn retry_after_with_a_grpc_status_sets_the_retry_time() {
    let seven = Some(Duration::from_secs(7));
    for in_trailers in [false, true] {
        for (code, info, class, time) in [
            (Code::Unavailable, None, Class::Paced, seven),
            (Code::ResourceExhausted, None, Class::Paced, seven),
            (Code::Unavailable, Some(9), Class::Paced, Some(Duration::from_secs(9))),
            (Code::InvalidArgument, None, Class::Permanent, None),
        ] {
            let details = ErrorDetails::with_retry_info(info.map(Duration::from_secs));
            let server = always(move || {
                let mut status = Status::with_error_details(code, "later", details.clone());
                status.metadata_mut().insert("retry-after", MetadataValue::from_static("7"));
                refusal(status, in_trailers)
            })
            .await;
            let error = release(&client(&server, LONG)).await.unwrap_err();
            assert_eq!((error.class, error.retry_after), (class, time), "{code:?}");
        }
    }
}
