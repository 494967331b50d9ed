//! Tests of the probe that `check` runs on the Inventory service.

use super::*;

/// Returns a `grpc.health.v1.HealthCheckResponse` with this status.
fn health(status: u8) -> Response<TestBody> {
    let frame = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
    with_body(TestBody::new(frame, End::Clean).with_trailers(trailers("0")))
}

#[tokio::test]
async fn any_grpc_answer_passes_the_probe() {
    let serving = always(|| health(1)).await;
    assert!(client(&serving, LONG).probe().await.unwrap().contains("serving"));
    assert_eq!(serving.asked()[0].head.uri.path(), "/grpc.health.v1.Health/Check");
    for code in [Code::Unimplemented, Code::NotFound, Code::InvalidArgument] {
        let server = always(move || refusal(Status::new(code, ""), false)).await;
        assert!(client(&server, LONG).probe().await.unwrap().contains("answers"));
    }
}

#[tokio::test]
async fn other_answers_fail_the_probe_with_a_remedy() {
    type Make = fn() -> Response<TestBody>;
    let answers: [(&str, Make); 4] = [
        ("not serving", || health(2)),
        ("not well", || refusal(Status::unavailable("no healthy upstream"), false)),
        ("refuses", || refusal(Status::unauthenticated(""), false)),
        ("see that INVENTORY_GRPC_ADDR is right", || {
            let page = Response::builder().status(404).header("content-type", "text/html");
            page.body(TestBody::new("<html>", End::Clean)).unwrap()
        }),
    ];
    for (said, make) in answers {
        let server = always(make).await;
        let error = client(&server, LONG).probe().await.unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    let silent = TestServer::raw(b"", End::Hang).await;
    assert!(client(&silent, SHORT).probe().await.unwrap_err().contains("timeout"));
    let uri = format!("http://{}", TestServer::nobody().await);
    let nobody = GrpcInventory::new(GrpcSettings {
        uri,
        credentials: Credentials::default(),
        timeout: LONG,
    })
    .unwrap();
    assert!(nobody.probe().await.unwrap_err().contains("connect"));
}
